"""Whose word is taken for where a connection comes from."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from plait.server.errors import ConfigError
from plait.server.proxies import trusted
from plait.server.settings import Settings
from tests.support.serving import raw, serving


def test_addresses_and_networks_are_told_in_both_forms() -> None:
    assert trusted(Settings().trusted_proxies) == [
        "127.0.0.1/32",
        "::ffff:127.0.0.1/128",
        "::1/128",
    ]
    assert trusted(["10.0.0.0/8"]) == ["10.0.0.0/8", "::ffff:10.0.0.0/104"]
    assert trusted(["2001:db8::/32"]) == ["2001:db8::/32"]
    assert trusted([]) == []
    assert trusted(["*"]) == trusted(["10.0.0.1", "*"]) == ["*"]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("proxy.example.org", "an address, a network like"),
        ("10.0.0.256", "an address, a network like"),
        ("10.0.0.1/8", "as a network it is 10.0.0.0/8"),
        ("10.0.0.0/33", "an address, a network like"),
        ("127.0.0.1:80", "an address, a network like"),
        ("", "an address, a network like"),
    ],
)
def test_what_is_neither_is_named(bad: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        trusted(["10.0.0.1", bad])
    assert f"trusted_proxies: {bad!r} can't be used: {why}" in str(caught.value)


@pytest.mark.parametrize("sockets", ["direct", "asgi"])
@pytest.mark.parametrize("upgrade", [True, False])
@pytest.mark.parametrize(
    ("proxies", "told", "seen"),
    [
        (("127.0.0.1",), "192.0.2.7", "192.0.2.7"),
        (("127.0.0.0/8",), "192.0.2.7", "192.0.2.7"),
        # The proxy adds the address that it sees; what stands before, the client has made up.
        (("127.0.0.1",), "127.0.0.1, 192.0.2.7", "192.0.2.7"),
        (("127.0.0.1", "10.0.0.0/8"), "192.0.2.7, 10.9.8.7", "192.0.2.7"),
        (("10.0.0.0/8",), "192.0.2.7", "127.0.0.1"),
        ((), "192.0.2.7", "127.0.0.1"),
        (("*",), "192.0.2.7, 192.0.2.8", "192.0.2.7"),
    ],
)
async def test_only_trusted_proxies_are_believed(
    monkeypatch: pytest.MonkeyPatch,
    sockets: str,
    upgrade: bool,
    proxies: tuple[str, ...],
    told: str,
    seen: str,
) -> None:
    scopes: list[Any] = []

    async def application(
        scope: Any, receive: Any, send: Callable[[dict[str, Any]], Awaitable[None]]
    ) -> None:
        scopes.append(scope)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")  # uvicorn's own, which is not ours.
    options: dict[str, Any] = {"proxy_headers": True, "forwarded_allow_ips": trusted(proxies)}
    async with (
        serving(application, sockets=sockets, **options) as (port, _),
        raw(port) as client,
    ):
        headers = f"X-Forwarded-For: {told}", "X-Forwarded-Proto: https"
        if upgrade:
            client.handshake("/", *headers)
        else:
            lines = "GET / HTTP/1.1", "Host: a", *headers, "", ""
            client.writer.write("\r\n".join(lines).encode())
        await client.head()
    (scope,) = scopes
    assert scope["client"][0] == seen
    secure, plain = ("wss", "ws") if upgrade else ("https", "http")
    assert scope["scheme"] == (plain if seen == "127.0.0.1" else secure)
