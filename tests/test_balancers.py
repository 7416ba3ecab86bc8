"""`deploy/haproxy.cfg` and `deploy/nginx.conf` in the programs that they are for, if this machine
has them, in front of a real server.

Unrealistic in that both nodes are one server.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import ClientConnection

from scripts.benchmarks.balancers import FILES, NODES, program
from tests.server.auth.parts import SECRET
from tests.support.balancers import CLIENT, Balancer
from tests.support.deadlines import eventually
from tests.support.rights import AUDIENCE, bearer, token
from tests.support.server import PlaitProcess

FORGED = [
    ("X-Forwarded-For", "192.0.2.7"),
    ("X-Forwarded-For", "192.0.2.8, 127.0.0.1"),
    ("X-Real-IP", "192.0.2.9"),
    ("Forwarded", "for=192.0.2.10"),
]


async def greeted(socket: ClientConnection) -> None:
    assert await socket.recv() != b""


@pytest.fixture(
    params=[
        pytest.param(
            name, marks=pytest.mark.skipif(not program(name), reason=f"there is no {name}")
        )
        for name in FILES
    ]
)
async def balancer(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Balancer]:
    options = ["--token-secret", SECRET, "--jwt-audience", AUDIENCE, "--metrics-public"]
    # As in a network where clients are, too: then what a proxy only adds to is believed.
    options += ["--trusted-proxies", "127.0.0.0/8", "--audit-log", str(tmp_path / "audit")]
    async with PlaitProcess(tmp_path, *options) as server:
        async with Balancer(str(request.param), [server] * NODES, tmp_path).running() as running:
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
