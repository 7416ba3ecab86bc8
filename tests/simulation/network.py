"""Networks that delay, lose, double, reorder and cut: between nodes, and to clients."""

import asyncio
import random
from collections.abc import Callable

from plait.server.pump import LinkLost
from plait.server.relay import Heard
from tests.simulation.faults import Faults

WINDOW_BYTES = 16 << 10
"""What a socket's buffers hold."""


class Air:
    """Carries the messages between nodes."""

    def __init__(self) -> None:
        self.relays: list[SimulatedRelay] = []


class SimulatedRelay:
    """One node's relay; messages of one sender keep their order, unless they may be overtaken."""

    url = "air:"
    queued_bytes = 0

    def __init__(self, air: Air, faults: Faults, chance: random.Random) -> None:
        self._air = air
        self.faults = faults
        self._chance = chance
        self._loop = asyncio.get_running_loop()
        self._arrivals: dict[SimulatedRelay, float] = {}
        self.channels: set[str] = set()
        self.connected = False
        self.dropped = 0
        self.on_message: Heard = lambda channel, message: None
        self.on_state: Callable[[bool], None] = lambda connected: None
        air.relays.append(self)

    def publish(self, channel: str, message: bytes) -> None:
        """Send a message to everybody, by chance."""
        if not self.connected:
            self.dropped += 1
            return
        for relay in self._air.relays:
            if channel not in relay.channels:
                continue
            for _ in range(1 + (self._chance.random() < self.faults.double)):
                if relay is not self and self._chance.random() < self.faults.lose:
                    continue
                at = self._loop.time() + self._chance.expovariate(1 / self.faults.relay_delay)
                if self._chance.random() >= self.faults.reorder:
                    at = max(at, self._arrivals.get(relay, 0.0) + 1e-6)
                    self._arrivals[relay] = at
                self._loop.call_at(at, relay.hear, channel, message)

    def hear(self, channel: str, message: bytes) -> None:
        """Take in what arrives."""
        if self.connected and channel in self.channels:
            self.on_message(channel, message)

    async def subscribe(self, channel: str) -> None:
        """Hear a channel, after a while."""
        if self.connected:
            await asyncio.sleep(self._chance.expovariate(1 / self.faults.relay_delay))
        self.channels.add(channel)

    def unsubscribe(self, channel: str) -> None:
        """Hear it no more."""
        self.channels.discard(channel)

    async def flush(self) -> None:
        """Return: nothing waits here."""

    def check(self) -> None:
        """Connect anew."""
        self.switch(False)
        self._loop.call_later(0.1, self.switch, True)

    def switch(self, connected: bool) -> None:
        """Lose the connection, or get it back."""
        if connected != self.connected:
            self.connected = connected
            self.on_state(connected)

    async def run(self) -> None:
        """Connect, and lose the connection now and then."""
        self.switch(True)
        while True:
            if not self.faults.relay_cuts:
                await asyncio.sleep(1)
                continue
            await asyncio.sleep(self._chance.expovariate(self.faults.relay_cuts))
            if not self.faults.relay_cuts:  # The world behaves by now.
                continue
            self.switch(False)
            await asyncio.sleep(self._chance.expovariate(1))
            self.switch(True)

    def leave(self) -> None:
        """Be gone, as the node is."""
        self.connected = False
        self.channels.clear()
        self._air.relays.remove(self)


class Pipe:
    """One direction of a connection: in order, late, and with bounded buffers."""

    def __init__(self, delay: float, chance: random.Random) -> None:
        self._delay = delay
        self._chance = chance
        self._loop = asyncio.get_running_loop()
        self._arrival = 0.0
        self._bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._arrived: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.cut_off = False

    async def send(self, frame: bytes) -> None:
        """Send a frame; return when there is room for another."""
        self.put(frame)
        await self._room.wait()
        if self.cut_off:
            raise LinkLost

    def put(self, frame: bytes | None) -> None:
        """Send a frame, or the end."""
        if self.cut_off:
            return
        late = self._chance.expovariate(1 / self._delay) if self._delay else 0.0
        self._arrival = max(self._arrival + 1e-6, self._loop.time() + late)
        self._bytes += len(frame or b"")
        if self._bytes > WINDOW_BYTES:
            self._room.clear()
        self._loop.call_at(self._arrival, self._arrive, frame)

    def _arrive(self, frame: bytes | None) -> None:
        if not self.cut_off:
            self._arrived.put_nowait(frame)

    async def receive(self) -> bytes:
        """Return the next frame."""
        frame = await self._arrived.get()
        if frame is None:
            raise LinkLost
        self._bytes -= len(frame)
        if self._bytes <= WINDOW_BYTES:
            self._room.set()
        return frame

    def cut(self) -> None:
        """Lose all that is on its way, and tell who reads."""
        self.cut_off = True
        self._room.set()
        self._arrived.put_nowait(None)


class Wire:
    """A connection between a client and a node; the node's end is a `plait.server.pump.Link`."""

    def __init__(self, faults: Faults, chance: random.Random) -> None:
        self.up = Pipe(faults.link_delay, chance)
        self.down = Pipe(faults.link_delay, chance)
        self.code: int | None = None
        self.asked = 0
        """How often the client was asked for what it has."""
        self.told = 0
        """How many updates it was sent."""

    async def receive(self) -> bytes:
        """Return what the client sent."""
        return await self.up.receive()

    async def send(self, frame: bytes) -> None:
        """Send to the client."""
        await self.down.send(frame)

    async def close(self, code: int, reason: str) -> None:
        """Say good-bye to the client."""
        self.code = code
        self.down.put(None)

    def cut(self) -> None:
        """Be gone in both directions."""
        self.up.cut()
        self.down.cut()
