"""Large updates and documents: taken in by parts, kept elsewhere, and whole to everybody."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pycrdt import Doc, Map, Text

from plait.persistence import Update
from plait.persistence.memory import MemoryStore
from plait.server import answers, intake, remote
from plait.server.connection import Connection
from plait.server.cutting import cut
from plait.server.errors import DocumentInTheWay, RoomUnavailable
from plait.server.hub import Hub
from plait.server.intake import Receipt
from plait.server.kept_state import State
from plait.server.limits import Limits
from plait.server.remote import RemoteDocument
from plait.server.room import Room
from plait.server.updates import merge
from plait.server.wire.messages import Message, SyncStep1, SyncStep2, SyncUpdate
from plait.server.wire.state_vector import encode_state_vector
from plait.server.wire.ywebsocket import YWEBSOCKET
from tests.server.test_hub import connect, running, send
from tests.support.authors import Author, text_of
from tests.support.deadlines import eventually
from tests.support.rooms import Client, Rig

ASK_ALL = SyncStep1(b"\x00")


def entries(client: int, count: int = 4000) -> bytes:
    """Return an update that one client made, of many small structs: about 50 bytes each."""
    doc: Doc[Any] = Doc(client_id=client)
    rows = doc.get("rows", type=Map)
    with doc.transaction():
        for number in range(count):
            rows[f"row {client}-{number}"] = "v" * 20
    return doc.get_update()


def rows_of(*updates: bytes) -> set[str]:
    """Return the keys of the map after updates were applied."""
    doc: Doc[Any] = Doc()
    for update in updates:
        doc.apply_update(update)
    return set(doc.get("rows", type=Map).keys())


def received(connection: Connection) -> list[Message]:
    """Return what a connection has been sent since the last call."""
    frames = []
    while (frame := connection.outbox.take()) is not None:
        frames.append(YWEBSOCKET.decode(frame))
    return frames


async def until_sent(connection: Connection, kind: type[Any]) -> Any:
    """Wait for a message of a kind, and return it."""
    found: list[Message] = []

    def came() -> bool:
        found.extend(received(connection))
        return any(isinstance(message, kind) for message in found)

    await eventually(came, f"a {kind.__name__}")
    return next(message for message in found if isinstance(message, kind))


async def state_of(hub: Hub, room: Room) -> bytes:
    """Return what who joins now is sent, as one update."""
    reader = connect(hub, room)
    reader.receive(YWEBSOCKET.sync_step1(b"\x00"))
    first = await until_sent(reader, SyncStep2)
    rest = [each.update for each in received(reader) if isinstance(each, SyncUpdate)]
    reader.lost()
    return merge([first.update, *rest])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let documents count as large that are small enough for a test."""
    monkeypatch.setattr(answers, "INLINE_BYTES", 32 << 10)
    monkeypatch.setattr(answers, "DIFF_BYTES", 64 << 10)
    for module in ("answers", "room"):
        monkeypatch.setattr(f"plait.server.{module}.PACED_BYTES", 64 << 10)


