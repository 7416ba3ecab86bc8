"""Rights that end, or are taken away on one node, end on all nodes."""

import asyncio
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import count
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.server.auth.parts import SECRET
from tests.support.authors import Author, text_of
from tests.support.deadlines import DEADLINE_SECONDS, eventually
from tests.support.frames import (
    DENIED,
    PERMISSION,
    STEP1,
    UPDATE,
    authenticate,
    update,
)
from tests.support.peer import Peer, peer
from tests.support.postgres import PostgresServer
from tests.support.redis import RedisServer
from tests.support.rights import admin, bearer, token
from tests.support.server import PLAIT, PlaitProcess, environment

READ_ONLY, READ_WRITE = b"readonly", b"read-write"
TRIED_SECONDS = (2, 4, 8, 16, 32)
"""Until a token ends that has to be shown before that: a busy machine may take some."""


class Nodes:
    """Nodes on one store, and a document that no other test uses."""

    def __init__(self, nodes: list[PlaitProcess], number: int) -> None:
        self.nodes = nodes
        self.room = f"notes/{number}"
        self.other_room = f"others/{number}"

    def can(self, access: str, **claims: Any) -> str:
        """Return a token of Ann's, or of somebody else's, for both documents."""
        docs = [self.room, self.other_room]
        return token([{"docs": each, "access": access} for each in docs], aud=None, **claims)

    async def rest(self, method: str, path: str, *, node: int = 0, **more: Any) -> httpx.Response:
        """Ask a node for something as its admin; it has to be well done."""
        async with httpx.AsyncClient(
            base_url=self.nodes[node].url, timeout=DEADLINE_SECONDS
        ) as http:
            answer = await http.request(method, path, headers=bearer(admin(aud=None)), **more)
        assert answer.is_success, answer.text
        return answer

    async def revoke(self, *, node: int = 0, **what: Any) -> str:
        """Take rights away; return the revocation's id."""
        answer = await self.rest("POST", "/api/revocations", node=node, json=what)
        return str(answer.json()["id"])

    async def give_back(self) -> None:
        """Take back all that was taken away; return when all nodes know it."""
        for each in (await self.rest("GET", "/api/revocations")).json()["revocations"]:
            await self.rest("DELETE", f"/api/revocations?id={each['id']}")
        given = self.can("write", jti="t1")
        for number in range(len(self.nodes)):
            await eventually(lambda at=number: self.is_let_in(at, given), "the end of it")  # type: ignore[misc]

    async def is_let_in(self, node: int, given: str) -> bool:
        """Return whether a token is good for the document."""
        async with httpx.AsyncClient(base_url=self.nodes[node].url) as http:
            path = f"/api/docs/{quote(self.room, safe='')}/state"
            answer = await http.get(path, headers=bearer(given))
        return answer.status_code not in (401, 403)

    @asynccontextmanager
    async def visitors(self, room: str, given: str) -> AsyncIterator[list[Peer]]:
        """Connect to each node with the same token."""
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(
                    peer(node.ws_url, room, additional_headers=bearer(given))
                )
                for node in self.nodes
            ]


KINDS = ["redis", "store alone", "one node"]


@pytest.fixture(params=KINDS, scope="module")
def running(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: PostgresServer,
) -> Iterator[list[PlaitProcess]]:
    """Two nodes on one PostgreSQL, with Redis and without; and one node. For all tests."""
    folder = tmp_path_factory.mktemp("revocation")
    store = postgres_server.url(f"test_{uuid.uuid4().hex}")
    options = ["--token-secret", SECRET, "--jwt-leeway-seconds", "0"]
    with asyncio.Runner() as runner:
        redis = RedisServer() if request.param == "redis" else None
        if redis is not None:
            runner.run(redis.start())
            options += ["--relay", redis.url]
        nodes = [
            PlaitProcess(folder / sockets, "--sockets", sockets, *options, store=store)
            for sockets in (["direct"] if request.param == "one node" else ["direct", "asgi"])
        ]
        try:
            for node in nodes:
                runner.run(node.start())
            yield nodes
            for node in nodes:
                runner.run(node.stop())
                assert SECRET not in node.stderr and "eyJ" not in node.stderr
        finally:
            for node in nodes:
                if node.running:
                    runner.run(node.kill())
                print(f"--- what {node.url} logged\n{node.stderr}")
            if redis is not None:
                runner.run(redis.__aexit__())


_numbers = count()


@pytest.fixture
async def nodes(running: list[PlaitProcess]) -> AsyncIterator[Nodes]:
    """Those nodes, which leave nobody without rights to the next test."""
    nodes = Nodes(running, next(_numbers))
    yield nodes
    await nodes.give_back()


async def all_closed(visitors: list[Peer]) -> list[tuple[int, str]]:
    """Wait until all are closed; return the codes and reasons."""
    return await asyncio.gather(*(each.closed() for each in visitors))


