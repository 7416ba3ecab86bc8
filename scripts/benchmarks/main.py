"""The command line of `scripts/bench`."""

import argparse
import asyncio
import gc
import json
import os
import platform
import resource
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from plait.server.cli_bench import EDITS_OF_A_LONG_DOCUMENT, run_fast
from plait.server.errors import PlaitError
from plait.server.typist import long_document
from scripts.benchmarks import clusters, polling, restarts, runs, table
from scripts.benchmarks.figures import Figures, Outcome, Outcomes
from scripts.benchmarks.runs import Bench, Measure
from scripts.benchmarks.servers import (
    BUILD,
    PEERS,
    PLAIT,
    BenchError,
    Kind,
    compiled_place,
    install_peers,
    plait,
)

SCENARIOS: dict[str, Measure] = {
    **{name: runs.paced(name) for name in ("typing", "crowd", "flood", "tenk")},
    "storm": runs.storm,
    "idle": runs.idle,
    "acks": runs.acknowledgements,
    "open": restarts.cold_open,
    "restart": restarts.come_back,
    "polling": polling.polling,
    "cluster": clusters.pair(5),
    "cluster-slow": clusters.pair(1),
}
NODES = "nodes"
"""The scenario that compares Plait with itself."""
PATIENCE_SECONDS = 180.0
"""How long a server may take for a scenario, besides the time in which editors type."""


