"""The y-websocket dialect, frame by frame, as a client sees it."""

import sqlite3
from contextlib import closing

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.e2e.conftest import OpenServer
from tests.support import hostile
from tests.support.authors import Author, text_of
from tests.support.frames import (
    ASK_ALL,
    DENIED,
    KEEPALIVE,
    NOTHING,
    QUERY_AWARENESS,
    STEP1,
    STEP2,
    UPDATE,
    awareness,
    step1,
    step2,
    update,
)
from tests.support.peer import peer
from tests.support.server import PlaitProcess

pytestmark = pytest.mark.both_ways


# Sync


async def test_the_server_asks_first_and_says_nothing_else(
    shared_server: PlaitProcess, room: str
) -> None:
    async with peer(shared_server.ws_url, room) as client:
        await client.hear(b"\x00\x00\x01\x00")
        await client.heard_nothing()


async def test_a_question_is_answered_even_if_there_is_nothing(
    shared_server: PlaitProcess, room: str
) -> None:
    async with peer(shared_server.ws_url, room) as client:
        await client.greeted()
        await client.send(ASK_ALL)
        await client.hear(b"\x00\x01\x02\x00\x00")


async def test_the_answer_is_what_is_missing(shared_server: PlaitProcess, room: str) -> None:
    author = Author(1)
    first = author.type("one ")
    known = author.doc.get_state()
    second = author.type("two")
    async with peer(shared_server.ws_url, room) as writer:
        await writer.greeted()
        await writer.send(update(first), update(second))
        async with peer(shared_server.ws_url, room) as reader:
            await reader.expect(STEP1)
            assert text_of(await reader.state()) == "one two"
            await reader.send(step1(known))
            assert await reader.expect(STEP2) == second


async def test_the_server_asks_for_what_it_lacks(shared_server: PlaitProcess, room: str) -> None:
    author = Author(1)
    author.type("written offline")
    async with peer(shared_server.ws_url, room) as client:
        assert await client.expect(STEP1) == b"\x00"
        await client.send(step2(author.state()))
        assert await client.expect(UPDATE) == author.state()
    async with peer(shared_server.ws_url, room) as later:
        assert await later.expect(STEP1) == author.doc.get_state()


async def test_own_content_comes_back_once_it_is_committed(plait_server: PlaitProcess) -> None:
    typed = Author(1).type("saved?")
    async with (
        peer(plait_server.ws_url, "room") as writer,
        peer(plait_server.ws_url, "room") as reader,
    ):
        await writer.greeted()
        await reader.greeted()
        with closing(sqlite3.connect(plait_server.store_path, isolation_level=None)) as store:
            store.execute("BEGIN IMMEDIATE")  # From now on nobody else can commit.
            await writer.send(update(typed))
            assert await reader.expect(UPDATE) == typed
            await writer.heard_nothing()
            store.execute("ROLLBACK")
        assert await writer.expect(UPDATE) == typed
        await reader.heard_nothing()


async def test_a_frame_holds_one_message(shared_server: PlaitProcess, room: str) -> None:
    # y-websocket up to 3 reads the first message of a frame and forgets the rest.
    author = Author(1)
    async with (
        peer(shared_server.ws_url, room) as writer,
        peer(shared_server.ws_url, room) as reader,
    ):
        await writer.greeted()
        await reader.greeted()
        other = Author(2)
        for number in range(200):
            await writer.send(update(author.type(f"{number} ")), awareness((1, number, "{}")))
        for client in (reader, writer):
            while other.doc.get_state() != author.doc.get_state():
                other.hear((await client.until(UPDATE)).payload)  # Fails if anything follows it.
            other = Author(3)


async def test_a_duplicate_is_acknowledged_and_not_forwarded(
    shared_server: PlaitProcess, room: str
) -> None:
    typed = Author(1).type("once")
    async with (
        peer(shared_server.ws_url, room) as writer,
        peer(shared_server.ws_url, room) as reader,
    ):
        await writer.greeted()
        await reader.greeted()
        await writer.send(update(typed))
        assert await reader.expect(UPDATE) == typed
        assert await writer.expect(UPDATE) == typed
        for again in (update(typed), step2(typed)):
            await writer.send(again)
            assert await writer.expect(UPDATE) == typed
        await reader.heard_nothing()
        await writer.send(update(NOTHING), step2(NOTHING))
        await writer.heard_nothing()


