"""Who may only read: nothing that it sends reaches the document, the store or others."""

from collections.abc import Sequence

import pytest

from plait.server.connection import Connection
from plait.server.errors import DecodeError, PlaitError
from plait.server.holding import READ_ONLY
from plait.server.limits import Limits
from plait.server.member import Member
from plait.server.quota import Bucket
from plait.server.session import NOTHING, REFUSED_SECONDS, ApplyUpdate, RefuseUpdate, Session
from plait.server.wire.messages import AwarenessUpdate, SyncStep1, SyncStep2, SyncUpdate
from plait.server.wire.presence import Entry, encode_presence
from plait.server.wire.ywebsocket import YWEBSOCKET, auth_denied
from tests.support.authors import Author, text_of
from tests.support.rooms import Rig

DENIED = auth_denied(READ_ONLY)
MAY_READ = YWEBSOCKET.permission(writes=False)
MAY_WRITE = YWEBSOCKET.permission(writes=True)


class Visitor:
    """Whose connection it is. Keeps the tokens that it is to renew with."""

    who = "ann"
    source = "ann"
    shared: tuple[Bucket, ...] = ()

    def __init__(self, *, may_write: bool) -> None:
        self.may_write = may_write
        self.tokens: list[str] = []

    def closed(self, error: PlaitError) -> None:
        self.error = error

    def renew(self, connection: Connection, token: str) -> None:
        self.tokens.append(token)


def connect(rig: Rig, *, may_write: bool = False) -> Connection:
    visitor = Visitor(may_write=may_write)
    connection = Connection(rig.limits, lambda: None, rig.clock.monotonic, visitor=visitor)
    connection.join(rig.room, YWEBSOCKET)
    return connection


def frames(connection: Connection) -> list[bytes]:
    found = []
    while (frame := connection.take()) is not None:
        found.append(frame)
    return found


def typed(*updates: bytes) -> Sequence[bytes]:
    return [YWEBSOCKET.sync_update(each) for each in updates]


# The session


def test_a_session_that_may_not_write_refuses_updates_of_both_kinds() -> None:
    session = Session(Limits(), may_write=False)
    assert not session.takes_updates
    assert session.receive(SyncUpdate(b"update")) == RefuseUpdate()
    assert session.receive(SyncStep2(b"update")) == RefuseUpdate()
    assert session.receive(SyncStep2(NOTHING)) is None
    session.permit(True)
    assert session.takes_updates
    assert session.receive(SyncUpdate(b"update")) == ApplyUpdate(b"update")


def test_a_refusal_is_told_every_few_seconds() -> None:
    session = Session(Limits(), may_write=False)
    told = [session.tells_refused(now) for now in (0, 1, REFUSED_SECONDS - 0.1, REFUSED_SECONDS, 6)]
    assert told == [True, False, False, True, False]
    session.permit(False)
    assert session.tells_refused(6.1), "it was told something new meanwhile"


def test_what_is_held_is_dropped_with_the_right() -> None:
    session = Session(Limits(pending_bytes_max=10))
    session.hold(b"x" * 10)
    session.permit(False)
    assert not session.held
    session.permit(True)
    session.hold(b"y" * 10)
    assert session.held == [b"y" * 10], "there is room again"
    session.close()
    session.permit(True)
    assert not session.takes_updates


# The room


def test_a_reader_is_told_so_and_not_asked_for_what_it_has() -> None:
    rig = Rig()
    rig.client().send(SyncUpdate(Author(1).type("x")))
    rig.turn()
    reader = connect(rig)
    assert frames(reader) == [MAY_READ]
    reader.receive(YWEBSOCKET.sync_step1(b"\x00"))
    (answer,) = frames(reader)
    message = YWEBSOCKET.decode(answer)
    assert isinstance(message, SyncStep2) and text_of(message.update) == "x"


def test_nothing_that_a_reader_writes_goes_anywhere() -> None:
    rig = Rig()
    other, reader = rig.client(), connect(rig)
    frames(reader)
    author = Author(7)
    short, long = author.type("x"), author.type("y" * 1000)
    for frame in (*typed(short, long), YWEBSOCKET.sync_step2(author.state())):
        reader.receive(frame)
    rig.turn()
    rig.log.commit()
    assert text_of(rig.room.document.encode()) == ""
    assert rig.log.rows == [] and other.received() == []
    assert frames(reader) == [DENIED], "once, and no acknowledgement"
    assert reader.closing is None
    rig.clock.now += REFUSED_SECONDS
    reader.receive(typed(short)[0])
    assert frames(reader) == [DENIED]
    assert not rig.room.busy


def test_who_goes_on_typing_without_the_right_is_refused_though_it_is_the_shortest_way() -> None:
    rig = Rig()
    author, writer = Author(7), connect(rig, may_write=True)
    for letter in "abc":  # From the second on it is typing, which takes the shortest way.
        writer.receive(typed(author.type(letter))[0])
        rig.turn()
    rig.log.commit()
    writer.permit(False)
    frames(writer)
    rows = len(rig.log.rows)
    writer.receive(typed(author.type("d"))[0])
    rig.turn()
    assert text_of(rig.room.document.encode()) == "abc"
    assert len(rig.log.rows) == rows
    assert frames(writer) == [DENIED]


