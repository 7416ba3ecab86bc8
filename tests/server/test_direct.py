"""Sockets without tasks: what a client may do to one, and what happens to the others meanwhile."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from plait.server import direct, framed
from plait.server.app import Plait
from plait.server.connection import Connection
from plait.server.direct import AT_ONCE_UNITS, PINGS_MAX, DirectOutbox, DirectSocket
from plait.server.errors import PlaitError
from plait.server.outbox import FAST_BYTES_MAX
from plait.server.room import Room
from plait.server.settings import Settings
from tests.support import frames
from tests.support.authors import Author, text_of
from tests.support.deadlines import eventually
from tests.support.frames import KEEPALIVE, QUERY_AWARENESS, STEP1, STEP2, UPDATE, parse, update
from tests.support.peer import peer
from tests.support.serving import Raw, raw, serving

BINARY, TEXT, CLOSE, PING, PONG = 2, 1, 8, 9, 10
PART = 0


class Node:
    """A node in this process."""

    def __init__(self, plait: Plait, port: int) -> None:
        self.plait = plait
        self.port = port
        self.url = f"ws://127.0.0.1:{port}"

    @property
    def room(self) -> Room:
        """The one room."""
        (room,) = self.plait.hub.rooms().values()
        return room

    @property
    def sockets(self) -> list[DirectSocket]:
        """Those that are open."""
        return [socket for slot in self.plait.sockets._slots for socket in slot]

    def seconds_pass(self, seconds: int) -> None:
        """Let time pass for the sockets."""
        for _ in range(seconds):
            self.plait.sockets.tick()


@asynccontextmanager
async def node(**settings: Any) -> AsyncIterator[Node]:
    plait = Plait(Settings(**{"store": "memory://", "commit_ms": 0.0, **settings}))
    options: dict[str, Any] = {"ws_max_size": plait.limits.message_bytes_max}
    async with plait.running(), serving(plait.asgi, **options) as (port, _):
        yield Node(plait, port)


@asynccontextmanager
async def joined(server: Node, *, buffer_bytes: int = 0) -> AsyncIterator[Raw]:
    """A raw client in the room, which has read the greeting."""
    async with raw(server.port, buffer_bytes=buffer_bytes) as client:
        client.handshake("/ws/room")
        assert (await client.head()).startswith("HTTP/1.1 101 ")
        opcode, greeting = await client.next()
        assert (opcode, parse(greeting).kind) == (BINARY, STEP1)
        yield client


async def closed(client: Raw) -> tuple[int, str]:
    """Read until the close frame; return code and reason."""
    while True:
        opcode, payload = await client.next()
        if opcode == CLOSE:
            return int.from_bytes(payload[:2]), payload[2:].decode()


# The beginning


async def test_the_greeting_comes_with_the_answer_to_the_handshake() -> None:
    """One write: its cost to the kernel is most of what either takes."""
    async with node() as server, raw(server.port) as client:
        client.handshake("/ws/room")
        head, _, greeting = (await client.reader.read(65_536)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert greeting[0] == 0x82 and parse(greeting[2:]).kind == STEP1


# Frames


async def test_parts_are_put_together() -> None:
    async with node() as server, joined(server) as client:
        typed = update(Author(1).type("hello"))
        client.frame(typed[:3], BINARY, fin=False)
        client.frame(b"are you there?", PING)
        client.frame(b"", PART, fin=False)
        client.frame(typed[3:], PART)
        assert await client.next() == (PONG, b"are you there?")
        assert await client.next() == (BINARY, typed)


async def test_parts_may_not_be_larger_than_a_message() -> None:
    async with node(message_mb=1) as server, joined(server) as client:
        for number in range(33):
            client.frame(bytes(32 << 10), PART if number else BINARY, fin=False)
        assert (await closed(client))[0] == 1009
        assert server.plait.hub.counters.limits["message_mb"] == 1


async def test_empty_parts_may_not_go_on_for_ever() -> None:
    async with node(message_mb=1) as server, joined(server) as client:
        for number in range(20_000):
            client.frame(b"", PART if number else BINARY, fin=False)
        assert (await closed(client))[0] in (1009, 4429)


@pytest.mark.parametrize("opcodes", [[PART], [BINARY, BINARY]])
async def test_parts_in_disorder(opcodes: list[int]) -> None:
    async with node() as server, joined(server) as client:
        for opcode in opcodes:
            client.frame(b"x", opcode, fin=False)
        assert (await closed(client))[0] == 1002


def announced(length: int) -> bytes:
    """Return the head of a masked frame; the mask changes nothing."""
    return b"\x82\xff" + length.to_bytes(8) + bytes(4)


@pytest.mark.parametrize("length", [70_000, 300_000, 3_000_000])
async def test_a_long_message_comes_in_pieces_and_is_one_message(length: int) -> None:
    async with node() as server, joined(server) as client:
        typed = update(Author(1).type("x" * length))
        client.writer.write(announced(len(typed)) + typed[:1000])
        await client.writer.drain()
        client.writer.write(typed[1000:])
        client.frame(QUERY_AWARENESS)
        got = [await client.next() for _ in range(2)]
        # An update of this size is acknowledged when it is stored, and may be overtaken.
        assert sorted(got) == sorted([(BINARY, typed), (BINARY, KEEPALIVE)])
        (socket,) = server.sockets
        assert socket._plain, "nothing is left over"


async def test_a_giant_that_is_no_message_is_refused_by_its_first_piece() -> None:
    """64 MB were read, kept and copied before anybody looked at them."""
    async with node() as server, joined(server) as client:
        client.writer.write(announced(64 << 20) + bytes(100_000))
        code, reason = await closed(client)
        assert code == 4400 and "67108864 bytes" in reason


async def test_a_long_message_counts_while_it_comes() -> None:
    async with node() as server, joined(server) as client:
        typed = update(Author(1).type("x" * 400_000))
        client.frame(QUERY_AWARENESS)
        assert await client.next() == (BINARY, KEEPALIVE)
        (socket,) = server.sockets
        quota = socket.connection._quota
        before = quota.bytes
        client.writer.write(announced(len(typed)) + typed[:200_000])
        await eventually(lambda: quota.bytes <= before - 160_000)
        assert server.plait.counters.frames_received == 1
        client.writer.write(typed[200_000:])
        assert await client.next() == (BINARY, typed)
        assert quota.bytes == before - len(typed)


async def test_all_together_may_not_have_too_much_on_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each could keep 64 MB of the server's memory for ever by sending no more of a message."""
    async with node() as server, joined(server) as ann, joined(server) as ben:
        limits = replace(server.plait.limits, long_messages_bytes_max=300_000)
        monkeypatch.setattr(server.plait.hub, "limits", limits)
        typed = update(Author(1).type("x" * 200_000))
        ann.writer.write(announced(len(typed)) + typed[:190_000])
        await eventually(lambda: server.plait.sockets.held > 100_000)
        ben.writer.write(announced(len(typed)) + typed)
        code, reason = await closed(ben)
        assert code == 1013 and "send it again later" in reason
        assert server.plait.counters.limits["long_messages"] == 1
        ann.writer.write(typed[190_000:])
        assert await ann.next() == (BINARY, typed)
        assert server.plait.sockets.held == 0


