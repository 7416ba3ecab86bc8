"""Sockets without tasks: what a client may send, and what it may not."""

from dataclasses import replace

import pytest

from plait.server import direct
from plait.server.outbox import FAST_BYTES_MAX
from tests.support.authors import Author
from tests.support.deadlines import eventually
from tests.support.direct import Node, joined, node
from tests.support.frames import DENIED, KEEPALIVE, QUERY_AWARENESS, Frame, update, var_uint
from tests.support.serving import BINARY, CLOSE, PART, PING, PONG, TEXT, Raw


async def slowed_down(server: Node) -> None:
    """Wait until the one client is not read; it is not closed for it, nor for what is not read."""
    (socket,) = server.sockets
    await eventually(lambda: socket.connection.waiting)
    await server.seconds_pass(5 * direct.PING_SECONDS)
    counters = server.plait.hub.counters
    assert counters.limits["frames_per_second"] > 0
    assert counters.closed == {} and server.sockets == [socket]


# Frames


async def test_parts_are_put_together() -> None:
    async with node() as server, joined(server) as client:
        typed = update(Author(1).type("hello"))
        client.frame(typed[:3], BINARY, fin=False)
        client.frame(b"are you there?", PING)
        client.frame(b"", PART, fin=False)
        client.frame(typed[3:], PART)
        assert await client.next(PONG) == b"are you there?"
        await client.hear(typed)


TOO_LARGE = "a message may have 1 MiB (message_mb); what is in a larger one is not saved"


async def turned_away(client: Raw) -> None:
    """Read what a client is told whose message was too large, and that its next one is taken."""
    assert await client.message(DENIED) == Frame(DENIED, TOO_LARGE.encode())
    typed = update(Author(1).type("hello"))
    client.frame(typed)
    await client.hear(typed)


async def test_a_message_that_is_too_large_is_passed_over() -> None:
    async with node(message_mb=1) as server, joined(server) as client:
        client.writer.write(b"\x82\xff" + (5 << 20).to_bytes(8) + bytes(4))
        client.writer.write(b"\x00\x01" + var_uint((5 << 20) - 6) + bytes((5 << 20) - 6))
        await turned_away(client)
        counters = server.plait.hub.counters
        assert (counters.limits["message_mb"], counters.closed) == (1, {})
        assert server.plait.sockets.held == 0


async def test_parts_may_not_be_larger_than_a_message() -> None:
    async with node(message_mb=1) as server, joined(server) as client:
        for number in range(34):
            client.frame(bytes(32 << 10), PART if number else BINARY, fin=number == 33)
        await turned_away(client)
        assert server.plait.sockets.held == 0


async def test_what_is_many_times_too_large_is_not_even_read() -> None:
    async with node(message_mb=1) as server, joined(server) as client:
        client.writer.write(b"\x82\xff" + ((16 << 20) + 1).to_bytes(8) + bytes(4))
        assert (await client.closed())[0] == 1009
    async with node(message_mb=1) as server, joined(server) as client:
        for number in range(17 << 5):
            client.frame(bytes(32 << 10), PART if number else BINARY, fin=False)
        assert (await client.closed())[0] == 1009


async def test_empty_parts_may_not_go_on_for_ever() -> None:
    async with node(message_mb=1) as server, joined(server) as client:
        for number in range(20_000):
            client.frame(b"", PART if number else BINARY, fin=False)
        assert (await client.closed())[0] == 1009


@pytest.mark.parametrize("opcodes", [[PART], [BINARY, BINARY]])
async def test_parts_in_disorder(opcodes: list[int]) -> None:
    async with node() as server, joined(server) as client:
        for opcode in opcodes:
            client.frame(b"x", opcode, fin=False)
        assert (await client.closed())[0] == 1002


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
        # An update of this size is acknowledged when it is stored, and may be overtaken.
        wanted, heard = {typed, KEEPALIVE}, set[bytes]()
        while heard != wanted:
            heard.add(await client.next(BINARY))
            assert heard <= wanted
        (socket,) = server.sockets
        assert socket._plain, "nothing is left over"