async def told(visitor: Peer) -> bytes:
    """Return the next permission that is told."""
    return (await visitor.until(PERMISSION)).payload


@pytest.mark.parametrize("what", ["subject", "token", "docs", "docs+subject"])
async def test_who_is_revoked_is_closed_on_all_nodes(nodes: Nodes, what: str) -> None:
    named: dict[str, Any] = {
        "subject": "ann",
        "token": "t1",
        "docs": "notes/*" if "+" in what else nodes.room,
    }
    ann, bob = nodes.can("write", jti="t1"), nodes.can("write", sub="bob", jti="t2")
    async with (
        nodes.visitors(nodes.room, ann) as anns,
        nodes.visitors(nodes.other_room, bob) as bobs,
    ):
        await nodes.revoke(**{name: named[name] for name in what.split("+")})
        for code, reason in await all_closed(anns):
            assert code == 4401 and "taken away" in reason
        for number in range(len(nodes.nodes)):
            assert not await nodes.is_let_in(number, ann)
        for each in bobs:
            await each.state()


async def test_who_may_only_read_any_more_is_told_on_all_nodes(nodes: Nodes) -> None:
    async with (
        nodes.visitors(nodes.room, nodes.can("write")) as anns,
        nodes.visitors(nodes.room, nodes.can("write", subject="bob")) as bobs,
    ):
        id = await nodes.revoke(subject="ann", access="read")
        assert {await told(each) for each in anns} == {READ_ONLY}
        offline = [Author(1), Author(2)]
        for author, each in zip(offline, anns, strict=False):
            await each.send(update(author.type("typed ")))
            await each.until(DENIED)
        for each in bobs:
            assert text_of(await each.state()) == ""
        await nodes.rest("DELETE", f"/api/revocations?id={id}", node=len(nodes.nodes) - 1)
        for author, each in zip(offline, anns, strict=False):
            assert await told(each) == READ_WRITE
            await each.until(STEP1)
            await each.send(update(author.state()))  # what it is asked for
        for each in bobs:
            while text_of(await each.state()).count("typed") < len(anns):
                pass


async def test_a_key_that_is_deleted_closes_its_sockets(nodes: Nodes) -> None:
    body = {"subject": "app", "grants": [{"docs": "*", "access": "write"}]}
    made = (await nodes.rest("POST", "/api/keys", json=body)).json()
    async with nodes.visitors(nodes.room, made["key"]) as visitors:
        await nodes.rest("DELETE", f"/api/keys?id={made['id']}")
        for code, _ in await all_closed(visitors):
            assert code == 4401


async def test_a_token_that_ends_closes_its_sockets(nodes: Nodes) -> None:
    async with AsyncExitStack() as stack:
        for seconds in TRIED_SECONDS:
            ends = time.time() + seconds
            given = nodes.can("write", exp=ends)
            with suppress(InvalidStatus):
                visitors = await stack.enter_async_context(nodes.visitors(nodes.room, given))
                break
        for code, reason in await all_closed(visitors):
            assert code == 4401 and "expired" in reason
        assert time.time() >= ends


async def test_a_new_token_keeps_the_socket_open(nodes: Nodes) -> None:
    async with AsyncExitStack() as stack:
        for seconds in TRIED_SECONDS:
            given = nodes.can("write", exp=time.time() + seconds)
            with suppress(InvalidStatus, ConnectionClosed):
                visitors = await stack.enter_async_context(nodes.visitors(nodes.room, given))
                others = await stack.enter_async_context(nodes.visitors(nodes.room, given))
                for each in visitors:
                    await each.send(authenticate(nodes.can("write", subject="bob")))
                    await denied(each, "another subject")
                    await each.send(authenticate("garbage"))
                    await denied(each, "not valid")
                    await each.send(authenticate(nodes.can("write")))
                    assert await told(each) == READ_WRITE
                break
        for code, _ in await all_closed(others):
            assert code == 4401  # The old ones have ended.
        for number, each in enumerate(visitors):
            typed = Author(number).type("x")
            await each.send(update(typed))
            await each.until(UPDATE)  # its acknowledgement


async def denied(visitor: Peer, reason: str) -> None:
    """Wait for a denial, and look at its reason."""
    while (found := await visitor.next(DENIED, STEP1)).kind != DENIED:
        pass  # the greeting
    assert reason in found.payload.decode()


async def test_the_command_line_takes_rights_away(nodes: Nodes) -> None:
    async with nodes.visitors(nodes.room, nodes.can("write", jti="t1")) as visitors:
        done = await asyncio.to_thread(
            subprocess.run,
            [*PLAIT, "token", "revoke", "--subject", "ann", "--store", nodes.nodes[0].store_url],
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        for code, _ in await all_closed(visitors):
            assert code == 4401