def test_a_reader_is_seen_and_sees() -> None:
    rig = Rig()
    other, reader = rig.client(), connect(rig)
    frames(reader)
    reader.receive(YWEBSOCKET.awareness(encode_presence([Entry(7, 1, b'{"name":"Ann"}')])))
    rig.turn()
    assert [type(each) for each in other.received()] == [AwarenessUpdate]
    assert frames(reader) != []
    other.send(SyncUpdate(Author(1).type("x")))
    rig.turn()
    assert frames(reader) == typed(Author(1).type("x"))


def test_a_right_that_is_taken_away_takes_what_was_held_with_it() -> None:
    rig = Rig()
    author = Author(7)
    missing, built = author.type("a"), author.type("b")
    writer = connect(rig, may_write=True)
    frames(writer)
    writer.receive(typed(built)[0])
    writer.permit(False)
    assert frames(writer)[-1] == MAY_READ
    rig.client().send(SyncUpdate(missing))
    rig.turn()
    assert text_of(rig.room.document.encode()) == "a"
    assert frames(writer)[-1] == typed(missing)[0]


def test_who_may_write_again_is_asked_for_what_it_typed_meanwhile() -> None:
    rig = Rig()
    connection = connect(rig)
    frames(connection)
    author = Author(7)
    connection.receive(typed(author.type("offline"))[0])
    assert frames(connection) == [DENIED]
    connection.permit(True)
    permission, question = frames(connection)
    assert permission == MAY_WRITE
    assert YWEBSOCKET.decode(question) == SyncStep1(b"\x00")
    connection.receive(YWEBSOCKET.sync_step2(author.state()))
    rig.turn()
    rig.log.commit()
    assert text_of(rig.room.document.encode()) == "offline"
    assert len(rig.log.rows) == 1
    assert [type(YWEBSOCKET.decode(each)) for each in frames(connection)] == [SyncUpdate]


def test_a_full_document_does_not_ask_who_may_not_write() -> None:
    rig = Rig(Limits(document_bytes_max=100))
    writer = connect(rig, may_write=True)
    author = Author(7)
    writer.receive(typed(author.type("x" * 200))[0])
    writer.permit(False)
    frames(writer)
    rig.clock.now += 60
    rig.room.tick()
    questions = [each for each in frames(writer) if each.startswith(b"\x00\x00")]
    assert questions == []


def test_readers_bytes_count_as_anybody_s() -> None:
    rig = Rig(Limits(awareness_bytes_max=10))
    reader = connect(rig)
    frames(reader)
    for _ in range(3):
        reader.receive(YWEBSOCKET.awareness(b"x" * 11))
        rig.clock.now += 2
    assert reader.closing is None
    told = YWEBSOCKET.denied("your presence is not shown: one message may have 10 bytes, not 11")
    assert frames(reader) == [told], "every few seconds, not for each message"


# The connection


def test_a_token_goes_to_the_visitor_and_nowhere_else() -> None:
    rig = Rig()
    visitor = Visitor(may_write=True)
    connection = Connection(rig.limits, lambda: None, rig.clock.monotonic, visitor=visitor)
    connection.join(rig.room, YWEBSOCKET)
    frames(connection)
    connection.receive(auth_denied("a.b.c"))
    assert visitor.tokens == ["a.b.c"] and connection.closing is None
    connection.renewed(True)
    connection.deny("no")
    assert frames(connection) == [MAY_WRITE, auth_denied("no")]


def test_where_tokens_mean_nothing_one_closes_the_connection() -> None:
    rig = Rig()
    connection = Connection(rig.limits, lambda: None, rig.clock.monotonic)
    connection.join(rig.room, YWEBSOCKET)
    connection.receive(auth_denied("a.b.c"))
    assert connection.closing is not None and connection.closing.code == DecodeError.close_code


@pytest.mark.parametrize("may_write", [True, False])
def test_a_connection_that_is_gone_is_told_nothing(may_write: bool) -> None:
    rig = Rig()
    connection = connect(rig, may_write=not may_write)
    connection.lost()
    connection.permit(may_write)
    connection.renewed(may_write)
    connection.deny("no")
    assert frames(connection) == []


def test_who_writes_is_in_the_log() -> None:
    rig = Rig()
    connect(rig, may_write=True).receive(typed(Author(1).type("x"))[0])
    rig.turn()
    assert [row.who for row in rig.log.rows] == ["ann"]


def test_a_member_is_allowed_to_write_unless_it_is_said() -> None:
    rig = Rig()
    member = Member(rig.client().socket, YWEBSOCKET, rig.limits, 0.0)
    assert member.session.may_write
