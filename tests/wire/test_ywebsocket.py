import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.server.errors import DecodeError
from plait.server.wire.messages import (
    Authenticate,
    AwarenessUpdate,
    Codec,
    Message,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    SyncUpdate,
)
from plait.server.wire.ywebsocket import EMPTY_AWARENESS, YWEBSOCKET, auth_denied
from tests.wire.recorded import vectors

CODEC: Codec = YWEBSOCKET
FRAMES = [
    pytest.param(
        bytes.fromhex(vector["hex"]),
        vector["message"],
        bytes.fromhex(vector["payload"]),
        id=vector["name"],
    )
    for vector in vectors("ywebsocket")
    if vector["message"]
]


def message(name: str, payload: bytes) -> Message:
    made: dict[str, Message] = {
        "SyncStep1": SyncStep1(payload),
        "SyncStep2": SyncStep2(payload),
        "SyncUpdate": SyncUpdate(payload),
        "AwarenessUpdate": AwarenessUpdate(payload),
        "QueryAwareness": QueryAwareness(),
    }
    return made[name]


def encode(message: Message) -> bytes:
    if isinstance(message, SyncStep1):
        return CODEC.sync_step1(message.state_vector)
    if isinstance(message, SyncStep2):
        return CODEC.sync_step2(message.update)
    if isinstance(message, SyncUpdate):
        return CODEC.sync_update(message.update)
    if isinstance(message, AwarenessUpdate):
        return CODEC.awareness(message.update)
    return b"\x03"


@pytest.mark.parametrize(("frame", "name", "payload"), FRAMES)
def test_reads_and_writes_what_y_protocols_does(frame: bytes, name: str, payload: bytes) -> None:
    expected = message(name, payload)
    assert CODEC.decode(frame) == expected
    assert encode(expected) == frame


@pytest.mark.parametrize(("frame", "name", "payload"), FRAMES)
def test_truncated_anywhere_is_refused(frame: bytes, name: str, payload: bytes) -> None:
    for end in range(len(frame)):
        with pytest.raises(DecodeError, match="ends too early"):
            CODEC.decode(frame[:end])


@pytest.mark.parametrize(("frame", "name", "payload"), FRAMES)
def test_trailing_bytes_are_refused(frame: bytes, name: str, payload: bytes) -> None:
    with pytest.raises(DecodeError, match="1 bytes too many"):
        CODEC.decode(frame + b"\x00")
    with pytest.raises(DecodeError, match="bytes too many"):
        CODEC.decode(frame + frame)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"\x02\x01\x00", "auth message"),
        (b"\x02\x02\x08readonly", "auth message"),
        (b"\x02\x00\x01\xff", "UTF-8"),
        (b"\x04", "no message of type 4"),
        (b"\x66\x00", "no message of type 102"),
        (b"\x00\x03\x00", "no sync message of type 3"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff", "2\\^53"),
        (b"\x00\x02\xff\xff\xff\xff\xff\xff\xff\xff\x00", "2\\^53"),
    ],
)
def test_what_no_client_may_send_is_refused(frame: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        CODEC.decode(frame)


def test_padded_integers_are_read_as_lib0_does() -> None:
    assert CODEC.decode(b"\x80\x00\x82\x00\x81\x00x") == SyncUpdate(b"x")
    assert CODEC.decode(b"\x00\x02\x81\x00x") == SyncUpdate(b"x")


def test_denial_is_what_y_protocols_writes() -> None:
    (denied,) = [vector for vector in vectors("ywebsocket") if vector["name"] == "denied"]
    assert auth_denied("not for you: naïve").hex() == denied["hex"]


def test_a_token_is_laid_out_like_a_denial() -> None:
    assert CODEC.decode(auth_denied("a.b.c")) == Authenticate("a.b.c")
    assert CODEC.decode(b"\x02\x00\x00") == Authenticate("")
    for frame in (b"\x02", b"\x02\x00", b"\x02\x00\x05a.b"):
        with pytest.raises(DecodeError, match="ends too early"):
            CODEC.decode(frame)
    with pytest.raises(DecodeError, match="bytes too many"):
        CODEC.decode(auth_denied("a.b.c") + b"\x00")


def test_a_token_is_not_shown() -> None:
    assert "a.b.c" not in repr(Authenticate("a.b.c"))


def test_a_permission_says_whether_edits_are_accepted() -> None:
    assert CODEC.permission(writes=True) == b"\x02\x02\x0aread-write"
    assert CODEC.permission(writes=False) == b"\x02\x02\x08readonly"


def test_empty_awareness_is_presence_of_nobody() -> None:
    assert CODEC.decode(EMPTY_AWARENESS) == AwarenessUpdate(b"\x00")


messages = st.one_of(
    st.builds(SyncStep1, st.binary()),
    st.builds(SyncStep2, st.binary(max_size=400)),
    st.builds(SyncUpdate, st.binary(max_size=400)),
    st.builds(AwarenessUpdate, st.binary()),
    st.just(QueryAwareness()),
)


@given(messages)
def test_every_message_comes_back(message: Message) -> None:
    assert CODEC.decode(encode(message)) == message


@given(st.one_of(st.binary(), st.binary().map(lambda tail: b"\x00\x02" + tail)))
def test_random_bytes_raise_nothing_else(frame: bytes) -> None:
    try:
        CODEC.decode(frame)
    except DecodeError:
        pass
