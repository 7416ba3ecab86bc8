"""Real y-websocket clients that are refused, or may only read: what they are told, how often they
come back, and that what they type gets nowhere.
"""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.server.auth.parts import SECRET
from tests.support.deadlines import eventually
from tests.support.drivers import Driver
from tests.support.rights import admin, bearer, token
from tests.support.server import PlaitProcess

pytestmark = pytest.mark.both_ways

VERSIONS = ["v1", "v3"]
KNOCKS = 8
"""So often a client comes back that is refused with a status, in the time that a test watches."""


@pytest.fixture
async def server(tmp_path: Path, sockets: str) -> AsyncIterator[PlaitProcess]:
    async with PlaitProcess(tmp_path, "--sockets", sockets, "--token-secret", SECRET) as server:
        yield server
        await server.stop()
    print(f"--- what {server.url} logged\n{server.stderr}")


async def refused(server: PlaitProcess) -> int:
    """Return how many handshakes were refused, as the server counts them."""
    async with httpx.AsyncClient(base_url=server.url) as http:
        text = (await http.get("/metrics")).text
    pattern = r"^plait_connections_refused_total\{[^}]*\} (\S+)$"
    return sum(int(float(each)) for each in re.findall(pattern, text, re.MULTILINE))


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_browser_that_is_refused_is_told_why_and_does_not_hammer(
    server: PlaitProcess, version: str
) -> None:
    async with Driver("refused.mjs") as driver:
        url = server.ws_url + "/ws"
        held = await driver.ask("open", version=version, url=url, room="a", origin=server.url)
        told = await driver.ask("warned", reason="a token is needed")
        assert told["warned"], "y-websocket prints the reason"
        assert await refused(server) == 1
        # Meanwhile one that is no browser is refused again and again.
        await driver.ask("open", version=version, url=url, room="a")

        async def knocked() -> bool:
            return await refused(server) > KNOCKS

        await eventually(knocked, "the other one's coming back")
        report = await driver.ask("report", number=held["number"])
        assert report == {"opened": 1, "closed": []}


@pytest.mark.parametrize("version", VERSIONS)
async def test_who_may_only_read_receives_and_is_seen_and_writes_nothing(
    server: PlaitProcess, version: str
) -> None:
    url = server.ws_url + "/ws"
    grants = [{"docs": "a", "access": "write"}]
    async with Driver("refused.mjs") as driver:

        async def come(given: str) -> int:
            opened = await driver.ask(
                "open", version=version, url=url, room="a", token=given, origin=server.url
            )
            return int(opened["number"])

        writer = await come(token(grants, aud=None, subject="bob"))
        assert (await driver.ask("synced", number=writer))["synced"]
        await driver.ask("type", number=writer, text="for all ")
        reader = await come(token([{"docs": "a", "access": "read"}], aud=None))
        assert (await driver.ask("has", number=reader, text="for all "))["has"]
        await driver.ask("presence", number=reader, name="a reader")
        assert (await driver.ask("seen", number=writer, name="a reader"))["seen"]
        await driver.ask("type", number=reader, text="not allowed ")
        assert (await driver.ask("warned", reason="may read this document"))["warned"]
        await driver.ask("presence", number=writer, name="a writer")
        assert (await driver.ask("seen", number=reader, name="a writer"))["seen"]
        assert (await driver.ask("text", number=writer))["text"] == "for all "
        async with httpx.AsyncClient(base_url=server.url) as http:
            root = bearer(admin(aud=None))
            answer = await http.get("/api/docs/a/state?format=json", headers=root)
        assert answer.json()["roots"]["text"]["value"] == "for all "
        report = await driver.ask("report", number=reader)
        assert report == {"opened": 1, "closed": []}