async def test_what_is_left_of_a_long_message_is_let_go_of_with_its_socket() -> None:
    async with node() as server:
        async with joined(server) as client:
            client.writer.write(announced(1 << 20) + update(b"x" * 1000)[:4] + bytes(200_000))
            await eventually(lambda: server.sockets and server.sockets[0].connection.closing)
        async with joined(server) as client:
            typed = update(Author(1).type("x" * 500_000))
            client.writer.write(announced(len(typed)) + typed[:300_000])
            await eventually(lambda: server.plait.sockets.held > 200_000)
        await eventually(lambda: not server.sockets)
        assert server.plait.sockets.held == 0


async def test_a_message_that_does_not_come_on_is_refused() -> None:
    async with node() as server, joined(server) as slow, joined(server) as stuck:
        typed = update(Author(1).type("x" * (2 << 20)))
        for client in (slow, stuck):
            client.writer.write(announced(len(typed)) + typed[:200_000])
        held = server.plait.sockets
        await eventually(lambda: held.held > 300_000)
        server.seconds_pass(direct.PING_SECONDS)
        slow.writer.write(typed[200_000 : 200_000 + direct.SLOW_BYTES + 100_000])
        await eventually(lambda: held.held > 600_000)
        server.seconds_pass(direct.PING_SECONDS)
        code, reason = await closed(stuck)
        assert code == 1013 and "did not come" in reason
        slow.writer.write(typed[200_000 + direct.SLOW_BYTES + 100_000 :])
        while (await slow.next()) != (BINARY, typed):
            pass  # pings
        assert held.held == 0


async def test_a_flood_of_pongs_counts() -> None:
    async with node(frames_per_second=1) as server, joined(server) as client:
        for _ in range(server.plait.limits.frames_burst + 100):
            client.frame(b"", PONG)
        assert (await closed(client))[0] == 4429


async def test_text_is_refused() -> None:
    async with node() as server, joined(server) as client:
        client.frame(b"hello", TEXT)
        assert (await closed(client))[0] == 1003


