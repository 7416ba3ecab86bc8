"""What was typed at a stretch is one struct, and nobody can tell the difference."""

from random import Random
from typing import Any

import pytest
from pycrdt import Doc

from plait.server.wire.update import continued, inspect, typed
from tests.support.authors import Author


def joined(updates: list[bytes]) -> list[bytes]:
    found = updates[:1]
    for update in updates[1:]:
        longer = continued(found[-1], update)
        found[-1:] = [found[-1], update] if longer is None else [longer]
    return found


@pytest.mark.parametrize("behind", [False, True], ids=["at the end", "within a text"])
def test_what_is_typed_at_a_stretch_is_one_struct(behind: bool) -> None:
    author = Author(1)
    before = author.type("()")
    words = []
    for word in ("one", " ", "two"):
        author.text.insert(len(author.text) - behind, word)
        words.append(author.take())
    (one,) = joined(words)
    assert typed(one) is not None
    assert inspect(one).runs == [(1, 2, 9)]
    apart: Doc[Any] = Doc()
    together: Doc[Any] = Doc()
    for update in (before, *words):
        apart.apply_update(update)
    for update in (before, one):
        together.apply_update(update)
    assert apart.get_update() == together.get_update()


@pytest.mark.parametrize("seed", range(30))
def test_joining_never_changes_what_comes_of_updates(seed: int) -> None:
    """Two type and delete anywhere, at times on top of each other."""
    random = Random(seed)
    authors = [Author(1), Author(2)]
    updates: list[bytes] = []
    heard = [0, 0]
    # yrs 0.28 panics when somebody deletes who has never typed.
    updates += [author.type("first ") for author in authors]
    number = 0
    for _ in range(80):
        number = number if random.random() < 0.7 else 1 - number
        author = authors[number]
        if random.random() < 0.3:
            for update in updates[heard[number] :]:
                author.hear(update)
            heard[number] = len(updates)
        length = len(author.text)
        if length and random.random() < 0.1:
            updates.append(author.delete(0, 1))
            continue
        place = length if random.random() < 0.6 else random.randrange(length + 1)
        author.text.insert(place, random.choice(["a", "bc", "é", "x" * 60]))
        updates.append(author.take())
    found = joined(updates)
    assert len(found) < len(updates)
    apart: Doc[Any] = Doc()
    together: Doc[Any] = Doc()
    for doc, given in ((apart, updates), (together, found)):
        for update in given:
            doc.apply_update(update)
    assert apart.get_update() == together.get_update()


def test_nothing_else_is_joined() -> None:
    ann, ben = Author(1), Author(2)
    first = ann.type("one")
    ben.hear(first)
    updates = [first, ben.type("two"), ann.type("three"), ann.delete(0, 1)]
    ann.text.insert(1, "x")
    updates.append(ann.take())
    updates += [ann.type("😀"), ann.type("é"), ann.state(), b"", b"nonsense"]
    assert joined(updates) == updates


def test_an_update_that_can_be_typed_at_once_stays_so() -> None:
    author = Author(1)
    author.type("first")
    words = [author.type("x" * 50) for _ in range(5)]
    found = joined(words)
    assert [typed(each) is not None for each in found] == [True] * 3
    assert [inspect(each).runs for each in found] == [
        [(1, 5, 105)],
        [(1, 105, 205)],
        [(1, 205, 255)],
    ]
