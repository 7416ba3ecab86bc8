"""Plain handshakes are recognised by their bytes, as uvicorn's parser would read them; nothing else
is.
"""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plait.server.heads import HEADERS_MAX, handshake
from tests.support.heads import NEEDED, as_parsed, head


def test_a_handshake_is_recognised() -> None:
    found = handshake(head("/ws/a%20b?token=1", [*NEEDED, "X-Empty:", "Origin:http://a"]))
    assert found is not None
    target, headers = found
    assert target == b"/ws/a%20b?token=1"
    assert (b"upgrade", b"websocket") in headers and (b"x-empty", b"") in headers
    assert (b"origin", b"http://a") in headers and len(headers) == 7


@pytest.mark.parametrize(
    "connection", ["keep-alive, Upgrade", "upgrade", "Upgrade,keep-alive", "a ,UPGRADE, b"]
)
def test_the_connection_may_be_more(connection: str) -> None:
    lines = [line for line in NEEDED if not line.startswith("Connection")]
    assert handshake(head(lines=[*lines, f"Connection: {connection}"])) is not None


WHOLE = head()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        WHOLE[:-1],
        WHOLE + b"\x82",
        WHOLE + WHOLE,
        WHOLE.replace(b"GET", b"get"),
        WHOLE.replace(b"GET", b"PUT"),
        WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"),
        WHOLE.replace(b"\r\n", b"\n"),
        b"\r\n" + WHOLE,
        head("http://localhost/ws/room"),
        head("*"),
        head("/a#b"),
        head("/a b"),
        head("/\xe9"),
        head(lines=[]),
        head(lines=NEEDED[1:2]),
        head(lines=NEEDED[2:]),
        head(lines=[*NEEDED, "Upgrade: websocket"]),
        head(lines=[*NEEDED, "Connection: close"]),
        head(lines=["Upgrade: h2c", "Connection: Upgrade"]),
        head(lines=["Upgrade: websocket", "Connection: keep-alive"]),
        head(lines=[*NEEDED, "Content-Length: 0"]),
        head(lines=[*NEEDED, "Transfer-Encoding: chunked"]),
        head(lines=[*NEEDED, "Expect: 100-continue"]),
        head(lines=[*NEEDED, "X : space before the colon"]),
        head(lines=[*NEEDED, "X: folded", " over two lines"]),
        head(lines=[*NEEDED, "X: ends with a space "]),
        head(lines=[*NEEDED, "X:  begins with two"]),
        head(lines=[*NEEDED, "X: \x01"]),
        head(lines=[*NEEDED, "no colon"]),
        head(lines=[*NEEDED, ": no name"]),
        head(lines=[*NEEDED, *["X: 1"] * HEADERS_MAX]),
    ],
)
def test_all_else_is_left_to_the_parser(data: bytes) -> None:
    assert handshake(data) is None


_names = st.text("abcXYZ-_!#0123", min_size=1, max_size=12)
_values = st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=20)


@given(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
    st.lists(st.tuples(_names, st.sampled_from([":", ": ", ":  ", " :"]), _values), max_size=5),
)
@example("", [("X", ": ", "\x85")])
@example("", [("X", ": ", "\xa0a")])
def test_what_is_recognised_is_what_the_parser_reads(
    path: str, more: list[tuple[str, str, str]]
) -> None:
    data = head("/" + path, [*NEEDED, *["".join(each) for each in more]])
    found = handshake(data)
    if found is None:
        return
    assert found == as_parsed(data)
