"""pycrdt's own client against Plait, and Plait's rooms behind pycrdt-websocket's ASGI server."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from httpx_ws import aconnect_ws
from pycrdt import Doc, Provider, Text
from pycrdt.websocket import ASGIServer
from pycrdt.websocket.websocket import HttpxWebsocket

from plait.server.app import Plait
from plait.server.channel import ChannelServer
from plait.server.settings import Settings
from tests.support.deadlines import DEADLINE_SECONDS, eventually
from tests.support.server import PlaitProcess


@asynccontextmanager
async def editing(url: str, path: str) -> AsyncIterator[Text]:
    """Edit a room's text as the README shows, without closing handshakes that nobody waits for."""
    doc: Doc[Any] = Doc()
    text: Text = doc.get("text", type=Text)
    async with (
        aconnect_ws(f"{url}/{path}", keepalive_ping_interval_seconds=None) as link,  # type: ignore[var-annotated]
        Provider(doc, HttpxWebsocket(link, path)) as provider,
    ):
        async with asyncio.timeout(DEADLINE_SECONDS):
            await provider.synced.wait()
        yield text


async def test_two_providers_see_each_other_and_the_text_stays(
    plait_server: PlaitProcess,
) -> None:
    async with (
        editing(plait_server.url, "ws/notebook") as ann,
        editing(plait_server.url, "ws/notebook") as ben,
    ):
        ann += "from Ann, "
        await eventually(lambda: str(ben) == "from Ann, ", "what Ann wrote, at Ben's")
        ben += "from Ben"
        await eventually(lambda: str(ann) == "from Ann, from Ben", "what Ben wrote, at Ann's")
    await plait_server.stop()
    await plait_server.start()
    async with editing(plait_server.url, "ws/notebook") as again:
        assert str(again) == "from Ann, from Ben"


async def test_rooms_can_be_mounted_under_pycrdt_websockets_asgi_server() -> None:
    plait = Plait(Settings(store="memory://"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        config = uvicorn.Config(
            ASGIServer(ChannelServer(plait.hub)),  # type: ignore[arg-type]  # it asks for its own
            lifespan="off",
            log_level="warning",
            ws="websockets-sansio",
        )
        server = uvicorn.Server(config)
        async with plait.running():
            serving = asyncio.create_task(server._serve([listening]))
            await eventually(lambda: server.started, "the start of uvicorn")
            async with editing(url, "room") as ann, editing(url, "room") as ben:
                ann += "through a Channel"
                await eventually(lambda: str(ben) == "through a Channel", "the text at Ben's")
            assert list(plait.hub.rooms()) == ["room"]
            server.should_exit = True
            await serving
