"""Browsers that may not come in: told why, held, and then closed; and never too many of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from websockets.exceptions import InvalidStatus

from plait.server import refusal
from plait.server.app import Plait
from plait.server.settings import Settings
from tests.server.auth.parts import SECRET
from tests.support.authors import Author
from tests.support.deadlines import eventually
from tests.support.frames import ASK_ALL, DENIED, update
from tests.support.peer import Peer, peer
from tests.support.rights import bearer, token
from tests.support.serving import serving

PAGE = "https://app.example"


@pytest.fixture(params=["direct", "asgi"])
def sockets(request: pytest.FixtureRequest) -> str:
    """How the server carries frames."""
    return str(request.param)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is held for long."""
    monkeypatch.setattr(refusal, "HELD_SECONDS", 0.2)


@asynccontextmanager
async def running(sockets: str) -> AsyncIterator[tuple[Plait, str]]:
    settings = Settings(
        store="memory://", token_secret=(SECRET,), allow_origin=(PAGE,), sockets=sockets
    )
    plait = Plait(settings)
    async with plait.running(), serving(plait.asgi, sockets=sockets) as (port, _):
        yield plait, f"ws://127.0.0.1:{port}"


NO_RIGHT = bearer(token([], aud=None))


async def told(refused: Peer) -> str:
    return (await refused.expect(DENIED)).decode()


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("path", ["/ws/", "/"])
async def test_a_browser_is_told_held_and_closed(sockets: str, path: str) -> None:
    async with running(sockets) as (plait, url):
        async with peer(url, "a", path=path, origin=PAGE) as refused:
            assert "a token is needed" in await told(refused)
            code, reason = await refused.closed()
            assert code == 4401 and reason.startswith("a token is needed")
        async with peer(url, "a", path=path, origin=PAGE, additional_headers=NO_RIGHT) as refused:
            assert "not allowed to read" in await told(refused)
            assert (await refused.closed())[0] == 4403
        assert plait.counters.refused == {"unauthorized": 1, "not_allowed": 1}
        assert plait.admission.open == 0 and not plait.hub.rooms()


async def test_nothing_that_is_sent_meanwhile_is_looked_at(sockets: str) -> None:
    async with running(sockets) as (plait, url):
        async with peer(url, "a", origin=PAGE) as refused:
            await told(refused)
            await refused.send(ASK_ALL, update(Author(1).type("x")), b"garbage", "text")
            await refused.socket.ping()
            async with peer(url, "a", origin=PAGE) as other:
                await told(other)
        assert not plait.hub.rooms() and plait.counters.opened == 0


async def test_who_knows_the_codes_is_closed_at_once(sockets: str) -> None:
    async with running(sockets) as (_, url):
        for offered in (["plait"], ["plait", "plait-token.garbage"]):
            async with peer(url, "a", origin=PAGE, subprotocols=offered) as refused:
                assert refused.socket.subprotocol == "plait"
                assert await told(refused)
                assert (await refused.closed())[0] == 4401


async def test_programs_and_pages_of_others_get_a_status(sockets: str) -> None:
    async with running(sockets) as (_, url):
        for origin, status in ((None, 401), ("https://evil.example", 403)):
            with pytest.raises(InvalidStatus) as refused:
                async with peer(url, "a", origin=origin):
                    pass
            assert refused.value.response.status_code == status
        with pytest.raises(InvalidStatus) as refused:
            async with peer(url, "\x00", origin=PAGE):
                pass
        assert refused.value.response.status_code == 400, "it is no right that is missing"


async def test_so_many_are_held_and_no_more(sockets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal, "HELD_MAX", 3)
    async with running(sockets) as (_, url):
        async with AsyncExitStack() as stack:
            for _ in range(3):
                await told(await stack.enter_async_context(peer(url, "a", origin=PAGE)))
            with pytest.raises(InvalidStatus) as refused:
                async with peer(url, "a", origin=PAGE):
                    pass
            assert refused.value.response.status_code == 401

        async def held_again() -> bool:
            try:
                async with peer(url, "a", origin=PAGE) as other:
                    return bool(await told(other))
            except InvalidStatus:
                return False

        await eventually(held_again, "a place for another")


async def test_one_address_has_few_places(sockets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal, "HELD_PER_ADDRESS", 1)
    monkeypatch.setattr(refusal, "source_of", lambda host: host)
    async with running(sockets) as (_, url), peer(url, "a", origin=PAGE) as first:
        await told(first)
        with pytest.raises(InvalidStatus):
            async with peer(url, "a", origin=PAGE):
                pass


async def test_who_floods_the_place_loses_it(sockets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal, "HELD_BYTES_MAX", 10_000)
    async with running(sockets) as (_, url), peer(url, "a", origin=PAGE) as refused:
        await told(refused)
        for _ in range(20):
            await refused.send(b"x" * 1000)
        await eventually(lambda: refused.socket.close_code is not None, "its end", 10)


async def test_a_server_that_ends_does_not_wait_for_them(sockets: str) -> None:
    async with AsyncExitStack() as stack:
        async with running(sockets) as (_, url):
            refused = await stack.enter_async_context(peer(url, "a", origin=PAGE))
            await told(refused)
            begun = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - begun < 4


async def test_a_client_that_leaves_gives_its_place_back(sockets: str) -> None:
    async with running(sockets) as (plait, url):
        refusals = _refusals(plait)
        async with peer(url, "a", origin=PAGE) as refused:
            await told(refused)
            assert refusals.count == 1
        async with peer(url, "a", origin=PAGE) as refused:
            await told(refused)
            refused.vanish()
        await eventually(lambda: refusals.count == 0 and not refusals._held, "both places")


def _refusals(plait: Plait) -> refusal.Refusals:
    for route in plait.asgi.routes:
        entrance = getattr(route, "endpoint", None)
        found = getattr(getattr(entrance, "_endpoint", None), "_refusals", None)
        if isinstance(found, refusal.Refusals):
            return found
    raise AssertionError("there is no endpoint")
