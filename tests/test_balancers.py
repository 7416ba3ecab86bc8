"""`deploy/haproxy.cfg` and `deploy/nginx.conf` in the programs that they are for, if this machine
has them, in front of a real server.

Unrealistic in that both nodes are one server and that proxy and server have the same address, so
that clients have another one of this machine's.
"""

import json
import os
import shutil
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trustme
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.server.auth.parts import SECRET
from tests.support.deadlines import eventually
from tests.support.rights import AUDIENCE, bearer, token
from tests.support.server import PlaitProcess, free_port

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
PROGRAMS = {
    name: shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    for name in ("haproxy", "nginx")
}
CLIENT = "127.0.0.5"
"""Where clients come from; the server sees the proxy come from 127.0.0.1."""
FORGED = [
    ("X-Forwarded-For", "192.0.2.7"),
    ("X-Forwarded-For", "192.0.2.8, 127.0.0.1"),
    ("X-Real-IP", "192.0.2.9"),
    ("Forwarded", "for=192.0.2.10"),
]


class Balancer:
    """One of the programs in front of a server, with its own configuration but for addresses, files
    and how many connections it prepares for.
    """

    def __init__(self, program: str, server: PlaitProcess, folder: Path) -> None:
        self.audit = folder / "audit"
        self.server = server
        self.port, self.plain_port = free_port(), free_port()
        self._program, self._folder = program, folder
        self._out = folder / "balancer.log"
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        issued.private_key_pem.write_to_path(folder / "key.pem")
        issued.private_key_and_cert_chain_pem.write_to_path(folder / "plait.pem")
        self.context = ssl.create_default_context()
        authority.configure_trust(self.context)

    @property
    def log(self) -> str:
        """All that it wrote."""
        return self._out.read_text()

    def command(self) -> list[str]:
        """Write the configuration; return the command that runs it."""
        program = PROGRAMS[self._program]
        assert program is not None
        name = {"haproxy": "haproxy.cfg", "nginx": "nginx.conf"}[self._program]
        text = (DEPLOY / name).read_text()
        for old, new in {
            ":8080": f":{self.plain_port}",
            ":8443": f":{self.port}",
            "listen 8080": f"listen 127.0.0.1:{self.plain_port}",
            "listen 8443": f"listen 127.0.0.1:{self.port}",
            "plait-1:8000": f"127.0.0.1:{self.server.port}",
            "plait-2:8000": f"127.0.0.1:{self.server.port}",
            "/usr/local/etc/haproxy/certs": str(self._folder),
            "/etc/nginx/certs": str(self._folder),
            "maxconn 50000": "maxconn 100",
            "worker_rlimit_nofile 120000;": f"daemon off; pid {self._folder}/pid;",
            "worker_connections 50000": "worker_connections 100",
        }.items():
            text = text.replace(old, new)
        if self._program == "nginx":
            kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            own = "".join(f"{kind}_temp_path {self._folder}/{kind};" for kind in kinds)
            text = text.replace("http {", f"http {{ {own}", 1)
        path = self._folder / name
        path.write_text(text)
        if self._program == "haproxy":
            return [program, "-db", "-f", str(path)]
        return [program, "-e", "stderr", "-p", str(self._folder), "-c", str(path)]

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
        with self._out.open("ab") as out:
            return subprocess.Popen(self.command(), stdout=out, stderr=subprocess.STDOUT)

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


async def greeted(socket: ClientConnection) -> None:
    assert await socket.recv() != b""


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.skipif(not path, reason=f"there is no {name}"))
        for name, path in PROGRAMS.items()
    ]
)
async def balancer(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Balancer]:
    options = ["--token-secret", SECRET, "--jwt-audience", AUDIENCE, "--metrics-public"]
    # As in a network where clients are, too: then what a proxy only adds to is believed.
    options += ["--trusted-proxies", "127.0.0.0/8", "--audit-log", str(tmp_path / "audit")]
    async with PlaitProcess(tmp_path, *options) as server:
        async with Balancer(str(request.param), server, tmp_path).running() as running:
            yield running


async def test_a_forged_address_is_not_believed(balancer: Balancer) -> None:
    assert await balancer.status("/api/docs", headers=FORGED) == 401
    assert await balancer.refused("/ws/notes", FORGED) == 401
    found = [event for event in balancer.events() if event["event"] == "auth.refused"]
    assert [event["address"] for event in found] == [CLIENT, CLIENT]


async def test_who_has_a_token_comes_in(balancer: Balancer) -> None:
    given = token([{"docs": "notes", "access": "write"}])
    async with balancer.socket(f"/ws/notes?token={given}") as socket:
        await greeted(socket)
    async with balancer.socket("/ws/notes", list(bearer(given).items())) as socket:
        await greeted(socket)
    assert await balancer.refused(f"/ws/others?token={given}") == 403
    assert await balancer.refused(f"/ws/notes?token={given}x") == 401


async def test_long_tokens_pass(balancer: Balancer) -> None:
    grants = [{"docs": f"a-rather-long-name/{each}", "access": "write"} for each in range(150)]
    given = token(grants)
    assert 8 << 10 < len(given) < 14 << 10
    async with balancer.socket(f"/ws/a-rather-long-name%2F1?token={given}") as socket:
        await greeted(socket)


async def test_tokens_in_queries_are_in_no_log(balancer: Balancer) -> None:
    given = token([{"docs": "notes", "access": "write"}])
    query = f"?token={given}"
    async with balancer.socket(f"/ws/notes{query}") as socket:
        await greeted(socket)
    assert await balancer.refused(f"/ws/forbidden{query}") == 403
    assert await balancer.status(f"/metrics{query}") == 404
    assert await balancer.status(f"/a{'b' * 30_000}{query}") in (0, 400, 414, 431)
    async with balancer.socket(f"/ws/notes{query}") as socket:
        await greeted(socket)
        await balancer.server.kill()
    assert await balancer.refused(f"/ws/notes{query}") in (502, 503)
    assert await balancer.status(f"/api/docs/away{query}") in (502, 503)
    await eventually(lambda: "/api/docs/away" in balancer.log, "the last line of the log")
    for path in ("/ws/notes", "/ws/forbidden", "/metrics"):
        assert path in balancer.log
    assert given not in balancer.log
    assert "token=" not in balancer.log


async def test_metrics_are_not_for_the_public(balancer: Balancer) -> None:
    for path in ("/metrics", "/%6detrics", "/healthz"):
        assert await balancer.status(path) == 404
    async with httpx.AsyncClient() as inside:
        assert (await inside.get(f"{balancer.server.url}/metrics")).status_code == 200
