"""Where tokens are found, and which subprotocol is chosen."""

import pytest
from starlette.requests import HTTPConnection

from plait.server.auth.credentials import (
    TOKEN_BYTES_MAX,
    Credential,
    chosen_protocol,
    find_credential,
    offered_protocols,
)
from plait.server.errors import BadRequest


def opened(query: str = "", **headers: str | list[str]) -> HTTPConnection:
    """Return a socket that is opened with these headers, in which `_` stands for `-`."""
    lines = [
        (name.replace("_", "-").encode(), line.encode("latin-1"))
        for name, value in headers.items()
        for line in ([value] if isinstance(value, str) else value)
    ]
    scope = {"type": "websocket", "headers": lines, "query_string": query.encode()}
    return HTTPConnection(scope)


@pytest.mark.parametrize(
    ("socket", "expected"),
    [
        (opened(), None),
        (opened(authorization="Bearer t1"), Credential("t1", "header")),
        (opened(authorization="bearer   t1 "), Credential("t1", "header")),
        (opened(authorization="Basic dTpw"), None),
        (opened(authorization="Bearer"), None),
        (opened(authorization="Bearer "), None),
        (opened(authorization="t1"), None),
        (opened("token=t1"), Credential("t1", "query")),
        (opened("a=b&token=t%2B1"), Credential("t+1", "query")),
        (opened("token="), None),
        (opened("Token=t1"), None),
        (opened(sec_websocket_protocol="plait-token.t1"), Credential("t1", "protocol")),
        (opened(sec_websocket_protocol="y, yauth-t1"), Credential("t1", "protocol")),
        (
            opened(sec_websocket_protocol=["y", "plait-token.a.b.c"]),
            Credential("a.b.c", "protocol"),
        ),
        (opened(sec_websocket_protocol="plait-token."), None),
        (opened(cookie="a=b; session=t1; c=d"), Credential("t1", "cookie")),
        (opened(cookie='session="t1"'), Credential("t1", "cookie")),
        (opened(cookie="other=t1"), None),
        (opened(cookie="session"), None),
    ],
)
def test_a_token_is_found(socket: HTTPConnection, expected: Credential | None) -> None:
    assert find_credential(socket, "session") == expected


def test_the_first_place_counts() -> None:
    everywhere = {
        "authorization": "Bearer a",
        "sec_websocket_protocol": "yauth-c",
        "cookie": "session=d",
    }
    order = []
    query = "token=b"
    for place in ("authorization", "", "sec_websocket_protocol", "cookie"):
        found = find_credential(opened(query, **everywhere), "session")
        assert found is not None
        order.append((found.token, found.source))
        everywhere.pop(place, None)
        query = query if place else ""
    assert order == [("a", "header"), ("b", "query"), ("c", "protocol"), ("d", "cookie")]


def test_no_cookie_is_looked_at_without_a_name() -> None:
    assert find_credential(opened(cookie="session=t1; =t2")) is None


@pytest.mark.parametrize(
    "socket",
    [
        opened(authorization=["Bearer a", "Bearer b"]),
        opened("token=a&token=b"),
        opened(sec_websocket_protocol="yauth-a, plait-token.b"),
        opened(cookie="session=a; session=b"),
        opened(cookie=["session=a", "session=b"]),
    ],
)
def test_two_tokens_in_one_place_are_refused(socket: HTTPConnection) -> None:
    with pytest.raises(BadRequest, match="more than one token in the"):
        find_credential(socket, "session")


def test_one_token_twice_is_one() -> None:
    assert find_credential(opened("token=a&token=a")) == Credential("a", "query")


@pytest.mark.parametrize(
    "text", ["x" * (TOKEN_BYTES_MAX + 1), "%C3%A9" * (TOKEN_BYTES_MAX // 2 + 1)]
)
def test_a_token_may_be_so_long(text: str) -> None:
    with pytest.raises(BadRequest, match="longer than 16384 bytes"):
        find_credential(opened(f"token={text}"))
    assert find_credential(opened("token=" + "x" * TOKEN_BYTES_MAX))


def test_a_token_is_not_shown() -> None:
    assert "t1" not in repr(Credential("t1", "query"))


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ("", None),
        ("y", "y"),
        ("plait-token.t1, y", "y"),
        ("yauth-t1, a, b", "a"),
        ("yauth-t1", "yauth-t1"),
        ("plait-token.t1, yauth-t1", "plait-token.t1"),
    ],
)
def test_a_token_is_sent_back_only_if_nothing_else_is_offered(
    offered: str, chosen: str | None
) -> None:
    socket = opened(sec_websocket_protocol=offered)
    assert chosen_protocol(offered_protocols(socket)) == chosen