async def test_an_update_before_its_origin_waits_for_it(
    shared_server: PlaitProcess, room: str
) -> None:
    author = Author(1)
    first, second, third = author.type("one "), author.type("two "), author.type("three")
    async with (
        peer(shared_server.ws_url, room) as writer,
        peer(shared_server.ws_url, room) as reader,
    ):
        await writer.greeted()
        await reader.greeted()
        await writer.send(update(third))
        assert await writer.expect(STEP1) == b"\x00"
        await writer.send(update(second))  # One question is enough.
        await writer.heard_nothing()
        await reader.heard_nothing()

        await writer.send(step2(first))
        heard, acknowledged = Author(2), Author(3)
        while heard.doc.get_state() != author.doc.get_state():
            heard.hear(await reader.expect(UPDATE))
        while acknowledged.doc.get_state() != author.doc.get_state():
            # It may ask again: the updates came in the wrong order.
            acknowledged.hear((await writer.until(UPDATE)).payload)
        assert text_of(await reader.state()) == "one two three"


# Presence


async def test_presence_is_echoed_and_told(shared_server: PlaitProcess, room: str) -> None:
    # y-websocket up to 3 counts on the echo: after 30 s without a message it closes.
    here = awareness((1, 5, '{"user": {"name":"Zoë"}}'))
    async with (
        peer(shared_server.ws_url, room) as one,
        peer(shared_server.ws_url, room) as other,
    ):
        await one.greeted()
        await other.greeted()
        await one.send(here)
        await one.hear(here)
        await other.hear(here)
        async with peer(shared_server.ws_url, room) as late:
            await late.expect(STEP1)
            await late.hear(here)
            await late.send(QUERY_AWARENESS)
            await late.hear(here)


async def test_nobody_is_told_as_nobody(shared_server: PlaitProcess, room: str) -> None:
    async with peer(shared_server.ws_url, room) as client:
        await client.greeted()
        await client.send(QUERY_AWARENESS)
        await client.hear(KEEPALIVE)


async def test_who_vanishes_is_removed_with_the_next_clock(
    shared_server: PlaitProcess, room: str
) -> None:
    async with (
        peer(shared_server.ws_url, room) as gone,
        peer(shared_server.ws_url, room) as stays,
    ):
        await gone.greeted()
        await stays.greeted()
        await gone.send(awareness((1, 5, "{}")))
        assert await stays.expect_presence() == [(1, 5, "{}")]
        gone.vanish()
        assert await stays.expect_presence() == [(1, 6, "null")]
        await stays.heard_nothing()


async def test_who_comes_back_learns_of_its_removal_and_shows_itself_again(
    shared_server: PlaitProcess, room: str
) -> None:
    async with peer(shared_server.ws_url, room) as stays:
        await stays.greeted()
        async with peer(shared_server.ws_url, room) as first:
            await first.greeted()
            await first.send(awareness((1, 5, "{}")))
            assert await stays.expect_presence() == [(1, 5, "{}")]
            first.vanish()
            assert await stays.expect_presence() == [(1, 6, "null")]
        async with peer(shared_server.ws_url, room) as again:
            await again.greeted()
            await again.send(awareness((1, 5, "{}")))
            # y-protocols: who hears that itself is gone raises its clock and says that it is not.
            assert await again.expect_presence() == [(1, 6, "null")]
            await again.send(awareness((1, 7, "{}")))
            assert await again.expect_presence() == [(1, 7, "{}")]
            assert await stays.expect_presence() == [(1, 7, "{}")]


@pytest.mark.parametrize(
    "sockets",
    ["direct", pytest.param("asgi", marks=pytest.mark.long)],
    indirect=True,
    scope="module",
)
async def test_a_silent_client_is_kept_alive(shared_server: PlaitProcess, room: str) -> None:
    async with peer(shared_server.ws_url, room) as client:
        await client.greeted()
        await client.hear(KEEPALIVE)


# What is wrong with a message concerns its sender only


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x00",
        b"\x00\x00",
        b"\x00\x02\x05\x00",  # cut off
        b"\x00\x02\x02\x00\x00\x00",  # something follows
        b"\x00\x00\x01\x00" + b"\x00\x00\x01\x00",  # two messages
        b"\x00\x00\x02\x01\x01",  # a state vector that is cut off
        b"\x00\x03\x00",  # no such step
        b"\x01\x03\x01\x01\x00",  # presence that is cut off
        b"\x01\x05\x01\x01\x01\x01\x7b",  # presence that is not JSON
        b"\x02\x02\x01x",  # for servers to send
        b"\x03\x00",
        b"\x04",
        b"\x7f",
        b"\xff" * 12,
    ],
    ids=bytes.hex,
)
async def test_what_is_no_message_closes_4400(
    shared_server: PlaitProcess, room: str, frame: bytes
) -> None:
    async with (
        peer(shared_server.ws_url, room) as good,
        peer(shared_server.ws_url, room) as bad,
    ):
        await good.greeted()
        await bad.send(frame)
        code, reason = await bad.closed()
        assert code == 4400
        assert reason
        await good.heard_nothing()


