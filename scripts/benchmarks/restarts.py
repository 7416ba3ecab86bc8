"""What happens after a server was stopped and started again."""

import asyncio
import time
from dataclasses import replace
from statistics import median

from plait.server.editors import Editor, Room, Tally
from plait.server.load import FIRST_CLIENT, Phase
from plait.server.scenarios import PRESETS, Scenario
from scripts.benchmarks.figures import Figures
from scripts.benchmarks.runs import SETTLE_SECONDS, Bench, put
from scripts.benchmarks.servers import EDITOR_SECONDS, BenchError, Kind, Server

STARTS = 3
"""How often a document is opened in a fresh process: once alone would be chance."""
REST_SECONDS = 10.0
"""How long a server has, after a document was stored, to tidy up before it is stopped."""
LOOK_SECONDS = 0.0005
"""Between two looks at whether the document has come."""
AT_ONCE = 1000
"""Connections that are being opened at the same time when all come back."""

_PREFIX = "bench-again-"


async def cold_open(bench: Bench, kind: Kind) -> Figures:
    """Open a large document that is stored, in processes that have just started."""
    if not kind.stores:
        raise BenchError("it stores nothing")
    upload = Scenario(
        rooms=1, clients=1, writers=0, seconds=0, document=bench.document, settle=SETTLE_SECONDS
    )
    times: dict[str, list[float]] = {"open_ms": [], "empty_ms": []}
    async with Server(kind, bench.core) as server:
        await put(bench, server, upload, _PREFIX)
        await asyncio.sleep(REST_SECONDS)
        for _ in range(STARTS):
            for figure, room, least in (
                ("open_ms", _PREFIX + "0", len(bench.document) // 4),
                ("empty_ms", _PREFIX + "none", 0),
            ):
                await server.stop()
                await server.start()
                times[figure].append(await _opening(server, room, least))
    return {figure: median(each) for figure, each in times.items()}


async def _opening(server: Server, room: str, least: int) -> float:
    """Return how many milliseconds it takes to get a document of at least so many bytes.

    Raises:
        BenchError: it does not come.
    """
    tally = Tally()
    editor = Editor(server.targets[0], Room(room), FIRST_CLIENT, tally)
    start = time.monotonic()
    await editor.open()
    # y-websocket with LevelDB says at once that the document is empty, and sends it a little later.
    while tally.bytes < least:
        await asyncio.sleep(LOOK_SECONDS)
        if time.monotonic() > start + EDITOR_SECONDS:
            raise BenchError(f"the document did not come within {EDITOR_SECONDS:g} s")
    took = time.monotonic() - start
    editor.leave()
    return took * 1e3


async def come_back(bench: Bench, kind: Kind) -> Figures:
    """Let ten thousand editors come back at once to a server that was started again."""
    before = replace(PRESETS["tenk"], seconds=min(bench.seconds, 4.0))
    after = replace(before, seconds=0, writers=0, dial=AT_ONCE)
    async with Server(kind, bench.core) as server:
        await put(bench, server, before, _PREFIX)
        await server.stop()
        await server.start()
        seen = await put(bench, server, after, _PREFIX)
    return {
        "restart_cpu": seen.cpu(Phase.READY, Phase.CONNECTED),
        "restart_seconds": seen.result.connect_seconds,
        "ms_connect": seen.connecting["ms_connect"],
        "failed": seen.connecting["failed"],
    }