def main() -> int:
    """Measure, print, and return the exit code: 0, or 1 if Plait could not be measured."""
    parser = _parser()
    parsed = parser.parse_args()
    if parsed.json and Path(parsed.json).exists():
        parser.error(f"{parsed.json} is there already: choose another name, or remove it")
    try:
        own = plait(shlex.split(parsed.plait_options), compiled=not parsed.not_compiled)
        kinds = [own, *(PEERS[name] for name in parsed.peer)]
        if any(name != "pycrdt-websocket" for name in parsed.peer):
            install_peers()
        document = _document(parsed.document)
        bench = Bench(pin(), parsed.seconds, document, parsed.cluster_store)
        raise_descriptors()
        outcomes = _measure(bench, kinds, parsed)
    except (BenchError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    circumstances = _circumstances(parsed, bench)
    if parsed.markdown:
        print("\n".join(table.markdown(outcomes, circumstances)))
    if parsed.json:
        value = {"circumstances": circumstances, "scenarios": table.json_of(outcomes)}
        Path(parsed.json).write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
    ours = (
        outcome
        for scenario, each in outcomes.items()
        for name, outcome in each.items()
        if name == PLAIT or scenario == NODES
    )
    return 0 if all(outcome.repeats for outcome in ours) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures Plait and its peers in turn, on the same machine, and compares them. "
        "See docs/benchmarks.md.",
    )
    parser.add_argument(
        "--scenario",
        nargs="+",
        choices=[*SCENARIOS, NODES],
        default=[*SCENARIOS, NODES],
        metavar="NAME",
        help=f"which (default: all): {', '.join([*SCENARIOS, NODES])}",
    )
    parser.add_argument(
        "--peer",
        nargs="*",
        choices=PEERS,
        default=list(PEERS),
        metavar="NAME",
        help=f"whom to compare with (default: all): {', '.join(PEERS)}; without a name nobody",
    )
    parser.add_argument(
        "--seconds", type=float, default=10.0, metavar="N", help="of typing (default: 10)"
    )
    parser.add_argument(
        "--repeat",
        type=int,
        default=1,
        metavar="N",
        help="measure each so often, in turn, and tell the median (default: 1)",
    )
    parser.add_argument(
        "--document",
        metavar="FILE",
        help="a Yjs update for the scenarios with a large document (default: a generated one of"
        f" {EDITS_OF_A_LONG_DOCUMENT:,} edits)",
    )
    parser.add_argument(
        "--plait-options", default="", metavar="OPTIONS", help="further ones of plait serve"
    )
    parser.add_argument(
        "--not-compiled", action="store_true", help="run Plait as Python, without its C"
    )
    parser.add_argument(
        "--cluster-store",
        choices=clusters.STORES,
        default=clusters.STORES[0],
        help=f"what several nodes of Plait share (default: {clusters.STORES[0]})",
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures to a new file")
    parser.add_argument(
        "--markdown", action="store_true", help="print tables for docs/benchmarks.md"
    )
    return parser


def _measure(bench: Bench, kinds: list[Kind], parsed: argparse.Namespace) -> dict[str, Outcomes]:
    """Measure all scenarios; in each, the servers in turn, so often as wanted."""
    found: dict[str, Outcomes] = {}
    for scenario in dict.fromkeys(parsed.scenario):
        rows = _rows(scenario, kinds)
        outcomes = found[scenario] = {name: Outcome([], []) for name in rows}
        for repeat in range(max(1, parsed.repeat)):
            for name, (kind, measure) in rows.items():
                _say(f"{scenario}, {name}, {repeat + 1} of {parsed.repeat}")
                outcome = outcomes[name]
                try:
                    outcome.repeats.append(_one(bench, kind, measure))
                except (BenchError, PlaitError, ProcessLookupError) as error:
                    outcome.notes.append(str(error))
                except TimeoutError:
                    outcome.notes.append(f"did not manage it within {PATIENCE_SECONDS:g} s")
                outcome.notes += bench.notes
                bench.notes.clear()
        if not parsed.markdown:
            print("\n".join(table.text(scenario, outcomes)), flush=True)
    return found


def _rows(scenario: str, kinds: list[Kind]) -> dict[str, tuple[Kind, Measure]]:
    """Return what is measured in a scenario, and how, by its name in the table."""
    if scenario == NODES:
        own = next(kind for kind in kinds if kind.name == PLAIT)
        return {name: (own, measure) for name, measure in clusters.GROWTH.items()}
    return {kind.name: (kind, SCENARIOS[scenario]) for kind in kinds}


def _one(bench: Bench, kind: Kind, measure: Measure) -> Figures:
    async def patiently() -> Figures:
        async with asyncio.timeout(PATIENCE_SECONDS + bench.seconds):
            return await measure(bench, kind)

    try:
        return run_fast(patiently())
    finally:
        gc.collect()


def pin() -> int | None:
    """Leave one processor to the servers, and take another; return that of the servers."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2 or shutil.which("taskset") is None:
        why = "there is only one processor" if len(cores) < 2 else "taskset is missing"
        _say(f"{why}, so servers and load share what there is: figures will be worse")
        return None
    os.sched_setaffinity(0, {cores[1]})
    return cores[0]


def raise_descriptors() -> None:
    """Let the servers have as many connections as this process may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _document(path: str | None) -> bytes:
    """Return the large document: a file, or the generated one, which is kept."""
    if path is not None:
        return Path(path).read_bytes()
    kept = BUILD / f"document-{EDITS_OF_A_LONG_DOCUMENT}.yjs"
    if not kept.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(long_document(EDITS_OF_A_LONG_DOCUMENT))
    return kept.read_bytes()


def _circumstances(parsed: argparse.Namespace, bench: Bench) -> str:
    day = time.strftime("%Y-%m-%d")
    options: list[Any] = [f"{parsed.seconds:g} s of typing", f"median of {parsed.repeat}"]
    if parsed.plait_options:
        options.append(f"plait serve {parsed.plait_options}")
    if any(scenario == NODES or "cluster" in scenario for scenario in parsed.scenario):
        options.append(f"nodes of Plait share {parsed.cluster_store}")
    compiled = not parsed.not_compiled and compiled_place()
    options.append("Plait compiled" if compiled else "Plait not compiled")
    pinned = "not pinned" if bench.core is None else "servers pinned to one core"
    return (
        f"Measured {day} on {platform.machine()}, Linux {platform.release()}, {os.cpu_count()}"
        f" cores, Python {platform.python_version()}; {pinned}; {', '.join(options)}."
    )


def _say(sentence: str) -> None:
    print(f"bench: {sentence}", file=sys.stderr, flush=True)
