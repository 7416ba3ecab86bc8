"""The log of a real server, from its first line to its last."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import OpenServer
from tests.support.authors import Author
from tests.support.deadlines import DEADLINE_SECONDS, eventually
from tests.support.frames import UPDATE, update
from tests.support.peer import peer
from tests.support.server import PLAIT, PlaitProcess, environment

SECRET = "0123456789abcdef0123456789abcdef"


def events(text: str) -> list[dict[str, Any]]:
    """Return the events of a log that is JSON, in which nothing else is."""
    found = [json.loads(line) for line in text.splitlines()]
    assert all(each.keys() >= {"at", "level", "logger", "message"} for each in found)
    return found


def said(server: PlaitProcess, part: str) -> list[dict[str, Any]]:
    """Return the events of a server's log whose message has a part."""
    return [each for each in events(server.stderr) if part in each["message"]]


@pytest.fixture(scope="module")
def sockets() -> str:
    """How frames are carried does not matter here."""
    return "direct"


async def test_a_log_as_json_is_json_from_the_first_line_to_the_last(
    open_server: OpenServer,
) -> None:
    """Standard output has one line, in the same form. On the way there are a refusal, which the
    audit log tells, a store that is away, signals, and an error at the end.
    """
    options = ("--log-format", "json", "--drain-seconds", "0.5", "--allow-anonymous")
    server = await open_server("--token-secret", SECRET, *options)
    (announced,) = events(server.stdout)
    assert announced["url"] == server.url
    async with httpx.AsyncClient(base_url=server.url) as http:
        headers = {"authorization": "Bearer wrong"}
        assert (await http.get("/api/docs", headers=headers)).status_code == 401
    await eventually(lambda: said(server, "auth.refused"), "the audit log")
    refused = said(server, "auth.refused")[0]
    assert refused["event"] == "auth.refused" and refused["address"] == "127.0.0.1"
    os.kill(server.pid, signal.SIGHUP)
    await eventually(lambda: said(server, "SIGHUP"), "the signal")
    async with peer(server.ws_url, "room") as writer, peer(server.ws_url, "room") as reader:
        await writer.greeted()
        await reader.greeted()
        with closing(sqlite3.connect(server.store_path, isolation_level=None)) as store:
            store.execute("BEGIN IMMEDIATE")
            await writer.send(update(Author(1).type("lost")))
            await reader.expect(UPDATE)
            assert await server.end() == 1
            store.execute("ROLLBACK")
    last = events(server.stderr)[-1]
    assert last["level"] == "error" and "not everything could be stored" in last["message"]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--no-such-option"], "unrecognized arguments: --no-such-option"),
        (["--port", "x"], "a number is expected"),
        (["--host", "0.0.0.0"], "could read and write every document"),
        (["--store", "sqlite:////no/such/folder/plait.db"], "the store can't be used"),
        (["--config", "/no/such/file"], "can't be read"),
    ],
)
def test_why_it_does_not_start_is_json_as_well(
    options: list[str], part: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [*PLAIT, "serve", "--port", "0", *options],
        env=environment(PLAIT_LOG_FORMAT="json"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert done.returncode == 2 and not done.stdout
    (event,) = events(done.stderr)
    assert event["level"] == "error" and part in event["message"]


async def test_sighup_ends_neither_the_server_nor_what_it_does(open_server: OpenServer) -> None:
    """It comes when a terminal is closed, and from programs that rotate logs."""
    server = await open_server("--log-format", "json")
    author = Author(1)

    async def hang_up(times: int) -> None:
        os.kill(server.pid, signal.SIGHUP)
        await eventually(lambda: len(said(server, "SIGHUP")) == times, "the signal")

    async with peer(server.ws_url, "room") as client:
        await client.greeted()
        for number in range(1, 4):
            await hang_up(number)
            typed = update(author.type("x"))
            await client.send(typed)
            await client.hear(typed)
        stopping = asyncio.create_task(server.stop())
        code, _ = await client.closed()
        assert code == 1012
        await stopping
