"""A room on several nodes, and what carries messages between them: every step is the test's."""

from collections.abc import Callable
from typing import NamedTuple

from plait.server.limits import Limits
from plait.server.link import Link
from plait.server.wire.envelope import Envelope, Kind, decode_envelope, encode_envelope
from plait.server.wire.messages import SyncUpdate
from tests.support.authors import text_of
from tests.support.rooms import Client, Rig


class Said(NamedTuple):
    """A message, and for whom; None for all."""

    sender: "Node"
    target: "Node | None"
    envelope: Envelope

    @property
    def kind(self) -> Kind:
        """What kind of message it is."""
        return self.envelope.kind


class Net:
    """Carries what nodes say, and loses what a test wants lost. Unrealistic: nothing is said while
    the nodes are in the middle of a turn.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.log: list[Said] = []
        self.loses: Callable[[Said, Node], bool] = lambda said, to: False
        self._queue: list[Said] = []

    def node(self, limits: Limits | None = None) -> "Node":
        """Return a further node that has opened the room, after all has been delivered."""
        node = Node(self, limits)
        self.run()
        return node

    def add(self, said: Said) -> None:
        """Take a message, to be delivered."""
        self.log.append(said)
        self._queue.append(said)

    def run(self) -> None:
        """Deliver until nothing is left to be said."""
        while True:
            for node in self.nodes:
                node.rig.turn()
            if not self._queue:
                return
            queue, self._queue = self._queue, []
            for said in queue:
                data = encode_envelope(said.envelope)
                for node in self.nodes:
                    if node is said.sender or said.target not in (None, node):
                        continue
                    if not self.loses(said, node):
                        node.link.receive(decode_envelope(data), node.now)

    def lose(self, *kinds: Kind, to: "Node | None" = None) -> None:
        """Lose messages of these kinds; all, without kinds."""
        self.loses = lambda said, node: (
            (not kinds or said.kind in kinds) and (to is None or node is to)
        )

    def heal(self) -> None:
        """Lose nothing any more."""
        self.loses = lambda said, to: False

    def said(self, *kinds: Kind) -> list[Said]:
        """Return what was said since the last call, of some kinds; forget all of it."""
        log, self.log = self.log, []
        return [said for said in log if not kinds or said.kind in kinds]


class Node:
    """A node that has the room open; implements `link.Outlet`."""

    def __init__(self, net: Net, limits: Limits | None) -> None:
        self._net = net
        self.node = bytes((len(net.nodes) + 1,)) * 8
        net.nodes.append(self)
        self.rig = Rig(limits)
        self.touched = False
        self.looks = 0
        self.losses = 0
        self.link = Link(self.rig.room, self, self.rig.limits, self.now)
        self.rig.room.link = self.link
        self.link.hello(fresh=True)

    def __repr__(self) -> str:
        return f"node {self.node[0]}"

    @property
    def now(self) -> float:
        """The time of its clock, in seconds."""
        return self.rig.clock.monotonic()

    @property
    def text(self) -> str:
        """What its document shows."""
        return text_of(self.rig.room.document.encode())

    def say(self, envelope: Envelope) -> None:
        """Tell all others."""
        self._net.add(Said(self, None, envelope))

    def tell(self, node: bytes, envelope: Envelope) -> None:
        """Tell one of them."""
        (target,) = [each for each in self._net.nodes if each.node == node]
        self._net.add(Said(self, target, envelope))

    def look(self, room: str) -> None:
        """Count how often it is to look into the store."""
        assert room == "room"
        self.looks += 1

    def touch(self, link: Link) -> None:
        """Take note that the link wants to be called as time passes."""
        assert link is self.link
        self.touched = True

    def lost(self, room: str, node: bytes) -> None:
        """Count what was lost on the way."""
        assert room == "room"
        self.losses += 1

    def wait(self, seconds: float) -> None:
        """Let time pass, second by second; then all is delivered."""
        end = self.rig.clock.now + seconds
        while self.rig.clock.now < end:
            self.rig.clock.now = min(self.rig.clock.now + 1, end)
            if self.touched:
                self.touched = self.link.tick(self.now)
        self._net.run()

    def commit(self) -> None:
        """Store everything, and deliver what follows."""
        self.rig.log.commit()
        self._net.run()

    def commit_first(self) -> None:
        """Store the oldest turn alone, and deliver what follows."""
        self.rig.log.commit_first()
        self._net.run()

    def rows(self) -> list[tuple[str, bytes]]:
        """Return who made what it has stored or is about to store."""
        return [(row.who, row.update) for row in self.rig.log.rows]

    def client(self) -> Client:
        """Return a new client that has read its greeting."""
        return self.rig.client()

    def presence(self) -> dict[int, bytes | None]:
        """Return who is present, as it sees it."""
        return {entry.client: entry.state for entry in self.rig.room.awareness.states()}


def type_at(net: Net, node: Node, update: bytes) -> Client:
    """Have a new client of a node send an update."""
    client = node.client()
    client.send(SyncUpdate(update))
    net.run()
    return client
