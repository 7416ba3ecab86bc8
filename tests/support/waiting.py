"""Wait for a condition instead of for a time."""

import asyncio
from collections.abc import Callable

DEADLINE_SECONDS = 10.0


async def until(condition: Callable[[], object], seconds: float = DEADLINE_SECONDS) -> None:
    """Return once a condition holds.

    Raises:
        AssertionError: it did not hold in time.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "the condition did not come true"
        await asyncio.sleep(0.005)
