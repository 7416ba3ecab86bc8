"""What comes of a POST, with receivers that are not what they should be."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from plait.server.webhook_message import KINDS, Message, target
from plait.server.webhook_post import BODY_BYTES_MAX, Outcome, Receiver
from tests.support.receiver import HookReceiver
from tests.support.server import free_port

SECRET = "correct horse battery staple"
TOLD = Message("msg_1", b'{"type":"document.deleted","data":{"document":"a"}}')


async def post(url: str, seconds: float = 10.0) -> Outcome:
    async with Receiver(target(url, SECRET, KINDS), seconds=seconds) as receiver:
        return await receiver.post(TOLD, int(time.time() * 1000))


@asynccontextmanager
async def answering(response: Response) -> AsyncIterator[HookReceiver]:
    async def answer(document: str, kind: str) -> Response:
        return response

    async with HookReceiver() as hook:
        hook.answer = answer
        yield hook


@asynccontextmanager
async def speaking(text: bytes, *, hang: bool = False) -> AsyncIterator[str]:
    """Serve bytes, whatever is asked."""
    ended = asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text)
        if hang:
            await ended.wait()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        ended.set()


@pytest.mark.parametrize("status", [200, 201, 204])
async def test_a_success(status: int) -> None:
    async with answering(Response(status_code=status)) as hook:
        assert await post(hook.url) == Outcome()
    (heard,) = hook.heard
    assert heard.body == TOLD.body
    assert heard.headers["content-type"] == "application/json"
    assert heard.headers["user-agent"].startswith("plait/")


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_a_failure(status: int) -> None:
    async with answering(Response(status_code=status)) as hook:
        assert await post(hook.url) == Outcome(f"it answered {status}")


async def test_redirects_are_not_followed() -> None:
    async with HookReceiver() as elsewhere, answering(RedirectResponse(elsewhere.url, 307)) as hook:
        assert await post(hook.url) == Outcome("it answered 307")
        assert not elsewhere.asked


async def test_a_receiver_that_wants_no_more() -> None:
    async with answering(Response(status_code=410)) as hook:
        assert await post(hook.url) == Outcome("it answered 410", final=True)


async def test_a_receiver_that_asks_for_time() -> None:
    async with answering(Response(status_code=429)) as hook:
        assert await post(hook.url) == Outcome("it answered 429", away=True)
    async with answering(Response(status_code=503, headers={"retry-after": "120"})) as hook:
        assert await post(hook.url) == Outcome("it answered 503", away=True, wait_ms=120_000)
    later = {"retry-after": "Fri, 31 Dec 2027 23:59:59 GMT"}
    async with answering(Response(status_code=503, headers=later)) as hook:
        assert await post(hook.url) == Outcome("it answered 503")


async def test_nobody_is_there() -> None:
    outcome = await post(f"http://127.0.0.1:{free_port()}/")
    assert outcome.away and outcome.problem.startswith("it can't be reached")


async def test_no_answer_in_time() -> None:
    async with speaking(b"HTTP/1.1 200 ", hang=True) as url:
        assert await post(url, 0.2) == Outcome("no answer within 0.2 s")


@pytest.mark.parametrize("text", [b"", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\nx" * 9999])
async def test_what_is_no_answer(text: bytes) -> None:
    async with speaking(text) as url:
        outcome = await post(url)
    assert outcome.problem and not outcome.away


async def test_a_long_answer_is_not_read() -> None:
    async with answering(PlainTextResponse(b"x" * (BODY_BYTES_MAX * 100))) as hook:
        assert await post(hook.url) == Outcome()


async def test_an_answer_that_does_not_end_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait.server.webhook_post.BODY_SECONDS", 0.05)
    async with speaking(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", hang=True) as url:
        assert await post(url) == Outcome()
    async with speaking(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc") as url:
        assert await post(url) == Outcome()


async def test_who_calls_in_the_clear_is_warned(caplog: pytest.LogCaptureFixture) -> None:
    for url in ("http://app.internal/?key=s3cret", "https://app.internal/", "http://localhost/"):
        async with Receiver(target(url, SECRET, KINDS)):
            pass
    warned = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warned) == 1
    assert "http://app.internal" in warned[0] and "s3cret" not in warned[0]
