"""Rights that end, or are taken away on one node, end on all nodes within a second."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pytest

from tests.server.auth.parts import SECRET
from tests.support.authors import Author, text_of
from tests.support.deadlines import DEADLINE_SECONDS
from tests.support.frames import (
    DENIED,
    PERMISSION,
    STEP1,
    UPDATE,
    authenticate,
    update,
)
from tests.support.peer import Peer, peer
from tests.support.redis import RedisServer
from tests.support.rights import admin, bearer, token
from tests.support.server import PLAIT, PlaitProcess, environment

SECONDS_MAX = 1.0
"""Within what time a right is gone everywhere, plus what a busy machine takes."""
BUSY_SECONDS = 2.0

READ_ONLY, READ_WRITE = b"readonly", b"read-write"


class Nodes:
    """Nodes on one store."""

    def __init__(self, nodes: list[PlaitProcess]) -> None:
        self.nodes = nodes

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


Open = Callable[..., Awaitable[Nodes]]
KINDS = ["redis", "store alone", "one node"]


@pytest.fixture(params=KINDS)
async def nodes(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_url: str
) -> AsyncIterator[Nodes]:
    """Two nodes on one PostgreSQL, with Redis and without; and one node."""
    async with AsyncExitStack() as stack:
        options = ["--token-secret", SECRET, "--jwt-leeway-seconds", "0"]
        if request.param == "redis":
            redis = await stack.enter_async_context(RedisServer())
            options += ["--relay", redis.url]
        running = []
        for number in range(1 if request.param == "one node" else 2):
            sockets = ("direct", "asgi")[number]
            node = PlaitProcess(
                tmp_path / f"node{number}", "--sockets", sockets, *options, store=postgres_url
            )
            running.append(await stack.enter_async_context(node))
        yield Nodes(running)
        for node in running:
            await node.stop()
            assert SECRET not in node.stderr and "eyJ" not in node.stderr
    for node in running:
        print(f"--- what {node.url} logged\n{node.stderr}")


def can(access: str, **claims: Any) -> str:
    return token([{"docs": "notes*", "access": access}], aud=None, **claims)


async def closed_in_time(visitors: list[Peer], begun: float) -> list[tuple[int, str]]:
    """Wait until all are closed, which has to be soon; return the codes and reasons."""
    found = await asyncio.gather(*(each.closed() for each in visitors))
    assert time.monotonic() - begun < SECONDS_MAX + BUSY_SECONDS
    return found


async def told(visitor: Peer) -> bytes:
    """Return the next permission that is told."""
    return (await visitor.until(PERMISSION)).payload


@pytest.mark.parametrize(
    "what",
    [{"subject": "ann"}, {"token": "t1"}, {"docs": "notes"}, {"docs": "no*", "subject": "ann"}],
    ids=lambda what: "+".join(what),
)
async def test_who_is_revoked_is_closed_on_all_nodes(nodes: Nodes, what: Any) -> None:
    bob = can("write", sub="bob", jti="t2")
    async with (
        nodes.visitors("notes", can("write", jti="t1")) as anns,
        nodes.visitors("notes2", bob) as bobs,
    ):
        await nodes.revoke(**what)
        for code, reason in await closed_in_time(anns, time.monotonic()):
            assert code == 4401 and "taken away" in reason
        for number, node in enumerate(nodes.nodes):
            async with httpx.AsyncClient(base_url=node.url) as http:
                answer = await http.get(
                    "/api/docs/notes/state", headers=bearer(can("write", jti="t1"))
                )
                assert answer.status_code in (401, 403), number
        for each in bobs:
            await each.state()


async def test_who_may_only_read_any_more_is_told_on_all_nodes(nodes: Nodes) -> None:
    async with (
        nodes.visitors("notes", can("write")) as anns,
        nodes.visitors("notes", can("write", subject="bob")) as bobs,
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
    async with nodes.visitors("notes", made["key"]) as visitors:
        await nodes.rest("DELETE", f"/api/keys?id={made['id']}")
        for code, _ in await closed_in_time(visitors, time.monotonic()):
            assert code == 4401


async def test_a_token_that_ends_closes_its_sockets(nodes: Nodes) -> None:
    ends = time.time() + 2
    async with nodes.visitors("notes", can("write", exp=ends)) as visitors:
        for code, reason in await asyncio.gather(*(each.closed() for each in visitors)):
            assert code == 4401 and "expired" in reason
    assert 0 <= time.time() - ends < SECONDS_MAX + BUSY_SECONDS


async def test_a_new_token_keeps_the_socket_open(nodes: Nodes) -> None:
    ends = time.time() + 2
    async with nodes.visitors("notes", can("write", exp=ends)) as visitors:
        for each in visitors:
            await each.send(authenticate(can("write", exp=ends, subject="bob")))
            await denied(each, "another subject")
            await each.send(authenticate("garbage"))
            await denied(each, "not valid")
            await each.send(authenticate(can("write")))
            assert await told(each) == READ_WRITE
        async with nodes.visitors("notes", can("write", exp=ends)) as others:
            for each in others:
                assert (await each.closed())[0] == 4401  # The old ones have ended.
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
    async with nodes.visitors("notes", can("write", jti="t1")) as visitors:
        done = await asyncio.to_thread(
            subprocess.run,
            [*PLAIT, "token", "revoke", "--subject", "ann", "--store", nodes.nodes[0].store_url],
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        for code, _ in await closed_in_time(visitors, time.monotonic()):
            assert code == 4401


async def test_a_right_is_gone_within_a_second(nodes: Nodes) -> None:
    """From the answer of one node to the close on the other; the median of some."""
    seconds = []
    for number in range(5):
        given = can("write", jti=f"t{number}")
        async with nodes.visitors("notes", given) as visitors:
            await visitors[-1].state()
            await nodes.revoke(token=f"t{number}")
            begun = time.monotonic()
            assert (await visitors[-1].closed())[0] == 4401
            seconds.append(time.monotonic() - begun)
    print(f"gone after {sorted(round(each * 1000) for each in seconds)} ms")
    assert median(seconds) < SECONDS_MAX
