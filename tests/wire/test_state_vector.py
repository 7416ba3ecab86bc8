import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Doc

from plait.server.errors import DecodeError
from plait.server.wire.lib0 import UINT_MAX
from plait.server.wire.state_vector import (
    CLOCK_MAX,
    EMPTY,
    decode_state_vector,
    encode_state_vector,
)

clocks = st.dictionaries(st.integers(0, UINT_MAX), st.integers(0, CLOCK_MAX), max_size=5)


@given(clocks)
def test_every_state_vector_comes_back(clocks: dict[int, int]) -> None:
    data = encode_state_vector(clocks)
    assert decode_state_vector(data) == clocks
    with pytest.raises(DecodeError):
        decode_state_vector(data + b"\x00")
    for end in range(len(data)):
        with pytest.raises(DecodeError):
            decode_state_vector(data[:end])


@given(clocks)
def test_pycrdt_takes_every_state_vector(clocks: dict[int, int]) -> None:
    assert Doc().get_update(encode_state_vector(clocks)) == b"\x00\x00"


@given(st.binary())
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    try:
        Doc().get_update(encode_state_vector(decode_state_vector(data)))
    except DecodeError:
        pass


def test_the_empty_one() -> None:
    assert decode_state_vector(EMPTY) == {}
    assert encode_state_vector({}) == EMPTY


def test_a_clock_beyond_pycrdt_is_refused() -> None:
    with pytest.raises(DecodeError, match="4294967296"):
        decode_state_vector(b"\x01\x07\x80\x80\x80\x80\x10")
