"""Open and close rooms for minutes, and watch the server's memory (`scripts/soak`)."""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

import httpx

from tests.support.authors import Author
from tests.support.frames import UPDATE, update
from tests.support.peer import peer
from tests.support.server import PlaitProcess

VISITORS = 8
REOPENED = 200
"""Rooms that are opened again and again; all others are opened once."""
GROWTH_RATIO = 1.10
GROWTH_BYTES = 5 << 20


async def visit(server: PlaitProcess, until: float, seed: int) -> int:
    """Open and close one room after another; return how many."""
    rng = random.Random(seed)
    count = 0
    while time.monotonic() < until:
        count += 1
        name = f"new/{seed}/{count}"
        if rng.random() < 0.3:
            name = f"again/{rng.randrange(REOPENED)}"
        async with peer(server.ws_url, name) as visitor:
            await visitor.greeted()
            if rng.random() < 0.5:
                author = Author(rng.randrange(1, 1 << 32))
                for _ in range(3):
                    await visitor.send(update(author.type("words " * rng.randrange(1, 100))))
                await visitor.expect(UPDATE)
    return count


async def watch(server: PlaitProcess, minutes: int) -> list[int]:
    """Print the memory after each minute; return all of them in bytes."""
    seen: list[int] = []
    async with httpx.AsyncClient() as http:
        for minute in range(1, minutes + 1):
            await asyncio.wait([asyncio.create_task(asyncio.Event().wait())], timeout=60)
            seen.append(server.rss_bytes())
            rooms = (await http.get(f"{server.url}/readyz")).json()["rooms"]
            print(f"minute {minute}: {seen[-1] / 1e6:.1f} MB, {rooms} rooms open", flush=True)
    return seen


async def soak(minutes: int) -> int:
    """Return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        options = ("--idle-seconds", "2", "--log-level", "warning")
        async with PlaitProcess(Path(folder), *options) as server:
            until = time.monotonic() + 60 * minutes
            visits = [asyncio.create_task(visit(server, until, seed)) for seed in range(VISITORS)]
            seen = await watch(server, minutes)
            count = sum(await asyncio.gather(*visits))
    reference = seen[min(1, len(seen) - 1)]
    fine = seen[-1] <= reference * GROWTH_RATIO + GROWTH_BYTES
    print(f"{count} rooms opened and closed; {reference / 1e6:.1f} MB at minute two,", end=" ")
    print(f"{seen[-1] / 1e6:.1f} MB at the end: {'as it should be' if fine else 'IT GREW'}")
    return 0 if fine else 1


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=int, default=10)
    return asyncio.run(soak(max(1, parser.parse_args().minutes)))


if __name__ == "__main__":
    sys.exit(main())
