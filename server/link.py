"""One room's part in the cluster: what it tells the other nodes that have it open, and what it
makes of what they tell.

Rules:

1. Each node tells those that are known to have the room, and nobody if there are none: most rooms
   are open on one node. It counts what it says. Who hears a number that does not follow the one
   before has lost something, asks that node alone, and is answered with all that it lacks.
2. A room that is opened, comes back to the relay or was loaded anew says hello: what it has.
   Whoever has more answers it alone. A hello shows as well what the asker has and we have not: we
   ask it.
3. What was said is told to be saved by the next message, or, once a second passes without an edit,
   by one of its own. That shows a loss too, if it was the last thing said. Half a minute after the
   last edit a hello does it once more.
4. The node whose client made an update stores it; `plait.server.borrowed` says what if it dies.
5. What is too large for the relay is looked for in the store, after its commit.
6. Presence belongs to the node that told of it. Every answer holds all of that node's presence, so
   what is not in it has gone.

Pure: what has to be sent is given to an `Outlet`, and time is an argument.
"""

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from plait.persistence import Update
from plait.server.attendance import Attendance
from plait.server.awareness import Awareness
from plait.server.borrowed import Borrowed
from plait.server.changes import Change
from plait.server.cutting import LARGE_BYTES
from plait.server.document import Applied, Outcome
from plait.server.limits import Limits
from plait.server.member import Member
from plait.server.saving import Saving
from plait.server.session import NOTHING
from plait.server.wire.envelope import (
    Diff,
    Envelope,
    Hello,
    Kind,
    decode_diff,
    decode_hello,
    decode_updates,
    encode_diff,
    encode_hello,
    encode_updates,
)
from plait.server.wire.presence import Entry, decode_presence, encode_presence
from plait.server.wire.state_vector import decode_state_vector, encode_state_vector
from plait.server.wire.update import Shape

log = logging.getLogger(__name__)

TURN_BYTES_MAX: Final = 1 << 20
"""A turn's updates that take more are looked for in the store. Redis closes readers whose buffer
holds 32 MB.
"""
DIFF_BYTES_MAX: Final = LARGE_BYTES
"""A larger answer is looked for in the store, as large updates are."""
BORROWED_BYTES_MAX: Final = 4 << 20
"""Relayed updates of a room that are kept until their node has saved them."""
BORROWED_SECONDS: Final = 10.0
"""How long a node gets to save them before others do."""
ASK_SECONDS: Final = 2.0
"""How long a node gets to answer before it is asked again."""
AUDIT_SECONDS: Final = 30.0
"""How long after an edit a room says hello once more."""

DIRECT_MAX: Final = 3
"""Up to so many nodes are told one by one, which does not come back to the teller; more are told by
the room's channel.
"""

_COUNTED = (Kind.UPDATE, Kind.PRESENCE, Kind.LOOK)


class Host(Protocol):
    """The room, as far as it is needed here."""

    name: str
    dead: bool
    awareness: Awareness
    attendance: Attendance
    saving: Saving

    @property
    def usable(self) -> bool:
        """Whether the document is there."""

    def take_in(self, update: bytes) -> Outcome:
        """Apply an update that another node stores; a large one is applied later."""

    def settled_clocks(self) -> dict[int, int]:
        """Return what the document has, and may be shown."""

    def difference(self, state_vector: bytes, bytes_max: int) -> bytes | None:
        """Return what a holder of a state vector misses; None if that is more than it should be, or
        takes long.
        """


class Outlet(Protocol):
    """The way to the other nodes."""

    node: bytes

    def say(self, envelope: Envelope) -> None:
        """Tell all nodes that have the room."""

    def tell(self, node: bytes, envelope: Envelope) -> None:
        """Tell one node."""

    def look(self, room: str) -> None:
        """Have the store asked for what is new in a room."""

    def touch(self, link: "Link") -> None:
        """Have `Link.tick` called within about a second."""

    def lost(self, room: str, node: bytes) -> None:
        """Count that something which a node said did not arrive."""


class _Peer:
    """What is known of another node in this room."""

    __slots__ = ("asked_until", "seq")

    def __init__(self) -> None:
        self.seq: int | None = None
        """The last thing it said that arrived with all before it; None if that is not known."""
        self.asked_until: float | None = None
        """When to ask again; None if nothing was asked."""


