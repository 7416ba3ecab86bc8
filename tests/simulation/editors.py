"""Editors: what Yjs and y-websocket do in a browser, in virtual time.

They type, delete and set keys at random places, show presence, repeat what presence they hear (as
y-websocket does), lose their connections, and come back to any node.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any

from pycrdt import Doc, Map, Text

from plait.server.pump import LinkLost
from plait.server.wire.messages import AwarenessUpdate, SyncStep1, SyncStep2, SyncUpdate
from plait.server.wire.presence import Entry, decode_presence, encode_presence
from plait.server.wire.state_vector import decode_state_vector
from plait.server.wire.update import inspect
from plait.server.wire.ywebsocket import YWEBSOCKET
from tests.simulation.network import Wire

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


class Editor:
    """One client.

    Args:
        acknowledged: called with a clock up to which the server has sent back what this client
            wrote since it is connected, which says that it is stored. What it wrote before may have
            come to the server by others, who were sent it before it was stored.
    """

    def __init__(
        self,
        client_id: int,
        room: str,
        chance: random.Random,
        acknowledged: Callable[["Editor", int], None],
        trace: Callable[[str], None],
    ) -> None:
        self.client_id = client_id
        self.room = room
        self._chance = chance
        self._acknowledged = acknowledged
        self._trace = trace
        self._loop = asyncio.get_running_loop()
        self.doc: Doc[Any] = Doc(client_id=client_id)
        self.text: Text = self.doc.get("text", type=Text)
        self.map: Map[Any] = self.doc.get("map", type=Map)
        self._subscription = self.doc.observe(lambda event: self._changed(event.update))
        self._applying = False
        self.wire: Wire | None = None
        self.presences = Presences(client_id, self._presence_changed)
        self.presences.show(b'{"n":0}', self._loop.time())
        self._shown = 0
        self._acknowledged_upto = 0

    @property
    def content(self) -> tuple[object, ...]:
        """What the document shows, and what it is made of."""
        clocks = sorted(decode_state_vector(self.doc.get_state()).items())
        values = sorted((key, self.map[key]) for key in self.map.keys())
        return str(self.text), tuple(values), tuple(clocks)

    def close(self) -> None:
        """Let go of the document: pycrdt never frees one that is observed."""
        self.doc.unobserve(self._subscription)

    # The connection

    async def converse(self, wire: Wire) -> None:
        """Speak y-websocket until the connection ends."""
        self.wire = wire
        self._acknowledged_upto = decode_state_vector(self.doc.get_state()).get(self.client_id, 0)
        wire.up.put(YWEBSOCKET.sync_step1(self.doc.get_state()))
        wire.up.put(YWEBSOCKET.awareness(self.presences.encoded([self.client_id])))
        try:
            while True:
                frame = await wire.down.receive()
                # Not the bytes: pycrdt writes the clients of an update in any order.
                self._trace(f"{self.client_id} {len(frame)} {bytes(sorted(frame)).hex()}")
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
                wire.up.put(YWEBSOCKET.sync_step2(self.doc.get_update(state_vector)))
            case SyncStep2(update) | SyncUpdate(update):
                self._take_in(update)
            case AwarenessUpdate(update):
                self.presences.apply(decode_presence(update, 1000), self._loop.time())
            case _:
                pass

    def _take_in(self, update: bytes) -> None:
        for client, _, end in inspect(update).runs:
            if client == self.client_id and end > self._acknowledged_upto:
                self._acknowledged_upto = end
                self._acknowledged(self, end)
        self._applying = True
        try:
            self.doc.apply_update(update)
        finally:
            self._applying = False

    def _changed(self, update: bytes) -> None:
        if not self._applying and self.wire is not None:
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
        chance, length = self._chance, len(str(self.text))
        what = chance.random()
        if what < 0.6 or not length:
            # Mostly where others have just typed.
            at = length if chance.random() < 0.5 else chance.randint(0, length)
            self.text.insert(at, chance.choice("abcdefgh") * chance.randint(1, 8))
        elif what < 0.75:
            at = chance.randrange(length)
            del self.text[at : min(length, at + chance.randint(1, 5))]
        elif what < 0.9:
            self.map[chance.choice("xyz")] = chance.randint(0, 1000)
        else:
            self._shown += 1
            self.presences.show(b'{"n":%d}' % self._shown, self._loop.time())
