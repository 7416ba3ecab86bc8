"""How long editors are away while the nodes behind a load balancer are restarted, one after the
other: two nodes with PostgreSQL and Redis, and a balancer with its configuration of `deploy/`.

Editors are real y-websocket clients with their own pauses, all in one process of Node. An editor is
away from the moment at which the server's close frame, or the end of its connection, reaches it
until it is synced again. All processes share this machine; so a node is started again when editors
are back, since starting takes a second of a processor, which would be taken from them.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

import httpx

from scripts.benchmarks.balancers import FILES, NODES, Certificate, kind
from scripts.benchmarks.clusters import POSTGRESQL, Cluster
from scripts.benchmarks.main import raise_descriptors
from scripts.benchmarks.servers import LOOPBACK, BenchError, Server, free_port, plait
from tests.support.drivers import Driver

WAYS = ("SIGTERM", "SIGKILL")
CLIENTS = {"3": "v3", "1": "v1"}
TYPE_SECONDS = 1.0
"""Between two edits of one editor, in the mean."""
READY_SECONDS = 60.0
"""How long a node gets to be ready after its start."""
QUIET_SECONDS = 5.0
"""Between the moment at which a node is ready again, which the balancer has to notice, and the next
restart.
"""


def main() -> int:
    """Measure and print; return 0, or 1 if an edit was lost or documents differ."""
    parser = argparse.ArgumentParser(prog="scripts/uptime", description=__doc__)
    parser.add_argument(
        "--balancer", nargs="+", choices=FILES, default=list(FILES), help="default: all"
    )
    parser.add_argument(
        "--way", nargs="+", choices=WAYS, default=list(WAYS), help="how nodes end (default: both)"
    )
    parser.add_argument("--editors", type=int, default=100, metavar="N", help="default: 100")
    parser.add_argument("--rooms", type=int, default=25, metavar="N", help="default: 25")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="rounds (default: 1)")
    parser.add_argument(
        "--client", choices=CLIENTS, default="3", help="version of y-websocket (default: 3)"
    )
    parser.add_argument("--absences", action="store_true", help="print each of them")
    parser.add_argument("--not-compiled", action="store_true", help="run Plait as Python")
    parsed = parser.parse_args()
    raise_descriptors()
    try:
        return max(asyncio.run(_measure(name, parsed)) for name in parsed.balancer)
    except BenchError as error:
        print(f"uptime: {error}", file=sys.stderr)
        return 1


async def _measure(balancer: str, parsed: argparse.Namespace) -> int:
    options = ["--allow-anonymous", "--trusted-proxies", LOOPBACK, "--log-level", "error"]
    nodes = Cluster(plait(options, compiled=not parsed.not_compiled), NODES, None, POSTGRESQL)
    certificate = Certificate()
    async with nodes:
        ports = [node.port for node in nodes.nodes]
        before = kind(balancer, ports, certificate, free_port(), 3 * parsed.editors + 100)
        async with Server(before, None) as front, Driver("uptime.mjs") as driver:
            where = {
                "version": CLIENTS[parsed.client],
                "url": f"wss://{LOOPBACK}:{front.port}/ws",
                "ca": certificate.authority.cert_pem.bytes().decode(),
                "rooms": parsed.rooms,
            }
            opened = await driver.ask("open", editors=parsed.editors, **where)
            if not opened["synced"]:
                raise BenchError("editors do not come in")
            await driver.ask("type", seconds=TYPE_SECONDS)
            print(
                f"{balancer}: {parsed.editors} editors (y-websocket {parsed.client}) in"
                f" {parsed.rooms} rooms; load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
            for way in parsed.way:
                for _ in range(parsed.repeat):
                    await _round(way, nodes, driver, parsed)
            return _settled(await driver.ask("settle", **where))


async def _round(way: str, nodes: Cluster, driver: Driver, parsed: argparse.Namespace) -> None:
    await driver.ask("mark")
    begun = time.monotonic()
    for node in nodes.nodes:
        await (node.kill() if way == "SIGKILL" else node.stop())
        await _there(driver)
        await node.start()
        await _ready(node)
        await asyncio.sleep(QUIET_SECONDS)
    await _there(driver)
    took = time.monotonic() - begun
    absences = await driver.ask("report")
    _print(way, took, absences, parsed)


async def _there(driver: Driver) -> None:
    if not (await driver.ask("there"))["synced"]:
        raise BenchError("editors do not come back")


async def _ready(node: Server) -> None:
    async with httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{node.port}") as http:
        deadline = time.monotonic() + READY_SECONDS
        while (await http.get("/readyz")).status_code != 200:
            if time.monotonic() > deadline:
                raise BenchError("a node does not get ready")
            await asyncio.sleep(0.05)


def _print(
    way: str, took: float, absences: Sequence[dict[str, Any]], parsed: argparse.Namespace
) -> None:
    away = [each["away"] for each in absences]
    if not away:
        raise BenchError("no editor was on these nodes")
    parts = ", ".join(
        f"{part} {fmean(each[part] for each in absences):.3f}"
        for part in ("pause", "handshake", "sync")
    )
    print(
        f"  {way}: away {fmean(away):.3f} s in the mean ({parts}), {median(away):.3f} s in the"
        f" median, {max(away):.3f} s at worst; {len(away)} absences,"
        f" {sum(each['failed'] for each in absences)} failed handshakes; connected"
        f" {1 - sum(away) / (took * parsed.editors):.2%} of client-seconds in {took:.0f} s; load"
        f" {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    if parsed.absences:
        start = min(each["at"] for each in absences)
        for each in sorted(absences, key=lambda each: each["at"]):
            print(
                f"    at {each['at'] - start:7.3f}: away {each['away']:.3f} = pause"
                f" {each['pause']:.3f} + handshake {each['handshake']:.3f} + sync"
                f" {each['sync']:.3f}; {each['failed']} failed, code {each['code']}"
            )


def _settled(found: dict[str, Any]) -> int:
    lost = found["written"] - found["kept"]
    same = "documents are equal" if found["settled"] else "documents DIFFER"
    print(f"  {found['written']} edits, {lost} lost; {same}", flush=True)
    return 0 if found["settled"] and not lost else 1
