"""Editors: what Yjs and y-websocket do in a browser, in virtual time.

They type, delete and set keys at random places, show presence, repeat what presence they hear (as
y-websocket does), lose their connections, and come back to any node. They keep what builds upon
structs that they have not got, and send it whenever they are asked for what they have.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pycrdt import Doc, Map, Text, merge_updates

from plait.server.pump import LinkLost
from plait.server.wire.messages import AwarenessUpdate, SyncStep1, SyncStep2, SyncUpdate
from plait.server.wire.presence import Entry, decode_presence, encode_presence
from plait.server.wire.state_vector import decode_state_vector
from plait.server.wire.structs import Deletes, read_deletes, sections
from plait.server.wire.update import Id, inspect
from plait.server.wire.ywebsocket import YWEBSOCKET
from tests.simulation.network import Wire
from tests.support.units import Unit, units_of

LETTERS = "abcdefgh"
NEXT_ID, IDS = 10_000, 400_000
"""A client that needs another id adds so much to its first, up to so many times."""
OUTDATED_SECONDS = 30.0
RENEW_SECONDS = 15.0
PRESENCE_TICK_SECONDS = 3.0


class Presences:
    """An awareness as of y-protocols `awareness.js`.

    Args:
        changed: called with the clients whose states have changed, whoever changed them.
    """

    def __init__(self, own: int, changed: Callable[[list[int]], None]) -> None:
        self.own = own
        self.states: dict[int, bytes] = {}
        self._clocks: dict[int, int] = {}
        self._heard: dict[int, float] = {}
        self._changed = changed

    def show(self, state: bytes, now: float) -> None:
        """Show a state of one's own."""
        self._clocks[self.own] = self._clocks.get(self.own, -1) + 1
        self.states[self.own] = state
        self._heard[self.own] = now
        self._changed([self.own])

    def apply(self, entries: list[Entry], now: float) -> None:
        """Take in what was heard (`applyAwarenessUpdate`)."""
        changed = []
        for client, clock, state in entries:
            known = self._clocks.get(client, 0)
            gone = state is None and known == clock and client in self.states
            if not (known < clock or gone or client not in self._clocks):
                continue
            if state is not None:
                self.states[client] = state
            elif client == self.own and self.own in self.states:
                clock += 1  # it is here, whatever others say
            else:
                self.states.pop(client, None)
            self._clocks[client] = clock
            self._heard[client] = now
            changed.append(client)
        if changed:
            self._changed(changed)

    def encoded(self, clients: list[int]) -> bytes:
        """Return what to tell of clients."""
        known = [client for client in clients if client in self._clocks]
        return encode_presence(
            Entry(client, self._clocks[client], self.states.get(client)) for client in known
        )

    def tick(self, now: float) -> None:
        """Renew one's own, drop what is outdated."""
        if self.own in self.states and now - self._heard[self.own] >= RENEW_SECONDS:
            self.show(self.states[self.own], now)
        for client in list(self.states):
            if client != self.own and now - self._heard[client] >= OUTDATED_SECONDS:
                del self.states[client]
                self._changed([client])

    def disconnected(self) -> None:
        """Forget the others' states, not their clocks (`removeAwarenessStates`)."""
        self.states = {c: state for c, state in self.states.items() if c == self.own}


def is_ready(update: bytes, clocks: Mapping[int, int]) -> bool:
    """Return whether all that an update builds upon is known, or in it."""
    shape = inspect(update)
    ends: dict[int, int] = {}
    for client, first, end in shape.runs:
        if first > max(clocks.get(client, 0), ends.get(client, 0)):
            return False
        ends[client] = end
    return all(
        clock <= max(clocks.get(client, 0), ends.get(client, 0))
        for client, clock in shape.needs.items()
    )


def clocks_of(doc: Doc[Any]) -> dict[int, int]:
    """Return the state vector of a document."""
    return decode_state_vector(doc.get_state())


