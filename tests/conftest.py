"""Fail fast when an editable install points at another checkout; share what takes long to start."""

import asyncio
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import plait.server
from tests.support.postgres import PostgresServer

ROOT = Path(__file__).resolve().parent.parent
HOMES = (ROOT / "server", ROOT / "build" / "compiled" / "plait" / "server")
"""Where the source is, and what `scripts/compile` has made of it."""
if Path(plait.server.__file__).resolve().parent not in HOMES:
    raise RuntimeError(f"plait is imported from {plait.server.__file__}; run pip install -e {ROOT}")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server for all tests that leave it as it is. It does not wait for the disk."""
    server = PostgresServer(fsync=False)
    # In a thread, since a test that asks for it may have a loop running in this one.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(server.start())).result()
    yield server
    server.dispose()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """The URL of a store that nobody has made yet."""
    return postgres_server.url(f"test_{uuid.uuid4().hex}")
