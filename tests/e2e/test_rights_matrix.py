"""Everybody tries everything, on every path: who holds which credential, with which right, and what
comes of what they do. What is expected is computed here once more, from a table.

One server for each way of carrying sockets serves all; each case has a document of its own, which
an admin watches: what is forbidden must not reach the document, nor anybody else.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from tests.server.auth.parts import SECRET
from tests.support.authors import Author, text_of
from tests.support.deadlines import DEADLINE_SECONDS, eventually
from tests.support.frames import (
    ASK_ALL,
    AWARENESS,
    DENIED,
    PERMISSION,
    STEP1,
    STEP2,
    UPDATE,
    Frame,
    awareness,
    parse,
    presence,
    step2,
    update,
)
from tests.support.peer import Peer
from tests.support.rights import (
    AUDIENCE,
    COOKIE,
    Askable,
    Grants,
    admin,
    askable,
    bearer,
    public_keys,
    tampered,
    token,
)
from tests.support.server import PlaitProcess

# What there is to try

RIGHTS: dict[str, tuple[int, Callable[[str], Grants]]] = {
    "nothing": (0, lambda docs: []),
    "read": (1, lambda docs: [{"docs": docs, "access": "read"}]),
    "write": (2, lambda docs: [{"docs": docs, "access": "write"}]),
    "admin": (3, lambda docs: [{"docs": docs, "access": "admin"}]),
    "write by pattern": (2, lambda docs: [{"docs": docs[:-3] + "*", "access": "write"}]),
    "admin of another document": (0, lambda docs: [{"docs": docs + "x", "access": "admin"}]),
    "admin of all": (4, lambda docs: [{"docs": "*", "access": "admin"}]),
    "read all, write another": (
        1,
        lambda docs: [{"docs": "*", "access": "read"}, {"docs": docs + "x", "access": "write"}],
    ),
    "write that has ended": (
        1,
        lambda docs: [
            {"docs": docs, "access": "write", "until": time.time() - 1},
            {"docs": docs, "access": "read"},
        ],
    ),
}
"""For each the level it gives on the document: 1 read, 2 write, 3 admin, 4 admin of all."""

VALID = ("HS256", "RS256", "ES256", "EdDSA", "jwks", "key", "callback", "cookie")
INVALID = ("expired", "revoked", "tampered", "another audience", "another key", "garbage")
ANONYMOUS, STRANGER = "anonymous", "stranger"
"""No credential, for a document that is open to be read, and for one that is not."""

CASES = [
    *((credential, right) for credential in VALID for right in RIGHTS),
    *((credential, "admin of all") for credential in INVALID),
    (ANONYMOUS, "read"),
    (STRANGER, "nothing"),
]

NEEDED = {
    "show": 1,
    "state": 1,
    "json": 1,
    "update": 2,
    "import": 2,
    "delete": 3,
    "undelete": 3,
    "issue": 3,
    "revoke": 3,
    "make a key": 3,
    "list revocations": 4,
    "list keys": 4,
    "metrics": 4,
}
"""The level that each action takes."""


def expected(action: str, credential: str, level: int, well: int) -> int:
    """Return the status that an action is answered with: the oracle."""
    if action == "metrics":
        return well if level >= 4 and credential not in INVALID else 403
    if credential in INVALID:
        return 401
    if level >= NEEDED[action]:
        return well
    return 401 if credential in (ANONYMOUS, STRANGER) else 403


# The servers


@pytest.fixture(scope="module")
def others() -> Iterator[Askable]:
    """The identity provider and the application."""
    with askable() as found:
        yield found


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, sockets: str, others: Askable
) -> Iterator[PlaitProcess]:
    """A server that knows all kinds of credentials. It has to be well to the end."""
    folder = tmp_path_factory.mktemp("matrix")
    (folder / "keys.pem").write_text(public_keys())
    server = PlaitProcess(
        folder,
        *("--sockets", sockets, "--token-secret", SECRET, "--jwt-keys", str(folder / "keys.pem")),
        *("--jwt-jwks", others.url + "/jwks", "--auth-url", others.url + "/auth"),
        *("--jwt-audience", AUDIENCE, "--auth-cookie", COOKIE, "--jwt-leeway-seconds", "0"),
        *("--allow-anonymous", "--anonymous-access", "read", "--anonymous-docs", "open/*"),
    )
    asyncio.run(server.start())
    try:
        yield server
        asyncio.run(server.stop())
        assert SECRET not in server.stderr and "eyJ" not in server.stderr, "a token is in the log"
    finally:
        if server.running:
            asyncio.run(server.kill())
        print(f"--- what {server.url} logged\n{server.stderr}")


@dataclass
class Case:
    """One who tries, and the document."""

    server: PlaitProcess
    credential: str
    level: int
    document: str
    grants: Grants
    presented: str | None
    http: httpx.AsyncClient
    """The admin's."""

    @property
    def headers(self) -> dict[str, str]:
        """Where REST finds the credential."""
        if self.presented is None:
            return {}
        if self.credential == "cookie":
            return {"cookie": f"{COOKIE}={self.presented}"}
        return bearer(self.presented)

    @property
    def path(self) -> str:
        """The document's in REST."""
        return f"/api/docs/{quote(self.document, safe='')}"

    async def text(self) -> str:
        """Return the document's text, as the admin sees it."""
        answer = await self.http.get(self.path + "/state")
        assert answer.status_code == 200, answer.text
        return text_of(answer.content)


