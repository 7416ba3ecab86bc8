"""Nodes, a store, a relay and editors in one virtual time, and what must hold in it.

Everything but networks, disks, time and editors is the product: hub, rooms, sessions, links,
writer, compactor. A seed decides what happens. After a while of faults the world behaves, and must
heal:

1. all editors of a room show the same, and so does what is stored;
2. whatever was acknowledged was in the store at that moment, with all that it builds upon;
3. nobody shows presence who is not there; that of a killed node goes within 5 s;
4. no queue is above its limit, at any time, and all are empty at the end.
"""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from plait.persistence import CompactionPolicy, StoreError, Writer
from plait.server import compaction
from plait.server.cluster import Cluster
from plait.server.compaction import Compactor
from plait.server.counters import Counters
from plait.server.errors import PlaitError
from plait.server.hub import Hub
from plait.server.limits import Limits
from plait.server.link import BORROWED_BYTES_MAX
from plait.server.pump import pump
from plait.server.room import Room
from plait.server.wire.ywebsocket import YWEBSOCKET
from tests.simulation.editors import Editor
from tests.simulation.faults import Chance, Faults
from tests.simulation.network import Air, SimulatedRelay, Wire
from tests.simulation.storage import SimulatedStore, Vault
from tests.simulation.virtual import VirtualClock, run

LIMITS = Limits(outbox_bytes_high=4096, outbox_bytes_low=512)
IDLE_SECONDS = 2.0
HEAL_SECONDS = 120.0
"""How long a world that behaves may take until all is equal."""
GHOST_SECONDS = 40.0
"""How long until nobody shows presence who has gone: clients drop it after 30 s themselves."""


class Violation(AssertionError):
    """Raised when something that must hold does not."""


@dataclass(frozen=True)
class Report:
    """What happened."""

    digest: str
    """Of everything that the editors were sent, with its time: equal for equal runs."""
    edits: int
    acknowledged: int
    gaps: int
    killed: int
    seconds: float


