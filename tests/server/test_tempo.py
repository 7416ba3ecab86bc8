"""How often a room speaks."""

import asyncio
from collections.abc import Callable

from plait.server.tempo import GAP_SECONDS, Tempo
from tests.support.deadlines import DEADLINE_SECONDS


class FakeLoop:
    """What `Tempo` asks of a loop."""

    def __init__(self) -> None:
        self.now = 100.0
        self.called: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, call: Callable[[], None]) -> None:
        self.called.append((self.now, call))

    def call_at(self, when: float, call: Callable[[], None]) -> None:
        self.called.append((when, call))


def test_a_room_in_which_people_type_speaks_at_once() -> None:
    loop = FakeLoop()
    tempo = Tempo(loop)  # type: ignore[arg-type]
    for _ in range(3):
        tempo(lambda: None)
        loop.now += GAP_SECONDS
    assert [round(when - 100, 6) for when, _ in loop.called] == [0, GAP_SECONDS, 2 * GAP_SECONDS]


def test_a_room_that_is_flooded_speaks_no_more_than_so_often() -> None:
    loop = FakeLoop()
    tempo = Tempo(loop)  # type: ignore[arg-type]
    for _ in range(1000):
        tempo(lambda: None)
        loop.now = max(loop.now + 0.0001, loop.called[-1][0])  # It speaks, and is told more.
    times = [when for when, _ in loop.called]
    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert min(gaps) > GAP_SECONDS * 0.99
    assert max(gaps) < GAP_SECONDS * 1.01, "and no less often"


async def test_it_works_with_a_loop() -> None:
    tempo = Tempo(asyncio.get_running_loop())
    for _ in range(3):
        spoken = asyncio.Event()
        tempo(spoken.set)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await spoken.wait()
