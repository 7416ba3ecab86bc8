"""Fail fast when an editable install points at another checkout; leave out what takes long; share
what takes long to start.
"""

import asyncio
import signal
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hypothesis
import pytest

import plait.server
from tests.support.postgres import PostgresServer

LEFT_OUT = pytest.StashKey[int]()
"""How many tests were."""
ROOT = Path(__file__).resolve().parent.parent
HOMES = (ROOT / "server", ROOT / "build" / "compiled" / "plait" / "server")
"""Where the source is, and what `scripts/compile` has made of it."""
if Path(plait.server.__file__).resolve().parent not in HOMES:
    raise RuntimeError(f"plait is imported from {plait.server.__file__}; run pip install -e {ROOT}")

hypothesis.settings.register_profile(
    "no clock", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
"""Its own bounds in seconds are too short for a busy machine, and for the first run on any."""
hypothesis.settings.load_profile("no clock")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run also what takes long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked as long."""
    if config.getoption("--long"):
        return
    left_out = [item for item in items if item.get_closest_marker("long")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("long")]
        config.stash[LEFT_OUT] = len(left_out)


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """Say so."""
    count = config.stash.get(LEFT_OUT, 0)
    return [f"{count} long ones are left out; --long runs them, too"] if count else []


@pytest.fixture(scope="session")
def rounds(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """How many random cases a test tries, given how many it tries with --long: a fifth of them."""
    return lambda count: count if request.config.getoption("--long") else -(-count // 5)


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in the background so, and all servers and commands would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
