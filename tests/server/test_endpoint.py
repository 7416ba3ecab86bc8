"""Handshakes that are refused, straight at the application.

Unrealistic in that no server is between: the client's address is what the test says.
"""

from typing import Any

import pytest

from plait.server.app import Plait
from plait.server.errors import PlaitError
from tests.support.rest import serving

AWAY = "192.0.2.1"


async def handshake(plait: Plait, host: str, room: str = "a") -> list[dict[str, Any]]:
    """Connect, leave at once, and return what the application answered."""
    sent: list[dict[str, Any]] = []
    events = iter(({"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}))

    async def receive() -> dict[str, Any]:
        return next(events)

    async def send(message: Any) -> None:
        sent.append(message)

    path = f"/ws/{room}"
    scope = {
        "type": "websocket",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
        "subprotocols": [],
        "client": (host, 1234),
        "extensions": {"websocket.http.response": {}},
    }
    await plait.asgi(scope, receive, send)
    return sent


async def test_one_address_too_often_is_refused_with_429() -> None:
    async with serving(allow_anonymous=True, connections_per_address=1) as (plait, _):
        with plait.admission.enter(AWAY):
            start, body = await handshake(plait, AWAY)
            assert start["status"] == 429 and b"connections_per_address" in body["body"]
            (accepted, *_) = await handshake(plait, "192.0.2.2")
            assert accepted["type"] == "websocket.accept"
        assert plait.counters.limits["connections_per_address"] == 1
        assert plait.counters.refused == {"limit_reached": 1}
        assert plait.admission.open == 0, "who has left holds no place"


@pytest.mark.parametrize(
    ("settings", "room", "status"),
    [({"connections_max": 1}, "a", 503), ({"rooms_max": 1}, "b", 503), ({}, " ", 400)],
)
async def test_a_refused_handshake_holds_no_place(
    settings: dict[str, int], room: str, status: int
) -> None:
    async with serving(allow_anonymous=True, **settings) as (plait, _), plait.hub.room("a"):
        with plait.admission.enter(AWAY):
            start, _ = await handshake(plait, AWAY, room)
            assert start["status"] == status
            assert plait.admission.open == 1


async def test_a_failure_after_the_ticket_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise PlaitError("the server failed")

    async with serving(allow_anonymous=True) as (plait, _):
        monkeypatch.setattr(plait.hub, "lease", fail)
        start, _ = await handshake(plait, AWAY)
        assert start["status"] == 500
        assert plait.admission.open == 0
