"""`scripts/compare`: Plait beside another version of it, or a peer, under the same load at the same
time on the same core.

What one program takes differs by a third from minute to minute on a machine that others use, too,
so that measuring in turn shows no difference below a tenth. What disturbs two servers on one core
disturbs both, and their ratio stays within some hundredths.

A flood is the exception. Two servers that go as fast as they can take the core from each other, so
that each has its load alone, in turn, and more pairs make up for what changes in between.
"""

import argparse
import asyncio
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Final

from plait.server.load import Phase
from plait.server.scenarios import PRESETS, Scenario
from scripts.benchmarks import clusters
from scripts.benchmarks.main import pin, raise_descriptors
from scripts.benchmarks.runs import WARM_UP, Bench, Served, put
from scripts.benchmarks.servers import (
    HERE,
    PEERS,
    BenchError,
    Kind,
    Server,
    checkout,
    install_peers,
)

CLUSTER: Final = "cluster"
SCENARIOS: Final = ("typing", "crowd", "flood", "tenk", CLUSTER)


def main() -> int:
    """Compare, print, and return the exit code: 0, or 1 if there was nothing to compare."""
    parsed = _parser().parse_args()
    try:
        here, there = checkout(HERE.parent.parent), _other(parsed.other)
        if there.node is None and CLUSTER in parsed.scenario:
            raise BenchError(f"{there.name} has no nodes; name scenarios but {CLUSTER}: --scenario")
        bench = Bench(pin(), parsed.seconds, b"", clusters.STORES[0])
        raise_descriptors()
        for scenario in parsed.scenario:
            pairs = [
                asyncio.run(_pair(bench, scenario, here, there, turned=bool(repeat % 2)))
                for repeat in range(max(1, parsed.repeat))
            ]
            print(f"{scenario}: {told(pairs)}", flush=True)
            for note in dict.fromkeys(bench.notes):  # Who could not connect was no load.
                print(f"compare: {scenario}: {note}", file=sys.stderr)
            bench.notes.clear()
    except (BenchError, OSError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("compare: interrupted", file=sys.stderr)
        return 130
    return 0


def _other(name: str) -> Kind:
    """Return what is compared with: a peer by its name, or Plait of another checkout."""
    if name not in PEERS:
        return checkout(Path(name).resolve())
    install_peers()
    return PEERS[name]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/compare",
        description="Puts the same load on Plait as it is here and on another server, at the same"
        " time (floods in turn) and on the same core, and compares the processor time that a"
        " delivery takes. See docs/benchmarks.md.",
    )
    parser.add_argument(
        "other",
        help=f"another checkout, which is installed and compiled, or one of {', '.join(PEERS)}",
    )
    parser.add_argument(
        "--scenario",
        nargs="+",
        choices=SCENARIOS,
        default=["typing", "tenk", CLUSTER],
        metavar="NAME",
        help=f"of {', '.join(SCENARIOS)} (default: typing tenk cluster)",
    )
    parser.add_argument(
        "--seconds", type=float, default=5.0, metavar="N", help="of typing (default: 5)"
    )
    parser.add_argument(
        "--repeat", type=int, default=4, metavar="N", help="pairs of a scenario (default: 4)"
    )
    return parser


async def _pair(
    bench: Bench, name: str, here: Kind, there: Kind, *, turned: bool
) -> tuple[float, float]:
    """Return what a delivery takes here and there, in microseconds.

    Args:
        turned: the other one starts, and connects, first.
    """
    scenario = replace(PRESETS["typing" if name == CLUSTER else name], seconds=bench.seconds)
    kinds = (there, here) if turned else (here, there)
    async with AsyncExitStack() as running:
        servers: list[Served] = []
        for kind in kinds:
            server: Server | clusters.Cluster = (
                clusters.Cluster(kind, 2, bench.core, bench.store)
                if name == CLUSTER
                else Server(kind, bench.core)
            )
            servers.append(await running.enter_async_context(server))
            await put(bench, servers[-1], WARM_UP)
        if scenario.rate:
            shared = half(scenario)
            both = await asyncio.gather(*(put(bench, server, shared) for server in servers))
        else:
            both = [await put(bench, server, scenario) for server in servers]
    if not all(seen.result.delivered for seen in both):
        raise BenchError("nothing was delivered")
    first, second = (
        seen.cpu(Phase.CONNECTED, Phase.DONE) / seen.result.delivered * 1e6 for seen in both
    )
    return (second, first) if turned else (first, second)


def half(scenario: Scenario) -> Scenario:
    """Return half of a scenario, so that two keep the core as busy as one did."""
    if scenario.rooms > 1:
        return replace(scenario, rooms=scenario.rooms // 2)
    return replace(scenario, rate=scenario.rate / 2)


def told(pairs: list[tuple[float, float]]) -> str:
    """Return the outcome of pairs in words: the medians, and the ratio of here to there."""
    here, there = (median(side) for side in zip(*pairs, strict=True))
    ratios = [one / other for one, other in pairs]
    return (
        f"{here:.1f} µs a delivery here, {there:.1f} there; of {len(pairs)} pairs the ratio is "
        f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    )
