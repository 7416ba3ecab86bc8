"""Plays many editors against a server, and tells what they saw.

A run has up to four parts: a document is put into each room, all editors connect, some of them type
for a while, and what is still on its way is waited for. Typing is either paced (each writer makes
so many edits a second, whatever becomes of them) or a flood: a writer sends a window of edits as
soon as the room has delivered enough of those before.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum

from plait.server.editors import Editor, Room, Tally
from plait.server.machine import quiet_collector, require_descriptors, require_ports
from plait.server.scenarios import Result, Scenario
from plait.server.target import DialFailed, LoadFailed, Target

TICK_SECONDS = 0.001
"""Between two looks at what is due. Writers are late by up to this."""
FLOOD_TICK_SECONDS = 0.0005
PROGRESS_SECONDS = 0.1
DRAIN_SECONDS = 10.0
"""How long edits that are still on their way are waited for."""
ACKNOWLEDGEMENT_SECONDS = 2.0
"""How long the last acknowledgements are waited for, if the server gives any."""
FIRST_CLIENT = 1000
"""Above those of documents that `typist.long_document` makes."""

Progress = Callable[[str, int, int], None]
"""`plait.server.terminal.Terminal.progress`: what is counted, how many, of how many."""


class Phase(StrEnum):
    """The moments of a run at which somebody may want to look at the server."""

    READY = "ready"
    """Nobody but the editors that put documents into rooms is connected."""
    CONNECTED = "connected"
    """Everybody is, and nobody has typed."""
    DONE = "done"
    """All is delivered, and everybody is still connected."""


def no_progress(what: str, done: int, total: int) -> None:
    """Say nothing: a `Progress` for those who don't look."""


def nobody(phase: Phase) -> None:
    """Look at nothing: what `Load` calls at each phase if nobody wants to know."""


