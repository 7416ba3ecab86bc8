"""Nodes of a cluster without sockets or a store, and the relay between them: messages arrive when
the test says so.
"""

from collections.abc import Callable

from plait.server.cluster import Cluster
from plait.server.counters import Counters
from plait.server.limits import Limits
from plait.server.relay import Exchange, LocalRelay
from plait.server.wire.envelope import Envelope, Kind, decode_envelope, unseal
from tests.support.authors import text_of
from tests.support.clock import FakeClock
from tests.support.rooms import Rig

ROOM = "plait::room:room"
"""The channel of the room `room`."""
KEY = b"the key of the store"


class World:
    """Nodes, and the relay between them: a turn's messages arrive when the test says so."""

    def __init__(self) -> None:
        self._later: list[Callable[[], None]] = []
        self.exchange = Exchange(self._later.append)
        self.clock = FakeClock()
        self.nodes: list[Node] = []
        self.heard: list[tuple[str, Envelope]] = []
        """What one that hears everything has heard."""

    async def node(self, prefix: str = "plait", store: str = "") -> "Node":
        """Return a further node, which has met nobody yet."""
        node = Node(self, prefix)
        node.cluster.share(store, KEY)
        await node.cluster.run()
        return node

    def listen(self, *channels: str) -> None:
        """Hear what is said in channels."""
        relay = self.exchange.relay()
        relay.channels.update(channels)
        relay.on_message = lambda channel, data: self.heard.append(
            (channel, decode_envelope(unseal(data, KEY)))
        )

    def run(self) -> None:
        """Deliver until nothing is left to be said."""
        while True:
            for node in self.nodes:
                for rig in node.rigs:
                    rig.turn()
            if not self._later:
                return
            later = self._later[:]
            self._later.clear()
            for call in later:
                call()

    def wait(self, seconds: float, *silent: "Node") -> None:
        """Let time pass, for all but some nodes."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now = min(self.clock.now + 1, end)
            for node in self.nodes:
                if node not in silent:
                    node.cluster.tick()
            self.run()

    def kinds(self, kind: Kind) -> list[tuple[str, Envelope]]:
        """Return what was heard of a kind since the last call; forget all of it."""
        heard, self.heard = self.heard, []
        return [each for each in heard if each[1].kind is kind]


class CheckedRelay(LocalRelay):
    """Counts how often it was said to be of no use."""

    checks = 0

    def check(self) -> None:
        """Count it."""
        self.checks += 1


class Node:
    """A node and its hub, which keeps what it is told."""

    def __init__(self, world: World, prefix: str) -> None:
        self.id = bytes((len(world.nodes) + 1,)) * 8
        world.nodes.append(self)
        self.relay = CheckedRelay(world.exchange)
        world.exchange.relays.append(self.relay)
        self.counters = Counters()
        self.cluster = Cluster(
            self.relay, self.id, Limits(), world.clock, self.counters, prefix=prefix
        )
        self.cluster.hub = self
        self.rigs: list[Rig] = []
        self.looks: list[str | None] = []
        self.deletions: list[str] = []
        self.notices = 0

    async def open(self, name: str = "room") -> Rig:
        """Have the node open a room; return it with all that it needs."""
        rig = Rig()
        rig.room.name = name
        self.rigs.append(rig)
        await self.cluster.enter(name)
        rig.room.link = self.cluster.attach(rig.room)
        return rig

    def look(self, name: str | None) -> None:
        """Keep which room is to look into the store; None for all."""
        self.looks.append(name)

    def deleted(self, name: str) -> None:
        """Keep which document was deleted."""
        self.deletions.append(name)

    def noticed(self) -> None:
        """Count the notices."""
        self.notices += 1


def text_in(rig: Rig) -> str:
    """Return what a room's document shows."""
    return text_of(rig.room.document.encode())
