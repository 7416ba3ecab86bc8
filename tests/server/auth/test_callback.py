"""The application that is asked about tokens: a site on this machine."""

import asyncio
import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import pytest

from plait.server.auth.asking import AT_ONCE_MAX
from plait.server.auth.callback import BYTES_MAX, Callback, signing_key
from plait.server.auth.chain import REFUSED_SECONDS, Verifiers
from plait.server.auth.credentials import Credential
from plait.server.auth.principal import Access, Grant
from plait.server.errors import AuthUnavailable, ConfigError, PlaitError, Unauthorized
from tests.server.auth.parts import GRANTS, NOW, Asked, Clock, Site, answer, site
from tests.support.deadlines import eventually

SECRET = "whsec_" + b64encode(bytes(range(32))).decode()
ANN = {"sub": "ann", "name": "Ann", "color": "#1b746c", "grants": GRANTS}
TOKEN = Credential("the-token-of-ann", "query")


@asynccontextmanager
async def application(
    says: Callable[[Asked], bytes], seconds: float = 20, counts: float = 60, secret: str = SECRET
) -> AsyncIterator[tuple[Site, Verifiers, Clock]]:
    """Run an application, and what asks it."""
    clock = Clock()
    async with site(says) as running:
        callback = Callback(running.url, secret, seconds, counts, clock)
        verifiers = Verifiers([callback], None, clock, clock)
        yield running, verifiers, clock
        await verifiers.close()


def always(*arguments: Any) -> Callable[[Asked], bytes]:
    """Return an application that answers the same each time."""
    return lambda asked: answer(*arguments)


async def test_its_answer_is_what_somebody_may_do() -> None:
    async with application(always({**ANN, "exp": NOW + 9})) as (running, verifiers, _):
        somebody = await verifiers.principal(TOKEN, "notes/ä")
        assert (somebody.subject, somebody.name, somebody.color) == ("ann", "Ann", "#1b746c")
        assert somebody.grants == (Grant("notes/*", Access.WRITE),) and somebody.until == NOW + 9
        assert somebody.token_id.startswith("sha256:") and somebody.issued is None
        (asked,) = running.asked
        assert asked.line == "POST /auth HTTP/1.1"
        assert asked.headers["content-type"] == "application/json"
        assert json.loads(asked.body) == {"token": TOKEN.token, "document": "notes/ä"}


async def test_the_application_can_tell_who_asks() -> None:
    async with application(always(ANN)) as (running, verifiers, _):
        await verifiers.principal(TOKEN, None)
        (asked,) = running.asked
        id, timestamp = asked.headers["webhook-id"], asked.headers["webhook-timestamp"]
        assert timestamp == str(int(NOW)) and id.startswith("msg_")
        signed = f"{id}.{timestamp}.".encode() + asked.body
        mac = hmac.new(bytes(range(32)), signed, sha256).digest()
        assert asked.headers["webhook-signature"] == "v1," + b64encode(mac).decode()
        assert json.loads(asked.body)["document"] is None


async def test_without_a_secret_nothing_is_signed() -> None:
    async with application(always(ANN), secret="") as (running, verifiers, _):
        await verifiers.principal(TOKEN, None)
        assert "webhook-signature" not in running.asked[0].headers


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_it_may_say_no(status: int) -> None:
    async with application(always(ANN, status)) as (running, verifiers, clock):
        for _ in range(3):
            with pytest.raises(Unauthorized, match="the application does not know it"):
                await verifiers.principal(TOKEN, "a")
        assert len(running.asked) == 1
        clock.at += REFUSED_SECONDS
        with pytest.raises(Unauthorized):
            await verifiers.principal(TOKEN, "a")
        assert len(running.asked) == 2