def apply_ready(doc: Doc[Any], updates: Iterable[bytes]) -> list[bytes]:
    """Apply those updates for which everything is there; return the others.

    pycrdt would show what comes after a gap, which Yjs does not.
    """
    waiting, progress = list(updates), True
    while waiting and progress:
        progress = False
        for update in list(waiting):
            if is_ready(update, clocks_of(doc)):
                doc.apply_update(update)
                waiting.remove(update)
                progress = True
    return waiting


def shown(doc: Doc[Any]) -> tuple[object, ...]:
    """Return what a document shows, and what it is made of."""
    text, values = doc.get("text", type=Text), doc.get("map", type=Map)
    shown = sorted((key, values[key]) for key in values.keys())
    return str(text), tuple(shown), tuple(sorted(clocks_of(doc).items())), deleted(doc)


def deleted(doc: Doc[Any]) -> tuple[object, ...]:
    """Return the delete set of a document."""
    nothing_else = doc.get_update(doc.get_state())
    found: Deletes = read_deletes(nothing_else, sections(nothing_else)[1])
    return tuple(sorted((client, tuple(ranges)) for client, ranges in found.items()))


class Editor:
    """One client.

    Args:
        acknowledged: called with a client id and those clocks of it that the server has sent back
            of what was written here since the connection stands, which says that they are stored.
            What was written before may have come to the server by others, who were sent it before
            it was stored.
        losing: returns the probability that an update is lost on its way to the server.
        letters: what it types; others with the same id type others.
        name: tells it from all others, if its id does not.
    """

    def __init__(
        self,
        client_id: int,
        room: str,
        chance: random.Random,
        acknowledged: Callable[["Editor", int, list[int]], None],
        trace: Callable[[str], None],
        losing: Callable[[], float] = lambda: 0.0,
        letters: str = LETTERS,
        name: str = "",
    ) -> None:
        self.name = name or str(client_id)
        self.first_id = client_id
        self.room = room
        self._chance = chance
        self._acknowledged = acknowledged
        self._trace = trace
        self._losing = losing
        self._letters = letters
        self._loop = asyncio.get_running_loop()
        self._applying = False
        self._open(client_id)
        self.wire: Wire | None = None
        self.unready: list[bytes] = []
        """Updates that build upon what is not there."""
        self.written: dict[Id, Unit] = {}
        """What it has written, by client and clock."""
        self.edits = 0
        self.secretive = False
        """Whether it has something of which the server can't know before it asks."""
        self.shares_id = False
        """Whether somebody else has the same."""
        self.presences = Presences(client_id, self._presence_changed)
        self.presences.show(b'{"n":0}', self._loop.time())
        self._shown = 0
        self._acknowledged_upto: dict[int, int] = {}

    def _open(self, client_id: int) -> None:
        self.client_id = client_id
        self.doc: Doc[Any] = Doc(client_id=client_id)
        self.text: Text = self.doc.get("text", type=Text)
        self.map: Map[Any] = self.doc.get("map", type=Map)
        self._subscription = self.doc.observe(lambda event: self._changed(event.update))

    @property
    def content(self) -> tuple[object, ...]:
        """What the document shows, and what it is made of."""
        return shown(self.doc)

    @property
    def clocks(self) -> dict[int, int]:
        """The document's state vector."""
        return clocks_of(self.doc)

    def close(self) -> None:
        """Let go of the document: pycrdt never frees one that is observed."""
        self.doc.unobserve(self._subscription)

    def hear_aside(self, updates: Iterable[bytes]) -> None:
        """Take in updates that come from another tab, or from the disk. As in y-websocket, they are
        not sent to the server before it asks.
        """
        self._apply(updates)
        self.secretive = True

    # The connection

    async def converse(self, wire: Wire) -> None:
        """Speak y-websocket until the connection ends."""
        self.wire = wire
        self.secretive = False
        self._acknowledged_upto = self.clocks
        wire.up.put(YWEBSOCKET.sync_step1(self.doc.get_state()))
        wire.up.put(YWEBSOCKET.awareness(self.presences.encoded([self.client_id])))
        try:
            while True:
                frame = await wire.down.receive()
                # Not the bytes: pycrdt writes the clients of an update in any order.
                self._trace(f"{self.name} {len(frame)} {bytes(sorted(frame)).hex()}")
                self._hear(frame, wire)
                if self._chance.random() < 0.005:  # a laptop that is busy
                    await asyncio.sleep(self._chance.expovariate(0.5))
        except LinkLost:
            pass
        finally:
            self.wire = None
            self.presences.disconnected()

    def _hear(self, frame: bytes, wire: Wire) -> None:
        match YWEBSOCKET.decode(frame):
            case SyncStep1(state_vector):
                wire.asked += 1
                wire.up.put(YWEBSOCKET.sync_step2(self.missing(state_vector)))
            case SyncStep2(update) | SyncUpdate(update):
                wire.told += 1
                self._look_for_own(update)
                self._apply([update])
            case AwarenessUpdate(update):
                self.presences.apply(decode_presence(update, 1000), self._loop.time())
            case _:
                pass

    def missing(self, state_vector: bytes) -> bytes:
        """Return what somebody lacks, and all that is not ready here (`encodeStateAsUpdate`)."""
        update = self.doc.get_update(state_vector)
        return merge_updates(update, *self.unready) if self.unready else update

    def _look_for_own(self, update: bytes) -> None:
        runs = [run for run in inspect(update).runs if self._is_own(run[0])]
        if not runs:
            return
        units = units_of(update, frozenset(client for client, _, _ in runs))
        for client, first, end in runs:
            begin = max(first, self._acknowledged_upto.get(client, 0))
            clocks = [
                clock
                for clock in range(begin, end)
                if self.written.get((client, clock)) == units[client, clock]
            ]
            if clocks:
                self._acknowledged_upto[client] = clocks[-1] + 1
                self._acknowledged(self, client, clocks)

    def _is_own(self, client: int) -> bool:
        return client % NEXT_ID == self.first_id

    def _apply(self, updates: Iterable[bytes]) -> None:
        before = self.clocks.get(self.client_id, 0)
        self._applying = True
        try:
            self.unready = apply_ready(self.doc, [*self.unready, *updates])
        finally:
            self._applying = False
        if self.clocks.get(self.client_id, 0) > before:
            # Somebody else has the same id (`cleanupTransactions`).
            state = self.doc.get_update()
            self.close()
            self._open(self.first_id + NEXT_ID * self._chance.randint(1, IDS))
            self._apply([state])

    def _changed(self, update: bytes) -> None:
        if self._applying:
            return
        self.edits += 1
        self.written.update(units_of(update))
        if self.wire is None:
            return
        losing = self._losing()
        if losing and self._chance.random() < losing:
            self.secretive = True
            return
        self.wire.up.put(YWEBSOCKET.sync_update(update))

    def _presence_changed(self, clients: list[int]) -> None:
        if self.wire is not None:
            self.wire.up.put(YWEBSOCKET.awareness(self.presences.encoded(clients)))

    # The user

    async def edit(self, until: float, pause: float) -> None:
        """Edit until a time."""
        while self._loop.time() < until:
            await asyncio.sleep(self._chance.expovariate(1 / pause))
            self._edit_once()

    async def be_present(self) -> None:
        """Renew presence, for ever."""
        while True:
            await asyncio.sleep(PRESENCE_TICK_SECONDS)
            self.presences.tick(self._loop.time())

    def _edit_once(self) -> None:
        chance, length = self._chance, len(self.text)  # of ASCII
        if self.shares_id:  # pycrdt may have counted wrongly.
            length = len(str(self.text))
        what = chance.random()
        if what < 0.6 or not length:
            # Mostly where others have just typed.
            at = length if chance.random() < 0.5 else chance.randint(0, length)
            self.text.insert(at, chance.choice(self._letters) * chance.randint(1, 8))
        elif what < 0.75:
            at = chance.randrange(length)
            del self.text[at : min(length, at + chance.randint(1, 5))]
        elif what < 0.9:
            self.map[chance.choice("xyz")] = chance.randint(0, 1000)
        else:
            self._shown += 1
            self.presences.show(b'{"n":%d}' % self._shown, self._loop.time())
