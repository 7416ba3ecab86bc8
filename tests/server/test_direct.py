"""Sockets without tasks: clients that do not read, send without end, are silent or leave."""

import gc
from itertools import count

import pytest

from plait.server import direct, framed
from plait.server.connection import Connection
from plait.server.direct import AT_ONCE_UNITS, PINGS_MAX, DirectOutbox, DirectSocket
from plait.server.errors import PlaitError
from tests.support import frames
from tests.support.authors import Author, text_of
from tests.support.deadlines import eventually
from tests.support.direct import joined, node
from tests.support.frames import KEEPALIVE, QUERY_AWARENESS, STEP1, STEP2, UPDATE, parse, update
from tests.support.peer import peer
from tests.support.serving import CLOSE, PING, PONG, Raw, raw

# The beginning


async def test_the_greeting_comes_with_the_answer_to_the_handshake() -> None:
    """One write: its cost to the kernel is most of what either takes."""
    async with node() as server, raw(server.port) as client:
        client.handshake("/ws/room")
        head, _, greeting = (await client.reader.read(65_536)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert greeting[0] == 0x82 and parse(greeting[2:]).kind == STEP1


# Clients that do not read


async def test_who_does_not_read_is_queued_for_and_gets_one_diff_at_last() -> None:
    async with node() as server, joined(server, buffer_bytes=4096) as client:
        author = Author(1)
        async with peer(server.url, "room") as other:
            await other.greeted()
            (slow,) = (s for s in server.sockets if s.connection.peer.endswith(port_of(client)))
            outbox = slow.connection.outbox
            while outbox.lagging_since is None:
                typed = update(author.type("x" * 50_000))
                await other.send(typed)
                await other.hear(typed)  # nobody waits for who does not read
            assert outbox.bytes < 2 * server.plait.limits.outbox_bytes_high
            for _ in range(20):
                typed = update(author.type("y" * 50_000))
                await other.send(typed)
                await other.hear(typed)
            reader, diffs = Author(2), 0
            while str(reader.text) != str(author.text):
                found = await client.message(STEP2, UPDATE)
                reader.hear(found.payload)
                diffs += found.kind == STEP2
            assert diffs == 1
            await eventually(lambda: outbox.lagging_since is None)
            await other.send(typed := update(author.type("z")))
            await client.hear(typed)


async def test_who_is_closed_and_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framed, "CLOSE_SECONDS", 0.1)
    async with node() as server, joined(server, buffer_bytes=4096) as client:
        (socket,) = server.sockets
        next(iter(server.room.members)).socket.outbox.push(bytes(8 << 20), 0)
        socket.connection.close(PlaitError("enough"))
        await eventually(lambda: not server.sockets)
        assert not server.room.members
        client.writer.transport.abort()


async def test_who_takes_a_large_document_slowly_is_not_overdue() -> None:
    async with node() as server, joined(server, buffer_bytes=4096) as client:
        (member,) = server.room.members
        outbox = member.socket.outbox
        outbox.push(bytes(32 << 20), 0)
        outbox.push(bytes(2 << 20), 0)  # queued, and above the mark
        assert outbox.lagging_since == 0
        seconds = server.plait.limits.outbox_drain_seconds + 1
        assert not outbox.overdue(0)
        await client.reader.readexactly(2 << 20)
        await eventually(lambda: not outbox.overdue(seconds))
        later = count(2)
        await eventually(lambda: outbox.overdue(next(later) * seconds))


def port_of(client: Raw) -> str:
    """Return the end of what the server calls a client."""
    return f":{client.writer.get_extra_info('sockname')[1]}"


# Clients that send without end


async def test_a_burst_is_handled_in_turns_and_in_order() -> None:
    async with node() as server, joined(server) as client:
        author = Author(1)
        for number in range(AT_ONCE_UNITS * 5):
            client.frame(update(author.type(f"{number} ")))
        client.frame(QUERY_AWARENESS)
        reader = Author(2)
        while str(reader.text) != str(author.text):
            reader.hear((await client.message(UPDATE)).payload)
        (socket,) = server.sockets
        assert not socket._stopped, "it is not read any more"


async def test_what_came_before_a_good_bye_is_heard_before_it() -> None:
    """A script that typed much and left lost what had to wait for its turn."""
    async with node() as server, joined(server) as client:
        author = Author(1)
        for number in range(AT_ONCE_UNITS * 3):
            client.frame(update(author.type(f"{number} ")))
        client.frame((1000).to_bytes(2), CLOSE)
        assert (await client.closed())[0] == 1000
        assert await client.rest() == b""
        assert text_of(server.room.document.encode()) == str(author.text)


