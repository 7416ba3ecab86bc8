"""Random sessions of real clients, each repeatable by its seed: see tests/node/sessions.mjs."""

import asyncio
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from tests.support.drivers import Driver
from tests.support.server import PLAIT, PlaitProcess, environment


async def run_sessions(
    server: PlaitProcess,
    seeds: Iterable[int],
    show: Callable[[str], None] = lambda line: None,
) -> tuple[list[str], Counter[str]]:
    """Run sessions on a server, and restart it; return what is wrong, each with its seed, and how
    often what happened.
    """
    problems: list[str] = []
    happened: Counter[str] = Counter()
    place = {"api": server.url, "ws": f"{server.ws_url}/ws"}

    def note(seed: int, answer: Any, when: str = "") -> None:
        found = [f"seed {seed}: {when}{each}" for each in answer["problems"]]
        for each in found:
            show(each)
        problems.extend(found)

    async with Driver("sessions.mjs") as clients:
        fine: dict[int, tuple[Any, ...]] = {}
        for seed in seeds:
            answer = await clients.ask("session", room=f"session {seed}", seed=seed, **place)
            note(seed, answer)
            happened.update(answer["happened"])
            if not answer["problems"]:
                fine[seed] = ()
        for when in ("after a restart: ", "after another one: ", "from a snapshot: "):
            await server.stop()
            if when == "from a snapshot: ":
                compact = [*PLAIT, "store", "compact", "--store", server.store_url]
                await asyncio.to_thread(
                    subprocess.run, compact, check=True, env=environment(), capture_output=True
                )
            await server.start()
            for seed, before in fine.items():
                answer = await clients.ask("compare", room=f"session {seed}", **place)
                note(seed, answer, when)
                fine[seed] = answer.get("etag"), answer.get("bytes")
                if before and before != fine[seed]:
                    note(seed, {"problems": ["the state has other bytes than before"]}, when)
    return problems, happened
