"""A turn's updates, put together."""

from typing import Any, cast

import pytest

from plait.server.changes import Change, by_author
from plait.server.document import Document
from plait.server.limits import Limits
from plait.server.member import Member
from plait.server.saving import LOGGED_BUSY_MAX, LOGGED_MAX
from plait.server.updates import merge
from plait.server.wire.messages import SyncUpdate
from plait.server.wire.update import inspect
from tests.support.authors import Author, text_of
from tests.support.rooms import Rig

ANN, BEN = cast(Any, "ann"), cast(Any, "ben")


def change(update: bytes, author: Member | None, **more: Any) -> Change:
    return Change(update, inspect(update), author, str(author or ""), **more)


def shown(turn: list[bytes]) -> str:
    document = Document(Limits())
    for update in turn:
        document.apply(update)
    return text_of(document.encode())


def test_what_one_has_typed_at_a_stretch_is_one_change() -> None:
    ann, ben = Author(1), Author(2)
    begun = [ann.type("-"), ben.type("-")]
    turn = [
        change(ann.type("Hel"), ANN, frame=b"as it came"),
        change(ben.type("Good"), BEN),
        change(ann.type("lo"), ANN),
        change(ann.delete(0, 1), ANN),
        change(ann.type("!"), ANN),
        change(ben.type("bye"), BEN),
    ]
    expected = shown([*begun, *(each.update for each in turn)])
    found = by_author(turn)
    assert [(each.author, each.who, each.count) for each in found] == [
        (ANN, "ann", 2),
        (BEN, "ben", 2),
        (ANN, "ann", 1),
        (ANN, "ann", 1),
    ]
    assert all(each.shape == inspect(each.update) and not each.frame for each in found)
    assert shown([*begun, *(each.update for each in found)]) == expected


def test_one_change_stays_what_it_is() -> None:
    typed = change(Author(1).type("a"), ANN, frame=b"as it came")
    assert by_author([typed]) == [typed]


def test_what_one_types_under_two_names_is_two_changes() -> None:
    ann = Author(1)
    ann.type("-")
    typed = [change(ann.type(word), ANN) for word in "ab"]
    typed[1].who = "ann of another token"
    assert by_author(typed) == typed


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"author": None}, id="nobody's"),
        pytest.param({"append": False}, id="another node's"),
        pytest.param({"echo": b"longer"}, id="what is echoed otherwise"),
        pytest.param({"parts": (b"1", b"2")}, id="a large one"),
        pytest.param({"text": "😀"}, id="characters that may be cut"),
    ],
)
def test_what_is_no_part_of_a_stretch_stays_as_it_is(other: dict[str, Any]) -> None:
    ann = Author(1)
    ann.type("-")
    words = ["a", "b", other.pop("text", "c"), "d", "e"]
    typed = [change(ann.type(word), ANN) for word in words]
    for name, value in other.items():
        setattr(typed[2], name, value)
    found = by_author(typed)
    assert [each.count for each in found] == [2, 1, 2]
    assert found[1] is typed[2]


def test_a_room_logs_and_acknowledges_what_one_has_typed_as_one() -> None:
    rig = Rig()
    ann, ben, cat = rig.client(), rig.client(), rig.client()
    one, two = Author(1), Author(2)
    for author, client in ((one, ann), (two, ben)):
        client.send(SyncUpdate(author.type("-")))
    rig.turn()
    rig.log.commit()
    rig.log.rows.clear()
    for client in (ann, ben, cat):
        client.received()
    for word in ("Hel", "lo"):
        ann.send(SyncUpdate(one.type(word)))
        ben.send(SyncUpdate(two.type(word)))
    rig.turn()
    assert len(rig.log.rows) == 2
    (from_ben,) = ann.received()
    assert from_ben == SyncUpdate(rig.log.rows[1].update)
    (both,) = cat.received()
    assert isinstance(both, SyncUpdate)
    assert both.update == merge([row.update for row in rig.log.rows])
    assert ann.member.unacknowledged == 2
    rig.log.commit()
    assert ann.received() == [SyncUpdate(rig.log.rows[0].update)]
    assert ann.member.unacknowledged == 0


def test_a_room_is_worth_compacting_when_it_rests_from_much() -> None:
    saving = Rig().room.saving
    saving.logged = LOGGED_MAX
    assert [saving.worth_compacting() for _ in range(2)] == [False, False], "that is not much"
    for more in (1, 100, 100):
        saving.logged += more
        assert not saving.worth_compacting(), "more may come"
    assert saving.worth_compacting()
    assert saving.logged == 0
    saving.logged = LOGGED_BUSY_MAX + 1
    assert saving.worth_compacting(), "that is too much to wait for a rest"
    assert not saving.worth_compacting()


def test_a_turn_of_one_who_types_counts_as_merged() -> None:
    rig = Rig()
    ann, author = rig.client(), Author(1)
    ann.send(SyncUpdate(author.type("-")))
    rig.turn()
    for word in ("a", "b"):
        ann.send(SyncUpdate(author.type(word)))
    rig.turn()
    assert rig.room._counters.merges == 1
