"""The document: what it takes, what it refuses, and that it never says what is not so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plait.server.document import Applied, Document
from plait.server.errors import DecodeError, DocumentBroken, LimitReached, UpdateRefused
from plait.server.limits import Limits
from plait.server.updates import difference, merge
from tests.support.authors import Author, text_of


def document(*updates: bytes, limits: Limits | None = None) -> Document:
    made = Document(limits or Limits())
    for update in updates:
        made.apply(update)
    return made


def test_an_update_changes_it_once() -> None:
    made = document()
    update = Author(1).type("hello")
    assert made.apply(update)[0] is Applied.CHANGED
    assert made.apply(update)[0] is Applied.KNOWN
    assert text_of(made.encode()) == "hello"
    assert made.clocks() == {1: 5}


def test_a_deletion_alone_is_a_change_once() -> None:
    author = Author(1)
    made = document(author.type("hello"))
    gone = author.delete(0, 2)
    assert made.apply(gone)[0] is Applied.CHANGED
    assert made.apply(gone)[0] is Applied.KNOWN
    assert text_of(made.encode()) == "llo"


def test_an_update_that_builds_upon_a_missing_one_is_not_applied() -> None:
    author = Author(1)
    first, second = author.type("a"), author.type("b")
    made = document()
    assert made.apply(second)[0] is Applied.PENDING
    assert made.clocks() == {}
    assert made.encode() == b"\x00\x00"
    assert [made.apply(each)[0] for each in (first, second)] == [Applied.CHANGED] * 2


def test_a_deletion_of_what_is_missing_is_not_applied() -> None:
    author = Author(1)
    text, gone = author.type("hello"), author.delete(0, 2)
    made = document()
    assert made.apply(gone)[0] is Applied.PENDING
    made.apply(text)
    assert made.apply(gone)[0] is Applied.CHANGED


def test_an_update_that_builds_upon_another_clients_missing_one_is_not_applied() -> None:
    ann, ben = Author(1), Author(2)
    first = ann.type("a")
    ben.hear(first)
    second = ben.type("b")
    made = document()
    assert made.apply(second)[0] is Applied.PENDING
    assert made.apply(ben.state())[0] is Applied.CHANGED, "together they are complete"


def test_garbage_is_refused_and_changes_nothing() -> None:
    made = document(Author(1).type("hello"))
    before = made.encode()
    for garbage in (b"", b"\xff", b"\x01", b"\x01\x00\xc9\xcd\x08\x1b\x00", before + b"\x00"):
        with pytest.raises(UpdateRefused):
            made.apply(garbage)
    assert made.encode() == before


def test_the_18_bytes_that_poison_a_document_are_refused() -> None:
    """With pycrdt alone, `get_update` panics for ever after this and two edits of client 7."""
    with pytest.raises(UpdateRefused):
        document(bytes.fromhex("010107ffffffff0f2801016d016b017d0100"))


def test_shared_types_are_counted_and_bounded() -> None:
    from pycrdt import Map

    author = Author(1)
    made = document(limits=Limits(nested_types_max=3))
    for number in range(3):
        author.map[str(number)] = Map({})
        made.apply(author.take())
    author.map["3"] = Map({})
    with pytest.raises(LimitReached, match="3 shared types"):
        made.apply(author.take())


def test_a_diff_holds_what_is_missing() -> None:
    author = Author(1)
    made = document(author.type("hello "))
    reader = Author(2)
    reader.hear(made.encode())
    made.apply(author.type("world"))
    missing = made.missing(reader.doc.get_state())
    assert len(missing) < len(made.encode())
    reader.hear(missing)
    assert str(reader.text) == "hello world"


@pytest.mark.parametrize("state_vector", [b"", b"\x05", b"\xff" * 20, b"\x00\x00"])
def test_a_malformed_state_vector_is_refused(state_vector: bytes) -> None:
    with pytest.raises(DecodeError):
        document(Author(1).type("hello")).missing(state_vector)


def test_documents_are_equal_by_what_they_hold() -> None:
    ann, ben = Author(1), Author(2)
    one, two = ann.type("one"), ben.type("two")
    assert document(one, two).equals(document(two, one))
    assert not document(one).equals(document(one, two))
    assert not document(ann.type("x")).equals(document(two))


class _Failing:
    """A pycrdt document that fails. Unrealistic: pycrdt does so in the middle of a change."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def create_transaction(self) -> "_Failing":
        return self

    def commit(self) -> None:
        pass

    def drop(self) -> None:
        pass

    def observe(self, callback: object) -> "_Failing":
        return self

    def apply_update(self, transaction: object, update: bytes) -> None:
        raise self._error

    def get_update(self, transaction: object, state_vector: bytes) -> bytes:
        raise self._error

    def get_state(self, transaction: object) -> bytes:
        return b"\x00"


