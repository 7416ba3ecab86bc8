"""Give each test a store of every kind, and further objects with the same content."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from pathlib import Path

import pytest

from plait.persistence.memory import MemoryStore
from plait.persistence.postgres import PostgresStore
from plait.persistence.sqlite import SqliteStore
from plait.persistence.store import OUTBOX_MAX, Store

OpenAgain = Callable[[], Awaitable[Store]]


class Opener:
    """Open stores of one kind that share their content, as several processes do."""

    def __init__(self, kind: str, folder: Path, postgres_url: str) -> None:
        self._kind = kind
        self._postgres_url = postgres_url
        self._path = folder / "store.db"
        self._memory = MemoryStore()
        self.busy_seconds = 0.2
        """How long an SQLite store waits for another."""
        self.seconds = 0.0
        """The time by which removals are remembered."""
        self._opened: list[Store] = []

    async def open(self, announce: Collection[str] = (), outbox_max: int = OUTBOX_MAX) -> Store:
        store: Store
        if self._kind == "sqlite":
            store = SqliteStore(
                self._path,
                busy_seconds=self.busy_seconds,
                announce=announce,
                outbox_max=outbox_max,
                wall=lambda: self.seconds,
            )
        elif self._kind == "postgres":
            store = PostgresStore(
                self._postgres_url,
                announce=announce,
                outbox_max=outbox_max,
                wall=lambda: self.seconds,
            )
        else:
            store = MemoryStore(announce=announce, outbox_max=outbox_max, wall=lambda: self.seconds)
            store._content = self._memory._content
        await store.open()
        self._opened.append(store)
        return store

    async def close(self) -> None:
        for store in self._opened:
            await store.close()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def opener(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    # Asked for here, so that tests of the others start no server.
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    opener = Opener(request.param, tmp_path, url)
    yield opener
    await opener.close()


@pytest.fixture
async def store(opener: Opener) -> Store:
    return await opener.open()


@pytest.fixture
async def other(opener: Opener, store: Store) -> Store:
    """Another writer of the same content."""
    return await opener.open()


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """An SQLite store that does not wait long for locks."""
    store = SqliteStore(tmp_path / "store.db", busy_seconds=0.05)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[PostgresStore]:
    """A PostgreSQL store in a schema of its own."""
    store = PostgresStore(postgres_url)
    await store.open()
    yield store
    await store.close()