class Link:
    """A room's connection with the other nodes that have it open."""

    def __init__(self, room: Host, outlet: Outlet, limits: Limits, now: float) -> None:
        self.room = room
        self.borrowed = Borrowed()
        self.seq = int(now * 1_000_000)
        """The number of what was said last. A room that is opened again goes on above it."""
        self._outlet = outlet
        self._limits = limits
        self._peers: dict[bytes, _Peer] = {}
        self._commits: deque[tuple[int, int, bool]] = deque()
        """For turns that are not committed: their number, how they were told, or will be, and
        whether the others are to look for them in the store.
        """
        self._told_saved = 0
        self._closed = False
        self._talked = False
        """Whether there were edits since the last tick."""
        self._untold = 0
        """The number of the last turn that nobody had to be told of."""
        self._audit_at: float | None = None
        self._owing: dict[bytes, int] = {}
        """Nodes that wait until what they lack is stored, with the turn that is the last of it."""
        room.saving.on_settled = self._settled
        room.attendance.forward = self._present

    @property
    def saved(self) -> int:
        """The last thing said that is in the store, with all before it; and all that nobody was
        told, there having been nobody.
        """
        if self._commits:
            return self._commits[0][1] - 1
        return self.seq - (self._untold > self.room.saving.settled)

    # What this node says

    def hello(self, *, wants: bool = True, fresh: bool = False) -> None:
        """Tell all what this node has, so that they tell what it has not.

        Args:
            wants: an answer, even if they have no more.
            fresh: nothing else was said before.
        """
        self._outlet.say(self._hello(wants, fresh))

    def before_commit(self, turn: Sequence[Change]) -> None:
        """Store what this turn builds upon, if its node may not have stored it yet."""
        borrowed = self.borrowed
        for change in turn:
            # What repeats something is acknowledged when that is stored.
            repeats = not change.append and (change.author or change.commitment)
            if repeats or (change.append and borrowed.needed_by(change.shape)):
                self._vouch(borrowed.take())
                return

    def turn(self, turn: Sequence[Change]) -> None:
        """Tell of a turn's updates, after they were given to the store's writer."""
        own = [change for change in turn if change.append and change.news]
        if not own or self._closed:
            return
        if not self._talked:
            self._talked = True
            self._outlet.touch(self)
        given = self.room.saving.given
        if not self._peers:
            self._untold = given
            return
        self._count_untold()
        large = sum([len(each.update) for each in own]) > TURN_BYTES_MAX or any(
            each.parts for each in own
        )
        self._commits.append((given, self.seq + 1, large))
        if not large:
            payload = encode_updates([(change.who, change.update) for change in own])
            self._say(Kind.UPDATE, payload)

    def _present(self, entries: Iterable[Entry]) -> None:
        self._say(Kind.PRESENCE, encode_presence(entries))

    def _settled(self) -> None:
        """Note that a turn was committed."""
        settled, commits = self.room.saving.settled, self._commits
        while commits and commits[0][0] <= settled:
            if commits.popleft()[2]:
                self._say(Kind.LOOK)
        self._answer_owed()

    def unsaved_rows(self, at_ms: int) -> list[Update]:
        """Return the updates of other nodes that may not be in the store, as rows."""
        name = self.room.name
        return [Update(name, update, who, at_ms) for who, update in self.borrowed.rows()]

    def leave(self) -> None:
        """Tell the others that this node has closed the room, and say nothing any more."""
        self._say(Kind.LEAVE)
        self.close()

    def close(self) -> None:
        """Say nothing any more, though a dead room that was replaced may still end a turn."""
        self._closed = True
        self.room.saving.on_settled = self.room.attendance.forward = None

    def tick(self, now: float) -> bool:
        """Do what time demands; return whether there will be more to do."""
        if self._talked:
            self._talked, self._audit_at = False, now + AUDIT_SECONDS
        elif self.saved > self._told_saved:
            self._say(Kind.SAVED)
        if self._audit_at is not None and now >= self._audit_at and self.room.usable:
            self._audit_at = None
            self.hello(wants=False)
        since = self.borrowed.since
        if since is not None and (self.room.dead or now - since > BORROWED_SECONDS):
            self._vouch(self.borrowed.take())
        asking = False
        for node, peer in self._peers.items():
            if peer.asked_until is not None:
                asking = True
                if now >= peer.asked_until:
                    peer.asked_until = None
                    self._ask(node, peer, now)
        self._answer_owed()
        waits = self._owing or self._commits or self.borrowed or self.saved > self._told_saved
        return bool(asking or waits or self._audit_at)

    # What others say

    def receive(self, envelope: Envelope, now: float) -> None:
        """Take in what another node says.

        Raises:
            PlaitError: it can't be taken in.
        """
        if not self.room.usable:
            return  # What is lost here shows by its number.
        node, kind = envelope.node, envelope.kind
        if self.borrowed.size:
            self.borrowed.saved(node, envelope.saved)
        if kind is Kind.LEAVE:
            self._forget(node)
            return
        peer = self._peers.get(node)
        if peer is None:
            peer = self._peers[node] = _Peer()
        if kind in _COUNTED:
            if envelope.seq - 1 == peer.seq:
                peer.seq = envelope.seq
            else:
                self._compare(node, peer, envelope.seq, now)
        if kind is Kind.UPDATE:
            self._on_updates(envelope, peer, now)
            return
        match kind:
            case Kind.PRESENCE:
                self._on_presence(node, envelope.payload, now)
            case Kind.LOOK:
                self._outlet.look(self.room.name)
            case Kind.SAVED:
                self._compare(node, peer, envelope.seq, now)
            case Kind.HELLO:
                self._on_hello(envelope, peer, now)
            case Kind.DIFF:
                self._on_diff(envelope, peer, now)
            case Kind.CORRECT:
                self._on_correction(envelope.payload, now)
            case _:
                pass

    def gone(self, node: bytes) -> None:
        """Forget a node that has died or can't be heard: its presence goes, and what it may not
        have stored is stored here.
        """
        self._forget(node)
        self._vouch(self.borrowed.take(lambda each: each == node))

    def _forget(self, node: bytes) -> None:
        """Note that a node has not got the room any more."""
        self._peers.pop(node, None)
        self._owing.pop(node, None)
        self.room.attendance.tell(self.room.awareness.leave(node), own=False)

    def _compare(self, node: bytes, peer: _Peer, seq: int, now: float) -> None:
        """Ask if what a node has said is more than what arrived."""
        if (peer.seq is None or seq > peer.seq) and peer.asked_until is None:
            if peer.seq is not None:
                self._outlet.lost(self.room.name, node)
            self._ask(node, peer, now)

    def _ask(self, node: bytes, peer: _Peer, now: float) -> None:
        if peer.asked_until is None:
            peer.asked_until = now + ASK_SECONDS
            self._outlet.touch(self)
            self._outlet.tell(node, self._hello(True))

    def _on_updates(self, envelope: Envelope, peer: _Peer, now: float) -> None:
        saved = envelope.seq <= envelope.saved
        for who, update in decode_updates(envelope.payload):
            outcome = self.room.take_in(update)
            if outcome.rest:  # The answer has all of it.
                self._ask(envelope.node, peer, now)
            if outcome.applied is Applied.CHANGED and not saved:
                self._borrow(envelope, who, outcome.ready, outcome.shape, now)

    def _borrow(
        self, envelope: Envelope, who: str, update: bytes, shape: Shape, now: float
    ) -> None:
        if not self.borrowed.size:
            self._outlet.touch(self)
        self.borrowed.add(envelope.node, envelope.seq, who, update, shape, now)
        if self.borrowed.size > BORROWED_BYTES_MAX:
            self._vouch(self.borrowed.take())

    def _on_presence(self, node: bytes, payload: bytes, now: float) -> None:
        entries = decode_presence(payload, self._limits.awareness_entries_max)
        heard = self.room.awareness.apply(entries, node, now, self._limits.awareness_entries_max)
        self.room.attendance.tell(heard.news, own=False)
        if heard.corrections:
            payload = encode_presence(heard.corrections)
            self._outlet.tell(node, self._envelope(Kind.CORRECT, payload))

    def _on_correction(self, payload: bytes, now: float) -> None:
        """Tell clients of ours that another node holds them for gone, so that they announce
        themselves anew.
        """
        for entry in decode_presence(payload, self._limits.awareness_entries_max):
            owner = self.room.awareness.owner(entry.client)
            if isinstance(owner, Member):
                owner.send_presence([entry], now)

    def _everybody(self, node: bytes, presence: bytes, now: float) -> None:
        """Take in all of a node's presence."""
        self._on_presence(node, presence, now)
        entries = decode_presence(presence, self._limits.awareness_entries_max)
        gone = self.room.awareness.leave(node, but={entry.client for entry in entries})
        self.room.attendance.tell(gone, own=False)

    def _on_hello(self, envelope: Envelope, peer: _Peer, now: float) -> None:
        node, hello = envelope.node, decode_hello(envelope.payload)
        theirs, ours = decode_state_vector(hello.state_vector), self.room.settled_clocks()
        self._everybody(node, hello.presence, now)
        if hello.fresh:
            peer.seq = envelope.seq
        else:
            self._compare(node, peer, envelope.seq, now)
        if any(clock > ours.get(client, 0) for client, clock in theirs.items()):
            self._ask(node, peer, now)
        if hello.wants or any(clock > theirs.get(client, 0) for client, clock in ours.items()):
            self._answer(node, hello.state_vector)

    def _answer(self, node: bytes, state_vector: bytes) -> None:
        self._vouch(self.borrowed.take())  # or it would be told as if this node had stored it
        # What will be looked for in the store must not be told as if it were there.
        looked_for = any(large for _, _, large in self._commits)
        missing = None if looked_for else self.room.difference(state_vector, DIFF_BYTES_MAX)
        if missing is None:
            self._owing.setdefault(node, self.room.saving.given)
            self._outlet.touch(self)
            self._answer_owed()
            return
        self._tell_diff(node, Diff(missing, self._own_presence()))

    def _answer_owed(self) -> None:
        """Send those to the store who lack much, once all of that is there."""
        settled = self.room.saving.settled
        for node in [node for node, last in self._owing.items() if last <= settled]:
            del self._owing[node]
            self._tell_diff(node, Diff(NOTHING, self._own_presence(), stored=True))

    def _count_untold(self) -> None:
        """Note that what nobody was told is told now, by an answer: it counts as said last."""
        if self._untold > self.room.saving.settled:
            self._commits.append((self._untold, self.seq, False))
        self._untold = 0

    def _tell_diff(self, node: bytes, diff: Diff) -> None:
        self._count_untold()
        self._outlet.tell(node, self._envelope(Kind.DIFF, encode_diff(diff)))

    def _on_diff(self, envelope: Envelope, peer: _Peer, now: float) -> None:
        node, diff = envelope.node, decode_diff(envelope.payload)
        peer.asked_until = None
        peer.seq = max(peer.seq or 0, envelope.seq)
        self._everybody(node, diff.presence, now)
        if diff.stored:
            self._outlet.look(self.room.name)
        elif diff.update != NOTHING:
            outcome = self.room.take_in(diff.update)
            if outcome.applied is Applied.CHANGED and envelope.saved < envelope.seq:
                self._borrow(envelope, "", outcome.ready, outcome.shape, now)

    # Parts of messages

    def _envelope(self, kind: Kind, payload: bytes = b"") -> Envelope:
        self._told_saved = self.saved
        return Envelope(self._outlet.node, kind, self.room.name, self.seq, self.saved, payload)

    def _say(self, kind: Kind, payload: bytes = b"") -> None:
        self.seq += kind in _COUNTED
        envelope = self._envelope(kind, payload)
        if len(self._peers) > DIRECT_MAX:
            self._outlet.say(envelope)
        else:
            for node in self._peers:
                self._outlet.tell(node, envelope)

    def _hello(self, wants: bool, fresh: bool = False) -> Envelope:
        state_vector = encode_state_vector(self.room.settled_clocks())
        hello = Hello(state_vector, self._own_presence(), wants, fresh)
        return self._envelope(Kind.HELLO, encode_hello(hello))

    def _own_presence(self) -> bytes:
        return encode_presence(self.room.awareness.states(but=bytes))

    def _vouch(self, rows: Iterable[tuple[str, bytes]]) -> None:
        """Store updates of other nodes; not of a deleted document, which they would bring back."""
        updates = [(who, update) for who, update in rows]
        if updates and not self.room.dead:
            self.room.saving.keep(updates)
            self._commits.append((self.room.saving.given, self.seq, False))
            self._outlet.touch(self)
