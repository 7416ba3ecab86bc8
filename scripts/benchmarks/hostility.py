"""What good clients notice of hostile ones: their latency without and with a thousand attackers.

The server has a processor of its own. Good clients and attackers are a process each on another one,
and the attackers' yields to the good clients': what they would wait for is not the server's fault.
"""

import argparse
import asyncio
import json
import os
import re
import secrets
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import replace
from typing import Any

import jwt

from plait.server.cli_bench import run_fast
from plait.server.load import Load, Phase
from plait.server.scenarios import Scenario
from scripts.benchmarks.attackers import ATTACKS, KINDS, Field, attack
from scripts.benchmarks.main import pin, raise_descriptors
from scripts.benchmarks.servers import BenchError, Server, plait

GOOD = Scenario(rooms=50, clients=10, writers=2, rate=2)
RATIO_MAX = 1.5
"""How many times the latency without attackers it may be with them."""
WARM_UP_SECONDS = 3.0
CONNECTED = "connected"
"""What good clients say when all of them are in their rooms: then attackers begin."""
TOKEN_SECONDS = 3600
TOLD = re.compile(r"^plait_(?:connections_refused|connections_closed|limit_hits)_total\{.*$", re.M)


def main() -> int:
    """Measure and print; return 0, or 1 if good clients had to suffer."""
    parser = argparse.ArgumentParser(prog="scripts/hostile", description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, metavar="N", help="of typing")
    parser.add_argument("--attackers", type=int, default=1000, metavar="N", help="in all")
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=KINDS, help="what they do")
    parser.add_argument("--plait-options", nargs="*", default=[], help="of plait serve")
    parser.add_argument("--role", choices=["good", "bad"], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    raise_descriptors()
    if parsed.role == "good":
        return run_fast(_good(parsed))
    if parsed.role == "bad":
        # The least nice process keeps a processor for 3 ms before it yields to one that has woken.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        return run_fast(_bad(parsed))
    try:
        return asyncio.run(_measure(parsed))
    except BenchError as error:
        print(f"hostile: {error}", file=sys.stderr)
        return 1


# The three processes


def _token(subject: str, docs: str = "*") -> str:
    claims = {
        "sub": subject,
        "exp": int(time.time()) + TOKEN_SECONDS,
        "grants": [{"docs": docs, "access": "write"}],
    }
    return jwt.encode(claims, os.environ["HOSTILE_SECRET"], "HS256")


async def _good(parsed: argparse.Namespace) -> int:
    """Type, and tell how long it took until the others had it."""
    async with asyncio.timeout(parsed.seconds + 120):
        address = f"ws://127.0.0.1:{parsed.port}/ws"
        targets = [
            replace(_target(address), token=_token(f"good-{number}"))
            for number in range(GOOD.rooms)
        ]
        scenario = replace(GOOD, seconds=parsed.seconds)
        result = await Load(targets, scenario, together=True, watch=_tell).run()
    figures = {
        "p50_ms": result.latency.percentile(50) / 1e6,
        "p95_ms": result.latency.percentile(95) / 1e6,
        "p98_ms": result.latency.percentile(98) / 1e6,
        "p99_ms": result.latency.percentile(99) / 1e6,
        "delivered": result.delivered,
        "lost": result.lost,
        "connected": result.connected,
        "failed": dict(result.failures + result.closed),
    }
    print(json.dumps(figures), flush=True)
    return 0


def _tell(phase: Phase) -> None:
    if phase is Phase.CONNECTED:
        print(CONNECTED, flush=True)


def _target(address: str) -> Any:
    from plait.server.target import Target

    return Target(address)


async def _bad(parsed: argparse.Namespace) -> int:
    """Attack until standard input ends; tell what became of it."""
    tokens: dict[str, str] = {}

    def token(subject: str) -> str:
        if subject not in tokens:
            tokens[subject] = _token(subject)
        return tokens[subject]

    place = Field(parsed.port, token)
    weight = sum(ATTACKS[kind][0] for kind in parsed.kind)
    tasks = [
        asyncio.create_task(attack(place, kind, number))
        for kind in parsed.kind
        for number in range(round(ATTACKS[kind][0] * parsed.attackers / weight))
    ]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for task in tasks:
        task.cancel()
    print(json.dumps(place.ends), flush=True)
    return 0


async def _measure(parsed: argparse.Namespace) -> int:
    secret = secrets.token_hex(32)
    os.environ["HOSTILE_SECRET"] = secret
    core = pin()
    options = ["--token-secret", secret, "--log-level", "error", *parsed.plait_options]
    async with Server(plait(options), core) as server:
        await _role(parsed, server, "good", "--seconds", "2")  # To warm up.
        started = server.usage()
        before = await _role(parsed, server, "good")
        quiet = server.usage()
        refused = _told(server.port)
        good = await _start(parsed, server, "good")
        assert good.stdout is not None
        await good.stdout.readline()
        bad = await _start(parsed, server, "bad")
        attacked, began = server.usage(), time.monotonic()
        during = await _end(good)
        usage, took = server.usage(), time.monotonic() - began
        out, _ = await bad.communicate(b"")
        told = _told(server.port) - refused
        ends = Counter(json.loads(out))
        await asyncio.sleep(WARM_UP_SECONDS)
        after = server.usage()
    _print(parsed, before, during)
    print(f"server's processor: {(usage.cpu - attacked.cpu) / took:.0%} under attack")
    rss = [round(each.rss / 1e6) for each in (started, quiet, usage, after)]
    print(
        "server's memory: {} MB, {} MB after the quiet run, {} under attack, {} after".format(*rss)
    )
    for title, counts in (("What attackers saw:", ends), ("What the server counted:", told)):
        print(title)
        for what, count in sorted(counts.items()):
            print(f"  {what:60} {count:>9,}")
    suffered = during["p99_ms"] > RATIO_MAX * before["p99_ms"] or bool(during["failed"])
    return 1 if suffered else 0


def _print(parsed: argparse.Namespace, before: dict[str, Any], during: dict[str, Any]) -> None:
    print(f"{GOOD.editors} good clients in {GOOD.rooms} rooms, {parsed.attackers} attackers\n")
    print(f"{'':10} {'without':>10} {'with':>10} {'ratio':>7}")
    for name in ("p50_ms", "p95_ms", "p98_ms", "p99_ms"):
        ratio = during[name] / before[name]
        print(f"{name:10} {before[name]:10.2f} {during[name]:10.2f} {ratio:7.2f}")
    for name in ("delivered", "lost", "connected"):
        print(f"{name:10} {before[name]:10,} {during[name]:10,}")
    for title, figures in (("without", before), ("with", during)):
        for why, count in figures["failed"].items():
            print(f"{count} good clients {title} attackers: {why}")


async def _start(
    parsed: argparse.Namespace, server: Server, role: str, *options: str
) -> asyncio.subprocess.Process:
    common = ["--seconds", str(parsed.seconds), "--attackers", str(parsed.attackers)]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, sys.argv[0], "--role", role, "--port", str(server.port)),
        *(*common, "--kind", *parsed.kind, *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def _role(
    parsed: argparse.Namespace, server: Server, role: str, *options: str
) -> dict[str, Any]:
    return await _end(await _start(parsed, server, role, *options))


async def _end(process: asyncio.subprocess.Process) -> dict[str, Any]:
    out, _ = await process.communicate(b"")
    if process.returncode:
        raise BenchError(f"the good clients failed with {process.returncode}")
    figures: dict[str, Any] = json.loads(out.decode().removeprefix(CONNECTED))
    return figures


def _told(port: int) -> Counter[str]:
    """Return what the server counts of refusals."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    lines = (line.rpartition(" ") for line in TOLD.findall(text))
    return Counter({name: int(float(value)) for name, _, value in lines})
