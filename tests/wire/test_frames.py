"""WebSocket frames, beside another implementation of them, and whatever strangers send instead."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets import frames as theirs

from plait.server.errors import MalformedFrame, MessageTooBig
from plait.server.wire.frames import (
    BINARY,
    CLOSE,
    KEPT_BYTES_MAX,
    PART,
    PIECE_BYTES,
    PING,
    PONG,
    TEXT,
    Frame,
    FrameReader,
    close_code,
    closing,
    framed,
    header,
)

MEGABYTE = 1 << 20


def masked(payload: bytes, opcode: int = BINARY, *, final: bool = True) -> bytes:
    """Return a client's frame, as another implementation writes it."""
    return theirs.Frame(theirs.Opcode(opcode), payload, final).serialize(mask=True)


def read(*chunks: bytes, bytes_max: int = 8 * MEGABYTE) -> list[Frame]:
    reader = FrameReader(bytes_max)
    found = [frame for chunk in chunks for frame in reader.read(chunk)]
    assert reader.between
    return found


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    begin = 0
    for end in ends:
        yield data[begin:end]
        begin = end


LENGTHS = [0, 1, 125, 126, 127, 4096, 4097, 65_535, 65_536, 3 * PIECE_BYTES + 5]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_frame_that_comes_at_once_is_given_at_once(length: int) -> None:
    payload = bytes(number % 251 for number in range(length))
    assert read(masked(payload)) == [Frame(BINARY, True, payload)]


@pytest.mark.parametrize("step", [1, 3, 1000, 50_000])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_frame_that_comes_bit_by_bit_is_given_whole_or_in_pieces(length: int, step: int) -> None:
    payload = bytes(number % 251 for number in range(length))
    data = masked(payload)
    found = read(*(data[at : at + step] for at in range(0, len(data), step)))
    assert b"".join(frame.payload for frame in found) == payload
    assert [frame.final for frame in found] == [False] * (len(found) - 1) + [True]
    assert [frame.opcode for frame in found] == [BINARY] + [PART] * (len(found) - 1)
    if length <= KEPT_BYTES_MAX:
        assert len(found) == 1
    for frame in found[:-1]:
        assert len(frame.payload) >= PIECE_BYTES
    assert [frame.rest for frame in found] == [False] + [True] * (len(found) - 1)
    if len(found) > 1:
        assert [frame.length for frame in found] == [length] + [0] * (len(found) - 1)
        assert [frame.whole for frame in found] == [True] + [False] * (len(found) - 1)


FRAMES = st.lists(
    st.tuples(
        st.sampled_from([TEXT, BINARY, PART]),
        st.booleans(),
        st.one_of(st.binary(max_size=300), st.integers(4000, 70_000).map(bytes)),
    )
    | st.tuples(st.sampled_from([PING, PONG]), st.just(True), st.binary(max_size=125)),
    max_size=6,
)


@given(FRAMES, st.lists(st.integers(0, 1 << 20), max_size=8))
def test_it_does_not_matter_how_frames_are_cut_on_the_way(
    frames: list[tuple[int, bool, bytes]], places: list[int]
) -> None:
    data = b"".join(masked(payload, opcode, final=final) for opcode, final, payload in frames)
    reader = FrameReader(MEGABYTE)
    found: list[tuple[int, bool, bytes]] = []
    for chunk in cut(data, places):
        for frame in reader.read(chunk):
            if frame.rest:
                opcode, _, begun = found.pop()
                found.append((opcode, frame.final, begun + frame.payload))
            else:
                found.append((frame.opcode, frame.final, frame.payload))
    assert found == frames
    assert reader.between


@given(st.binary(max_size=200))
def test_whatever_comes_is_frames_or_refused(data: bytes) -> None:
    try:
        for frame in FrameReader(MEGABYTE).read(data):
            assert frame.opcode in (PART, TEXT, BINARY, CLOSE, PING, PONG)
    except (MalformedFrame, MessageTooBig):
        pass  # It was told.


@pytest.mark.parametrize(
    "data, what",
    [
        ("8200", "mask"),
        ("c280", "extension"),
        ("8380", "no frames of type 3"),
        ("0980", "single"),
        ("89fe", "single"),
        ("82fe007d", "length"),
        ("82ff000000000000ffff", "length"),
        ("82ffffffffffffffffff", "length"),
    ],
)
def test_what_is_no_frame_of_a_client(data: str, what: str) -> None:
    with pytest.raises(MalformedFrame, match=what):
        list(FrameReader(MEGABYTE).read(bytes.fromhex(data) + bytes(20)))


def test_what_is_too_large_is_refused_before_it_has_come() -> None:
    reader = FrameReader(MEGABYTE)
    with pytest.raises(MessageTooBig):
        list(reader.read(b"\x82\xff" + (MEGABYTE + 1).to_bytes(8)))


def test_what_was_before_a_malformed_frame_is_given_first() -> None:
    frames = FrameReader(MEGABYTE).read(masked(b"good") + b"\xff\xff")
    assert next(frames).payload == b"good"
    with pytest.raises(MalformedFrame):
        next(frames)


@pytest.mark.parametrize("length", LENGTHS)
def test_others_read_what_we_write(length: int) -> None:
    payload = bytes(length)
    assert framed(payload) == theirs.Frame(theirs.Opcode.BINARY, payload).serialize(mask=False)
    assert framed(payload) == header(length) + payload


def test_a_good_bye() -> None:
    close = theirs.Close(4401, "the token has ended")
    expected = theirs.Frame(theirs.Opcode.CLOSE, close.serialize()).serialize(mask=False)
    assert closing(4401, "the token has ended") == expected
    assert close_code(close.serialize()) == 4401
    assert close_code(b"") is None


@pytest.mark.parametrize("payload", ["03", "03e7", "03ed", "03ee", "0bb7", "1388", "0000"])
def test_codes_that_nobody_may_send(payload: str) -> None:
    with pytest.raises(MalformedFrame):
        close_code(bytes.fromhex(payload))


def test_a_reason_has_to_be_text() -> None:
    with pytest.raises(MalformedFrame):
        close_code(b"\x03\xe8\xff")