async def test_text_closes_1003(shared_server: PlaitProcess, room: str) -> None:
    async with peer(shared_server.ws_url, room) as client:
        await client.send("hello")
        code, reason = await client.closed()
        assert code == 1003
        assert "binary" in reason


@pytest.mark.parametrize(
    "poison",
    [
        hostile.CLOCK_OVERFLOW,
        hostile.NO_STRUCTS,
        b"",
        b"\x01",
        b"\x00\x00\x00",
        b"not an update at all",
    ],
    ids=[
        "clock overflow",
        "no structs",
        "nothing",
        "cut off",
        "trailing",
        "words",
    ],
)
async def test_poison_closes_4422_and_everybody_else_types_on(
    shared_server: PlaitProcess, room: str, poison: bytes
) -> None:
    author = Author(1)
    async with (
        peer(shared_server.ws_url, room) as good,
        peer(shared_server.ws_url, room) as other,
    ):
        await good.greeted()
        await other.greeted()
        for wrap in (update, step2):
            async with peer(shared_server.ws_url, room) as bad:
                await bad.send(wrap(poison))
                code, reason = await bad.closed()
                assert code == 4422
                assert reason
            typed = author.type("on ")
            await good.send(update(typed))
            assert await other.expect(UPDATE) == typed
            assert await good.expect(UPDATE) == typed
        assert text_of(await other.state()) == "on on "


async def test_too_large_a_message_is_not_taken_in(open_server: OpenServer, sockets: str) -> None:
    server = await open_server("--message-mb", "1")
    author = Author(1)
    async with peer(server.ws_url, "room") as client:
        await client.greeted()
        fits = update(author.type("x" * ((1 << 20) - 100)))
        await client.send(fits)
        await client.hear(fits)
        await client.send(update(author.type("x" * (1 << 20))))
        if sockets == "asgi":  # uvicorn closes it by itself.
            assert (await client.closed())[0] == 1009
        else:
            assert b"message_mb" in (await client.until(DENIED)).payload
    async with peer(server.ws_url, "room") as client:
        assert len(text_of(await client.state())) == (1 << 20) - 100


# The way in


@pytest.mark.parametrize(
    "path", ["/ws/", "/", "/ws/%20", "/ws/%ff", "/ws/a%00b", "/ws/" + 1025 * "n"]
)
async def test_what_is_no_name_is_refused_with_400(shared_server: PlaitProcess, path: str) -> None:
    assert await refusal(shared_server, "", path=path) == 400


async def test_a_room_has_one_name_on_every_path(shared_server: PlaitProcess, room: str) -> None:
    name = f"{room}/a b:c%20ü😀"
    typed = Author(1).type("here")
    async with (
        peer(shared_server.ws_url, name) as one,
        peer(shared_server.ws_url, name, path="/") as other,
    ):
        await one.greeted()
        await other.greeted()
        await one.send(update(typed))
        assert await other.expect(UPDATE) == typed


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", "http://127.0.0.1.evil"])
async def test_a_foreign_page_is_refused_with_403(
    shared_server: PlaitProcess, room: str, origin: str
) -> None:
    assert await refusal(shared_server, room, origin=origin) == 403


async def test_pages_of_this_machine_and_listed_ones_are_let_in(open_server: OpenServer) -> None:
    server = await open_server("--allow-origin", "https://app.example")
    for origin in (server.url, "http://localhost:3000", "https://app.example"):
        async with peer(server.ws_url, "room", origin=origin) as client:
            await client.greeted()
    assert await refusal(server, "room", origin="https://other.example") == 403


async def test_a_deleted_document_is_refused_with_410(
    shared_server: PlaitProcess, room: str
) -> None:
    typed = Author(1).type("doomed")
    async with peer(shared_server.ws_url, room) as client, httpx.AsyncClient() as http:
        await client.greeted()
        await client.send(update(typed))
        assert await client.expect(UPDATE) == typed
        deleted = await http.delete(f"{shared_server.url}/api/docs/{room}")
        assert deleted.is_success, deleted.text
        code, reason = await client.closed()
        assert code == 4404
        assert "deleted" in reason
    assert await refusal(shared_server, room) == 410


async def test_a_subprotocol_is_chosen(shared_server: PlaitProcess, room: str) -> None:
    async with peer(shared_server.ws_url, room, subprotocols=["first", "second"]) as client:
        assert client.socket.subprotocol == "first"
    async with peer(shared_server.ws_url, room) as client:
        assert client.socket.subprotocol is None


async def refusal(
    server: PlaitProcess, room: str, path: str = "/ws/", origin: str | None = None
) -> int:
    """Try to connect; return the HTTP status with which that is refused."""
    with pytest.raises(InvalidStatus) as refused:
        async with peer(server.ws_url, room, path=path, origin=origin):
            pass
    return refused.value.response.status_code
