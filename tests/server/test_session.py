"""One client's state machine: what follows from each message."""

import pytest

from plait.server.errors import DecodeError, RoomUnavailable
from plait.server.limits import Limits
from plait.server.session import (
    NOTHING,
    ApplyPresence,
    ApplyUpdate,
    RefusePresence,
    SendMissing,
    SendPresence,
    Session,
)
from plait.server.wire.messages import (
    AwarenessUpdate,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    SyncUpdate,
)
from plait.server.wire.presence import Entry, encode_presence


def session() -> Session:
    return Session(Limits())


def test_each_message_has_its_effect() -> None:
    entry = Entry(1, 2, b"{}")
    table = (
        (SyncStep1(b"\x00"), SendMissing(b"\x00")),
        (SyncStep2(b"update"), ApplyUpdate(b"update")),
        (SyncUpdate(b"update"), ApplyUpdate(b"update")),
        (AwarenessUpdate(encode_presence([entry])), ApplyPresence([entry])),
        (QueryAwareness(), SendPresence()),
    )
    for message, effect in table:
        assert session().receive(message) == effect


def test_an_update_with_nothing_in_it_has_no_effect() -> None:
    assert session().receive(SyncStep2(NOTHING)) is None
    assert session().receive(SyncUpdate(NOTHING)) is None


def test_a_closed_session_takes_nothing() -> None:
    closed = session()
    closed.close()
    assert closed.receive(SyncUpdate(b"update")) is None


def test_malformed_and_oversized_presence_is_refused() -> None:
    with pytest.raises(DecodeError):
        session().receive(AwarenessUpdate(b"\x05"))
    crowd = encode_presence([Entry(client, 1, b"1") for client in range(3)])
    for limits in (Limits(awareness_bytes_max=3), Limits(awareness_entries_max=2)):
        effect = Session(limits).receive(AwarenessUpdate(crowd))
        assert isinstance(effect, RefusePresence) and effect.error.limit == "presence"


def test_updates_wait_for_the_document_in_order() -> None:
    waiting = session()
    waiting.hold(b"one")
    waiting.hold(b"two")
    assert waiting.held
    assert waiting.take_held() == [b"one", b"two"]
    assert not waiting.held


def test_held_updates_are_bounded() -> None:
    waiting = Session(Limits(pending_bytes_max=10))
    waiting.hold(b"x" * 10)
    with pytest.raises(RoomUnavailable):
        waiting.hold(b"y")
