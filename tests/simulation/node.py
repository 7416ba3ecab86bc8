"""One server of a simulated world."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from plait.persistence import CompactionPolicy, StoreError, Writer
from plait.server.cluster import Cluster
from plait.server.compaction import Compactor
from plait.server.counters import Counters
from plait.server.hub import Hub
from plait.server.limits import Limits
from tests.simulation.faults import Chance, Faults
from tests.simulation.network import Air, SimulatedRelay, Wire
from tests.simulation.storage import SimulatedStore, Vault
from tests.simulation.virtual import VirtualClock

LIMITS = Limits(outbox_bytes_high=4096, outbox_bytes_low=512)
IDLE_SECONDS = 2.0


class Place(Protocol):
    """What surrounds a node."""

    chance: Chance
    faults: Faults
    vault: Vault
    air: Air


class Node:
    """One server. May be killed and started again, as another process."""

    def __init__(self, world: Place, number: int) -> None:
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