class PanicException(BaseException):
    """What pyo3 raises for a Rust panic; it can't be imported."""


@pytest.mark.parametrize("error", [RuntimeError("Cannot apply update"), PanicException("panic")])
def test_whatever_pycrdt_raises_breaks_the_document(error: BaseException) -> None:
    made = document()
    made._doc = _Failing(error)  # type: ignore[assignment]
    with pytest.raises(DocumentBroken):
        made.apply(Author(1).type("a"))
    with pytest.raises(DocumentBroken):
        made.encode()


def test_an_interrupt_is_not_mistaken_for_a_panic() -> None:
    made = document()
    made._doc = _Failing(KeyboardInterrupt())  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        made.apply(Author(1).type("a"))


def test_a_state_that_is_not_the_documents_is_never_handed_out() -> None:
    class Wrong(_Failing):
        def get_update(self, transaction: object, state_vector: bytes) -> bytes:
            return Author(9).type("something else")

    made = document()
    made._doc = Wrong(RuntimeError())  # type: ignore[assignment]
    with pytest.raises(DocumentBroken, match="is not the document's state"):
        made.encode()


def test_updates_merge_into_one() -> None:
    author = Author(1)
    updates = [author.type(f"{number} ") for number in range(200)]
    assert text_of(merge(updates)) == str(author.text)
    assert merge(updates[:1]) == updates[0]
    assert merge([]) == b"\x00\x00"


def test_a_difference_is_taken_from_bytes_alone() -> None:
    author = Author(1)
    first = author.type("hello ")
    state_vector = author.doc.get_state()
    second = author.type("world")
    reader = Author(2)
    reader.hear(first)
    reader.hear(difference(merge([first, second]), state_vector))
    assert str(reader.text) == "hello world"


# Half an emoji: real updates of Yjs, recorded from `text.insert(0, 'a😀b')`, `text.delete(2, 1)`,
# `text.insert(2, 'xyz')`, `text.insert(0, 'Q')`, `text.insert(text.length, 'end')`. Yjs has
# 'Qa\ufffdxyzbend' then; pycrdt alone has 'Qa😀xyzend', and 'Qa😀endxyz' after loading its state.
HALF_EMOJI = [
    bytes.fromhex(update)
    for update in (
        "01010700040101740661f09f98806200",
        "000107010201",
        "01010704c4070207030378797a00",
        "01010707440700015100",
        "0101070884070303656e6400",
    )
]


def _text_t(state: bytes) -> str:
    from pycrdt import Doc, Text

    doc: Doc[Any] = Doc()
    doc.apply_update(state)
    return str(doc.get("t", type=Text))


def test_half_an_emoji_deleted_gives_what_yjs_has() -> None:
    made = document(*HALF_EMOJI)
    assert _text_t(made.encode()) == "Qa\ufffdxyzbend"


def test_half_an_emoji_in_one_merged_update_gives_what_yjs_has() -> None:
    assert _text_t(document(merge(HALF_EMOJI)).encode()) == "Qa\ufffdxyzbend"


def test_half_an_emoji_is_found_in_a_loaded_snapshot() -> None:
    made = document()
    list(made.load_slice(HALF_EMOJI[0], lossy=False, astral=True, look=False))
    made.slices_loaded(types=0)
    for update in HALF_EMOJI[1:]:
        assert made.apply(update)[0] is Applied.CHANGED
    assert _text_t(made.encode()) == "Qa\ufffdxyzbend"


# A BigInt: `map.set('n', 9007199254740993n)` of Yjs, which pycrdt alone writes as a number.
BIG_INT = bytes.fromhex("01010700280101" + "6d" + "016e" + "017a" + "0020000000000001" + "00")


def test_a_big_int_is_encoded_as_it_came() -> None:
    made = document(BIG_INT)
    assert bytes.fromhex("7a0020000000000001") in made.encode()
    assert bytes.fromhex("7a0020000000000001") in made.missing(b"\x01\x09\x00")