async def test_a_giant_that_is_no_message_is_refused_by_its_first_piece() -> None:
    """64 MB were read, kept and copied before anybody looked at them."""
    async with node() as server, joined(server) as client:
        client.writer.write(announced(64 << 20) + bytes(100_000))
        code, reason = await client.closed()
        assert code == 4400 and "67108864 bytes" in reason


async def test_a_long_message_counts_while_it_comes() -> None:
    async with node() as server, joined(server) as client:
        typed = update(Author(1).type("x" * 400_000))
        client.frame(QUERY_AWARENESS)
        await client.hear(KEEPALIVE)
        (socket,) = server.sockets
        quota = socket.connection._quota
        before = quota.bytes
        client.writer.write(announced(len(typed)) + typed[:200_000])
        await eventually(lambda: quota.bytes <= before - 160_000)
        assert server.plait.counters.frames_received == 1
        client.writer.write(typed[200_000:])
        await client.hear(typed)
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
        code, reason = await ben.closed()
        assert code == 1013 and "send it again later" in reason
        assert server.plait.counters.limits["long_messages"] == 1
        ann.writer.write(typed[190_000:])
        await ann.hear(typed)
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
        await server.seconds_pass(direct.PING_SECONDS)
        slow.writer.write(typed[200_000 : 200_000 + direct.SLOW_BYTES + 100_000])
        await eventually(lambda: held.held > 600_000)
        await server.seconds_pass(direct.PING_SECONDS)
        code, reason = await stuck.closed()
        assert code == 1013 and "did not come" in reason
        slow.writer.write(typed[200_000 + direct.SLOW_BYTES + 100_000 :])
        await slow.hear(typed)
        assert held.held == 0


async def test_a_flood_of_pongs_counts() -> None:
    async with node(frames_per_second=1) as server, joined(server) as client:
        for _ in range(server.plait.limits.frames_burst + 100):
            client.frame(b"", PONG)
        await slowed_down(server)


async def test_text_is_refused() -> None:
    async with node() as server, joined(server) as client:
        client.frame(b"hello", TEXT)
        assert (await client.closed())[0] == 1003


async def test_who_breaks_the_rules_is_counted_and_nothing_after_it_is_taken() -> None:
    """picows went on to parse after an error: what followed came in all the same."""
    async with node(message_mb=1) as server, joined(server) as client:
        client.writer.write(b"\xf2\x80" + bytes(4))
        client.frame(update(Author(1).type("hello")))
        assert (await client.closed())[0] == 1002
        await eventually(lambda: not server.sockets)
        assert server.plait.hub.counters.closed == {"1002": 1}
        assert server.room.document.clocks() == {}


async def test_a_good_bye_is_answered() -> None:
    async with node() as server, joined(server) as client:
        client.frame((4000).to_bytes(2) + b"bye", CLOSE)
        assert await client.next(CLOSE) == (4000).to_bytes(2)
        assert await client.rest() == b""
        await eventually(lambda: not server.room.members)
        assert server.plait.hub.counters.closed == {"client": 1}


async def test_a_good_bye_without_a_code_is_answered_with_one() -> None:
    async with node() as server, joined(server) as client:
        client.frame(b"", CLOSE)
        assert await client.next(CLOSE) == (1000).to_bytes(2)


async def test_pings_count_as_messages() -> None:
    async with node(frames_per_second=1) as server, joined(server) as client:
        limits = server.plait.limits
        for _ in range(limits.frames_burst + 100):
            client.frame(b"", PING)
        await slowed_down(server)


@pytest.mark.parametrize("length", [FAST_BYTES_MAX + 1, 1 << 16, 1 << 18])
async def test_a_long_frame_is_whole_though_others_follow_in_the_same_turn(length: int) -> None:
    """picows lent uvloop the memory of a long frame's header, and wrote the next header there."""
    async with node() as server, joined(server) as client:
        (member,) = server.room.members
        long = b"x" * length
        for frame in (long, b"short", long, b"short"):
            member.socket.outbox.push(frame, 0)
        for frame in (long, b"short", long, b"short"):
            await client.hear(frame)
