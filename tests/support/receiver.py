"""An application that is told by webhook, on a real HTTP server, and that fails as a test wants."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.support.deadlines import eventually
from tests.support.server import free_port


@dataclass(frozen=True)
class Heard:
    """One request."""

    headers: dict[str, str]
    body: bytes
    status: int

    @property
    def id(self) -> str:
        """Its webhook-id."""
        return self.headers["webhook-id"]

    @property
    def told(self) -> dict[str, Any]:
        """Its body."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def event(self) -> tuple[str, str]:
        """Document and kind."""
        kind = self.told["type"].removeprefix("document.")
        return self.told["data"]["document"], kind


Answer = Callable[[str, str], Awaitable[Response]]
"""Told document and kind."""


async def well(document: str, kind: str) -> Response:
    """Answer as an application that is well."""
    return Response(status_code=204)


class HookReceiver:
    """Remembers what it is told. An async context manager; may be stopped and started again."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/hooks/plait?key=s3cret"
        self.heard: list[Heard] = []
        self.answer: Answer = well
        self.asked = 0
        """Requests that came, also those without an answer yet."""
        self.at_once = 0
        """The most at a time."""
        self._open = 0
        self._stack = AsyncExitStack()

    @property
    def accepted(self) -> list[tuple[str, str]]:
        """Document and kind of all that was answered well."""
        return [each.event for each in self.heard if each.status < 300]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen."""
        application = Starlette(routes=[Route("/hooks/plait", self._hear, methods=["POST"])])
        config = uvicorn.Config(application, lifespan="off", log_config=None, access_log=False)
        config.timeout_graceful_shutdown = 1
        # It closes no idle connection: a request that meets that fails, and is tried again later.
        config.timeout_keep_alive = 3600
        server = uvicorn.Server(config)
        listening = socket.create_server(("127.0.0.1", self.port))
        self._stack.callback(listening.close)
        task = asyncio.create_task(server._serve([listening]))  # without its handling of signals
        self._stack.push_async_callback(lambda: task)

        def end() -> None:
            server.should_exit = True

        self._stack.callback(end)
        await eventually(lambda: server.started, "the start of the receiver")

    async def stop(self) -> None:
        """Listen no more."""
        await self._stack.aclose()

    async def _hear(self, request: Request) -> Response:
        body = await request.body()
        heard = Heard(dict(request.headers), body, 0)
        self.asked += 1
        self._open += 1
        self.at_once = max(self.at_once, self._open)
        try:
            response = await self.answer(*heard.event)
        finally:
            self._open -= 1
        self.heard.append(Heard(heard.headers, body, response.status_code))
        return response
