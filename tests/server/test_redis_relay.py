"""The way between nodes over a real Redis, which is killed, paused and overrun."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from plait.server import redis_relay
from plait.server.errors import ConfigError
from plait.server.redis_relay import RedisRelay, prefix_of
from tests.support.deadlines import DEADLINE_SECONDS, eventually
from tests.support.redis import RedisServer


class Listener:
    """A relay, and what it has told."""

    def __init__(self, url: str) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.states: list[bool] = []
        self.relay = RedisRelay(url, jitter=lambda: 0.0)
        self.relay.on_message = lambda channel, message: self.heard.append((channel, message))
        self.relay.on_state = self.states.append

    @property
    def messages(self) -> list[bytes]:
        return [message for _, message in self.heard]

    async def is_connected(self, connected: bool) -> None:
        await eventually(lambda: self.relay.connected is connected, f"connected: {connected}")

    async def is_told(self, states: int) -> None:
        await eventually(lambda: len(self.states) == states, f"{states} states")


@asynccontextmanager
async def listening(url: str, *channels: str, wait: bool = True) -> AsyncIterator[Listener]:
    """Run a relay that hears some channels."""
    listener = Listener(url)
    for channel in channels:
        await listener.relay.subscribe(channel)
    task = asyncio.create_task(listener.relay.run())
    try:
        if wait:
            await eventually(lambda: listener.relay.connected, "the connection with Redis")
        yield listener
        assert not task.done(), "it runs until cancelled"
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def heard_by(listener: Listener, message: bytes) -> None:
    await eventually(lambda: message in listener.messages, f"{message!r}")


# What it is for


async def test_what_one_publishes_all_hear_who_listen_the_publisher_included() -> None:
    async with (
        RedisServer() as server,
        listening(server.url, "a", "b") as first,
        listening(server.url, "a") as second,
    ):
        for channel in "abc":
            first.relay.publish(channel, b"\x00" + channel.encode() + b"\xff")
        second.relay.publish("a", b"end")
        await heard_by(first, b"end")
        await heard_by(second, b"end")
        assert first.heard == [("a", b"\x00a\xff"), ("b", b"\x00b\xff"), ("a", b"end")]
        assert second.heard == [("a", b"\x00a\xff"), ("a", b"end")]
        assert first.states == second.states == [True]
        assert (first.relay.dropped, first.relay.queued_bytes) == (0, 0)


async def test_messages_keep_their_order_across_channels() -> None:
    async with (
        RedisServer() as server,
        listening(server.url) as sender,
        listening(server.url, "0", "1", "2") as listener,
    ):
        sent = [(str(number % 3), str(number).encode()) for number in range(10_000)]
        for number, (channel, message) in enumerate(sent):
            sender.relay.publish(channel, message)
            if number % 17 == 0:
                await asyncio.sleep(0)
        await eventually(lambda: len(listener.heard) >= len(sent))
        assert listener.heard == sent


async def test_messages_of_any_size_and_content_arrive() -> None:
    messages = [b"", b"\r\n$5\r\n", bytes(range(256)), b"x" * (3 << 20)]
    async with RedisServer() as server, listening(server.url, "ü/\u2028 *") as listener:
        for message in messages:
            listener.relay.publish("ü/\u2028 *", message)
        await eventually(lambda: len(listener.heard) == len(messages))
        assert listener.messages == messages


async def test_whoever_has_subscribed_hears_what_is_published_right_after() -> None:
    async with (
        RedisServer() as server,
        listening(server.url) as sender,
        listening(server.url) as listener,
    ):
        for number in range(100):
            await listener.relay.subscribe(f"room {number}")
            sender.relay.publish(f"room {number}", b"%d" % number)
            await sender.relay.flush()
        await heard_by(listener, b"99")
        assert listener.messages == [b"%d" % number for number in range(100)]


async def test_all_who_subscribe_to_the_same_wait_for_it() -> None:
    async with RedisServer() as server, listening(server.url) as listener:
        relay = listener.relay
        await asyncio.gather(*(relay.subscribe("a") for _ in range(3)))
        await relay.subscribe("a")
        relay.publish("a", b"x")
        relay.publish("a", b"y")
        await heard_by(listener, b"y")
        assert listener.messages == [b"x", b"y"], "each once"


async def test_many_channels_are_subscribed_to_at_once() -> None:
    names = [f"room {number}" for number in range(2500)]
    async with RedisServer() as server, listening(server.url, *names) as listener:
        for name in names:
            listener.relay.publish(name, name.encode())
        await eventually(lambda: len(listener.heard) == len(names))


async def test_rooms_that_are_closed_and_opened_again_in_a_turn_end_as_they_should() -> None:
    async with (
        RedisServer() as server,
        listening(server.url) as sender,
        listening(server.url, "left", "back") as listener,
    ):
        relay = listener.relay
        relay.unsubscribe("left")
        relay.unsubscribe("back")
        waiting = [asyncio.create_task(relay.subscribe(name)) for name in ("back", "left", "new")]
        await asyncio.sleep(0)
        relay.unsubscribe("left")
        relay.unsubscribe("never there")
        await asyncio.gather(*waiting)
        for name in ("left", "back", "new"):
            sender.relay.publish(name, name.encode())
        await heard_by(listener, b"new")
        assert listener.messages == [b"back", b"new"]


async def test_flush_returns_when_all_is_published() -> None:
    async with RedisServer() as server, listening(server.url, "a") as listener:
        relay = listener.relay
        await relay.flush()
        for number in range(1000):
            relay.publish("a", b"%d" % number)
        assert relay.queued_bytes == sum(len(b"%d" % number) for number in range(1000))
        await relay.flush()
        assert relay.queued_bytes == 0
        stats = await server.ask("INFO", "commandstats")
        assert stats["cmdstat_publish"]["calls"] == 1000


# When Redis goes away


async def test_after_redis_was_killed_and_came_back_all_channels_are_heard_again() -> None:
    async with (
        RedisServer() as server,
        listening(server.url, "a") as first,
        listening(server.url, "a", "b") as second,
    ):
        server.kill()
        for listener in (first, second):
            await listener.is_connected(False)
            assert listener.relay.last_error
        first.relay.publish("a", b"lost")
        assert (first.relay.dropped, first.relay.queued_bytes) == (1, 0)
        await first.relay.flush()
        second.relay.unsubscribe("b")
        await second.relay.subscribe("c")
        await server.start()
        for listener in (first, second):
            await listener.is_connected(True)
            assert listener.states == [True, False, True]
            assert listener.relay.last_error == ""
        for channel in "abc":
            first.relay.publish(channel, channel.encode())
        await heard_by(first, b"a")
        await heard_by(second, b"c")
        assert second.messages == [b"a", b"c"]


async def test_messages_on_their_way_when_redis_dies_are_dropped_and_counted() -> None:
    async with RedisServer() as server, listening(server.url, "a") as listener:
        server.pause()
        for number in range(100):
            listener.relay.publish("a", b"%d" % number)
            await asyncio.sleep(0)
        flushing = asyncio.create_task(listener.relay.flush())
        server.kill()
        await asyncio.wait_for(flushing, DEADLINE_SECONDS)
        await eventually(lambda: not listener.relay.connected)
        assert listener.relay.queued_bytes == 0
        await server.start()
        await eventually(lambda: listener.relay.connected)
        listener.relay.publish("a", b"new")
        await heard_by(listener, b"new")
        assert listener.messages == [b"new"]


async def test_a_redis_that_is_not_there_yet_is_used_once_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = RedisServer()
    async with listening(server.url, "a", wait=False) as listener:
        await eventually(lambda: listener.relay.last_error)
        await listener.relay.subscribe("b")  # which returns, though nobody can confirm it
        async with server:
            await eventually(lambda: listener.relay.connected)
            assert listener.states == [True]
            listener.relay.publish("b", b"x")
            await heard_by(listener, b"x")
    assert caplog.text.count("is away") == 1
    assert caplog.text.count("is back") == 1


async def test_a_redis_that_hangs_is_given_up_and_used_again_when_it_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_relay, "CONNECT_SECONDS", 0.2)
    async with RedisServer() as server, listening(server.url, "a") as listener:
        relay = listener.relay
        server.pause()
        relay.publish("a", b"lost")
        relay.check()  # by the cluster, which does not hear itself
        await eventually(lambda: listener.states == [True, False])
        relay.last_error = ""
        await eventually(lambda: relay.last_error, "the next attempt")
        server.resume()
        await eventually(lambda: relay.connected)
        relay.publish("a", b"x")
        await heard_by(listener, b"x")


async def test_a_room_is_not_kept_waiting_by_a_redis_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_relay, "SUBSCRIBE_SECONDS", 0.05)
    async with RedisServer() as server, listening(server.url) as listener:
        server.pause()
        await asyncio.wait_for(listener.relay.subscribe("a"), DEADLINE_SECONDS)
        server.resume()
        await listener.relay.subscribe("b")
        listener.relay.publish("a", b"x")
        await heard_by(listener, b"x")


async def test_a_connection_that_seems_to_live_is_made_anew_when_it_is_checked() -> None:
    async with RedisServer() as server, listening(server.url, "a") as listener:
        listener.relay.check()
        await eventually(lambda: listener.states == [True, False, True])
        listener.relay.publish("a", b"x")
        await heard_by(listener, b"x")


async def test_one_of_the_two_connections_does_not_live_without_the_other() -> None:
    async with RedisServer() as server, listening(server.url, "a") as listener:
        for kind in ("normal", "pubsub"):
            told = len(listener.states) + 2
            await server.ask("CLIENT", "KILL", "TYPE", kind)
            await listener.is_told(told)
            assert listener.relay.connected
        listener.relay.publish("a", b"x")
        await heard_by(listener, b"x")


async def test_a_queue_that_grows_too_long_is_dropped_and_rooms_learn_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_relay, "QUEUE_BYTES_MAX", 1000)
    async with RedisServer() as server, listening(server.url, "a") as listener:
        relay = listener.relay
        for _ in range(10):
            relay.publish("a", b"x" * 100)
        assert (relay.queued_bytes, relay.dropped) == (1000, 0)
        relay.publish("a", b"x")
        assert (relay.queued_bytes, relay.dropped) == (0, 11)
        await eventually(lambda: listener.states == [True, False, True])
        relay.publish("a", b"new")
        await heard_by(listener, b"new")
        assert listener.messages == [b"new"]


async def test_a_wrong_password_is_told_and_tried_again_ever_more_slowly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pauses: list[float] = []
    enough = asyncio.Event()
    rest = asyncio.sleep

    async def at_once(seconds: float) -> None:
        if seconds:
            pauses.append(seconds)
            if len(pauses) == 10:
                enough.set()
                await asyncio.Event().wait()
        await rest(0)

    async with RedisServer(password="right") as server:
        listener = Listener(f"redis://:wr0ng@127.0.0.1:{server.port}")
        with monkeypatch.context() as patched:
            patched.setattr(asyncio, "sleep", at_once)
            task = asyncio.create_task(listener.relay.run())
            await asyncio.wait_for(enough.wait(), DEADLINE_SECONDS)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    seconds = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5, 5]
    assert pauses == pytest.approx([0.75 * each for each in seconds])
    assert listener.states == []
    assert not listener.relay.connected
    assert "password" in listener.relay.last_error
    assert "wr0ng" not in listener.relay.last_error + listener.relay.url + caplog.text
    assert caplog.text.count("is away") == 1


async def test_what_redis_refuses_to_publish_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with RedisServer() as server, listening(server.url) as listener:
        await server.ask("ACL", "SETUSER", "default", "-publish")
        listener.relay.publish("a", b"x")
        await eventually(lambda: not listener.relay.connected or listener.relay.last_error)
        assert "NOPERM" in caplog.text or "permission" in caplog.text
        await server.ask("ACL", "SETUSER", "default", "+publish")


async def test_a_password_that_has_to_be_encoded_in_a_url_is_the_right_one() -> None:
    async with RedisServer(password="a/b@c:d?") as server, listening(server.url, "a") as listener:
        listener.relay.publish("a", b"x")
        await heard_by(listener, b"x")
        assert listener.relay.url == f"redis://127.0.0.1:{server.port}"


# URLs


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://", "redis://"),
        ("redis://redis.example:6380/2", "redis://redis.example:6380/2"),
        ("redis://user:s3cret@h:1/0?prefix=blue", "redis://h:1/0"),
        ("rediss://:s3%2Fcret@h", "rediss://h"),
        ("redis://[::1]:6379", "redis://[::1]:6379"),
        (
            "redis+sentinel://user:s3cret@a:1,b:2,c/service/3",
            "redis+sentinel://a:1,b:2,c/service/3",
        ),
        ("rediss+sentinel://a/service?prefix=x", "rediss+sentinel://a/service"),
    ],
)
def test_a_url_is_shown_without_secrets(url: str, shown: str) -> None:
    assert RedisRelay(url).url == shown


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "scheme"),
        ("s3cret@h", "scheme"),
        ("http://user:s3cret@h", "scheme"),
        ("redis://user:s3cret@h:port", "Port"),
        ("redis://user:s3cret@h:70000", "Port"),
        ("redis://user:s3cret@h?db=x", "'db'"),
        ("redis://user:s3cret@h?nonsense=1", "nonsense"),
        ("redis://user:s3cret/x@h", "percent-encoded"),
        ("redis://user:s3cret?@h", "percent-encoded"),
        ("redis://user:s3cret#@h", "percent-encoded"),
        ("redis://user:[s3cret@h", "percent-encoded"),
        ("redis://user:s3cret@x@h", "percent-encoded"),
        ("redis://user:s3cret\u2100@h", "percent-encoded"),
        ("redis://[h", "IPv6"),
        ("redis+sentinel://user:s3cret@h:1", "service"),
        ("redis+sentinel://user:s3cret/x@h:1/service", "percent-encoded"),
        ("redis+sentinel://user:s3cret@h:x/service", "int"),
        ("redis+sentinel://user:s3cret@h:1/service/x", "int"),
    ],
)
def test_a_url_that_cannot_be_used_is_told_without_secrets(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        RedisRelay(url)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_prefix_of_channels_is_part_of_the_url() -> None:
    assert prefix_of("redis://h") == "plait"
    assert prefix_of("redis://h/0?prefix=blue&db=2") == "blue"
    assert prefix_of("redis://h?prefix=") == "plait"
