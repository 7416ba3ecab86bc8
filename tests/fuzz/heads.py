"""A target: the heads of handshakes, which are recognised without a parser."""

from plait.server.heads import handshake
from tests.fuzz.target import Target, expect
from tests.support.heads import NEEDED, as_parsed, head


def heads(data: bytes) -> str:
    """Recognise a head, which has to be what the parser would make of it."""
    found = handshake(data)
    if found is None:
        return "left to the parser"
    expect(found == as_parsed(data), "a head is not read as the parser reads it")
    return "recognised"


def _seeds() -> list[bytes]:
    browser = [
        *NEEDED[:2],
        "Connection: keep-alive, Upgrade",
        *NEEDED[3:],
        "Origin: https://app.example.org",
        "Cookie: a=b; c=d",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "Sec-WebSocket-Protocol: yjs, plait-token.a.b.c",
    ]
    return [head(), head("/ws/a%20b?token=1"), head("/", browser)]


TARGETS = {"heads": Target(heads, _seeds)}
