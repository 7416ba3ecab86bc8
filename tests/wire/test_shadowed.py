"""What two authors wrote under one client id is told apart, and what one wrote is not."""

from random import Random

import pytest
from pycrdt import Doc, Text

from plait.server.document import Document
from plait.server.errors import PlaitError
from plait.server.limits import Limits
from plait.server.updates import merge
from plait.server.wire.shadowed import shadowed
from tests.support.authors import Author
from tests.wire.recorded import histories

LIMITS = Limits()


def author(client: int, text: str) -> bytes:
    made = Author(client)
    made.type(text)
    return made.state()


@pytest.mark.parametrize("kind", ["rich", "odd", "emoji"])
def test_genuine_updates_are_in_the_document_as_their_author_wrote_them(kind: str) -> None:
    random = Random(3)
    for history in histories(kind, 5, 25, 40):
        updates = [bytes.fromhex(each) for each in history["updates"]]
        document = Document(LIMITS)
        for update in updates:
            document.apply(update)
        some = [each for each in updates if random.random() < 0.3]
        for update in (*updates, *([merge(some)] if some else ())):
            assert document.shadowed(update) == [], update.hex()
        for state in history["states"]:
            assert document.shadowed(bytes.fromhex(state)) == []


def test_other_text_under_the_same_id_is_told() -> None:
    document = Document(LIMITS)
    document.apply(author(7, "hello"))
    assert document.shadowed(author(7, "world")) == [(7, 0, 5)]
    assert document.shadowed(author(7, "hello")) == []
    assert document.shadowed(author(7, "hell")) == []


def test_the_part_that_is_known_decides() -> None:
    held, other = author(7, "hello"), author(7, "help me")
    assert shadowed(other, held) == [(7, 0, 5)], "a struct is one text, whoever cuts it"


def test_other_places_are_told() -> None:
    def doc_of(root: str) -> bytes:
        doc: Doc[Text] = Doc(client_id=7)
        doc.get(root, type=Text).insert(0, "same")
        return doc.get_update()

    assert shadowed(doc_of("one"), doc_of("one")) == []
    assert shadowed(doc_of("one"), doc_of("two")) == [(7, 0, 4)]


def test_other_values_are_told() -> None:
    def entry(value: object) -> bytes:
        made = Author(7)
        made.map["key"] = value
        return made.state()

    assert shadowed(entry(1), entry(2)) == [(7, 0, 1)]
    assert shadowed(entry("a"), entry({"a": 1})) == [(7, 0, 1)]
    assert shadowed(entry({"a": 1, "b": 2}), entry({"a": 1, "b": 3})) == [(7, 0, 1)]
    for _ in range(10):  # pycrdt has the keys in another order each time.
        several = {"a": float("nan"), "b": 2**40, "c": b"x", "d": [1, {"e": 0, "f": None}]}
        assert shadowed(entry(several), entry(several)) == []


def test_what_was_deleted_is_passed_over() -> None:
    made = Author(7)
    made.type("hello")
    made.delete(0, 5)
    document = Document(LIMITS)
    document.apply(made.state())
    assert document.shadowed(author(7, "world")) == []


def test_mutated_updates_are_compared_without_harm() -> None:
    held = author(7, "hello 😀 world")
    random = Random(1)
    document = Document(LIMITS)
    document.apply(held)
    for _ in range(300):
        update = bytearray(held)
        update[random.randrange(len(update))] = random.randrange(256)
        try:
            document.apply(bytes(update))
            document.shadowed(bytes(update))
        except PlaitError:
            continue