@pytest.mark.parametrize(
    "said",
    [
        answer(ANN, 201),
        answer(ANN, 204),
        answer(ANN, 400),
        answer(ANN, 500),
        answer(ANN, 302, "Location: /elsewhere\r\n"),
        answer(ANN, 307, "Location: http://192.0.2.1/\r\n"),
        answer(b""),
        answer(b"yes"),
        answer(b"true"),
        answer([ANN]),
        answer(b"[" * 60_000),
        answer({**ANN, "grants": "*"}),
        answer({**ANN, "sub": 7}),
        answer({**ANN, "more": "x" * BYTES_MAX}),
        answer(ANN, 200, "Content-Encoding: gzip\r\n"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{}",
        b"garbage\r\n\r\n",
        b"",
    ],
    ids=range(18),
)
async def test_whatever_else_it_says_lets_nobody_in(said: bytes, caplog: Any) -> None:
    async with application(lambda asked: said) as (running, verifiers, _):
        for _ in range(2):
            with pytest.raises(AuthUnavailable, match="try again"):
                await verifiers.principal(TOKEN, "a")
        # Nothing of it is remembered, and it is told once; never the token.
        assert len(running.asked) == 2 and len(caplog.records) == 1
        assert "the application (auth_url) (127.0.0.1) can't be asked" in caplog.text
        assert TOKEN.token not in caplog.text
        running.says = always(ANN)
        assert (await verifiers.principal(TOKEN, "a")).subject == "ann"


async def test_an_application_that_is_slow_lets_nobody_in() -> None:
    async with application(always(ANN), seconds=0.1) as (running, verifiers, _):
        running.gate.clear()
        with pytest.raises(AuthUnavailable):
            await verifiers.principal(TOKEN, "a")


async def test_an_application_that_is_not_there_lets_nobody_in() -> None:
    async with application(always(ANN)) as (running, _, clock):
        url = running.url
    verifiers = Verifiers([Callback(url, "", 20, 60, clock)], None, clock, clock)
    with pytest.raises(AuthUnavailable):
        await verifiers.principal(TOKEN, "a")
    await verifiers.close()


async def test_an_answer_counts_for_its_document_and_its_time() -> None:
    async with application(always(ANN)) as (running, verifiers, clock):
        for _ in range(3):
            for document in ("a", "b", None):
                await verifiers.principal(TOKEN, document)
        assert len(running.asked) == 3
        clock.at += 59
        await verifiers.principal(TOKEN, "a")
        assert len(running.asked) == 3
        clock.at += 1
        await verifiers.principal(TOKEN, "a")
        assert len(running.asked) == 4


async def test_who_lists_documents_first_is_let_in_afterwards() -> None:
    """The grants that are answered for no document are not those of a document."""

    def says(asked: Asked) -> bytes:
        document = json.loads(asked.body)["document"]
        if document == "secret":
            return answer({}, 403)
        grants = [{"docs": document, "access": "write"}] if document else []
        return answer({"sub": "ann", "grants": grants})

    async with application(says) as (_, verifiers, _clock):
        assert (await verifiers.principal(TOKEN, None)).access_to("a", NOW) is Access.NONE
        for document in ("a", "b"):
            somebody = await verifiers.principal(TOKEN, document)
            assert somebody.access_to(document, NOW) is Access.WRITE
        with pytest.raises(Unauthorized):
            await verifiers.principal(TOKEN, "secret")
        assert (await verifiers.principal(TOKEN, "a")).subject == "ann"


async def test_it_may_be_asked_each_time() -> None:
    async with application(always(ANN), counts=0) as (running, verifiers, _):
        for _ in range(3):
            await verifiers.principal(TOKEN, "a")
        running.says = always(b"", 401)
        for _ in range(3):
            with pytest.raises(Unauthorized):
                await verifiers.principal(TOKEN, "a")
        assert len(running.asked) == 6


async def test_what_has_ended_is_refused_whatever_the_application_says() -> None:
    async with application(always({**ANN, "exp": NOW + 5})) as (_, verifiers, clock):
        await verifiers.principal(TOKEN, "a")
        clock.at += 5
        with pytest.raises(Unauthorized, match="expired"):
            await verifiers.principal(TOKEN, "a")


async def test_those_who_come_together_wait_for_one_answer() -> None:
    async with application(always(ANN)) as (running, verifiers, _):
        running.gate.clear()
        several = [asyncio.create_task(verifiers.principal(TOKEN, "a")) for _ in range(50)]
        await eventually(lambda: running.asked, "the question")
        several.pop(0).cancel()
        running.gate.set()
        assert {each.subject for each in await asyncio.gather(*several)} == {"ann"}
        assert len(running.asked) == 1


async def test_only_so_many_questions_are_asked_at_once() -> None:
    async with application(always(ANN)) as (running, verifiers, _):
        running.gate.clear()
        several = [
            asyncio.create_task(verifiers.principal(Credential(str(number), "query"), None))
            for number in range(AT_ONCE_MAX + 20)
        ]
        await eventually(lambda: running.present == AT_ONCE_MAX, "the questions")
        running.gate.set()
        await asyncio.gather(*several)
        assert running.most == AT_ONCE_MAX and len(running.asked) == AT_ONCE_MAX + 20


@pytest.mark.parametrize("secret", ["short", "whsec_AAAA", "whsec_not base64", "whsec_é"])
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(ConfigError, match="auth_secret") as caught:
        signing_key(secret, "auth_secret")
    assert issubclass(ConfigError, PlaitError) and secret not in str(caught.value)


def test_a_secret_may_be_base64_or_its_characters() -> None:
    assert signing_key(SECRET, "x") == b64decode(SECRET[6:])
    assert signing_key("c" * 24, "x") == b"c" * 24