class Node:
    """One server. May be killed and started again, as another process."""

    def __init__(self, world: "World", number: int) -> None:
        self._world = world
        self._number = number
        self._starts = 0
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.wires: list[Wire] = []
        self.alive = False
        self.gaps = 0

    def start(self) -> None:
        """Start a new process."""
        world, self._starts = self._world, self._starts + 1
        chance = world.chance.of(f"node {self._number} start {self._starts}")
        clock = VirtualClock(asyncio.get_running_loop())
        self.node = chance.randbytes(8)
        self.started_at = clock.monotonic()
        self.store = SimulatedStore(world.vault, world.faults, chance)
        self.relay = SimulatedRelay(world.air, world.faults, chance)
        self.counters = Counters()
        self.writer = Writer(
            self.store, clock=clock.monotonic, jitter=chance.random, unsaved_bytes_max=1 << 20
        )
        policy = CompactionPolicy(tail_updates_max=50, history_days=0)
        compactor = Compactor(self.store, policy, LIMITS, clock.wall_ms)
        cluster = Cluster(self.relay, self.node, LIMITS, clock, self.counters)
        self.hub = Hub(
            self.store,
            self.writer,
            compactor,
            LIMITS,
            idle_seconds=IDLE_SECONDS,
            clock=clock,
            counters=self.counters,
            cluster=cluster,
        )
        self._stop = asyncio.Event()
        self._process = asyncio.create_task(self._run())
        self.alive = True

    async def _run(self) -> None:
        async with self.hub:
            await self._stop.wait()
            try:
                await self.hub.drain(5)
            except StoreError:
                pass  # Nothing of it was acknowledged.

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run something that ends with this process."""
        task = asyncio.create_task(work)
        self.tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self.tasks.pop(task, None)

    def kill(self) -> None:
        """End the process at once."""
        self._end()
        self._process.cancel()

    async def stop(self) -> None:
        """End the process in an orderly way."""
        self._stop.set()
        self.alive = False
        await asyncio.wait([self._process])
        if not self._process.cancelled():
            self._process.result()
            self._end()

    def _end(self) -> None:
        self.alive = False
        self.gaps += self.counters.relay_gaps
        self.store.dead = True
        self.relay.leave()
        for task in list(self.tasks):
            task.cancel()
        for wire in self.wires:
            wire.cut()
        self.wires.clear()


class World:
    """One run."""

    def __init__(self, seed: int, faults: Faults | None = None) -> None:
        self.chance = Chance(seed)
        dice = self.chance.of("world")
        self.faults = faults if faults is not None else Faults.drawn(dice)
        self.vault = Vault()
        self.air = Air()
        self._digest = hashlib.sha256()
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self.nodes = [Node(self, number) for number in range(dice.randint(1, 3))]
        rooms = [f"room {number}" for number in range(dice.randint(1, 2))]
        self.editors = [
            Editor(
                number + 1,
                dice.choice(rooms),
                self.chance.of(f"editor {number}"),
                self._acknowledged,
                self._trace,
            )
            for number in range(dice.randint(2, 5))
        ]
        self._seconds = dice.uniform(5, 20)
        self._pause = dice.choice((0.02, 0.1, 0.5))
        self._dice = dice
        self._acknowledgements = 0
        self._killed = 0
        self._healing = False
        self._background: list[asyncio.Task[None]] = []
        self._failure: BaseException | None = None

    async def run(self) -> Report:
        """Let everything happen.

        Raises:
            Violation: something that must hold does not.
        """
        for node in self.nodes:
            node.start()
        until = self._loop.time() + self._seconds
        for editor in self.editors:
            self._spawn(self._be_connected(editor))
            self._spawn(editor.be_present())
        for node in self.nodes:
            self._spawn(self._be_unreliable(node, until))
        self._spawn(self._cut_links(until))
        self._spawn(self._watch())
        await asyncio.gather(*(each.edit(until, self._pause) for each in self.editors))
        self._check_failure()
        await self._heal()
        report = Report(
            self._digest.hexdigest(),
            sum(editor.doc.get_state()[0] for editor in self.editors),
            self._acknowledgements,
            sum(node.gaps + node.counters.relay_gaps for node in self.nodes),
            self._killed,
            self._loop.time() - self._began,
        )
        for node in self.nodes:
            await node.stop()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._check_failure()
        return report

    # What goes wrong

    async def _be_unreliable(self, node: Node, until: float) -> None:
        chance = self.chance.of(f"fate of {self.nodes.index(node)}")
        rate = self.faults.crashes + self.faults.stops
        while rate and self._loop.time() < until:
            await asyncio.sleep(chance.expovariate(rate))
            if self._loop.time() >= until:
                return
            if chance.random() < self.faults.crashes / rate:
                self._kill(node)
            else:
                await node.stop()
            await asyncio.sleep(chance.expovariate(1))
            node.start()

    def _kill(self, node: Node) -> None:
        self._killed += 1
        node.kill()
        self._loop.call_later(5.0, self._check_no_presence_of, node.node, self._loop.time())

    async def _cut_links(self, until: float) -> None:
        chance = self.chance.of("links")
        rate = self.faults.link_cuts * len(self.editors)
        while rate and self._loop.time() < until:
            await asyncio.sleep(chance.expovariate(rate))
            wire = chance.choice(self.editors).wire
            if wire is not None and self._loop.time() < until:
                wire.cut()

    async def _be_connected(self, editor: Editor) -> None:
        chance = self.chance.of(f"paths of {editor.client_id}")
        number = 0
        while True:
            alive = [node for node in self.nodes if node.alive]
            if not alive:
                await asyncio.sleep(0.2)
                continue
            node = chance.choice(alive)
            number += 1
            wire = Wire(self.faults, self.chance.of(f"wire {editor.client_id} {number}"))
            node.wires.append(wire)
            serving = node.spawn(_serve(node.hub, editor.room, wire))
            await editor.converse(wire)
            wire.cut()
            await asyncio.wait([serving], timeout=30)
            await asyncio.sleep(chance.uniform(0.05, 0.5))

    # What must hold

    def _acknowledged(self, editor: Editor, upto: int) -> None:
        self._acknowledgements += 1
        stored = self.vault.clocks(editor.room).get(editor.client_id, 0)
        if stored < upto:
            self._fail(
                f"editor {editor.client_id} was told that it is stored up to {upto}; "
                f"whole is what is stored up to {stored}"
            )

    def _check_no_presence_of(self, dead: bytes, since: float) -> None:
        if self.faults.relay_delay > 0.02 or self.faults.relay_cuts or self.faults.lose:
            return
        for node in self.nodes:
            if node.alive and node.started_at < since:
                for name, room in node.hub.rooms().items():
                    if dead in room.awareness._owned:
                        self._fail(f"{name}: presence of a dead node after 5 s")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            for node in self.nodes:
                for room in node.hub.rooms().values() if node.alive else ():
                    self._check_bounds(room)

    def _check_bounds(self, room: Room) -> None:
        link = room.link
        if link is not None and link.borrowed.size > BORROWED_BYTES_MAX:
            self._fail(f"{room.name}: {link.borrowed.size} bytes are borrowed")
        for member in room.members:
            if member.outbox.bytes > 2 * LIMITS.outbox_bytes_high + (64 << 10):
                self._fail(f"{room.name}: {member.outbox.bytes} bytes wait for a reader")

    async def _heal(self) -> None:
        self.faults = self.faults.calm()
        for node in self.nodes:
            node.store.faults = node.relay.faults = self.faults
            if not node.alive:
                await asyncio.sleep(6)  # It is being stopped, or about to be started.
            if not node.alive:
                node.start()
        until = self._loop.time() + HEAL_SECONDS
        while (difference := self._difference()) is not None:
            self._check_failure()
            if self._loop.time() > until:
                raise Violation(difference)
            await asyncio.sleep(0.5)
        await asyncio.sleep(GHOST_SECONDS)
        self._check_failure()
        if (difference := self._difference() or self._ghosts()) is not None:
            raise Violation(difference)

    def _difference(self) -> str | None:
        rooms: dict[str, list[Editor]] = defaultdict(list)
        for editor in self.editors:
            rooms[editor.room].append(editor)
        for name, editors in rooms.items():
            contents = {editor.content for editor in editors}
            if len(contents) > 1:
                return f"{name}: the editors show {len(contents)} different documents"
            clocks = dict(editors[0].content[2])  # type: ignore[call-overload]
            if self.vault.clocks(name) != clocks:
                return f"{name}: stored is {self.vault.clocks(name)}, shown is {clocks}"
        if any(editor.wire is None for editor in self.editors):
            return "an editor is not connected"
        if any(node.writer.unsaved_updates for node in self.nodes):
            return "something is unsaved"
        return None

    def _ghosts(self) -> str | None:
        for editor in self.editors:
            here = {each.client_id for each in self.editors if each.room == editor.room}
            shown = editor.presences.states.keys()
            if shown != here:
                return f"editor {editor.client_id} sees {sorted(shown)}, here are {sorted(here)}"
        return None

    # Parts

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                self._failure = self._failure or error

        self._background.append(asyncio.create_task(guarded()))

    def _trace(self, line: str) -> None:
        self._digest.update(f"{self._loop.time():.6f} {line}\n".encode())

    def _fail(self, why: str) -> None:
        at = self._loop.time() - self._began
        self._failure = self._failure or Violation(f"at {at:.3f} s: {why}")

    def _check_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


async def _serve(hub: Hub, name: str, wire: Wire) -> None:
    """What the endpoint does: open the room, and let the client in."""
    try:
        async with hub.room(name) as room:
            await pump(hub, room, YWEBSOCKET, wire, "-")
    except PlaitError:
        wire.cut()


def simulate(seed: int, faults: Faults | None = None) -> Report:
    """Run the world of a seed.

    Raises:
        Violation: something that must hold does not.
    """

    async def work() -> Report:
        world = World(seed, faults)
        try:
            return await world.run()
        finally:
            for editor in world.editors:
                editor.close()

    # Other processes know no virtual time.
    with patch.object(compaction, "run_apart", _run_here):
        return run(work())


async def _run_here(function: Callable[..., Any], seconds: float, *arguments: Any) -> Any:
    return function(*arguments)
