"""Keys of an identity provider: fetched from a site on this machine."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from plait.server.auth.jwks import BYTES_MAX, FRESH_SECONDS, KEPT_SECONDS, UNKNOWN_SECONDS, Jwks
from plait.server.auth.jwt import Expected, Jwt
from plait.server.errors import AuthUnavailable
from tests.server.auth.parts import (
    NOW,
    PUBLIC_KEY_ALGORITHMS,
    Clock,
    Site,
    answer,
    jwk,
    private_key,
    site,
    token,
)
from tests.support.deadlines import eventually


class Provider:
    """A provider whose keys a test changes, and a verifier that asks it."""

    def __init__(self, running: Site, seconds: float) -> None:
        self.site = running
        self.says: Callable[[], bytes] = lambda: answer({"keys": [jwk("ES256")]})
        running.says = lambda asked: self.says()
        self.clock = Clock()
        self.jwks = Jwks(running.url, seconds, self.clock)
        self.verifier = Jwt((), self.jwks, Expected(), lambda: NOW)

    async def accepts(
        self, algorithm: str = "ES256", number: int = 0, kid: str | None = ""
    ) -> bool:
        """Whether a token is accepted that a key has signed."""
        name = f"{algorithm}-{number}" if kid == "" else kid
        header = {"kid": name} if name else {}
        said = token(algorithm, private_key(algorithm, number), header)
        return await self.verifier.verify(said, None) is not None


@asynccontextmanager
async def provider(seconds: float = 20) -> AsyncIterator[Provider]:
    async with site(lambda asked: b"") as running:
        made = Provider(running, seconds)
        yield made
        await made.verifier.close()


async def test_keys_are_fetched_once_for_all_algorithms() -> None:
    async with provider() as each:
        each.says = lambda: answer({"keys": [jwk(name) for name in PUBLIC_KEY_ALGORITHMS]})
        assert all([await each.accepts(name) for name in PUBLIC_KEY_ALGORITHMS])
        assert await each.accepts(kid=None)
        assert len(each.site.asked) == 1
        assert each.site.asked[0].line == "GET /auth HTTP/1.1"


async def test_nothing_is_fetched_for_what_could_not_be_signed_by_them() -> None:
    async with provider() as each:
        for said in (token(), "x.y.z", "no token", token("HS384", "s" * 48)):
            assert await each.verifier.verify(said, None) is None
        assert not each.site.asked


async def test_a_new_key_is_found_at_once_and_the_old_one_goes_in_time() -> None:
    async with provider() as each:
        assert await each.accepts() and not await each.accepts("ES256", 1, kid="ES256-0")
        each.says = lambda: answer({"keys": [jwk("ES256", 1)]})
        assert await each.accepts(number=1)
        assert len(each.site.asked) == 2
        assert not await each.accepts()


async def test_a_key_that_is_gone_stops_to_count_in_ten_minutes() -> None:
    async with provider() as each:
        assert await each.accepts()
        each.says = lambda: answer({"keys": [jwk("ES256", 1)]})
        each.clock.at += FRESH_SECONDS - 1
        assert await each.accepts()
        each.clock.at += 1
        assert not await each.accepts()


async def test_keys_that_are_made_up_do_not_make_it_ask_all_the_time() -> None:
    async with provider() as each:
        assert await each.accepts()
        for number in range(20):
            assert not await each.accepts(kid=f"made-up-{number}")
        assert len(each.site.asked) == 2
        each.clock.at += UNKNOWN_SECONDS
        assert not await each.accepts(kid="made-up")
        assert len(each.site.asked) == 3


async def test_those_who_come_together_wait_for_one_answer() -> None:
    async with provider() as each:
        each.site.gate.clear()
        several = [asyncio.create_task(each.accepts()) for _ in range(50)]
        await eventually(lambda: each.site.asked, "the question")
        several.pop().cancel()
        each.site.gate.set()
        assert all(await asyncio.gather(*several))
        assert len(each.site.asked) == 1


async def test_keys_count_for_a_day_while_the_provider_is_away() -> None:
    async with provider() as each:
        assert await each.accepts()
        each.says = lambda: answer(b"", 503)
        each.clock.at += KEPT_SECONDS - 1
        assert await each.accepts()
        assert await each.accepts()
        assert len(each.site.asked) == 2, "it is left alone for a moment"
        with pytest.raises(AuthUnavailable):
            await each.accepts(kid="perhaps a new one")
        each.clock.at += 1
        for _ in range(2):
            with pytest.raises(AuthUnavailable, match="try again"):
                await each.accepts()
        each.clock.at += 10
        each.says = lambda: answer({"keys": [jwk("ES256")]})
        assert await each.accepts()


@pytest.mark.parametrize(
    "said",
    [
        answer(b"", 500),
        answer({"keys": [jwk("ES256")]}, 404),
        answer(b"garbage"),
        answer([]),
        answer({"keys": 7}),
        answer({"keys": []}),
        answer({"keys": [{"kty": "oct", "k": "AAAA"}]}),
        answer(b"[" * 100_000),
        answer({"keys": [jwk("ES256")], "more": "x" * BYTES_MAX}),
        answer({"keys": [jwk("ES256")]}, 302, "Location: http://127.0.0.1:1/\r\n"),
        answer(b"x", 200, "Content-Encoding: gzip\r\n"),
        b"garbage\r\n\r\n",
        b"",
    ],
    ids=range(13),
)
async def test_without_keys_nobody_knows(said: bytes, caplog: Any) -> None:
    async with provider() as each:
        each.says = lambda: said
        for _ in range(3):
            with pytest.raises(AuthUnavailable, match="try again"):
                await each.accepts()
        assert len(each.site.asked) == 1
        (line,) = caplog.messages
        assert "the keys of the identity provider (127.0.0.1) can't be asked" in line
        each.clock.at += 10
        each.says = lambda: answer({"keys": [jwk("ES256")]})
        assert await each.accepts()


async def test_a_provider_that_does_not_answer_in_time_is_away(caplog: Any) -> None:
    async with provider(seconds=0.1) as each:
        each.site.gate.clear()
        with pytest.raises(AuthUnavailable):
            await each.accepts()
        assert "no answer within 0.1 s" in caplog.text


async def test_who_waits_when_the_server_stops_is_told() -> None:
    async with provider() as each:
        each.site.gate.clear()
        waiting = asyncio.create_task(each.accepts())
        await eventually(lambda: each.site.asked, "the question")
        await each.verifier.close()
        with pytest.raises(AuthUnavailable, match="stopping"):
            await waiting
