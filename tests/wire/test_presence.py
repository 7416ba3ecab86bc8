import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.server.errors import DecodeError, LimitReached
from plait.server.wire.lib0 import UINT_MAX
from plait.server.wire.presence import (
    STATE_DEPTH_MAX,
    Entry,
    check_state,
    decode_presence,
    encode_presence,
)
from tests.wire.recorded import vectors

CASES = [
    pytest.param(
        bytes.fromhex(vector["hex"]),
        [Entry(c, k, None if s is None else s.encode()) for c, k, s in vector["entries"]],
        id=vector["name"],
    )
    for vector in vectors("presence")
]


@pytest.mark.parametrize(("update", "entries"), CASES)
def test_reads_and_writes_what_y_protocols_does(update: bytes, entries: list[Entry]) -> None:
    assert decode_presence(update, 64) == entries
    assert encode_presence(entries) == update


@pytest.mark.parametrize(("update", "entries"), CASES)
def test_truncated_anywhere_is_refused(update: bytes, entries: list[Entry]) -> None:
    for end in range(len(update)):
        with pytest.raises(DecodeError, match="ends too early"):
            decode_presence(update[:end], 64)


@pytest.mark.parametrize(("update", "entries"), CASES)
def test_trailing_bytes_are_refused(update: bytes, entries: list[Entry]) -> None:
    with pytest.raises(DecodeError, match="1 bytes too many"):
        decode_presence(update + b"\x00", 64)


def test_too_many_entries_are_refused() -> None:
    update = encode_presence([Entry(client, 0, b"{}") for client in range(5)])
    assert len(decode_presence(update, 5)) == 5
    with pytest.raises(LimitReached, match="4 clients, not 5"):
        decode_presence(update, 4)


@pytest.mark.parametrize(
    "state",
    [b"", b"NaN", b"-Infinity", b"{'a':1}", b"undefined", b"{}{}", b"\xff", b'"\x00"'],
)
def test_a_state_that_javascript_cannot_parse_is_refused(state: bytes) -> None:
    assert decode_presence(encode_presence([Entry(1, 0, state)]), 64) == [Entry(1, 0, state)]
    with pytest.raises(DecodeError, match="state"):
        check_state(state, 100)


def test_depth_and_size_are_bounded_exactly() -> None:
    deepest = b"[" * STATE_DEPTH_MAX + b"]" * STATE_DEPTH_MAX
    check_state(deepest, len(deepest))
    for state in (b"[" + deepest + b"]", b"[" * 100_000):
        with pytest.raises(LimitReached, match="64 levels") as caught:
            check_state(state, len(state))
        assert caught.value.limit == "presence"
    with pytest.raises(LimitReached, match="127 bytes, not 128"):
        check_state(deepest, len(deepest) - 1)


def test_null_in_other_words_is_a_farewell_too() -> None:
    assert decode_presence(encode_presence([Entry(1, 2, b" null\n")]), 1) == [Entry(1, 2, None)]


states = st.one_of(
    st.none(),
    st.recursive(
        st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
)
entries = st.builds(Entry, st.integers(0, UINT_MAX), st.integers(0, UINT_MAX), states)


@given(st.lists(entries, max_size=5))
def test_all_entries_come_back(entries: list[Entry]) -> None:
    assert decode_presence(encode_presence(entries), 5) == entries


@given(st.binary())
def test_random_bytes_raise_nothing_else(update: bytes) -> None:
    try:
        decode_presence(update, 64)
    except (DecodeError, LimitReached):
        pass