class Load:
    """One run of a scenario against a server, or against the nodes of a cluster.

    Args:
        targets: the server, or its nodes. Editors of a room are spread over them, each room
            beginning with another one.
        scenario: what to do there.
        together: all editors of a room are on one node, rooms are spread.
        prefix: of the names of rooms; they go on with a number.
        progress: is told how far it is.
        watch: is called at each phase, while nothing else happens here.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        scenario: Scenario,
        *,
        together: bool = False,
        prefix: str | None = None,
        progress: Progress = no_progress,
        watch: Callable[[Phase], None] = nobody,
    ) -> None:
        self._scenario = scenario
        self._progress = progress
        self._watch = watch
        self._tally = Tally()
        self._result = Result(scenario)
        prefix = prefix or f"bench-{random.SystemRandom().randrange(1 << 32):08x}-"
        self._rooms = [Room(f"{prefix}{number}") for number in range(scenario.rooms)]
        self._seeders = [
            Editor(targets[place % len(targets)], room, FIRST_CLIENT - 1, self._tally)
            for place, room in enumerate(self._rooms)
            if scenario.document
        ]
        self.editors = [
            Editor(
                targets[(place if together else place + number) % len(targets)],
                room,
                FIRST_CLIENT + number,
                self._tally,
            )
            for place, room in enumerate(self._rooms)
            for number in range(scenario.clients)
        ]
        self._told = 0.0
        self._presence_due = 0.0

    async def run(self) -> Result:
        """Do all of it, and leave.

        Raises:
            LoadFailed: the server can't be reached or refuses everybody, or this machine has too
                few descriptors or ports for so many connections.
        """
        everybody = [*self._seeders, *self.editors]
        require_descriptors(len(everybody))
        # A port serves once for each address that is dialled.
        require_ports(max(Counter(editor.target for editor in everybody).values()))
        try:
            await self._seed()
            with quiet_collector():
                await self._connect()
                await self._measure()
        finally:
            for editor in everybody:
                editor.leave()
        return self._finish()

    async def _seed(self) -> None:
        """Put the document into every room."""
        for done, seeder in enumerate(self._seeders):
            self._progress("documents uploaded", done, len(self._seeders))
            try:
                await seeder.open()
                held = await seeder.replace(self._scenario.document)
            except DialFailed as error:
                raise LoadFailed(f"the document can't be put into a room: {error}") from None
            if held < len(self._scenario.document) // 4:
                raise LoadFailed(
                    f"the server gives back {held:,} bytes of a document of"
                    f" {len(self._scenario.document):,}"
                )
            # What the server has just encoded for us must not be what it answers the storm with.
            seeder.touch()
        if self._seeders:
            await asyncio.sleep(self._scenario.settle)
        self._tally.syncs.clear()
        self._watch(Phase.READY)

    async def _connect(self) -> None:
        """Open all connections, some at a time; the first one to each node alone, to see whether
        that works.
        """
        start, cpu = time.monotonic(), time.process_time()
        first = {editor.target: editor for editor in reversed(self.editors)}
        for target, editor in reversed(first.items()):
            try:
                await editor.open()
            except DialFailed as error:
                raise LoadFailed(f"{target.url} can't be used: {error}") from None
        waiting = iter([each for each in self.editors if first[each.target] is not each])
        failures = self._result.failures

        async def dial() -> None:
            for editor in waiting:
                try:
                    await editor.open()
                except DialFailed as error:
                    failures[str(error)] += 1

        tasks = [asyncio.create_task(dial()) for _ in range(self._scenario.dial)]
        while True:
            done = len(self._tally.syncs) + failures.total()
            self._progress("editors connected", done, len(self.editors))
            _, running = await asyncio.wait(tasks, timeout=PROGRESS_SECONDS)
            if not running:
                break
        for task in tasks:
            task.result()
        self._result.connected = len(self._tally.syncs)
        self._result.connect_seconds = time.monotonic() - start
        self._result.busy = (time.process_time() - cpu) / self._result.connect_seconds
        self._result.sync.record(self._tally.syncs)
        self._watch(Phase.CONNECTED)

    async def _measure(self) -> None:
        """Type, and wait until all is delivered."""
        scenario, result = self._scenario, self._result
        start, cpu = time.monotonic(), time.process_time()
        if scenario.seconds and scenario.writers:
            end = start + scenario.seconds
            await (self._type(start, end) if scenario.rate else self._flood(start, end))
            await self._drain(start)
            result.busy = (time.process_time() - cpu) / (time.monotonic() - start)
        elif scenario.seconds:
            await asyncio.sleep(scenario.seconds)
        self._watch(Phase.DONE)

    async def _type(self, start: float, end: float) -> None:
        """Let writers make edits at their rate, one after another."""
        writers = self._writers()
        random.Random(1).shuffle(writers)
        per_second = len(writers) * self._scenario.rate
        number, late = 0, 0.0
        while (now := time.monotonic()) < end:
            due = int((now - start) * per_second)
            if number < due:
                late = max(late, now - start - (number + 1) / per_second)
            while number < due:
                writer = writers[number % len(writers)]
                number += 1
                self._edit(writer)
            self._tell(now, start)
            await asyncio.sleep(TICK_SECONDS)
        self._result.late_seconds = late

    async def _flood(self, start: float, end: float) -> None:
        """Let writers send a window at a time, as fast as their rooms deliver."""
        window = self._scenario.window
        by_room: dict[str, list[Editor]] = {}
        for writer in self._writers():
            by_room.setdefault(writer.room.name, []).append(writer)
        groups = [(writers[0].room, writers) for writers in by_room.values()]
        while (now := time.monotonic()) < end:
            for room, writers in groups:
                full = window * len(writers) * (room.members - 1)
                if room.expected - room.delivered > 2 * full:
                    continue
                for writer in writers:
                    for _ in range(window):
                        self._edit(writer)
            self._tell(now, start)
            await asyncio.sleep(FLOOD_TICK_SECONDS)

    def _edit(self, writer: Editor) -> None:
        """Let a writer type, and tell where its cursor is if it is time for that."""
        if not writer.connected:
            return
        writer.type()
        self._presence_due += self._scenario.presence
        if self._presence_due >= 1:
            self._presence_due -= 1
            writer.move()

    def _writers(self) -> list[Editor]:
        """Return the first connected editors of each room."""
        found: list[Editor] = []
        taken: Counter[str] = Counter()
        for editor in self.editors:
            name = editor.room.name
            if editor.connected and taken[name] < self._scenario.writers:
                taken[name] += 1
                found.append(editor)
        if not found:
            raise LoadFailed("nobody is connected who could type")
        return found

    async def _drain(self, start: float) -> None:
        """Wait until everything has arrived, and note when that was."""
        stop = time.monotonic() + DRAIN_SECONDS
        last, before = time.monotonic(), self._delivered()
        while self._missing() > 0 and time.monotonic() < stop:
            await asyncio.sleep(TICK_SECONDS)
            if (delivered := self._delivered()) != before:
                last, before = time.monotonic(), delivered
        self._result.seconds = last - start
        stop = time.monotonic() + ACKNOWLEDGEMENT_SECONDS
        self._fold()
        while 0 < self._result.acknowledgement.count < self._tally.sent:
            if time.monotonic() > stop:
                break
            await asyncio.sleep(TICK_SECONDS)
            self._fold()

    def _missing(self) -> int:
        return sum(room.expected for room in self._rooms) - self._delivered()

    def _delivered(self) -> int:
        return sum(room.delivered for room in self._rooms)

    def _tell(self, now: float, start: float) -> None:
        """Say how far it is, and put latencies away, from time to time."""
        if now - self._told < PROGRESS_SECONDS:
            return
        self._told = now
        self._fold()
        seen = f"{self._result.latency.count:,} deliveries; seconds"
        self._progress(seen, int(now - start), int(self._scenario.seconds))

    def _fold(self) -> None:
        """Put latencies into histograms."""
        tally = self._tally
        deliveries, tally.deliveries = tally.deliveries, []
        acknowledgements, tally.acknowledgements = tally.acknowledgements, []
        self._result.latency.record(deliveries)
        self._result.acknowledgement.record(acknowledgements)

    def _finish(self) -> Result:
        self._fold()
        tally, result = self._tally, self._result
        result.edits, result.presence = tally.sent, tally.presence
        result.frames, result.bytes = tally.frames, tally.bytes
        result.closed = tally.closed
        result.expected = sum(room.expected for room in self._rooms)
        result.delivered = self._delivered()
        return result
