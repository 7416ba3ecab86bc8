"""Which pages may connect."""

import pytest
from starlette.requests import HTTPConnection

from plait.server.errors import NotAllowed
from plait.server.origins import Origins


def request(origin: str | None, host: str) -> HTTPConnection:
    headers = [(b"host", host.encode())]
    if origin is not None:
        headers.append((b"origin", origin.encode()))
    return HTTPConnection({"type": "http", "headers": headers})


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "docs.example.org"),
        ("https://docs.example.org", "docs.example.org"),
        ("https://DOCS.example.org:8443", "docs.example.org:8443"),
        ("http://localhost:5173", "127.0.0.1:8000"),
        ("http://127.0.0.1:3000", "localhost:8000"),
        ("http://[::1]:3000", "[::1]:8000"),
        ("https://app.example.org", "docs.example.org"),
    ],
)
def test_these_pass(origin: str | None, host: str) -> None:
    Origins(("https://app.example.org/",)).check(request(origin, host))


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "127.0.0.1:8000"),
        ("https://evil.example", "docs.example.org"),
        ("http://localhost:5173", "docs.example.org"),
        ("https://localhost.evil.example", "localhost:8000"),
        ("null", "localhost:8000"),
        ("", "localhost:8000"),
        ("https://docs.example.org:444", "docs.example.org"),
    ],
)
def test_these_do_not(origin: str, host: str) -> None:
    with pytest.raises(NotAllowed, match="--allow-origin"):
        Origins(("https://app.example.org",)).check(request(origin, host))


def test_a_star_lets_all_pass() -> None:
    Origins(("*",)).check(request("https://evil.example", "docs.example.org"))