_numbers = iter(range(10**6))


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
async def case(
    request: pytest.FixtureRequest, server: PlaitProcess, others: Askable
) -> AsyncIterator[Case]:
    """Each credential with each right, and a document that holds a secret."""
    credential, right = request.param
    level, grants_on = RIGHTS[right]
    number = next(_numbers)
    document = f"{'open' if credential == ANONYMOUS else 'notes'}/{number}/{{a}} b/it"
    headers = bearer(admin())
    async with httpx.AsyncClient(
        base_url=server.url, headers=headers, timeout=DEADLINE_SECONDS
    ) as http:
        grants = grants_on(document)
        found = Case(server, credential, level, document, grants, None, http)
        found.presented = await _make(credential, grants, http, others, number)
        author = Author(1)
        author.type("secret")
        answer = await http.put(
            found.path,
            content=author.state(),
            headers={"content-type": "application/octet-stream"},
        )
        assert answer.status_code == 201, answer.text
        yield found


async def _make(
    credential: str, grants: Grants, http: httpx.AsyncClient, others: Askable, number: int
) -> str | None:
    match credential:
        case "anonymous" | "stranger":
            return None
        case "HS256" | "RS256" | "ES256" | "EdDSA":
            return token(grants, algorithm=credential)
        case "cookie":
            return token(grants)
        case "jwks":
            return token(grants, algorithm="ES256", number=7)
        case "callback":
            others.known[f"ticket {number}"] = {"sub": "ann", "grants": grants}
            return f"ticket {number}"
        case "key":
            return await _make_key(grants, http)
        case "expired":
            return token(grants, exp=time.time() - 1)
        case "revoked":
            found = token(grants, jti=f"revoked {number}")
            body = {"token": f"revoked {number}"}
            assert (await http.post("/api/revocations", json=body)).status_code == 201
            return found
        case "tampered":
            return tampered(token([]))
        case "another audience":
            return token(grants, aud="https://elsewhere.example")
        case "another key":
            return token(grants, algorithm="ES256", number=3)
        case _:
            return "garbage"


