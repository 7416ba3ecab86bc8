"""Give tests real servers, and clean up after them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import PlaitProcess

OpenServer = Callable[..., Awaitable[PlaitProcess]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is about sockets both ways, and everything else the other way only with --long."""
    marks = metafunc.definition.iter_markers("parametrize")
    chosen = any("sockets" in mark.args[0] for mark in marks)
    if "sockets" in metafunc.fixturenames and not chosen:
        both = next(metafunc.definition.iter_markers("both_ways"), None)
        other = pytest.param("asgi", marks=() if both else pytest.mark.long)
        metafunc.parametrize("sockets", ["direct", other], indirect=True, scope="module")


@pytest.fixture(scope="module")
def sockets(request: pytest.FixtureRequest) -> str:
    """How the server carries frames."""
    return str(request.param)


@pytest.fixture
async def open_server(tmp_path: Path, sockets: str) -> AsyncIterator[OpenServer]:
    """A function that starts a server with options; all are ended with the test."""
    servers: list[PlaitProcess] = []
    async with AsyncExitStack() as stack:

        async def open_server(*options: str, **how: Any) -> PlaitProcess:
            folder = tmp_path / f"server{len(servers)}"
            options = ("--sockets", sockets, *options)
            servers.append(PlaitProcess(folder, *options, **how))
            return await stack.enter_async_context(servers[-1])

        yield open_server
    for server in servers:
        print(f"--- what {server.url} logged\n{server.stderr}")  # pytest shows it if a test failed


@pytest.fixture
async def plait_server(open_server: OpenServer) -> PlaitProcess:
    """A server that runs, with a store of its own in the test's folder."""
    return await open_server()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory, sockets: str) -> Iterator[PlaitProcess]:
    """A server for all tests of a module that need nothing but a room of their own in it. It has to
    be well to the end.
    """
    server = PlaitProcess(tmp_path_factory.mktemp("shared"), "--sockets", sockets)
    asyncio.run(server.start())
    try:
        yield server
        asyncio.run(server.stop())
    finally:
        if server.running:
            asyncio.run(server.kill())
        print(f"--- what {server.url} logged\n{server.stderr}")


@pytest.fixture
def room(request: pytest.FixtureRequest) -> str:
    """The name of a room that no other test uses."""
    return str(request.node.name)
