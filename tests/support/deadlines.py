"""Wait for processes, which take their time, and tell what it was that did not happen.

Unrealistic in that a condition is looked at a hundred times a second: what is true for a shorter
while may be missed.
"""

import asyncio
import time
from collections.abc import Callable
from inspect import isawaitable

DEADLINE_SECONDS = 60.0
"""A safety net: it ends what would never end, and says nothing of how long something may take. Two
cores are shared with everything else that runs.
"""

POLL_SECONDS = 0.01


async def eventually(
    condition: Callable[[], object],
    what: str = "the condition",
    seconds: float = DEADLINE_SECONDS,
) -> None:
    """Return as soon as what the condition returns, or what that is the awaitable of, is true.

    Raises:
        AssertionError: it was not in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if isawaitable(value):
            value = await value
        if value:
            return
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds:.0f} s"
        await asyncio.sleep(POLL_SECONDS)
