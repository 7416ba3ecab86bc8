"""Compares editors that are connected with programs that ask over HTTP once a second.

Both get the same edits of the same writers. A poller asks for what it misses beyond what it has
(`state_vector`), on a connection that it keeps, and sends the ETag of the answer before: when there
is nothing new, the server answers 304 without a body. That is the least that polling costs Plait.
"""

import asyncio
import base64
import random
from dataclasses import dataclass, replace

from plait.server.editors import STAMP_BYTES, stamps
from plait.server.load import FIRST_CLIENT, Load, Phase
from plait.server.scenarios import Scenario
from plait.server.wire.state_vector import encode_state_vector
from scripts.benchmarks.figures import Figures
from scripts.benchmarks.measures import Usage
from scripts.benchmarks.runs import WARM_UP, Bench, put
from scripts.benchmarks.servers import LOOPBACK, PLAIT, BenchError, Kind, Server

EDITORS = Scenario(rooms=100, clients=10, writers=1, rate=1)
"""Each room has a writer, and nine who want to see what it writes."""
EVERY_SECONDS = 1.0

_PREFIX = "bench-polled-"


@dataclass(slots=True)
class Poller:
    """A program that keeps up with a document by asking for it."""

    room: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    clock: int = 0
    """How much it has of the room's writer."""
    etag: str = ""
    received: int = 0
    """Edits."""

    async def poll(self) -> None:
        """Ask once.

        Raises:
            BenchError: the answer is none that a poller can expect.
        """
        known = {FIRST_CLIENT: self.clock} if self.clock else {}
        vector = base64.urlsafe_b64encode(encode_state_vector(known)).decode()
        condition = f"if-none-match: {self.etag}\r\n" if self.etag else ""
        self.writer.write(
            f"GET /api/docs/{self.room}/state?state_vector={vector} HTTP/1.1\r\n"
            f"host: {LOOPBACK}\r\n{condition}\r\n".encode()
        )
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        status = int(head[0].split()[1])
        fields = dict(line.split(": ", 1) for line in head[1:] if line)
        body = await self.reader.readexactly(int(fields.get("content-length", 0)))
        if status == 200:
            self.etag = fields["etag"]
            edits = len(stamps(body))
            self.clock += edits * STAMP_BYTES
            self.received += edits
        elif status not in (304, 404):  # A document that nobody has written into yet is unknown.
            raise BenchError(f"polling was answered with {status}: {body[:100]!r}")

    async def keep_polling(self, started: asyncio.Event, offset: float) -> None:
        """Poll until cancelled, beginning so much after `started`."""
        await started.wait()
        loop = asyncio.get_running_loop()
        due = loop.time() + offset
        while True:
            await asyncio.sleep(due - loop.time())
            await self.poll()
            due = max(due + EVERY_SECONDS, loop.time())


async def polling(bench: Bench, kind: Kind) -> Figures:
    """Compare the server's processor time for editors and for pollers that get the same edits."""
    if kind.name != PLAIT:
        raise BenchError("its documents can't be polled")
    editors = replace(EDITORS, seconds=max(bench.seconds, 5.0))
    async with Server(kind, bench.core) as server:
        await put(bench, server, WARM_UP)
        seen = await put(bench, server, editors)
    async with Server(kind, bench.core) as server:
        await put(bench, server, WARM_UP)
        polled, received = await _polled(server, editors)
    editing = seen.cpu(Phase.CONNECTED, Phase.DONE)
    return {
        "polling_cpu": polled,
        "editing_cpu": editing,
        "share": editing / polled,
        "lost": max(0, seen.result.expected - received) + seen.result.lost,
    }


async def _polled(server: Server, editors: Scenario) -> tuple[float, int]:
    """Return the processor time for a load whose readers poll, and the edits that they got."""
    usages: dict[Phase, Usage] = {}
    started = asyncio.Event()

    def watch(phase: Phase) -> None:
        usages[phase] = server.usage()
        if phase is Phase.CONNECTED:
            started.set()

    writers = replace(editors, clients=1)
    pollers = [
        Poller(f"{_PREFIX}{room}", *await asyncio.open_connection(LOOPBACK, server.port))
        for room in range(editors.rooms)
        for _ in range(editors.clients - 1)
    ]
    rng = random.Random(1)
    offsets = [rng.random() * EVERY_SECONDS for _ in pollers]
    tasks = [
        asyncio.create_task(poller.keep_polling(started, offset))
        for poller, offset in zip(pollers, offsets, strict=True)
    ]
    await Load(server.targets, writers, prefix=_PREFIX, watch=watch).run()
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(outcome, asyncio.CancelledError) and outcome is not None:
            raise outcome
    cpu = usages[Phase.DONE].cpu - usages[Phase.CONNECTED].cpu
    # What was written within the last second was not asked for yet: ask once more, uncounted. A
    # poller that was interrupted has half an answer on its connection, so it takes a new one.
    for poller in pollers:
        poller.writer.close()
        poller.reader, poller.writer = await asyncio.open_connection(LOOPBACK, server.port)
        await poller.poll()
        poller.writer.close()
    return cpu, sum(poller.received for poller in pollers)