async def _make_key(grants: Grants, http: httpx.AsyncClient) -> str:
    """Return an API key; one that may do nothing can't be made by REST."""
    body = {"subject": "ann", "grants": grants or [{"docs": "nowhere", "access": "read"}]}
    answer = await http.post("/api/keys", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


# REST


async def test_rest(case: Case) -> None:
    body = {"content-type": "application/octet-stream"}
    typed, merged = Author(2), Author(3)
    typed.type("typed"), merged.type("merged")
    grants = [{"docs": case.document.replace("*", "\\*"), "access": "read"}]
    tries: list[tuple[str, int, str, str, dict[str, Any]]] = [
        ("show", 200, "GET", case.path, {}),
        ("state", 200, "GET", case.path + "/state", {}),
        ("json", 200, "GET", case.path + "/state?format=json", {}),
        (
            *("update", 200, "POST", case.path + "/updates"),
            {"content": typed.state(), "headers": body},
        ),
        (
            *("import", 200, "PUT", case.path + "?merge=true"),
            {"content": merged.state(), "headers": body},
        ),
        ("issue", 201, "POST", "/api/tokens", {"json": {"sub": "bob", "grants": grants}}),
        ("make a key", 201, "POST", "/api/keys", {"json": {"subject": "bob", "grants": grants}}),
        (
            *("revoke", 201, "POST", "/api/revocations"),
            {"json": {"subject": "nobody", "docs": grants[0]["docs"]}},
        ),
        ("list revocations", 200, "GET", "/api/revocations", {}),
        ("list keys", 200, "GET", "/api/keys", {}),
        ("metrics", 200, "GET", "/metrics", {"headers": {"x-forwarded-for": "192.0.2.7"}}),
    ]
    async with httpx.AsyncClient(base_url=case.server.url, timeout=DEADLINE_SECONDS) as client:

        async def attempt(action: str, well: int, method: str, path: str, more: Any) -> None:
            headers = {**case.headers, **more.pop("headers", {})}
            answer = await client.request(method, path, headers=headers, **more)
            wanted = expected(action, case.credential, case.level, well)
            assert answer.status_code == wanted, (action, answer.text)
            if wanted in (401, 403):
                assert b"secret" not in answer.content
            if wanted == 401:
                assert answer.headers["www-authenticate"] == "Bearer"

        for each in tries:
            await attempt(*each)
        await _check_list(case, client)
        allowed = case.level >= 2 and case.credential not in INVALID
        text = await case.text()
        assert ("typed" in text, "merged" in text) == (allowed, allowed)
        await attempt("delete", 204, "DELETE", case.path, {})
        deleted = case.level >= 3 and case.credential not in INVALID
        shown = await case.http.get(case.path)
        assert shown.status_code == (410 if deleted else 200), "it was deleted, or not"
        if not deleted:
            await case.http.delete(case.path)
        await attempt("undelete", 200, "POST", case.path + "/undelete", {})
        shown = await case.http.get(case.path)
        assert shown.status_code == (200 if deleted else 410), "it was brought back, or not"


async def _check_list(case: Case, client: httpx.AsyncClient) -> None:
    """The list tells what may be read, and of nothing else, not even as the place to go on."""
    answer = await client.get(
        "/api/docs", headers=case.headers, params={"prefix": case.document[:-3], "limit": 1}
    )
    if case.credential in INVALID:
        assert answer.status_code == 401
        return
    assert answer.status_code == 200
    readable = case.level >= 1
    assert [each["name"] for each in answer.json()["docs"]] == [case.document] * readable
    assert answer.json()["next"] is None
    everything = await client.get("/api/docs", headers=case.headers, params={"limit": 1})
    told = everything.json()
    names = {each["name"] for each in told["docs"]} | {told["next"]} - {None}
    for name in names:
        shown = await client.get(f"/api/docs/{quote(name, safe='')}", headers=case.headers)
        assert shown.status_code == 200, f"{name} is told, and may not be read"


# Sockets


@asynccontextmanager
async def socket(case: Case, path: str) -> AsyncIterator[Peer]:
    """Connect with the credential in one of the places where it may be."""
    query, headers, offered = "", {}, None
    given = case.presented
    if given is not None:
        match case.credential:
            case "RS256" | "callback" | "revoked":
                query = "?token=" + quote(given)
            case "EdDSA":
                offered = [Subprotocol("other"), Subprotocol("plait-token." + given)]
            case "ES256":
                offered = [Subprotocol("yauth-" + given)]
            case "cookie":
                headers = {"cookie": f"a=b; {COOKIE}={given}"}
            case _:
                headers = bearer(given)
    async with _connected(case, path, query, headers, offered) as found:
        yield found


@asynccontextmanager
async def _connected(
    case: Case,
    path: str,
    query: str = "",
    headers: dict[str, str] | None = None,
    offered: list[Subprotocol] | None = None,
) -> AsyncIterator[Peer]:
    async with connect(
        case.server.ws_url + path + quote(case.document) + query,
        additional_headers=headers or {},
        subprotocols=offered,
        compression=None,
        ping_interval=None,
        proxy=None,
        open_timeout=DEADLINE_SECONDS,
    ) as opened:
        yield Peer(opened)


async def until_asked(peer: Peer) -> list[Frame]:
    """Return all frames up to the answer to a question that is asked now, that included."""
    await peer.send(ASK_ALL)
    frames: list[Frame] = []
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not frames or frames[-1].kind != STEP2:
            frames.append(parse(await peer.receive()))
    return frames


async def sees(peer: Peer, client: int, *, gone: bool = False) -> None:
    """Wait until a client is seen, or has gone."""
    while True:
        told = presence((await peer.until(AWARENESS)).payload)
        if any(who == client and (state == "null") == gone for who, _, state in told):
            return


def present(frames: list[Frame]) -> set[int]:
    return {
        client
        for each in frames
        if each.kind == AWARENESS
        for client, _, state in presence(each.payload)
        if state != "null"
    }


@pytest.mark.parametrize(
    ("sockets", "path"),
    [
        ("direct", "/ws/"),
        ("asgi", "/"),
        pytest.param("direct", "/", marks=pytest.mark.long),
        pytest.param("asgi", "/ws/", marks=pytest.mark.long),
    ],
    indirect=["sockets"],
    scope="module",
    ids=["direct-ws", "asgi-bare", "direct-bare", "asgi-ws"],
)
async def test_sockets(case: Case, path: str) -> None:
    root = bearer(admin())
    async with _connected(case, "/ws/", headers=root) as watcher:
        await watcher.send(awareness((1, 1, '{"name":"watcher"}')))
        await until_asked(watcher)
        if case.credential in INVALID or case.level < 1:
            with pytest.raises(InvalidStatus) as refused:
                async with socket(case, path):
                    pass
            response = refused.value.response
            unknown = case.credential in (*INVALID, STRANGER)
            assert response.status_code == (401 if unknown else 403)
            assert response.body is not None and b"secret" not in response.body
            if response.status_code == 401:
                assert response.headers["www-authenticate"] == "Bearer"
            heard = await until_asked(watcher)
            assert {each.kind for each in heard} <= {AWARENESS, STEP2}
            assert present(heard) <= {1} and text_of(heard[-1].payload) == "secret"
            return
        async with socket(case, path) as peer:
            await _visit(case, peer, watcher)
        await sees(watcher, 2, gone=True)


async def _visit(case: Case, peer: Peer, watcher: Peer) -> None:
    """Do all that can be done on a socket that is open."""
    writes = case.level >= 2
    greeting = await until_asked(peer)
    kinds = [each.kind for each in greeting]
    assert (STEP1 in kinds, PERMISSION in kinds) == (writes, not writes), kinds
    assert text_of(greeting[-1].payload) == "secret"
    assert present(greeting) == {1}
    await peer.send(awareness((2, 1, '{"name":"visitor"}')))
    await sees(peer, 2)
    await sees(watcher, 2)
    typed, brought = Author(1), Author(3)
    typed.type("secret")  # Whoever goes on typing takes the server's shortest way.
    await peer.send(update(typed.type("typed")), step2(brought.type("brought")))
    answered = await until_asked(peer)
    heard = await until_asked(watcher)
    if writes:
        await eventually(lambda: _has(case, "typed", "brought"), "the edits being stored")
        assert DENIED not in [each.kind for each in answered]
        assert any(each.kind == UPDATE for each in heard)
        return
    assert [each.kind for each in answered if each.kind != AWARENESS] == [DENIED, STEP2]
    assert text_of(answered[-1].payload) == text_of(heard[-1].payload) == "secret"
    assert not any(each.kind == UPDATE for each in heard)
    assert await case.text() == "secret"


async def _has(case: Case, *parts: str) -> bool:
    text = await case.text()
    return all(each in text for each in parts)