def test_it_tells_a_guess_of_its_memory() -> None:
    made = document()
    before = made.memory_bytes
    made.apply(Author(1).type("x" * 1000))
    assert made.memory_bytes > before + 1000


def subdocuments(count: int) -> bytes:
    """Return an update that puts subdocuments with options beside text, as Yjs writes them."""
    structs = b"".join(
        b"\x29\x01\x01m"
        + b"\x03%03d" % number
        + b"\x04guid"
        + bytes.fromhex("760105")
        + b"first"
        + b"\x78"
        for number in range(count)
    )
    return b"\x01" + bytes((count,)) + b"\x07\x00" + structs + b"\x00"


def test_subdocuments_are_encoded_as_they_came() -> None:
    update = subdocuments(3)
    made = document(update, Author(1).type("text"))
    for state in (made.encode(), made.missing(b"\x01\x01\x00"), made.missing(b"\x01\x07\x01")):
        assert state.count(b"\x04guid\x76\x01\x05first\x78") in (2, 3)
    again = document(made.encode())
    assert again.equals(made)


def remaining_bytes(load: Callable[[], None]) -> int:
    """Return by how much the process grows while documents are loaded and let go of."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    for _ in range(20):
        load()
    before = resident()
    for _ in range(200):
        load()
    return resident() - before


def many_blocks() -> bytes:
    author = Author(1)
    for _ in range(200):
        author.text.insert(0, "ab")
        author.take()
    return author.state()


def test_a_document_with_subdocuments_is_freed() -> None:
    """pycrdt alone keeps it for ever: the subdocument and its parent hold each other."""
    state = merge([many_blocks(), subdocuments(50)])

    def load() -> None:
        made = document(state)
        assert made.encode()
        made.close()

    assert remaining_bytes(load) < 2 << 20


def test_a_document_that_is_merely_dropped_is_freed() -> None:
    """A load that fails half-way, or a room whose document was deleted, closes nothing."""
    state = many_blocks()

    def load() -> None:
        assert document(state).encode()

    assert remaining_bytes(load) < 2 << 20


def test_an_update_that_is_known_in_part_is_cut() -> None:
    author = Author(1)
    made = document(author.type("hello "))
    author.type("world")
    applied, shape, new, *_ = made.apply(author.state())
    assert applied is Applied.CHANGED
    assert shape.runs == [(1, 6, 11)]
    assert new.count(b"world") == 1 and b"hello" not in new
    assert text_of(made.encode()) == "hello world"


def test_other_content_under_known_clocks_is_the_same_for_all() -> None:
    """pycrdt cut such a struct otherwise than Yjs did: documents differed for ever."""
    first = bytes.fromhex("010181bc0b002701016d036d61700100")
    liar = bytes.fromhex("010181bc0b000401017408616263646566676800")
    made = document(first)
    _, shape, new, *_ = made.apply(liar)
    assert shape.runs == [(187905, 1, 8)]
    late = document(first, new)
    assert late.equals(made)


def test_a_cut_falls_between_the_halves_of_a_character() -> None:
    made = document(bytes.fromhex("01010700040101740261" + "62" + "00"))
    _, shape, new, *_ = made.apply(HALF_EMOJI[0])
    assert shape.runs == [(7, 2, 4)]
    assert "\ufffdb".encode() in new


def test_a_big_int_survives_a_cut() -> None:
    both = bytes.fromhex("0101070028010161016e027d017a0020000000000001" + "00")
    made = document(bytes.fromhex("0101070028010161016e017d01" + "00"))
    assert made.apply(both)[0] is Applied.CHANGED
    assert bytes.fromhex("7a0020000000000001") in made.encode()


def test_a_document_that_cannot_be_built_anew_is_broken_and_never_empty() -> None:
    """Cutting a character builds it anew; it stayed empty, and was handed out, when that failed."""
    made = document(HALF_EMOJI[0])
    apply = made._to_pycrdt

    def failing(update: bytes, *, watch: bool = False) -> bool:
        return apply(b"\xff", watch=watch)

    made._to_pycrdt = failing  # type: ignore[method-assign]
    with pytest.raises(DocumentBroken):
        made.apply(HALF_EMOJI[1])


def test_a_state_that_lacks_what_is_known_is_never_handed_out() -> None:
    made = document(Author(1).type("hello"))
    made._doc = document()._doc
    with pytest.raises(DocumentBroken, match="is not the document's state"):
        made.encode()
