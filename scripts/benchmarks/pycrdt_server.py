"""Runs pycrdt-websocket's own server in uvicorn, on the port in `PORT`."""

import asyncio
import os

import uvicorn
from pycrdt.websocket import ASGIServer, WebsocketServer


async def main() -> None:
    """Serve until a signal comes."""
    rooms = WebsocketServer()
    port = int(os.environ["PORT"])
    config = uvicorn.Config(ASGIServer(rooms), port=port, log_level="warning", backlog=4096)
    async with rooms:
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    asyncio.run(main())
