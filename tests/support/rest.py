"""A whole node without a socket: HTTP goes straight into the application, and every answer is
compared with the OpenAPI document.

Unrealistic in that no HTTP server is between: headers and bodies arrive as the client made them.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from plait.server.api import operations
from plait.server.app import Plait
from plait.server.connection import Connection
from plait.server.openapi import describe
from plait.server.room import Room
from plait.server.settings import Settings
from plait.server.wire.ywebsocket import YWEBSOCKET
from tests.support.authors import Author

BASE = "http://localhost"

DESCRIPTION = describe(operations())

UPDATE = {"content-type": "application/octet-stream"}

NOTHING = b"\x00\x00"
"""The update without content."""


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[Plait, httpx.AsyncClient]]:
    """Run a node whose store is in memory, and a client of it. To be entered within the test: a
    fixture may be left in another task, which the hub's task group does not allow.
    """
    plait = Plait(Settings(**{"store": "memory://", "commit_ms": 0.0, **settings}))
    async with plait.running(), client_of(plait) as client:
        yield plait, client


def client_of(plait: Plait) -> httpx.AsyncClient:
    """Return a client whose every answer is checked."""

    async def check(response: httpx.Response) -> None:
        await response.aread()
        check_answer(response)

    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=plait.asgi),
        base_url=BASE,
        event_hooks={"response": [check]},
    )


def connect(plait: Plait, room: Room) -> Connection:
    """Return a connection that is a member of a room."""
    connection = Connection(plait.limits, lambda: None, plait.hub.clock.monotonic)
    connection.join(room, YWEBSOCKET)
    return connection


async def put(client: httpx.AsyncClient, name: str, text: str = "Hello") -> None:
    """Create a document with a text."""
    author = Author(1)
    author.type(text)
    response = await client.put(path(name), content=author.state(), headers=UPDATE)
    assert response.status_code == 201, response.text


def path(name: str, below: str = "") -> str:
    """Return the path of a document, or one below it."""
    return f"/api/docs/{quote(name, safe='')}{below}"


def error(response: httpx.Response, status: int) -> Any:
    """Check that a response is an error, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["x-content-type-options"] == "nosniff"
    return response.json()["error"]


def check_answer(response: httpx.Response) -> None:
    """Check that the description knows an answer. What is not described has to be an error."""
    described = _operation(response.request)
    if described is None:
        assert response.status_code in (403, 404, 405), response.text
        if response.request.method != "HEAD":
            _check_body({"$ref": "#/components/schemas/Error"}, response)
        return
    assert str(response.status_code) in described["responses"], (
        f"{response.request.method} {response.request.url} answered {response.status_code}, "
        f"which is not described: {response.text}"
    )
    answer = described["responses"][str(response.status_code)]
    for name in answer.get("headers", {}):
        if name not in ("Content-Disposition", "Location"):
            assert name in response.headers, f"{name} is promised"
    content = answer.get("content")
    if content is None or response.request.method == "HEAD":
        assert not response.content
        return
    media_type = response.headers["content-type"].partition(";")[0]
    assert media_type in content, f"{media_type} is not described"
    if media_type == "application/json":
        _check_body(content[media_type]["schema"], response)


def _operation(request: httpx.Request) -> Any:
    path = request.url.raw_path.decode().partition("?")[0]
    method = "get" if request.method == "HEAD" else request.method.lower()
    for template, described in DESCRIPTION["paths"].items():
        pattern = re.escape(template).replace(r"\{name\}", "[^/]+")
        if re.fullmatch(pattern, path):
            return described.get(method)
    return None


def _check_body(schema: Any, response: httpx.Response) -> None:
    whole = {**schema, "components": DESCRIPTION["components"]}
    Draft202012Validator(whole).validate(response.json())
