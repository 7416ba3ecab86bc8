"""Run HAProxy or nginx with its configuration of `deploy/` in front of real servers.

Unrealistic in that proxy and servers have the same address, so that clients have another one of
this machine's.
"""

import json
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from scripts.benchmarks.balancers import Certificate, command
from tests.support.deadlines import eventually
from tests.support.server import PlaitProcess, free_port

CONNECTIONS = 200
CLIENT = "127.0.0.5"
"""Where clients come from; the servers see the proxy come from 127.0.0.1."""


class Balancer:
    """One of the programs in front of two servers, with its own configuration but for addresses,
    files and how many connections it prepares for.
    """

    def __init__(self, program: str, servers: Sequence[PlaitProcess], folder: Path) -> None:
        self.audit = folder / "audit"
        self.server = servers[0]
        self._nodes = [server.port for server in servers]
        self.port, self.plain_port = free_port(), free_port()
        self._program, self._folder = program, folder
        self._out = folder / "balancer.log"
        certificate = Certificate()
        certificate.write(folder)
        self.authority = certificate.authority.cert_pem.bytes().decode()
        self.context = ssl.create_default_context()
        certificate.authority.configure_trust(self.context)

    @property
    def log(self) -> str:
        """All that it wrote."""
        return self._out.read_text()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Balancer"]:
        """Run it, until it passes requests on."""
        process = self._launch()
        try:

            async def ready() -> bool:
                assert process.poll() is None, self.log
                return await self.status("/readyz") == 200

            await eventually(ready, f"the start of {self._program}")
            yield self
        finally:
            process.send_signal(signal.SIGTERM)
            await eventually(lambda: process.poll() is not None, f"the end of {self._program}")

    def _launch(self) -> subprocess.Popen[bytes]:
        ports = (self.port, self.plain_port)
        run = command(self._program, self._folder, *ports, self._nodes, CONNECTIONS)
        with self._out.open("ab") as out:
            return subprocess.Popen(run, stdout=out, stderr=subprocess.STDOUT)

    async def status(self, path: str, **how: object) -> int:
        """Return the status of the answer to a request, 0 if there is none."""
        transport = httpx.AsyncHTTPTransport(verify=self.context, local_address=CLIENT)
        async with httpx.AsyncClient(transport=transport) as client:
            url = f"https://127.0.0.1:{self.port}{path}"
            try:
                return (await client.get(url, **how)).status_code  # type: ignore[arg-type]
            except httpx.TransportError:
                return 0

    def socket(self, path: str, headers: list[tuple[str, str]] | None = None) -> connect:
        """Return a WebSocket that is to be entered."""
        return connect(
            f"wss://127.0.0.1:{self.port}{path}",
            ssl=self.context,
            local_addr=(CLIENT, 0),
            additional_headers=headers,
            proxy=None,
        )

    async def refused(self, path: str, headers: list[tuple[str, str]] | None = None) -> int:
        """Return the status with which a WebSocket is refused."""
        with pytest.raises(InvalidStatus) as caught:
            async with self.socket(path, headers):
                pass
        return caught.value.response.status_code

    def events(self) -> list[dict[str, str]]:
        """What the server's audit log says."""
        return [json.loads(line) for line in self.audit.read_text().splitlines()]
