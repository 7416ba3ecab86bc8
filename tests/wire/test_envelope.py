"""The messages between nodes: what is written is read again, and nothing else is."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.server.errors import DecodeError
from plait.server.wire.envelope import (
    SEAL_BYTES,
    UPDATES_MAX,
    VERSION,
    Diff,
    Envelope,
    Hello,
    Kind,
    NotSealed,
    OldVersion,
    decode_diff,
    decode_envelope,
    decode_hello,
    decode_updates,
    encode_diff,
    encode_envelope,
    encode_hello,
    encode_updates,
    node_of,
    seal,
    unseal,
)
from plait.server.wire.lib0 import UINT_MAX, write_var_uint

NODE = bytes(range(1, 9))

ENVELOPES = [
    (
        Envelope(NODE, Kind.UPDATE, "a", 300, 299, encode_updates([("ann", b"\x00\x00")])),
        "02 0102030405060708 01 000000000000012c 01 0161 01 03616e6e 020000",
    ),
    (
        Envelope(NODE, Kind.PRESENCE, "ü", 1, 0, b"\x00"),
        "02 0102030405060708 02 0000000000000001 01 02c3bc 00",
    ),
    (Envelope(NODE, Kind.LOOK, "a/b", 2, 2), "02 0102030405060708 03 0000000000000002 00 03612f62"),
    (Envelope(NODE, Kind.SAVED, "a", 2, 1), "02 0102030405060708 04 0000000000000002 01 0161"),
    (
        Envelope(NODE, Kind.HELLO, "a", 7, 6, encode_hello(Hello(b"\x01\x05\x02", b"\x00", True))),
        "02 0102030405060708 05 0000000000000007 01 0161 01 03010502 0100",
    ),
    (
        Envelope(NODE, Kind.DIFF, "a", 7, 7, encode_diff(Diff(b"\x00\x00", b"\x00", True))),
        "02 0102030405060708 06 0000000000000007 00 0161 01 020000 0100",
    ),
    (
        Envelope(NODE, Kind.CORRECT, "a", 7, 7, b"\x00"),
        "02 0102030405060708 07 0000000000000007 00 0161 00",
    ),
    (Envelope(NODE, Kind.DELETED, "a"), "02 0102030405060708 08 0000000000000000 00 0161"),
    (
        Envelope(NODE, Kind.BEAT, seq=1000, saved=1000),
        "02 0102030405060708 09 00000000000003e8 00 00",
    ),
    (Envelope(NODE, Kind.BYE), "02 0102030405060708 0a 0000000000000000 00 00"),
    (Envelope(NODE, Kind.LEAVE, "a"), "02 0102030405060708 0b 0000000000000000 00 0161"),
    (Envelope(NODE, Kind.NOTICE), "02 0102030405060708 0c 0000000000000000 00 00"),
]
"""Of each kind one, and its bytes. If these change, nodes of two versions misunderstand each other
during an upgrade: count VERSION up.
"""

HELLOS = [
    (Hello(b"", b"", False), "00 00 00"),
    (Hello(b"\x00", b"\x00", True), "01 0100 0100"),
    (Hello(b"\x00", b"\x00", False, fresh=True), "02 0100 0100"),
    (Hello(b"\x00", b"ab", True, fresh=True), "03 0100 026162"),
]
DIFFS = [
    (Diff(b"\x00\x00", b"\x00"), "00 020000 0100"),
    (Diff(b"", b"ab", stored=True), "01 00 026162"),
]
UPDATES = [
    ([], "00"),
    ([("", b"\x00\x00")], "01 00 020000"),
    ([("ann", b"x"), ("böb", b"")], "02 03616e6e 0178 0462c3b662 00"),
]


def test_there_is_an_example_of_each_kind() -> None:
    assert [envelope.kind for envelope, _ in ENVELOPES] == list(Kind)
    assert VERSION == 2


@pytest.mark.parametrize(("envelope", "written"), ENVELOPES)
def test_a_message_of_each_kind_has_these_bytes(envelope: Envelope, written: str) -> None:
    data = bytes.fromhex(written)
    assert encode_envelope(envelope) == data
    assert decode_envelope(data) == envelope
    assert node_of(data) == NODE


@pytest.mark.parametrize(("hello", "written"), HELLOS)
def test_a_hello_has_these_bytes(hello: Hello, written: str) -> None:
    assert encode_hello(hello) == bytes.fromhex(written)
    assert decode_hello(bytes.fromhex(written)) == hello


@pytest.mark.parametrize(("diff", "written"), DIFFS)
def test_an_answer_has_these_bytes(diff: Diff, written: str) -> None:
    assert encode_diff(diff) == bytes.fromhex(written)
    assert decode_diff(bytes.fromhex(written)) == diff


@pytest.mark.parametrize(("updates", "written"), UPDATES)
def test_updates_have_these_bytes(updates: list[tuple[str, bytes]], written: str) -> None:
    assert encode_updates(updates) == bytes.fromhex(written)
    assert decode_updates(bytes.fromhex(written)) == updates


PAYLOADS: list[tuple[Callable[[bytes], object], str]] = [
    *((decode_hello, written) for _, written in HELLOS),
    *((decode_diff, written) for _, written in DIFFS),
    *((decode_updates, written) for _, written in UPDATES),
]


@pytest.mark.parametrize(("decode", "written"), PAYLOADS)
def test_a_payload_that_is_cut_anywhere_is_refused(
    decode: Callable[[bytes], object], written: str
) -> None:
    data = bytes.fromhex(written)
    for end in range(len(data)):
        with pytest.raises(DecodeError, match="ends too early"):
            decode(data[:end])


@pytest.mark.parametrize(("decode", "written"), PAYLOADS)
def test_a_payload_with_more_behind_it_is_refused(
    decode: Callable[[bytes], object], written: str
) -> None:
    with pytest.raises(DecodeError, match="1 bytes too many"):
        decode(bytes.fromhex(written) + b"\x00")


@pytest.mark.parametrize(("envelope", "written"), ENVELOPES)
def test_a_message_that_is_cut_anywhere_before_its_payload_is_refused(
    envelope: Envelope, written: str
) -> None:
    data = bytes.fromhex(written)
    for end in range(len(data) - len(envelope.payload)):
        with pytest.raises(DecodeError, match="ends too early"):
            decode_envelope(data[:end])


def test_another_version_is_told_from_garbage() -> None:
    data = encode_envelope(Envelope(NODE, Kind.BEAT))
    for version in (0, VERSION + 1, 255):
        with pytest.raises(OldVersion, match=f"version {version}"):
            decode_envelope(bytes((version,)) + data[1:])


@pytest.mark.parametrize("kind", [0, 13, 255])
def test_an_unknown_kind_is_refused(kind: int) -> None:
    data = encode_envelope(Envelope(NODE, Kind.BEAT))
    with pytest.raises(DecodeError, match=f"no message of kind {kind}") as caught:
        decode_envelope(data[:9] + bytes((kind,)) + data[10:])
    assert not isinstance(caught.value, OldVersion)


def test_a_room_whose_name_is_not_utf8_is_refused() -> None:
    data = encode_envelope(Envelope(NODE, Kind.LOOK, "a"))
    with pytest.raises(DecodeError, match="UTF-8"):
        decode_envelope(data[:-1] + b"\xff")


def test_a_count_of_updates_that_cannot_be_true_is_refused_at_once() -> None:
    with pytest.raises(DecodeError, match="updates in one message"):
        decode_updates(write_var_uint(UPDATES_MAX + 1) + b"\x00" * 10)
    with pytest.raises(DecodeError, match="ends too early"):
        decode_updates(write_var_uint(UPDATES_MAX) + b"\x00" * 10)


NUMBERS = st.integers(0, UINT_MAX)
NAMES = st.text(st.characters(codec="utf-8"))


@given(st.sampled_from(Kind), NAMES, NUMBERS, NUMBERS, st.binary())
def test_every_message_comes_back(
    kind: Kind, room: str, seq: int, saved: int, payload: bytes
) -> None:
    envelope = Envelope(NODE, kind, room, seq, min(seq, saved), payload)
    assert decode_envelope(encode_envelope(envelope)) == envelope


@given(st.lists(st.tuples(NAMES, st.binary())))
def test_all_updates_come_back(updates: list[tuple[str, bytes]]) -> None:
    assert decode_updates(encode_updates(updates)) == updates


@given(st.binary(), st.booleans())
def test_random_bytes_are_refused_or_read(data: bytes, headed: bool) -> None:
    """Whoever can publish on the relay must not be able to stop a node."""
    if headed:
        data = bytes((VERSION, *NODE)) + data
    for decode in (decode_envelope, decode_updates, decode_hello, decode_diff):
        try:
            decode(data)
        except DecodeError:
            pass


# The seal

KEY = b"what only the nodes of one store know"
SEALED = [seal(encode_envelope(envelope), KEY) for envelope, _ in ENVELOPES]


@pytest.mark.parametrize("sealed", SEALED)
def test_what_is_sealed_is_read_with_the_same_key(sealed: bytes) -> None:
    message = unseal(sealed, KEY)
    assert sealed == message + sealed[-SEAL_BYTES:]
    assert seal(message, KEY) == sealed
    assert message in [encode_envelope(envelope) for envelope, _ in ENVELOPES]


@pytest.mark.parametrize("sealed", SEALED)
def test_a_changed_bit_anywhere_breaks_the_seal(sealed: bytes) -> None:
    for at in range(len(sealed)):
        for bit in range(8):
            changed = sealed[:at] + bytes((sealed[at] ^ 1 << bit,)) + sealed[at + 1 :]
            with pytest.raises(OldVersion if at == 0 else NotSealed):
                unseal(changed, KEY)


@pytest.mark.parametrize("sealed", SEALED)
def test_what_is_cut_or_longer_is_not_sealed(sealed: bytes) -> None:
    for other in (*(sealed[:end] for end in range(1, len(sealed))), sealed + b"\x00"):
        with pytest.raises(NotSealed):
            unseal(other, KEY)
    with pytest.raises(OldVersion):
        unseal(b"", KEY)


@pytest.mark.parametrize("key", [b"", b"another", KEY + b"\x01", KEY[:-1]])
def test_another_key_breaks_no_seal(key: bytes) -> None:
    for sealed in SEALED:
        with pytest.raises(NotSealed):
            unseal(sealed, key)


def test_a_message_without_a_seal_is_refused() -> None:
    for envelope, _ in ENVELOPES:
        with pytest.raises(NotSealed):
            unseal(encode_envelope(envelope), KEY)


def test_a_message_of_another_version_is_told_from_a_forged_one() -> None:
    for version in (1, VERSION + 1):
        with pytest.raises(OldVersion, match=f"version 0{version}"):
            unseal(bytes((version,)) + SEALED[0][1:], KEY)


@given(st.binary())
def test_random_bytes_are_never_sealed(data: bytes) -> None:
    for candidate in (data, bytes((VERSION, *NODE)) + data):
        with pytest.raises(DecodeError):
            unseal(candidate, KEY)
