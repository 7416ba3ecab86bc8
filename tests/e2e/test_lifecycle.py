"""How a server starts, refuses to start, stops, and shares its store."""

import asyncio
import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.e2e.conftest import OpenServer
from tests.support.authors import Author, text_of
from tests.support.deadlines import eventually
from tests.support.frames import UPDATE, update
from tests.support.peer import peer
from tests.support.server import PlaitProcess, refused

RUN_SECONDS = 30


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_a_signal_stores_everything_and_says_good_bye(
    plait_server: PlaitProcess, number: signal.Signals
) -> None:
    typed = Author(1).type("received, and not stored yet")
    async with (
        peer(plait_server.ws_url, "room") as writer,
        peer(plait_server.ws_url, "room") as reader,
    ):
        await writer.greeted()
        await reader.greeted()
        with locked(plait_server):
            await writer.send(update(typed))
            await reader.expect(UPDATE)
            stopping = asyncio.create_task(plait_server.stop(number))
            await eventually(lambda: is_stopping(plait_server), "the signal")
        assert await writer.expect(UPDATE) == typed
        for client in (writer, reader):
            code, reason = await client.closed()
            assert code == 1012
            assert "stopping" in reason
        await stopping
    await plait_server.start()
    async with peer(plait_server.ws_url, "room") as fresh:
        assert text_of(await fresh.state()) == "received, and not stored yet"


async def test_what_could_not_be_stored_at_the_end_is_told(open_server: OpenServer) -> None:
    server = await open_server("--drain-seconds", "0.5", "--log-level", "error")
    async with (
        peer(server.ws_url, "room") as writer,
        peer(server.ws_url, "room") as reader,
    ):
        await writer.greeted()
        await reader.greeted()
        with locked(server):
            await writer.send(update(Author(1).type("lost")))
            await reader.expect(UPDATE)
            assert await server.end() == 1
        code, _ = await writer.closed()
        assert code == 1012
    assert server.stderr.splitlines()[-1].startswith("plait: not everything could be stored: ")
    assert "Traceback" not in server.stderr


async def is_stopping(server: PlaitProcess) -> bool:
    """Whether the server takes nobody in any more."""
    try:
        async with peer(server.ws_url, "another room"):
            return False
    except InvalidStatus as refused:
        assert refused.response.status_code == 503
        return True


@contextmanager
def locked(server: PlaitProcess) -> Iterator[None]:
    """Keep the server from committing, as another process may that uses its store."""
    with closing(sqlite3.connect(server.store_path, isolation_level=None)) as store:
        store.execute("BEGIN IMMEDIATE")
        yield
        store.execute("ROLLBACK")


async def test_health_and_readiness(plait_server: PlaitProcess) -> None:
    async with httpx.AsyncClient(base_url=plait_server.url, timeout=RUN_SECONDS) as http:
        assert (await http.get("/healthz")).json() == {"status": "alive"}
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "ready")
        with locked(plait_server):
            unready = await http.get("/readyz")
            assert (unready.status_code, unready.json()["status"]) == (503, "not ready")
            assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/readyz")).status_code == 200


async def test_servers_on_one_store_follow_one_another(
    plait_server: PlaitProcess, open_server: OpenServer
) -> None:
    other_server = await open_server(store=plait_server.store_path)
    author, other_author = Author(1), Author(2)
    async with (
        peer(plait_server.ws_url, "room") as client,
        peer(other_server.ws_url, "room") as other,
    ):
        await client.greeted()
        await other.greeted()
        for _ in range(3):
            typed = author.type("one ")
            await client.send(update(typed))
            assert await other.expect(UPDATE) == typed
            assert await client.expect(UPDATE) == typed
            other_author.hear(typed)
            typed = other_author.type("two ")
            await other.send(update(typed))
            assert await client.expect(UPDATE) == typed
            assert await other.expect(UPDATE) == typed
            author.hear(typed)
        assert await client.state() == await other.state()
    await plait_server.stop()
    await other_server.stop()


# Refusals to start: one line on standard error, and exit code 2


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = refused("--store", f"sqlite:///{tmp_path}/plait.db", "--port", port)
    assert port in line
    assert "in use" in line


def test_a_store_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    line = refused("--store", f"sqlite:///{tmp_path}/missing/plait.db")
    assert f"{tmp_path}/missing" in line
    assert "mkdir" in line


def test_a_store_that_is_a_folder(tmp_path: Path) -> None:
    assert str(tmp_path) in refused("--store", f"sqlite:///{tmp_path}")


def test_a_store_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "plait.db"
    path.write_text("Dear diary, today I was overwritten by a server. " * 100)
    before = path.read_bytes()
    assert str(path) in refused("--store", f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_store_of_a_kind_that_there_is_not() -> None:
    assert "carrier-pigeon" in refused("--store", "carrier-pigeon://roof")


def test_an_unknown_option() -> None:
    assert "--prot" in refused("--prot=1")


def test_an_unknown_variable() -> None:
    line = refused(PLAIT_PROT="1")
    assert "PLAIT_PROT" in line
    assert "PLAIT_PORT" in line


def test_an_unknown_key(tmp_path: Path) -> None:
    config = tmp_path / "plait.toml"
    config.write_text('stroe = "memory://"\n')
    line = refused("--config", str(config))
    assert "stroe" in line
    assert "store" in line


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "203.0.113.1"])
def test_strangers_are_not_let_in_by_accident(host: str) -> None:
    assert "--allow-anonymous" in refused("--host", host, "--store", "memory://")
