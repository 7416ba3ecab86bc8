"""How large a document may become."""

import pytest

from plait.server.capacity import Capacity
from plait.server.errors import DocumentBroken, DocumentFull
from plait.server.limits import Limits

MEBIBYTE = 1 << 20


class FakeDocument:
    """A document that is nothing but its size. Unrealistic: every update adds."""

    def __init__(self, size_bytes: int, true_size: int | None = None) -> None:
        self.size_bytes = size_bytes
        self.true_size = size_bytes if true_size is None else true_size
        self.measured = False
        self.encodings = 0
        self.broken = False

    def adds(self, update: bytes) -> bool:
        return bool(update)

    def encode(self) -> bytes:
        self.encodings += 1
        if self.broken:
            raise DocumentBroken("the encoded state is not the document's state")
        self.size_bytes, self.measured = self.true_size, True
        return b""


def capacity() -> Capacity[str]:
    return Capacity(Limits(document_bytes_max=MEBIBYTE, measure_seconds=30))


def test_a_document_takes_updates_up_to_its_size() -> None:
    document = FakeDocument(MEBIBYTE - 10)
    capacity().check(document, b"x" * 10, 0)
    assert document.encodings == 0, "nothing is measured as long as all fits in"
    with pytest.raises(DocumentFull, match=r"1 MiB \(document_mb\)") as caught:
        capacity().check(document, b"x" * 11, 0)
    assert (caught.value.status, caught.value.limit) == (413, "document_mb")


def test_it_is_measured_before_anything_is_refused() -> None:
    document = FakeDocument(MEBIBYTE, true_size=100)
    capacity().check(document, b"x", 0)
    assert document.size_bytes == 100


def test_it_is_not_measured_again_at_once() -> None:
    room, document = capacity(), FakeDocument(MEBIBYTE)
    for now in (0, 1, 29):
        document.measured = False
        with pytest.raises(DocumentFull):
            room.check(document, b"x", now)
    assert document.encodings == 1
    document.true_size = 100
    room.check(document, b"x", 30)


def test_one_that_has_not_changed_is_not_measured() -> None:
    room, document = capacity(), FakeDocument(MEBIBYTE)
    for now in (0, 100, 200):
        with pytest.raises(DocumentFull):
            room.check(document, b"x", now)
    assert document.encodings == 1


def test_what_adds_nothing_always_passes() -> None:
    capacity().check(FakeDocument(2 * MEBIBYTE), b"", 0)


def test_a_document_that_can_not_be_encoded_keeps_its_estimate() -> None:
    document = FakeDocument(MEBIBYTE, true_size=100)
    document.broken = True
    with pytest.raises(DocumentFull):
        capacity().check(document, b"x", 0)


def test_zero_means_no_limit() -> None:
    Capacity[str](Limits(document_bytes_max=0)).check(FakeDocument(1 << 50), b"x", 0)


def test_a_member_is_told_once_until_its_edits_fit_in() -> None:
    room, document = capacity(), FakeDocument(MEBIBYTE)
    assert room.refuse("ann", 100)
    assert room.refuse("ann", 100), "it was not told yet: it did not read"
    room.told("ann")
    assert not room.refuse("ann", 100)
    assert room.lacks("ann") and not room.lacks("bob")
    assert room.fitting(document, 0) == []

    document.true_size, document.measured = MEBIBYTE - 299, False
    assert room.fitting(document, 10) == [], "measured a moment ago"
    assert room.fitting(document, 30) == [], "300 bytes were refused"
    document.true_size, document.measured = MEBIBYTE - 300, False
    assert room.fitting(document, 60) == ["ann"]
    assert not room.lacks("ann")
    assert room.refuse("ann", 100)


def test_those_are_asked_whose_edits_fit_in_together() -> None:
    room, document = capacity(), FakeDocument(MEBIBYTE - 100)
    for member, size in (("ann", 60), ("bob", 60), ("cid", 40)):
        room.refuse(member, size)
    assert room.fitting(document, 0) == ["ann", "cid"]


def test_who_left_is_forgotten() -> None:
    room = capacity()
    room.refuse("ann", 1)
    room.forget("ann")
    room.forget("ann")
    assert room.fitting(FakeDocument(0), 0) == []
