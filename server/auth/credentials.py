"""Where a request or a socket carries its token.

Programs send `Authorization: Bearer`. A browser can't give a WebSocket a header, so there are other
places: the query, a subprotocol, and for pages of the same origin a cookie. The first that holds
one counts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from plait.server.errors import BadRequest

TOKEN_BYTES_MAX = 16 * 1024
"""Bytes of a token. Most servers and proxies take no longer headers."""

PROTOCOL_PREFIXES = ("plait-token.", "yauth-")
"""What a subprotocol begins with that carries a token: Plait's own, and that of y/hub."""

_PLACES = frozenset((b"authorization", b"sec-websocket-protocol", b"cookie"))
"""Headers that may hold one."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A token, as it was presented."""

    token: str = field(repr=False)
    source: str
    """Where it was found: header, query, protocol or cookie."""


def find_credential(connection: HTTPConnection, cookie: str = "") -> Credential | None:
    """Return the token that a request or a socket carries, or None.

    Args:
        connection: the request or the socket.
        cookie: the name of a cookie that may hold a token; none may if empty.

    Raises:
        BadRequest: one place holds several, or one that is too long.
    """
    scope = connection.scope
    query: bytes = scope.get("query_string", b"")
    if not (b"token" in query or b"%" in query):
        if _PLACES.isdisjoint([name for name, _ in scope["headers"]]):
            return None  # As nearly all are where no authentication is configured.
    places = [
        ("header", _in_header(connection)),
        ("query", connection.query_params.getlist("token")),
        ("protocol", _in_protocols(offered_protocols(connection))),
    ]
    if cookie:
        places.append(("cookie", _in_cookies(connection, cookie)))
    for source, found in places:
        if token := _only(source, found):
            return Credential(token, source)
    return None


def chosen_protocol(offered: Sequence[str]) -> str | None:
    """Return the subprotocol to answer with: the first that carries no token, so that none is sent
    back; otherwise the first, since a client that is answered with none of its own gives up.
    """
    return next(
        (each for each in offered if not _carries_token(each)), offered[0] if offered else None
    )


def offered_protocols(connection: HTTPConnection) -> list[str]:
    """Return the subprotocols that a client offers, in its order."""
    lines = connection.headers.getlist("sec-websocket-protocol")
    return [word for line in lines for each in line.split(",") if (word := each.strip())]


def _in_header(connection: HTTPConnection) -> list[str]:
    found = []
    for line in connection.headers.getlist("authorization"):
        scheme, _, token = line.strip().partition(" ")
        # Others, such as the Basic of a proxy in front, are not meant for this server.
        if scheme.lower() == "bearer":
            found.append(token.strip())
    return found


def _in_protocols(offered: Iterable[str]) -> list[str]:
    return [
        each.removeprefix(prefix)
        for each in offered
        for prefix in PROTOCOL_PREFIXES
        if each.startswith(prefix)
    ]


def _carries_token(protocol: str) -> bool:
    return protocol.startswith(PROTOCOL_PREFIXES)


def _in_cookies(connection: HTTPConnection, name: str) -> list[str]:
    # By hand: of two cookies of one name, which subdomains can set, a parser tells but one.
    pairs = (
        each.partition("=")
        for line in connection.headers.getlist("cookie")
        for each in line.split(";")
    )
    return [value.strip().strip('"') for key, _, value in pairs if key.strip() == name]


def _only(source: str, found: Iterable[str]) -> str:
    """Return the one token that a place holds, or nothing; a token that is repeated is one."""
    tokens = {token for token in found if token}
    if len(tokens) > 1:
        raise BadRequest(f"there is more than one token in the {source}; send one")
    token = next(iter(tokens), "")
    if len(token) > TOKEN_BYTES_MAX or len(token.encode(errors="replace")) > TOKEN_BYTES_MAX:
        raise BadRequest(f"the token is longer than {TOKEN_BYTES_MAX} bytes")
    return token