@pytest.fixture(params=["here", "elsewhere"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Keep large documents in this process, or in another."""
    size = 100 << 10 if request.param == "elsewhere" else 1 << 30
    for module in ("loading", "room"):
        monkeypatch.setattr(f"plait.server.{module}.REMOTE_BYTES", size)
    yield str(request.param)


# One room, step by step


async def test_a_large_update_is_one_change_of_several_rows() -> None:
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    update = entries(1)
    ann.send(SyncUpdate(update))
    assert ann.member.busy and rig.room.busy
    await eventually(lambda: rig.source.cuts)
    rig.source.cuts[0][2].set_result(cut(update, {}, rig.limits))
    await eventually(lambda: not ann.member.busy)
    rig.turn()
    await eventually(lambda: ben.socket.outbox)
    assert ben.received() == [SyncUpdate(update)]
    assert len(rig.log.rows) > 1
    assert rows_of(*(row.update for row in rig.log.rows)) == rows_of(update)
    assert ann.received() == [], "it is not stored yet"
    rig.log.commit()
    assert ann.received() == [SyncUpdate(update)]
    assert not rig.room.busy and rig.source.reserved == 0


async def test_nobody_sees_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    resting, go_on = asyncio.Event(), asyncio.Event()

    class Halt:
        def __init__(self, seconds: Callable[[], float]) -> None:
            """Go by no time."""

        async def rest(self) -> None:
            resting.set()
            await go_on.wait()

    monkeypatch.setattr(intake, "Pace", Halt)
    ann, ben = rig.client(), rig.client()
    update = entries(1)
    ann.send(SyncUpdate(update))
    await eventually(lambda: rig.source.cuts)
    rig.source.cuts[0][2].set_result(cut(update, {}, rig.limits))
    await resting.wait()
    assert rig.room.document.clocks(), "a part is there"

    late = Client(rig)
    assert late.received() == [SyncStep1(b"\x00")], "what may be undone is asked for"
    late.send(ASK_ALL)
    assert late.received() == []
    word = Author(5).type("meanwhile")
    ben.send(SyncUpdate(word))
    rig.turn()
    assert [row.update for row in rig.log.rows] == [word], "others go on"
    same = SyncUpdate(entries(1, 10))
    ben.send(same)
    assert ben.member.busy, "what shares content with it waits"

    go_on.set()
    await eventually(lambda: not rig.room.intake.busy)
    rig.turn()
    await eventually(lambda: not late.member.waits_for_state)
    state = [m.update for m in late.received() if isinstance(m, SyncStep2 | SyncUpdate)]
    assert rows_of(*state) == rows_of(update)
    assert text_of(merge(state)) == "meanwhile"


async def test_an_author_who_leaves_does_not_take_it_along() -> None:
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    update = entries(1)
    ann.send(SyncUpdate(update))
    await eventually(lambda: rig.source.cuts)
    ann.leave()
    rig.source.cuts[0][2].set_result(cut(update, {}, rig.limits))
    await eventually(lambda: not rig.room.intake.busy)
    rig.turn()
    await eventually(lambda: ben.socket.outbox)
    assert ben.received() == [SyncUpdate(update)]
    rig.log.commit()
    assert not rig.room.busy


async def test_one_that_is_not_ready_is_held_until_it_is() -> None:
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    author = Author(1)
    first, update = author.type("first "), author.type("word " * 20_000)
    ann.send(SyncUpdate(update))
    await eventually(lambda: rig.source.cuts)
    rig.source.cuts[0][2].set_result(cut(update, {}, rig.limits))
    await eventually(lambda: not ann.member.busy)
    assert ann.received() == [SyncStep1(b"\x00")]
    ben.send(SyncUpdate(Author(9).type("x")))
    rig.turn()
    assert len(rig.source.cuts) == 1, "it is not cut again as long as it can't be ready"
    ben.send(SyncUpdate(first))
    rig.turn()
    await eventually(lambda: len(rig.source.cuts) == 2)
    rig.source.cuts[1][2].set_result(cut(update, rig.room.document.clocks(), rig.limits))
    await eventually(lambda: not ann.member.busy)
    assert text_of(rig.room.document.encode()).startswith(("first word", "xfirst word"))


async def test_what_is_ready_of_a_large_update_comes_in(small: None, place: str) -> None:
    lost, own = Author(7), entries(1)
    lost.type("lost ")
    behind = lost.type("behind it")
    async with running() as hub, hub.room("a") as room:
        ann, ben = connect(hub, room), connect(hub, room)
        ann.receive(YWEBSOCKET.sync_step2(merge([own, behind])))
        told = await until_sent(ben, SyncUpdate)
        assert rows_of(told.update) == rows_of(own)
        echo = await until_sent(ann, SyncUpdate)
        assert rows_of(echo.update) == rows_of(own)
        send(ben, lost.state())  # the lost part, and all of it
        await eventually(lambda: not room.busy)
        state = await state_of(hub, room)
        assert rows_of(state) == rows_of(own) and text_of(state) == "lost behind it"


async def test_what_a_large_update_repeats_with_other_content_is_told(
    small: None, place: str
) -> None:
    async with running() as hub, hub.room("a") as room:
        first = await room.apply(entries(7))
        assert first == Receipt(changed=True)
        other: Doc[Any] = Doc(client_id=7)
        other.get("text", type=Text).insert(0, "word " * 20_000)
        receipt = await room.apply(other.get_update())
        (run,) = receipt.shadowed
        assert run[:2] == (7, 0) and receipt.changed, "what is behind it is new"
        again = await room.apply(entries(7))
        assert again == Receipt(changed=False)


async def test_what_is_known_in_part_is_cut_for_all() -> None:
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    author = Author(1)
    known = author.type("known ")
    author.type("word " * 20_000)
    whole = author.state()
    ann.send(SyncUpdate(whole))
    await eventually(lambda: rig.source.cuts)
    ben.send(SyncUpdate(known))  # It arrives while the large one is cut for an empty document.
    rig.turn()
    ben.received()
    rig.source.cuts[0][2].set_result(cut(whole, {}, rig.limits))
    await eventually(lambda: len(rig.source.cuts) == 2)
    assert rig.source.cuts[1][1] == {1: 6}
    rig.source.cuts[1][2].set_result(cut(whole, {1: 6}, rig.limits))
    await eventually(lambda: not ann.member.busy)
    rig.turn()
    (message,) = ben.received()
    assert isinstance(message, SyncUpdate) and len(message.update) < len(whole)
    assert text_of(rig.room.document.encode()) == text_of(whole)


async def test_too_much_at_once_is_to_come_later() -> None:
    rig = Rig()
    rig.source.reserved_max = 1
    ann = rig.client()
    with pytest.raises(RoomUnavailable, match="too many"):
        ann.send(SyncUpdate(entries(1)))


# The state for who joins


async def test_a_join_storm_encodes_once_and_gets_what_came_since(small: None) -> None:
    rig = Rig(Limits(outbox_bytes_high=8 << 20))
    writer = Author(1)
    rig.room.document.apply(writer.type("word " * 9_000))
    first, second = rig.client(), rig.client()
    first.send(ASK_ALL)
    second.send(ASK_ALL)
    assert len(rig.source.states) == 1
    state = State(rig.room.document.encode(), rig.room.document.clocks())
    third = rig.client()
    third.send(SyncUpdate(writer.type("and more")))
    rig.turn()
    assert first.received() == second.received() == [], "of no use without the rest"
    rig.source.states[0].set_result(state)
    await eventually(lambda: second.socket.outbox)
    for client in (first, second):
        answer, tail = client.received()
        assert answer == SyncStep2(state.encoded)
        assert isinstance(tail, SyncUpdate)
        assert text_of(merge([state.encoded, tail.update])).endswith("and more")
    late = rig.client()
    late.send(ASK_ALL)
    assert len(late.received()) == 2 and len(rig.source.states) == 1


async def test_who_has_nearly_everything_gets_a_diff(small: None) -> None:
    rig = Rig()
    writer = Author(1)
    rig.room.document.apply(writer.type("word " * 9_000))
    has = rig.room.document.state_vector()
    rig.room.document.apply(writer.type("news"))
    client = rig.client()
    client.send(SyncStep1(has))
    (message,) = client.received()
    assert isinstance(message, SyncStep2) and len(message.update) < 100


async def test_own_updates_are_not_shown_before_they_are_stored(small: None) -> None:
    rig = Rig()
    rig.room.document.apply(Author(1).type("word " * 9_000))
    client = rig.client()
    own = Author(2).type("own")
    client.send(SyncUpdate(own))
    client.send(ASK_ALL)
    rig.turn()
    rig.source.states[0].set_result(State(rig.room.document.encode(), rig.room.document.clocks()))
    await eventually(lambda: rig.room.answers.size)
    assert client.received() == []
    rig.log.commit()
    messages = client.received()
    assert isinstance(messages[0], SyncStep2) and "own" in text_of(messages[0].update)


async def test_large_frames_go_to_one_after_another(small: None) -> None:
    rig = Rig()
    ann, ben, eve = rig.client(), rig.client(), rig.client()
    own = Author(5).type("own")
    ben.send(SyncUpdate(own))
    rig.turn()
    large = entries(1)
    ann.send(SyncUpdate(large))
    await eventually(lambda: rig.source.cuts)
    rig.source.cuts[0][2].set_result(cut(large, {}, rig.limits))
    await eventually(lambda: not ann.member.busy)
    for client in (ann, ben, eve):
        client.received()
    rig.turn()
    rig.log.commit()  # while ben still waits for its turn, so that it hears of it afterwards
    later = Author(6).type("later")
    ann.send(SyncUpdate(later))
    rig.turn()
    await eventually(lambda: ben.socket.outbox and eve.socket.outbox)
    diffs = []
    for client in (ben, eve):
        first, rest = client.received()
        assert first == SyncUpdate(large)
        assert isinstance(rest, SyncStep2)
        diffs.append(rest.update)
    bens, eves = diffs
    assert b"own" in bens and b"later" in bens
    assert b"later" in eves and b"own" not in eves


async def test_a_state_that_lacks_something_is_not_handed_out(small: None) -> None:
    rig = Rig()
    rig.room.document.apply(Author(1).type("word " * 9_000))
    client = rig.client()
    client.send(ASK_ALL)
    rig.source.states[0].set_result(State(Author(1).type("word"), {1: 4}))
    await eventually(lambda: client.socket.closed_with)
    assert isinstance(client.socket.closed_with, RoomUnavailable)


# The whole way, with helper processes


async def test_uploads_of_two_at_once(small: None, place: str) -> None:
    store = MemoryStore()
    async with running(store) as hub:
        async with hub.room("a") as room:
            ann, ben = connect(hub, room), connect(hub, room)
            one, two = entries(1), entries(2)
            send(ann, one)
            send(ben, two)
            await eventually(lambda: not room.busy)
            assert room.document.remote == (place == "elsewhere")
            assert rows_of(await state_of(hub, room)) == rows_of(one, two)
            acknowledged = [m.update for m in received(ann) if isinstance(m, SyncUpdate)]
            assert sorted(acknowledged) == sorted([one, two])
    async with running(store) as hub, hub.room("a") as room:
        assert rows_of(await state_of(hub, room)) == rows_of(one, two)


async def test_small_edits_of_a_document_elsewhere(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plait.server.room.REMOTE_BYTES", 0)
    async with running() as hub, hub.room("a") as room:
        ann, ben = connect(hub, room), connect(hub, room)
        send(ann, entries(1))
        await eventually(lambda: not room.busy)
        received(ben)
        author = Author(5)
        for word in ("one ", "two ", "three"):
            send(ann, author.type(word))
            await eventually(lambda: not ann.waiting)
        await eventually(lambda: not room.busy)
        updates = [m.update for m in received(ben) if isinstance(m, SyncUpdate)]
        assert text_of(merge(updates)) == "one two three"

        back = connect(hub, room)
        has = {**room.document.clocks(), 5: 4}
        back.receive(YWEBSOCKET.sync_step1(encode_state_vector(has)))
        diff = await until_sent(back, SyncStep2)
        assert len(diff.update) < 100
        await state_of(hub, room)


async def test_its_process_dies_and_nothing_is_lost(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plait.server.room.REMOTE_BYTES", 0)
    monkeypatch.setattr("plait.server.loading.REMOTE_BYTES", 1 << 10)
    async with running() as hub, hub.room("a") as room:
        ann, ben = connect(hub, room), connect(hub, room)
        update = entries(1)
        send(ann, update)
        await eventually(lambda: not room.busy)
        before = room.document
        assert isinstance(before, RemoteDocument)
        helper = before._companion._helper
        assert helper is not None
        helper.kill()
        send(ben, Author(5).type("lost?"))
        await eventually(lambda: not room.busy)
        assert room.document is not before
        assert ann.closing is None and ben.closing is None
        state = await state_of(hub, room)
        assert rows_of(state) == rows_of(update) and text_of(state) == "lost?"


async def test_an_edit_of_which_it_dies_is_refused(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plait.server.room.REMOTE_BYTES", 0)
    monkeypatch.setattr("plait.server.loading.REMOTE_BYTES", 1 << 10)
    async with running() as hub, hub.room("a") as room:
        ann, ben = connect(hub, room), connect(hub, room)
        send(ann, entries(1))
        await eventually(lambda: not room.busy)
        with monkeypatch.context() as patch:
            patch.setattr(remote, "_integrate", _die)
            send(ben, Author(5).type("poison"))
            await eventually(lambda: hub.counters.updates_refused == 1)
        assert ben.closing is None, "once is forgiven"
        send(ann, Author(6).type("fine"))
        await eventually(lambda: not room.busy)
        assert text_of(await state_of(hub, room)) == "fine" and ann.closing is None


async def test_a_helper_that_dies_costs_the_author_a_reconnection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as hub, hub.room("a") as room:
        ann, ben = connect(hub, room), connect(hub, room)

        monkeypatch.setattr("plait.server.source.cut", _die)
        send(ann, entries(1))
        await eventually(lambda: ann.closing is not None)
        assert ben.closing is None
        monkeypatch.undo()
        send(ben, entries(1))
        await eventually(lambda: not room.busy)
        assert rows_of(await state_of(hub, room)) == rows_of(entries(1))


def _die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def test_a_hostile_one_is_refused_and_harms_nobody() -> None:
    async with running() as hub, hub.room("a") as room:
        ann, ben = connect(hub, room), connect(hub, room)
        deep = b"\x01\x01\x07\x00\x28\x01\x01m\x01k\x01" + b"\x75\x01" * 50_000 + b"\x7e\x00"
        send(ann, deep)
        await eventually(lambda: hub.counters.updates_refused == 1)
        assert ann.closing is None and not room.document.clocks()
        send(ben, Author(5).type("fine"))
        await eventually(lambda: not room.busy)
        assert ben.closing is None


async def test_of_two_who_create_the_same_document_one_is_refused() -> None:
    async with running() as hub, hub.room("a") as room:

        def check() -> None:
            if room.document.clocks():
                raise DocumentInTheWay("there is one")

        outcomes = await asyncio.gather(
            *(room.apply(entries(client), check=check) for client in (1, 2)),
            return_exceptions=True,
        )
        assert [type(each) for each in outcomes] == [Receipt, DocumentInTheWay]


async def test_a_huge_row_of_an_older_version_is_loaded_in_parts(place: str) -> None:
    store = MemoryStore()
    await store.open()
    update = entries(1, 8000)
    await store.append([Update("a", update)])
    async with running(store) as hub, hub.room("a") as room:
        assert rows_of(await room.answers.read(b"\x00", 0.0)) == rows_of(update)


async def test_the_server_waits_for_them_when_it_stops() -> None:
    store = MemoryStore()
    async with running(store) as hub, hub.room("a") as room:
        ann = connect(hub, room)
        send(ann, entries(1))
        await hub.drain(30)
        assert rows_of(*(row.update for row in (await store.load("a")).updates)) == rows_of(
            entries(1)
        )


def test_no_more_processes_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "REMOTES_MAX", 0)
    assert not remote.may_be_remote()
