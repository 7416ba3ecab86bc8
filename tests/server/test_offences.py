"""Who offends again and again waits: for the answer to a handshake, be it good or bad."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from plait.server import app
from plait.server.app import Plait
from plait.server.errors import ServerStopping
from plait.server.limits import Limits
from plait.server.settings import Settings
from tests.server.auth.parts import SECRET
from tests.support.deadlines import eventually
from tests.support.rights import tampered, token
from tests.support.serving import Raw, raw, serving

GOOD = [{"docs": "*", "access": "write"}]
FORGIVEN = 2


@pytest.fixture(params=["direct", "asgi"])
def sockets(request: pytest.FixtureRequest) -> str:
    """How the server carries frames."""
    return str(request.param)


@asynccontextmanager
async def running(
    sockets: str, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> AsyncIterator[tuple[Plait, int]]:
    """A server that forgives little; it forgets nothing while a test runs."""
    usual = app._limits

    def limits(settings: Settings) -> Limits:
        return replace(
            usual(settings),
            offences_forgiven=FORGIVEN,
            offence_seconds=1e9,
            offender_seconds=seconds,
        )

    monkeypatch.setattr(app, "_limits", limits)
    plait = Plait(Settings(store="memory://", token_secret=(SECRET,), sockets=sockets))
    async with plait.running(), serving(plait.asgi, sockets=sockets) as (port, _):
        yield plait, port


def knock(client: Raw, given: str, address: str = "198.51.100.1") -> None:
    client.handshake(f"/ws/a?token={given}", f"X-Forwarded-For: {address}")


async def status(port: int, given: str, address: str = "198.51.100.1") -> int:
    async with raw(port) as client:
        knock(client, given, address)
        return int((await client.head()).split()[1])


def valid(subject: str = "ann") -> str:
    return token(GOOD, aud=None, subject=subject)


async def test_who_is_refused_again_and_again_waits_and_nobody_else_does(
    sockets: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = tampered(valid())
    async with running(sockets, monkeypatch, seconds=1.0) as (plait, port):
        for _ in range(FORGIVEN - 1):
            assert await status(port, bad) == 401
        counts = plait.counters.limits
        async with raw(port) as client:
            knock(client, bad)
            await eventually(lambda: counts["offences"] == 1)
            assert await status(port, valid()) == 101, "a good token from the same address"
            assert await status(port, bad, "198.51.100.2") == 401, "another address"
            assert counts["offences"] == 1
            assert (await client.head()).startswith("HTTP/1.1 401 ")
        assert plait.counters.refused == {"unauthorized": FORGIVEN + 1}


async def test_who_leaves_while_it_waits_waits_no_more(
    sockets: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = tampered(valid())
    async with running(sockets, monkeypatch, seconds=600.0) as (plait, port):
        for _ in range(FORGIVEN - 1):
            assert await status(port, bad) == 401
        async with raw(port) as client:
            knock(client, bad)
            await eventually(lambda: plait.patience.waiting == 1)
        await eventually(lambda: plait.patience.waiting == 0)


async def test_who_breaks_the_rules_again_and_again_waits_though_the_token_is_good(
    sockets: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(sockets, monkeypatch, seconds=600.0) as (plait, port):
        for _ in range(FORGIVEN):
            async with raw(port) as client:
                knock(client, valid("eve"))
                assert (await client.head()).startswith("HTTP/1.1 101 ")
                client.frame(b"\xff" * 10)
                await client.closed()
        async with raw(port) as client:
            knock(client, valid("eve"), "198.51.100.3")
            await eventually(lambda: plait.patience.waiting == 1)
            assert await status(port, valid("ann")) == 101
            assert plait.patience.waiting == 1
        await eventually(lambda: plait.patience.waiting == 0)
        await eventually(lambda: plait.admission.open == 0)


async def test_who_is_sent_away_without_fault_does_not_wait(
    sockets: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(sockets, monkeypatch, seconds=600.0) as (plait, port):
        for _ in range(FORGIVEN + 1):
            async with raw(port) as client:
                knock(client, valid())
                assert (await client.head()).startswith("HTTP/1.1 101 ")
                (room,) = plait.hub.rooms().values()
                await eventually(lambda: room.members)  # noqa: B023
                room.close(ServerStopping("another version comes"))
                await client.closed()
            await eventually(lambda: not room.members)  # noqa: B023
        assert plait.counters.limits["offences"] == 0


async def test_who_is_called_like_an_address_does_not_pay_for_it(
    sockets: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Subjects and addresses had one account."""
    bad = tampered(valid())
    async with running(sockets, monkeypatch, seconds=0.1) as (plait, port):
        for _ in range(FORGIVEN + 1):
            assert await status(port, bad, "198.51.100.9") == 401
        waited = plait.counters.limits["offences"]
        assert waited
        assert await status(port, valid("198.51.100.9"), "198.51.100.2") == 101
        assert plait.counters.limits["offences"] == waited
