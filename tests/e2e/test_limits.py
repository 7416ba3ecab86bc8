"""Every limit, reached once on a real server: who reaches it is told, it is counted, and a good
client in the same room does not notice.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus

from tests.e2e.conftest import OpenServer
from tests.support.authors import Author, text_of
from tests.support.deadlines import eventually
from tests.support.frames import (
    ASK_ALL,
    AWARENESS,
    DENIED,
    STEP1,
    STEP2,
    UPDATE,
    awareness,
    step2,
    update,
)
from tests.support.peer import Peer, peer
from tests.support.server import PlaitProcess

pytestmark = pytest.mark.both_ways

ROOM = "room"
MEBIBYTE = 1 << 20
OCTETS = {"content-type": "application/octet-stream"}


async def metrics(server: PlaitProcess) -> dict[str, float]:
    """Return what the server tells, by name and labels."""
    async with httpx.AsyncClient() as client:
        response = await client.get(f"{server.url}/metrics")
    assert response.status_code == 200
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


async def hits(server: PlaitProcess, limit: str) -> float:
    """Return how often a limit was reached."""
    return (await metrics(server))[f"plait_limit_hits_total {limit}"]


@asynccontextmanager
async def unharmed(server: PlaitProcess, room: str = ROOM) -> AsyncIterator[Peer]:
    """A good client, which can still type and be answered when all is over."""
    async with peer(server.ws_url, room) as good:
        await good.expect(STEP1)
        yield good
        edit = Author(4711).type("still here")
        await good.send(update(edit))
        while (await good.next(STEP1, STEP2, UPDATE, AWARENESS)) != (UPDATE, edit):
            pass


async def test_messages_a_second(open_server: OpenServer) -> None:
    server = await open_server("--frames-per-second", "10")
    async with unharmed(server) as good, peer(server.ws_url, ROOM) as loud:
        edit = Author(1).type("at last")
        await loud.send(*[ASK_ALL] * 105, update(edit))
        await good.until_told(UPDATE, edit)  # Who is too loud is read more slowly.
        told = await metrics(server)
        assert told["plait_limit_hits_total frames_per_second"] >= 1
        assert "plait_connections_closed_total 4429" not in told


async def test_bytes_a_second(open_server: OpenServer) -> None:
    server = await open_server("--mb-per-second", "1", "--message-mb", "1")
    async with unharmed(server) as good, peer(server.ws_url, ROOM) as loud:
        entry = awareness((1, 1, '"' + "x" * 60_000 + '"'))
        edit = Author(1).type("at last")
        await loud.send(*[entry] * (11 * MEBIBYTE // len(entry)), update(edit))
        await good.until_told(UPDATE, edit)
        assert await hits(server, "mb_per_second") >= 1


async def test_the_size_of_a_message(open_server: OpenServer, sockets: str) -> None:
    server = await open_server("--message-mb", "1")
    async with unharmed(server), peer(server.ws_url, ROOM) as loud:
        await loud.send(update(b"\x00" * MEBIBYTE))
        if sockets == "asgi":  # uvicorn closes it by itself.
            assert (await loud.closed())[0] == 1009
        else:
            await loud.until(DENIED)
        await eventually(lambda: counted(server, "message_mb"), "the count")
    async with httpx.AsyncClient() as client:
        answer = await client.put(
            f"{server.url}/api/docs/large", content=b"\x00" * (MEBIBYTE + 1), headers=OCTETS
        )
    assert answer.status_code == 413
    assert await hits(server, "message_mb") == 2


async def counted(server: PlaitProcess, limit: str) -> bool:
    """Whether a limit was reached."""
    return await hits(server, limit) > 0


async def test_connections_in_all(open_server: OpenServer) -> None:
    server = await open_server("--connections-max", "2")
    async with unharmed(server):
        async with peer(server.ws_url, ROOM):
            assert await refused(server) == 503
            told = await metrics(server)
            assert told["plait_connections"] == 2
            assert told["plait_connections_refused_total server_full"] == 1
            assert told["plait_limit_hits_total connections_max"] == 1
        await eventually(lambda: admitted(server), "a free place")


async def refused(server: PlaitProcess, room: str = ROOM) -> int:
    """Return with which status a handshake is refused."""
    with pytest.raises(InvalidStatus) as caught:
        async with peer(server.ws_url, room):
            pass
    return caught.value.response.status_code


async def admitted(server: PlaitProcess) -> bool:
    """Whether a client is let in."""
    try:
        async with peer(server.ws_url, ROOM):
            return True
    except InvalidStatus:
        return False


async def test_a_refused_handshake_holds_no_place(open_server: OpenServer) -> None:
    server = await open_server("--connections-max", "2")
    async with unharmed(server):
        for _ in range(5):
            assert await refused(server, " ") == 400
        async with peer(server.ws_url, ROOM):
            pass


async def test_rooms(open_server: OpenServer) -> None:
    server = await open_server("--rooms-max", "2")
    async with unharmed(server):
        async with peer(server.ws_url, "other"):
            assert await refused(server, "third") == 503
            assert await hits(server, "rooms_max") == 1
        await eventually(lambda: opened(server, "third"), "a room that makes way")
        assert (await metrics(server))["plait_rooms"] == 2


async def opened(server: PlaitProcess, room: str) -> bool:
    """Whether a room can be entered."""
    try:
        async with peer(server.ws_url, room):
            return True
    except InvalidStatus:
        return False


async def test_the_size_of_a_document(open_server: OpenServer) -> None:
    server = await open_server("--document-mb", "1")
    author = Author(1)
    large = author.type("x" * (MEBIBYTE * 3 // 4))
    async with unharmed(server), peer(server.ws_url, ROOM) as writer:
        await writer.expect(STEP1)
        await writer.send(update(large))
        assert await writer.expect(UPDATE) == large
        more = author.type("y" * (MEBIBYTE // 2))
        await writer.send(update(more))
        assert b"document_mb" in await writer.expect(DENIED)
        assert await hits(server, "document_mb") == 1

        assert text_of(await writer.state()) == "x" * (MEBIBYTE * 3 // 4), "it can be read"
        async with httpx.AsyncClient() as client:
            answer = await client.post(
                f"{server.url}/api/docs/{ROOM}/updates",
                content=Author(2).type("z" * (MEBIBYTE // 2)),
                headers=OCTETS,
            )
        assert answer.status_code == 413 and answer.json()["error"]["code"] == "document_full"

        deletion = author.delete(0, MEBIBYTE * 5 // 8)
        await writer.send(update(deletion))
        assert await writer.expect(UPDATE) == deletion, "deletions are taken, and acknowledged"


async def test_what_was_refused_is_taken_when_there_is_room(open_server: OpenServer) -> None:
    server = await open_server("--document-mb", "1")
    author, other = Author(1), Author(2)
    async with peer(server.ws_url, ROOM) as writer:
        await writer.expect(STEP1)
        start = author.type("x" * (MEBIBYTE * 3 // 4))
        other.hear(start)
        await writer.send(update(start))
        await writer.expect(UPDATE)
        # No measurement, so that the first comes after the deletion: they are 30 s apart.
        await writer.send(update(other.delete(0, MEBIBYTE // 2)))
        await writer.expect(UPDATE)
        more = author.type("y" * (MEBIBYTE // 2))
        await writer.send(step2(more))
        assert await writer.expect(UPDATE) == more
        assert await hits(server, "document_mb") == 0


async def test_a_document_above_a_lowered_limit_can_be_read(open_server: OpenServer) -> None:
    server = await open_server()
    author = Author(1)
    text = "x" * (2 * MEBIBYTE)
    async with peer(server.ws_url, ROOM) as writer:
        await writer.expect(STEP1)
        large = author.type(text)
        await writer.send(update(large))
        await writer.expect(UPDATE)
    await server.stop()
    lowered = await open_server("--document-mb", "1", store=server.store_path)
    async with peer(lowered.ws_url, ROOM) as reader:
        await reader.expect(STEP1)
        assert text_of(await reader.state()) == text
        await reader.send(update(author.type("y")))
        assert await reader.expect(DENIED)


async def test_connections_from_this_machine_are_not_counted_by_address(
    open_server: OpenServer,
) -> None:
    server = await open_server("--connections-per-address", "1")
    async with unharmed(server), peer(server.ws_url, ROOM), peer(server.ws_url, ROOM):
        assert await hits(server, "connections_per_address") == 0
