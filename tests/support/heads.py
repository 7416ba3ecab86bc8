"""Heads of handshakes, and what uvicorn's parser makes of them."""

import httptools

from plait.server.heads import Headers

NEEDED = [
    "Host: localhost:8000",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
]


def head(target: str = "/ws/room", lines: list[str] = NEEDED) -> bytes:
    """Return the head of a handshake."""
    return "\r\n".join([f"GET {target} HTTP/1.1", *lines, "", ""]).encode("latin-1")


def as_parsed(data: bytes) -> tuple[bytes, Headers] | None:
    """Return the target and the headers of a handshake, as httptools reads them; None if it reads
    something else.
    """
    seen = _Seen()
    parser = httptools.HttpRequestParser(seen)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return None
    plain = parser.get_method() == b"GET" and parser.get_http_version() == "1.1"
    return (seen.url, seen.headers) if seen.ended and plain and parser.should_upgrade() else None


class _Seen:
    def __init__(self) -> None:
        self.url = b""
        self.headers: Headers = []
        self.ended = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.ended = True
