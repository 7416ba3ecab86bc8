"""What a node does to be one of several: it tells that it lives, notices who does not, and carries
messages between its rooms and the relay.

Every second each node says that it lives. Whoever is not heard for `DEAD_SECONDS` is taken for
dead: its presence goes, what it may not have stored is stored by those who have it, and the store
is asked for what was missed. Nothing of that is harmful if it was merely slow: it is heard again,
and each room asks it for what it lacks. A node that does not even hear itself has lost the relay,
whatever its sockets say, and connects anew.

While the relay is away nothing is told to anybody; the hub asks the store more often then.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from plait.server.changes import Clock
from plait.server.counters import Counters
from plait.server.errors import PlaitError
from plait.server.limits import Limits
from plait.server.link import Host, Link
from plait.server.relay import Relay
from plait.server.wire.envelope import (
    Envelope,
    Kind,
    decode_envelope,
    encode_envelope,
    node_of,
    seal,
    unseal,
)

log = logging.getLogger(__name__)

DEAD_SECONDS = 3.5
"""Silence after which a node is taken for dead: three of its beats are missing."""
SILENT_SECONDS = 600.0
"""How long a silent node may be alive, and cut off from the relay."""
NODES_MAX = 1000
STALL_SECONDS = 2.0
"""Time between two ticks, which are to be a second apart, above which this node stood still."""
FAREWELL_SECONDS = 1.0
LINKS_A_TURN = 50
"""Rooms for which something is said to other nodes in one turn of the loop: a millisecond."""
HELLOS_A_TICK = 500
"""Rooms that say hello in a second, after the connection was lost; 10,000 take 20 seconds."""


class Told(Protocol):
    """What a cluster tells its hub."""

    def look(self, name: str | None) -> None:
        """Ask the store for what is new in a room, or in all."""

    def deleted(self, name: str) -> None:
        """Another node has deleted a document."""

    def noticed(self) -> None:
        """There is something new about keys or rights in the store."""


class Cluster:
    """This node among the others.

    Args:
        node: 8 random bytes, of this process alone.
        prefix: begins every channel's name, so that clusters can share a Redis.
    """

    def __init__(
        self,
        relay: Relay,
        node: bytes,
        limits: Limits,
        clock: Clock,
        counters: Counters,
        *,
        prefix: str = "plait",
    ) -> None:
        self.node = node
        self.relay = relay
        self.hub: Told
        self._limits = limits
        self._clock = clock
        self._counters = counters
        self._prefix = prefix
        self.share("", b"")
        self._links: dict[str, Link] = {}
        self._touched: dict[Link, None] = {}
        self._greeting: deque[str] = deque()
        """Rooms that have to say hello."""
        self._looked_after: deque[str] = deque()
        """Rooms whose tick is still to come in this one."""
        self._heard_at: dict[bytes, float] = {}
        self._silent: dict[bytes, float] = {}
        """Nodes that were taken for dead, and did not say good-bye; and since when."""
        self._heard_self_at: float | None = None
        self._ticked_at = clock.monotonic()
        self._complained: set[type[Exception]] = set()
        self._left = False
        """Whether this node has said good-bye: whoever heard more of it would take it for alive."""
        relay.on_message = self._receive
        relay.on_state = self._on_state

    @property
    def nodes(self) -> int:
        """How many nodes are alive, as far as this one knows, itself included."""
        return 1 + len(self._heard_at)

    def share(self, store: str, key: bytes) -> None:
        """Speak to nodes with this store only: others that use the same Redis have other documents.
        Called before anything is said.

        Args:
            store: the store's identity, a part of the channels' names.
            key: what only those know who have the store.
        """
        self._key = key
        self._rooms_channel = f"{self._prefix}:{store}:room:"
        self._nodes_channel = f"{self._prefix}:{store}:node:"
        self._all_channel = f"{self._prefix}:{store}:nodes"

    @property
    def whole(self) -> bool:
        """Whether all nodes can be told: the relay is there, and nobody has fallen silent lately,
        who may live without it.
        """
        return self.relay.connected and not self._silent

    async def run(self) -> None:
        """Stay connected until cancelled."""
        await self.relay.subscribe(self._all_channel)
        await self.relay.subscribe(self._nodes_channel + self.node.hex())
        await self.relay.run()

    # Rooms

    async def enter(self, name: str) -> None:
        """Hear what is said in a room that is about to be loaded: nothing may be missed between."""
        await self.relay.subscribe(self._rooms_channel + name)

    def attach(self, room: Host) -> Link:
        """Let a room that was loaded take part."""
        before = self._links.get(room.name)
        if before is not None:
            before.close()
            self._touched.pop(before, None)
        link = Link(room, self, self._limits, self._clock.monotonic())
        self._links[room.name] = link
        link.hello(fresh=True)
        return link

    def leave(self, name: str) -> None:
        """Hear a room no more."""
        link = self._links.pop(name, None)
        if link is not None:
            link.leave()
            self._touched.pop(link, None)
        self.relay.unsubscribe(self._rooms_channel + name)

    def tell_deleted(self, name: str) -> None:
        """Tell that a document was deleted."""
        self.say(Envelope(self.node, Kind.DELETED, name))

    def tell_notice(self) -> None:
        """Tell that there is something new about keys or rights in the store."""
        self._publish(self._all_channel, Envelope(self.node, Kind.NOTICE))

    # Implements link.Outlet

    def say(self, envelope: Envelope) -> None:
        """Tell all nodes that have the room."""
        self._publish(self._rooms_channel + envelope.room, envelope)

    def tell(self, node: bytes, envelope: Envelope) -> None:
        """Tell one node."""
        self._publish(self._nodes_channel + node.hex(), envelope)

    def look(self, room: str) -> None:
        """Have the store asked for what is new in a room."""
        self.hub.look(room)

    def touch(self, link: Link) -> None:
        """Have the link's `tick` called."""
        self._touched[link] = None

    def lost(self, room: str, node: bytes) -> None:
        """Count a message that did not arrive."""
        self._counters.relay_gaps += 1

    def _publish(self, channel: str, envelope: Envelope) -> None:
        if self._left:
            return
        message = seal(encode_envelope(envelope), self._key)
        self._counters.relay_sent += 1
        self._counters.relay_sent_bytes += len(message)
        self.relay.publish(channel, message)

    # Messages

    def _receive(self, channel: str, message: bytes) -> None:
        node = node_of(message)
        now = self._clock.monotonic()
        if node == self.node:
            self._heard_self_at = now
            return
        self._counters.relay_received += 1
        self._counters.relay_received_bytes += len(message)
        try:
            envelope = decode_envelope(unseal(message, self._key))
            if node in self._heard_at or len(self._heard_at) < NODES_MAX:
                self._heard_at[node] = now
            if node in self._silent:  # It may hold this one for dead, too.
                del self._silent[node]
                self._greeting = deque(self._links)
            self._take_in(envelope, now)
        except PlaitError as error:
            self._counters.relay_refused += 1
            if type(error) not in self._complained:
                self._complained.add(type(error))
                log.error("a message of node %s on %s: %s", node.hex(), channel, error)
        except Exception:
            self._counters.relay_refused += 1
            log.exception("a message of node %s on %s", node.hex(), channel)

    def _take_in(self, envelope: Envelope, now: float) -> None:
        if envelope.kind is Kind.BEAT:
            return
        if envelope.kind is Kind.NOTICE:
            self.hub.noticed()
            return
        if envelope.kind is Kind.BYE:
            self._gone(envelope.node)
            return
        if envelope.kind is Kind.DELETED:
            self.hub.deleted(envelope.room)
            return
        link = self._links.get(envelope.room)
        if link is not None:
            link.receive(envelope, now)
        elif envelope.kind is not Kind.LEAVE:
            self.tell(envelope.node, Envelope(self.node, Kind.LEAVE, envelope.room))

    # What time brings

    def tick(self) -> None:
        """Say that this node lives, and do what is due. Called once a second."""
        now = self._clock.monotonic()
        self._forgive(now - self._ticked_at)
        self._ticked_at = now
        if self.relay.connected:
            self._publish(self._all_channel, Envelope(self.node, Kind.BEAT, seq=len(self._links)))
        for node in [n for n, at in self._heard_at.items() if now - at > DEAD_SECONDS]:
            log.warning("node %s is silent", node.hex())
            if len(self._silent) < NODES_MAX:
                self._silent[node] = now
            self._gone(node)
            self.hub.look(None)
        if self.relay.connected:
            if self._heard_self_at is not None and now - self._heard_self_at > DEAD_SECONDS:
                self._heard_self_at = None
                self.relay.check()
            greeting = self._greeting
            due = deque(greeting.popleft() for _ in range(min(HELLOS_A_TICK, len(greeting))))
            self._each(due, lambda link: link.hello())
        for node in [n for n, at in self._silent.items() if now - at > SILENT_SECONDS]:
            del self._silent[node]
        if not self._looked_after:  # else it takes longer than a second
            self._looked_after = deque(link.room.name for link in self._touched)
            self._each(self._looked_after, self._look_after)

    def _look_after(self, link: Link) -> None:
        if link in self._touched and not link.tick(self._clock.monotonic()):
            self._touched.pop(link, None)

    def _each(self, rooms: deque[str], act: Callable[[Link], None]) -> None:
        """Do something in some rooms, and in others in the next turns of the loop."""
        for _ in range(min(LINKS_A_TURN, len(rooms))):
            name = rooms.popleft()
            link = self._links.get(name)
            if link is not None:
                try:
                    act(link)
                except Exception:
                    log.exception("room %r: what it has to tell other nodes failed", name)
        if rooms:
            asyncio.get_running_loop().call_soon(self._each, rooms, act)

    def _forgive(self, seconds: float) -> None:
        """Blame nobody for the silence while this node itself stood still: what the others said
        then has not been read yet. They may have taken this node for dead.
        """
        if seconds > STALL_SECONDS:
            for node in self._heard_at:
                self._heard_at[node] += seconds
            if self._heard_self_at is not None:
                self._heard_self_at += seconds
                self._greeting = self._greeting or deque(self._links)

    async def farewell(self) -> None:
        """Tell the others that this node is about to end, if that is possible within a second."""
        self._publish(self._all_channel, Envelope(self.node, Kind.BYE))
        self._left = True
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self.relay.flush()
        except TimeoutError:
            log.warning("the relay did not take this node's good-bye")

    def _gone(self, node: bytes) -> None:
        if self._heard_at.pop(node, None) is not None:
            self._each(deque(self._links), lambda link: self._part(link, node))

    def _part(self, link: Link, node: bytes) -> None:
        if node not in self._heard_at:  # else it lives after all, and all rooms say hello
            link.gone(node)

    def _on_state(self, connected: bool) -> None:
        now = self._clock.monotonic()
        if connected:
            self._heard_self_at = now  # as of the subscription, which the first beat is to confirm
            self._greeting = deque(self._links)
        else:
            self._heard_self_at = None
            self._greeting.clear()
            self.hub.look(None)  # which also lets it look more often from now on
