"""The scenarios in which one load is put on one server."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from plait.server.load import Load, Phase, nobody
from plait.server.scenarios import PRESETS, Result, Scenario
from plait.server.target import Target
from scripts.benchmarks.figures import Figures
from scripts.benchmarks.measures import Usage
from scripts.benchmarks.servers import BenchError, Kind, Server

WARM_UP = Scenario(rooms=4, clients=5, writers=2, rate=10, seconds=1)
"""What each server does before it is measured: it loads what it loads lazily, and is compiled."""
SETTLE_SECONDS = 3.0
"""After a document was uploaded: nothing of that is to be counted with what comes next."""

_MS = 1e6


@dataclass(frozen=True, slots=True)
class Bench:
    """What all measurements of an invocation have in common.

    Args:
        core: the processor of the server; None if it has none of its own.
        seconds: of typing.
        document: what storms and cold starts are about.
        store: what nodes of a cluster share.
        notes: what went wrong without ending the measurement.
    """

    core: int | None
    seconds: float
    document: bytes
    store: str
    notes: list[str] = field(default_factory=list)


Measure = Callable[[Bench, Kind], Awaitable[Figures]]


@dataclass(slots=True)
class Seen:
    """A run's result, and what the server had taken at its phases."""

    result: Result
    usages: dict[Phase, Usage]

    def cpu(self, start: Phase, end: Phase) -> float:
        """Return the processor time between two phases, in seconds."""
        return self.usages[end].cpu - self.usages[start].cpu

    @property
    def grown(self) -> int:
        """How many bytes the server grew by while all connected."""
        return self.usages[Phase.CONNECTED].rss - self.usages[Phase.READY].rss

    @property
    def connecting(self) -> Figures:
        """What each connection took."""
        connected = self.result.connected
        return {
            "kb_connection": self.grown / connected / 1e3,
            "ms_connect": self.cpu(Phase.READY, Phase.CONNECTED) / connected * 1e3,
            "failed": self.result.failures.total() + self.result.closed.total(),
        }


class Served(Protocol):
    """A server, or several that are one for editors."""

    @property
    def targets(self) -> Sequence[Target]:
        """Where editors connect to."""

    def usage(self) -> Usage:
        """Return what its processes take."""


async def put(
    bench: Bench,
    server: Served,
    scenario: Scenario,
    prefix: str | None = None,
    *,
    together: bool = False,
    watch: Callable[[Phase], None] = nobody,
) -> Seen:
    """Put a load on a server and look at it.

    Args:
        prefix: of the names of rooms.
        together: with several nodes, all editors of a room are on one.
        watch: is called at each phase, too.

    Raises:
        LoadFailed: nobody could connect.
        BenchError: the server has ended.
    """
    usages: dict[Phase, Usage] = {}

    def look(phase: Phase) -> None:
        usages[phase] = server.usage()
        watch(phase)

    load = Load(server.targets, scenario, together=together, prefix=prefix, watch=look)
    result = await load.run()
    for why, count in (result.failures + result.closed).most_common(3):
        bench.notes.append(f"{count:,} of {scenario.editors:,} editors: {why}")
    return Seen(result, usages)


async def put_on_fresh(bench: Bench, kind: Kind, scenario: Scenario) -> Seen:
    """Start a server, warm it up, and put a load on it."""
    async with Server(kind, bench.core) as server:
        await put(bench, server, WARM_UP)
        return await put(bench, server, scenario)


def paced(name: str) -> Measure:
    """Return what measures a preset in which editors type."""

    async def measure(bench: Bench, kind: Kind) -> Figures:
        scenario = replace(PRESETS[name], seconds=bench.seconds)
        return figures_of_typing(await put_on_fresh(bench, kind, scenario))

    return measure


def figures_of_typing(seen: Seen) -> Figures:
    """Return what there is to tell of a run in which editors typed.

    Raises:
        BenchError: nothing came of it.
    """
    result = seen.result
    if not result.delivered:
        raise BenchError("nothing was delivered")
    figures = {
        "cpu_us": seen.cpu(Phase.CONNECTED, Phase.DONE) / result.delivered * 1e6,
        "p50": result.latency.percentile(50) / _MS,
        "p99": result.latency.percentile(99) / _MS,
        "deliveries": result.deliveries_per_second,
        "lost": result.lost,
    }
    return seen.connecting | figures


async def storm(bench: Bench, kind: Kind) -> Figures:
    """Let many open a large document at once."""
    scenario = replace(PRESETS["storm"], document=bench.document, settle=SETTLE_SECONDS)
    seen = await put_on_fresh(bench, kind, scenario)
    return {
        "storm_cpu": seen.cpu(Phase.READY, Phase.CONNECTED),
        "storm_p99": seen.result.sync.percentile(99) / _MS,
        "failed": seen.connecting["failed"],
    }


async def idle(bench: Bench, kind: Kind) -> Figures:
    """Connect editors who do nothing, in one room and in many."""
    together = Scenario(rooms=1, clients=2000, writers=0, seconds=1)
    apart = Scenario(rooms=1000, clients=2, writers=0, seconds=1)
    one = await put_on_fresh(bench, kind, together)
    many = await put_on_fresh(bench, kind, apart)
    return {
        "kb_connection": one.grown / together.editors / 1e3,
        "kb_room": (many.grown - one.grown) / (apart.rooms - together.rooms) / 1e3,
        "failed": one.connecting["failed"] + many.connecting["failed"],
    }


async def acknowledgements(bench: Bench, kind: Kind) -> Figures:
    """Make a thousand edits a second, and see when they are acknowledged."""
    scenario = Scenario(rooms=100, clients=2, writers=1, rate=10, seconds=bench.seconds)
    seen = await put_on_fresh(bench, kind, scenario)
    acknowledged = seen.result.acknowledgement
    if not acknowledged.count:
        raise BenchError("it acknowledges nothing")
    return {
        "ack_p50": acknowledged.percentile(50) / _MS,
        "ack_p99": acknowledged.percentile(99) / _MS,
        "lost": seen.result.edits - acknowledged.count,
    }
