"""Recognise the handshake of a WebSocket in the bytes of its head, as nearly all are written.

Reading a request with a parser that takes it piece by piece, and calls back for each header, is a
fifth of what a handshake costs; after a restart everybody's come at once. They are alike: one GET,
whole in what is read first, without a body. That is told by one regular expression here. Anything
else, and anything about it that is unusual, is left to the parser (`plait.server.watch`), so what
is recognised has to be what the parser would make of it.

Sources: RFC 9112, 3 and 5, for the head; RFC 6455, 4.2.1, for the handshake.
"""

import re
from typing import Final

Headers = list[tuple[bytes, bytes]]

HEADERS_MAX: Final = 100

_HEAD: Final = re.compile(
    rb"GET (/[!\"$-~]*) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*\r\n){1," + b"%d})\r\n" % HEADERS_MAX
)
_UNUSUAL: Final = frozenset((b"content-length", b"transfer-encoding", b"expect", b"trailer"))
"""Headers that promise more than a head, or ask for an answer before the answer."""


def handshake(data: bytes) -> tuple[bytes, Headers] | None:
    """Return the target of a handshake and its headers, by names in lower case; None if the bytes
    are anything else than the head of one, whole and plain.
    """
    found = _HEAD.fullmatch(data)
    if found is None:
        return None
    headers: Headers = []
    upgrade = connection = False
    for line in found[2][:-2].split(b"\r\n"):
        name, _, value = line.partition(b":")
        name = name.lower()
        if value[:1] == b" ":
            value = value[1:]
        if value.strip() != value or name in _UNUSUAL:
            return None
        if name == b"upgrade":
            if upgrade or value.lower() != b"websocket":
                return None
            upgrade = True
        elif name == b"connection":
            if connection or b"upgrade" not in [each.strip() for each in value.lower().split(b",")]:
                return None
            connection = True
        headers.append((name, value))
    return (found[1], headers) if upgrade and connection else None
