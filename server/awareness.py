"""Who is in a room: the newest presence of every client id, as y-protocols `awareness.js` defines
it, on the server's side.

The server never looks into a state: it keeps each client's JSON as it came and forwards it
untouched. What it adds to the protocol is ownership. A client id belongs to the connection that
last told something new of it, and:

1. an entry is accepted if its clock is above the known one; an entry that takes a presence away
   also at the known clock (y-protocols: `currClock === clock && state === null &&
   awareness.states.has(clientID)`);
2. only the owner can take a presence away. y-websocket clients repeat whatever they hear, time-outs
   included, so without this one sleeping laptop would remove everybody's cursor;
3. when a connection ends, what it owned is removed with clock + 1, so that the removal wins
   everywhere;
4. a removed client leaves a tombstone, its clock, so that a late message can't revive it. Who tells
   of it at an older clock is told of the removal. A client that reconnects does just that, and at
   the word of its own removal it announces itself anew with a higher clock, at once instead of at
   its next renewal 15 to 30 seconds later;
5. an entry that can't be shown (too large, too deep, one too many) is passed over, and the others
   of its message count. What is shown of that client stays until it expires. Entries that are not
   news are not even looked at: who repeats what others say can't do anything wrong with it.
"""

from collections.abc import Hashable, Iterable, Set
from dataclasses import dataclass

from plait.server.errors import DecodeError, LimitReached
from plait.server.limits import Limits
from plait.server.wire.presence import Entry, check_state


@dataclass(slots=True)
class Presence:
    """One client's newest state."""

    clock: int
    state: bytes
    owner: Hashable
    renewed_at: float


@dataclass(slots=True)
class Heard:
    """What follows from a connection's presence message."""

    news: list[Entry]
    """For everybody in the room."""
    corrections: list[Entry]
    """For the connection alone: removals that it does not know of."""
    refused: LimitReached | None = None
    """Why the last entry is not shown that a client may well send, and can't be shown."""
    malformed: DecodeError | None = None
    """What is wrong with the last entry that no client sends."""


class Awareness:
    """The presence table of one room."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._present: dict[int, Presence] = {}
        self._tombstones: dict[int, int] = {}
        self._owned: dict[Hashable, set[int]] = {}

    def __len__(self) -> int:
        return len(self._present)

    def states(self, but: type | None = None) -> list[Entry]:
        """Return everybody who is present, for one who has just come.

        Args:
            but: a kind of owners whose presences are left out.
        """
        return [
            Entry(client, each.clock, each.state)
            for client, each in self._present.items()
            if but is None or not isinstance(each.owner, but)
        ]

    def owner(self, client: int) -> Hashable | None:
        """Return who told of a client; None if it is not present."""
        present = self._present.get(client)
        return present.owner if present else None

    def apply(
        self, entries: Iterable[Entry], owner: Hashable, now: float, owned_max: int | None = None
    ) -> Heard:
        """Take in what a connection tells; return what is news, and to whom.

        Args:
            owned_max: how many clients it may tell of; `Limits.awareness_states_max`, if None.
        """
        if owned_max is None:
            owned_max = self._limits.awareness_states_max
        heard = Heard([], [])
        for entry in entries:
            if self._is_news(entry, owner):
                try:
                    self._take_in(entry, owner, now, owned_max)
                except LimitReached as error:
                    heard.refused = error
                except DecodeError as error:
                    heard.malformed = error
                else:
                    heard.news.append(entry)
            elif entry.state is not None and entry.client not in self._present:
                removed = Entry(entry.client, self._tombstones[entry.client], None)
                heard.corrections.append(removed)
        return heard

    def leave(self, owner: Hashable, but: Set[int] = frozenset()) -> list[Entry]:
        """Remove what a connection owned, but for some clients; return the entries that tell so."""
        owned = sorted(self._owned.get(owner, ()))
        return [self._remove(client) for client in owned if client not in but]

    def expire(self, now: float) -> list[Entry]:
        """Remove presences that nobody renewed for `Limits.awareness_timeout_seconds`; return the
        entries that tell so.
        """
        oldest = now - self._limits.awareness_timeout_seconds
        silent = [client for client, each in self._present.items() if each.renewed_at < oldest]
        return [self._remove(client) for client in silent]

    # How one entry is judged

    def _is_news(self, entry: Entry, owner: Hashable) -> bool:
        present = self._present.get(entry.client)
        if entry.state is None:
            return present is not None and present.owner == owner and entry.clock >= present.clock
        return entry.clock > (present.clock if present else self._tombstones.get(entry.client, -1))

    def _take_in(self, entry: Entry, owner: Hashable, now: float, owned_max: int) -> None:
        if entry.state is None:
            self._forget(entry.client, entry.clock)
            return
        check_state(entry.state, self._limits.awareness_state_bytes_max)
        present = self._present.get(entry.client)
        if present is None or present.owner != owner:
            self._own(entry.client, owner, owned_max)
            if present is not None:
                self._disown(entry.client, present.owner)
        self._present[entry.client] = Presence(entry.clock, entry.state, owner, now)

    def _own(self, client: int, owner: Hashable, owned_max: int) -> None:
        owned = self._owned.setdefault(owner, set())
        if len(owned) >= owned_max:  # It is not 0, so the set is not empty.
            raise LimitReached(f"one connection may tell of {owned_max} clients", limit="presence")
        owned.add(client)
        self._tombstones.pop(client, None)

    def _disown(self, client: int, owner: Hashable) -> None:
        owned = self._owned[owner]
        owned.discard(client)
        if not owned:
            del self._owned[owner]

    def _remove(self, client: int) -> Entry:
        clock = self._present[client].clock + 1
        self._forget(client, clock)
        return Entry(client, clock, None)

    def _forget(self, client: int, clock: int) -> None:
        self._disown(client, self._present.pop(client).owner)
        self._tombstones.pop(client, None)
        self._tombstones[client] = clock
        if len(self._tombstones) > self._limits.awareness_tombstones_max:
            del self._tombstones[next(iter(self._tombstones))]