async def test_who_says_good_bye_and_reads_nothing_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(framed, "CLOSE_SECONDS", 0.1)
    async with node() as server, joined(server, buffer_bytes=4096) as client:
        next(iter(server.room.members)).socket.outbox.push(bytes(32 << 20), 0)
        client.frame((1000).to_bytes(2), CLOSE)
        await eventually(lambda: not server.sockets)


async def test_nothing_is_read_while_the_store_takes_no_more() -> None:
    async with node() as server, joined(server) as client:
        unsaved, author = server.plait.writer.unsaved, Author(1)
        (socket,) = server.sockets
        unsaved.bytes_max = -1
        unsaved.measure()
        assert unsaved.full
        client.frame(update(author.type("one ")))
        await eventually(lambda: socket._stopped)
        client.frame(update(author.type("two ")))
        client.frame(update(author.type("three")))
        unsaved.bytes_max = 1 << 20
        unsaved.measure()
        await eventually(lambda: text_of(server.room.document.encode()) == "one two three")
        await eventually(lambda: not socket._stopped)


async def test_nothing_is_read_while_the_document_is_loaded_anew() -> None:
    async with node() as server, joined(server) as client:
        (socket,) = server.sockets
        server.room.ready.clear()
        client.frame(QUERY_AWARENESS)
        client.frame(QUERY_AWARENESS)
        await eventually(lambda: socket._stopped)
        server.room.ready.set()
        await client.hear(KEEPALIVE)
        await client.hear(KEEPALIVE)


async def test_who_leaves_while_it_has_to_wait_leaves_nothing_behind() -> None:
    async with node() as server:
        async with joined(server) as client:
            server.room.ready.clear()
            client.frame(QUERY_AWARENESS)
            (socket,) = server.sockets
            await eventually(lambda: socket._stopped)
        server.room.ready.set()  # before that nothing is read, so nothing is noticed
        await eventually(lambda: not server.sockets)
        assert not server.room.members


async def test_a_server_ends_though_a_client_has_to_wait_for_ever() -> None:
    async with node() as server, joined(server) as client:
        server.room.ready.clear()
        client.frame(QUERY_AWARENESS)
        (socket,) = server.sockets
        await eventually(lambda: socket._stopped)
        await server.plait.drain()
        assert (await client.closed())[0] == 1012


# Silence, and the end


async def test_who_is_silent_is_asked_and_cut_off_at_last() -> None:
    async with node() as server, joined(server) as client:
        await server.seconds_pass(direct.PING_SECONDS)
        assert server.sockets, "a client may be silent for a while"
        await server.seconds_pass(direct.PING_SECONDS)
        assert await client.next(PING) == b""
        client.frame(b"", PONG)
        (socket,) = server.sockets
        await eventually(lambda: socket._pings == 0)
        await server.seconds_pass(direct.PING_SECONDS * (PINGS_MAX + 1))
        assert server.sockets
        await server.seconds_pass(direct.PING_SECONDS)
        await eventually(lambda: not server.sockets)


async def test_sockets_that_are_gone_leave_nothing_for_the_garbage_collector() -> None:
    """Each took 10 KB until it came by, and everybody stopped while it looked through them."""
    async with node() as server:
        async with joined(server) as client:
            gc.collect()
            gc.disable()
            try:
                client.frame((1000).to_bytes(2), CLOSE)
                await client.rest()
                await eventually(lambda: not server.sockets)
                await eventually(lambda: not any(map(left_over, gc.get_objects())))
            finally:
                gc.enable()


def left_over(thing: object) -> bool:
    return type(thing) in (DirectSocket, DirectOutbox, Connection)


async def test_the_places_of_who_left_are_free() -> None:
    async with node() as server:
        async with joined(server):
            assert server.plait.admission.open == 1
        await eventually(lambda: server.plait.admission.open == 0)
        await eventually(lambda: not server.room.members)


async def test_who_is_sent_away_may_still_answer() -> None:
    async with node() as server, joined(server) as client:
        author = Author(1)
        server.room.close(PlaitError("enough"))
        assert await client.closed() == (1011, "enough")
        client.frame(update(author.type("late")))
        client.frame((1011).to_bytes(2), CLOSE)
        assert await client.rest() == b""
        assert server.room.document.clocks() == {}


async def test_frames_of_presence_reach_everybody() -> None:
    async with node() as server, joined(server) as client, peer(server.url, "room") as other:
        await other.greeted()
        told = frames.awareness((7, 1, '{"name":"Ann"}'))
        client.frame(told)
        await other.hear(told)
        await client.hear(told)
