"""Give tests of webhooks a clock, and stores of every kind."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from plait.persistence import ANNOUNCED, open_store
from plait.persistence.memory import MemoryStore
from tests.support.clock import FakeClock
from tests.support.webhooks import Pair


@pytest.fixture
def clock() -> FakeClock:
    """Today's time, since another's implementation verifies timestamps."""
    clock = FakeClock()
    clock.now = time.time()
    return clock


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    """Two stores with the same content, as two nodes have them."""
    if request.param == "memory":
        first = MemoryStore(announce=ANNOUNCED)
        yield first, first.sibling()
        return
    url = f"sqlite:///{tmp_path / 'plait.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    async with AsyncExitStack() as stack:
        pair = open_store(url, announce=ANNOUNCED), open_store(url, announce=ANNOUNCED)
        for store in pair:
            await store.open()
            stack.push_async_callback(store.close)
        yield pair