async def test_who_breaks_the_rules_is_counted_and_nothing_after_it_is_taken() -> None:
    """picows went on to parse after an error: an update that was too big came in all the same."""
    async with node(message_mb=1) as server, joined(server) as client:
        client.writer.write(b"\x82\xff" + (1 << 20 | 1).to_bytes(8) + bytes(4))
        client.writer.write(bytes((1 << 20) + 1))
        client.frame(update(Author(1).type("hello")))
        assert (await closed(client))[0] == 1009
        await eventually(lambda: not server.sockets)
        assert server.plait.hub.counters.closed == {"1009": 1}
        assert server.room.document.clocks() == {}


async def test_a_good_bye_is_answered() -> None:
    async with node() as server, joined(server) as client:
        client.frame((4000).to_bytes(2) + b"bye", CLOSE)
        assert await client.next() == (CLOSE, (4000).to_bytes(2))
        assert await client.rest() == b""
        await eventually(lambda: not server.room.members)
        assert server.plait.hub.counters.closed == {"client": 1}


async def test_a_good_bye_without_a_code_is_answered_with_one() -> None:
    async with node() as server, joined(server) as client:
        client.frame(b"", CLOSE)
        assert await client.next() == (CLOSE, (1000).to_bytes(2))


async def test_pings_count_as_messages() -> None:
    async with node(frames_per_second=1) as server, joined(server) as client:
        limits = server.plait.limits
        for _ in range(limits.frames_burst + 100):
            client.frame(b"", PING)
        assert (await closed(client))[0] == 4429


@pytest.mark.parametrize("length", [FAST_BYTES_MAX + 1, 1 << 16, 1 << 18])
async def test_a_long_frame_is_whole_though_others_follow_in_the_same_turn(length: int) -> None:
    """picows lent uvloop the memory of a long frame's header, and wrote the next header there."""
    async with node() as server, joined(server) as client:
        (member,) = server.room.members
        long = b"x" * length
        for frame in (long, b"short", long, b"short"):
            member.socket.outbox.push(frame, 0)
        for frame in (long, b"short", long, b"short"):
            assert await client.next() == (BINARY, frame)


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
                assert await other.frame() == typed  # nobody waits for who does not read
            assert outbox.bytes < 2 * server.plait.limits.outbox_bytes_high
            for _ in range(20):
                typed = update(author.type("y" * 50_000))
                await other.send(typed)
                assert await other.frame() == typed
            reader, diffs = Author(2), 0
            while str(reader.text) != str(author.text):
                _, frame = await client.next()
                found = parse(frame)
                if found.kind in (STEP2, UPDATE):
                    reader.hear(found.payload)
                    diffs += found.kind == STEP2
            assert diffs == 1
            await eventually(lambda: outbox.lagging_since is None)
            await other.send(typed := update(author.type("z")))
            assert await client.next() == (BINARY, typed)


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
            _, frame = await client.next()
            if frame != KEEPALIVE:
                reader.hear(parse(frame).payload)
        (socket,) = server.sockets
        assert not socket._stopped, "it is not read any more"


async def test_what_came_before_a_good_bye_is_heard_before_it() -> None:
    """A script that typed much and left lost what had to wait for its turn."""
    async with node() as server, joined(server) as client:
        author = Author(1)
        for number in range(AT_ONCE_UNITS * 3):
            client.frame(update(author.type(f"{number} ")))
        client.frame((1000).to_bytes(2), CLOSE)
        assert (await closed(client))[0] == 1000
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
        assert await client.next() == (BINARY, KEEPALIVE)
        assert await client.next() == (BINARY, KEEPALIVE)


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
        assert (await closed(client))[0] == 1012


# Silence, and the end


async def test_who_is_silent_is_asked_and_cut_off_at_last() -> None:
    async with node() as server, joined(server) as client:
        server.seconds_pass(direct.PING_SECONDS)
        assert server.sockets, "a client may be silent for a while"
        server.seconds_pass(direct.PING_SECONDS)
        assert await client.next() == (PING, b"")
        client.frame(b"", PONG)
        (socket,) = server.sockets
        await eventually(lambda: socket._pings == 0)
        server.seconds_pass(direct.PING_SECONDS * (PINGS_MAX + 1))
        assert server.sockets
        server.seconds_pass(direct.PING_SECONDS)
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
        assert await closed(client) == (1011, "enough")
        client.frame(update(author.type("late")))
        client.frame((1011).to_bytes(2), CLOSE)
        assert await client.rest() == b""
        assert server.room.document.clocks() == {}


async def test_frames_of_presence_reach_everybody() -> None:
    async with node() as server, joined(server) as client, peer(server.url, "room") as other:
        await other.greeted()
        told = frames.awareness((7, 1, '{"name":"Ann"}'))
        client.frame(told)
        assert await other.frame() == told
        assert await client.next() == (BINARY, told)
