import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.server.errors import DecodeError
from plait.server.wire.lib0 import (
    UINT_MAX,
    Reader,
    UintTooLong,
    read_var_uint,
    var_bytes,
    var_string,
    write_var_uint,
)
from tests.wire.recorded import vectors

CASES = [
    pytest.param(vector, id=vector["type"] + " " + vector["hex"][:16]) for vector in vectors("lib0")
]


def read(type_: str, reader: Reader) -> object:
    if type_ == "var_uint":
        return reader.var_uint()
    if type_ == "var_string":
        return reader.var_string()
    return reader.var_bytes().hex()


def write(type_: str, value: object) -> bytes:
    if type_ == "var_uint":
        assert isinstance(value, int)
        return write_var_uint(value)
    assert isinstance(value, str)
    return var_string(value) if type_ == "var_string" else var_bytes(bytes.fromhex(value))


@pytest.mark.parametrize("vector", CASES)
def test_reads_and_writes_what_lib0_does(vector: dict[str, object]) -> None:
    data = bytes.fromhex(str(vector["hex"]))
    reader = Reader(data)
    assert read(str(vector["type"]), reader) == vector["value"]
    reader.end()
    assert write(str(vector["type"]), vector["value"]) == data


@pytest.mark.parametrize("vector", CASES)
def test_truncated_anywhere_is_refused(vector: dict[str, object]) -> None:
    data = bytes.fromhex(str(vector["hex"]))
    for end in range(len(data)):
        with pytest.raises(DecodeError, match="ends too early"):
            read(str(vector["type"]), Reader(data[:end]))


def test_trailing_bytes_are_refused() -> None:
    reader = Reader(b"\x01\x02\x03")
    reader.var_uint()
    with pytest.raises(DecodeError, match="2 bytes too many"):
        reader.end()


def test_invalid_utf8_is_refused() -> None:
    for text in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"):
        with pytest.raises(DecodeError, match="UTF-8"):
            Reader(var_bytes(text)).var_string()


def test_half_of_a_surrogate_pair_is_written_as_javascript_does() -> None:
    assert var_string("a\ud83d") == b"\x04a\xef\xbf\xbd"
    assert var_string("\ud83d\ude00") == b"\x04\xf0\x9f\x98\x80"


def test_padding_with_zeros_is_read_up_to_eight_bytes() -> None:
    for size in range(2, 9):
        padded = b"\x85" + b"\x80" * (size - 2) + b"\x00"
        assert read_var_uint(padded, 0) == (5, size)
    with pytest.raises(UintTooLong):
        read_var_uint(b"\x85" + b"\x80" * 7 + b"\x00", 0)


def test_integers_beyond_javascript_are_refused() -> None:
    assert Reader(b"\xff" * 7 + b"\x0f").var_uint() == UINT_MAX
    for data in (b"\xff" * 7 + b"\x10", b"\x80" * 7 + b"\x10", b"\xff" * 100, b"\x80" * 100):
        with pytest.raises(DecodeError, match="2\\^53"):
            Reader(data).var_uint()


@given(st.integers(0, UINT_MAX))
def test_every_integer_comes_back(number: int) -> None:
    data = write_var_uint(number)
    assert read_var_uint(data, 0) == (number, len(data))
    assert read_var_uint(b"xy" + data + b"z", 2) == (number, 2 + len(data))


@given(st.binary(), st.sampled_from(["var_uint", "var_string", "var_bytes"]))
def test_random_bytes_raise_nothing_else(data: bytes, type_: str) -> None:
    try:
        read(type_, Reader(data))
    except DecodeError:
        pass
