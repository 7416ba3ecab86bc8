"""Real y-websocket clients end with equal documents, whatever happens to them and to the server."""

import asyncio
from typing import Any

import pytest

from tests.support.drivers import Driver
from tests.support.server import PlaitProcess

VERSIONS = {
    "version 3": ["v3"] * 4,
    "version 1": ["v1"] * 4,
    "mixed": ["v3", "v1"] * 3,
}

TRANSIENT = {1000, 1005, 1006, 1012}
"""Codes with which a client may be closed here: it left, was cut off, or the server restarted."""


def check(answer: Any) -> str:
    """Return the content that all clients have."""
    assert len(answer["contents"]) == 1, "\n".join(answer["contents"])
    assert answer["settled"], "the same content, but not the same state"
    assert answer.get("present", True), "the clients do not see each other"
    assert set(answer["codes"]) <= TRANSIENT, answer["codes"]
    (content,) = answer["contents"]
    return str(content)


@pytest.mark.parametrize("versions", VERSIONS.values(), ids=VERSIONS.keys())
async def test_clients_converge_through_drops_a_restart_and_a_kill(
    plait_server: PlaitProcess, versions: list[str]
) -> None:
    async with Driver("converge.mjs") as clients:
        place = {"url": plait_server.ws_url + "/ws", "room": "room"}
        opened = await clients.ask("open", versions=versions, seed=len(versions), **place)
        assert opened["synced"]
        await clients.ask("edit", edits=300)
        check(await clients.ask("settle"))

        editing = await clients.tell("edit", edits=300)
        await plait_server.stop()
        await plait_server.start()
        await editing
        check(await clients.ask("settle"))

        editing = await clients.tell("edit", edits=300)
        await plait_server.kill()
        await plait_server.start()
        await editing
        content = check(await clients.ask("settle"))
        for version in sorted(set(versions)):
            assert check(await clients.ask("late", version=version)) == content

    # Every client kept the whole document; now only the store has it.
    await plait_server.kill()
    await plait_server.start()
    async with Driver("converge.mjs") as fresh:
        await fresh.ask("open", versions=sorted(set(versions)), **place)
        assert check(await fresh.ask("settle")) == content
    await plait_server.stop()


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "with/slashes/in it",
        "json:notebook:1d8a-4f",
        "Ünïcödé 日本 😀",
        "100% of it",
        "100%25",
        "a%2Fb",
        "./dots/../up",
        "question?mark=1",
    ],
)
async def test_a_room_may_have_any_name(shared_server: PlaitProcess, name: str) -> None:
    # y-websocket puts the name into the URL as it is, and the WHATWG URL parser does the rest.
    async with Driver("converge.mjs") as clients:
        place = {"url": shared_server.ws_url + "/ws", "room": name}
        assert (await clients.ask("open", versions=["v3", "v1"], **place))["synced"]
        await clients.ask("edit", edits=20, drops=False)
        content = check(await clients.ask("settle"))
    async with Driver("converge.mjs") as bare:
        place["url"] = shared_server.ws_url
        assert (await bare.ask("open", versions=["v1", "v3"], **place))["synced"]
        assert check(await bare.ask("settle")) == content


async def test_rooms_do_not_mix(shared_server: PlaitProcess) -> None:
    names = ["Room", "room", "room/", "room/1"]
    async with asyncio.TaskGroup() as tasks:
        contents = [tasks.create_task(content_of(shared_server, name)) for name in names]
    assert len({each.result() for each in contents}) == len(names)


async def content_of(server: PlaitProcess, room: str) -> str:
    """Let two clients edit a room, differently in every room; return what they end with."""
    async with Driver("converge.mjs") as clients:
        place = {"url": server.ws_url + "/ws", "room": room}
        await clients.ask("open", versions=["v3", "v1"], seed=len(room) + ord(room[0]), **place)
        await clients.ask("edit", edits=60)
        return check(await clients.ask("settle"))
