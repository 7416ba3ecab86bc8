"""What other nodes took and may not have stored yet: kept until it is known to be stored."""

from plait.server.borrowed import Borrowed
from plait.server.wire.update import inspect
from tests.support.authors import Author

ANN, BEN = b"a" * 8, b"b" * 8


def add(borrowed: Borrowed, node: bytes, seq: int, who: str, update: bytes) -> None:
    borrowed.add(node, seq, who, update, inspect(update))


def test_nothing_is_kept_at_first() -> None:
    borrowed = Borrowed()
    assert not borrowed
    assert borrowed.rows() == borrowed.take() == []
    borrowed.saved(ANN, 10)
    assert borrowed.size == 0


def test_what_a_node_has_saved_is_let_go_with_all_before_it() -> None:
    borrowed, author = Borrowed(), Author(1)
    updates = [author.type(letter) for letter in "abc"]
    for seq, update in enumerate(updates, 5):
        add(borrowed, ANN, seq, "ann", update)
    assert borrowed.size == sum(map(len, updates))
    borrowed.saved(ANN, 4)
    assert len(borrowed.rows()) == 3
    borrowed.saved(ANN, 6)
    assert borrowed.rows() == [("ann", updates[2])]
    assert borrowed.size == len(updates[2])
    borrowed.saved(ANN, 100)
    assert not borrowed
    assert borrowed.size == 0


def test_several_updates_of_one_message_are_let_go_together() -> None:
    borrowed = Borrowed()
    add(borrowed, ANN, 5, "", Author(1).type("a"))
    add(borrowed, ANN, 5, "", Author(2).type("b"))
    borrowed.saved(ANN, 5)
    assert not borrowed


def test_a_node_lets_go_of_its_own_only() -> None:
    borrowed = Borrowed()
    first, second = Author(1).type("a"), Author(2).type("b")
    add(borrowed, ANN, 5, "ann", first)
    add(borrowed, BEN, 5, "ben", second)
    borrowed.saved(ANN, 9)
    assert borrowed.rows() == [("ben", second)]


def test_what_is_taken_is_kept_no_more() -> None:
    borrowed = Borrowed()
    first, second = Author(1).type("a"), Author(2).type("b")
    add(borrowed, ANN, 5, "ann", first)
    add(borrowed, BEN, 5, "ben", second)
    assert borrowed.take(lambda node: node == ANN) == [("ann", first)]
    assert borrowed.size == len(second)
    assert borrowed.take(lambda node: node == ANN) == []
    assert borrowed.take() == [("ben", second)]
    assert not borrowed
    assert borrowed.size == 0


def test_an_update_needs_what_it_follows() -> None:
    borrowed, ann, ben = Borrowed(), Author(1), Author(2)
    update = ann.type("a")
    add(borrowed, ANN, 1, "", update)
    ben.hear(update)
    assert borrowed.needed_by(inspect(ben.type("b")))


def test_an_update_needs_earlier_work_of_the_same_client() -> None:
    """A client that went to another node goes on there."""
    borrowed, ann = Borrowed(), Author(1)
    add(borrowed, ANN, 1, "", ann.type("a"))
    ann.map["key"] = 1
    assert borrowed.needed_by(inspect(ann.take()))


def test_a_deletion_needs_what_it_deletes() -> None:
    borrowed, ann, ben = Borrowed(), Author(1), Author(2)
    update = ann.type("abc")
    add(borrowed, ANN, 1, "", update)
    ben.hear(update)
    assert borrowed.needed_by(inspect(ben.delete(0, 1)))


def test_an_update_does_not_need_what_it_has_no_relation_with() -> None:
    borrowed, ann, ben = Borrowed(), Author(1), Author(2)
    add(borrowed, ANN, 1, "", ann.type("a"))
    assert not borrowed.needed_by(inspect(ben.type("b")))
    assert not borrowed.needed_by(inspect(ben.type("c")))


def test_an_update_does_not_need_what_came_after_what_it_follows() -> None:
    borrowed, ann, ben = Borrowed(), Author(1), Author(2)
    ben.hear(ann.type("a"))
    add(borrowed, ANN, 2, "", ann.type("b"))
    assert not borrowed.needed_by(inspect(ben.type("c")))


def test_it_tells_how_long_the_oldest_has_been_kept() -> None:
    borrowed, author = Borrowed(), Author(1)
    assert borrowed.since is None
    for node, seq, now in ((ANN, 1, 10.0), (ANN, 2, 20.0), (BEN, 1, 15.0)):
        update = author.type("a")
        borrowed.add(node, seq, "", update, inspect(update), now)
    assert borrowed.since == 10
    borrowed.saved(ANN, 1)
    assert borrowed.since == 15
    borrowed.take(lambda node: node == BEN)
    assert borrowed.since == 20
    borrowed.saved(ANN, 2)
    assert borrowed.since is None
