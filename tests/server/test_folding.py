"""Folding: what a snapshot and a segment stand for, they hold."""

from dataclasses import replace
from random import Random

import pytest

from plait.persistence import LoggedUpdate, Snapshot, Stored
from plait.server import folding
from plait.server.document import Document
from plait.server.errors import DocumentBroken, UpdateRefused
from plait.server.folding import fold_rows, fold_snapshot, read
from plait.server.limits import Limits
from plait.server.updates import merge
from tests.server.test_document import BIG_INT, HALF_EMOJI
from tests.support.authors import Author, text_of
from tests.support.frames import var_uint

LIMITS = Limits()


def stored(updates: list[bytes], snapshot: Snapshot | None = None, first: int = 1) -> Stored:
    rows = (LoggedUpdate(first + i, "a", update, "", 0) for i, update in enumerate(updates))
    return Stored("a", snapshot, tuple(rows))


def history(seed: int, edits: int = 200) -> list[bytes]:
    """Return the updates of two authors who type, delete and hear of each other."""
    random = Random(seed)
    authors = [Author(1), Author(2)]
    updates = []
    for _ in range(edits):
        author, other = random.sample(authors, 2)
        length = len(author.text)
        if length > 10 and random.random() < 0.3:
            start = random.randrange(length - 5)
            update = author.delete(start, start + random.randrange(1, 5))
        else:
            author.text.insert(random.randrange(length + 1), f"w{random.randrange(999)} ")
            update = author.take()
        other.hear(update)
        updates.append(update)
    return updates


def state_of(stored: Stored) -> bytes:
    document, waiting = read(stored, LIMITS)
    assert not waiting
    return document.encode()


@pytest.mark.parametrize("seed", range(5))
def test_a_snapshot_and_the_rows_after_it_are_the_document(seed: int) -> None:
    updates = history(seed)
    snapshot = fold_snapshot(stored(updates[:150]), LIMITS, 5)
    assert snapshot is not None and (snapshot.upto, snapshot.at_ms) == (150, 5)
    again = stored(updates[150:], snapshot, first=151)
    assert text_of(state_of(again)) == text_of(state_of(stored(updates)))
    third = fold_snapshot(again, LIMITS, 6)
    assert third is not None and third.upto == 200


def test_a_large_state_is_cut_into_slices() -> None:
    author = Author(1)
    updates = []
    for number in range(400):
        author.text.insert(0, f"{number}" * 1000)
        updates.append(author.take())
    snapshot = fold_snapshot(stored(updates), LIMITS, 0)
    assert snapshot is not None and len(snapshot.slices) > 2
    assert text_of(state_of(stored([], snapshot))) == str(author.text)


def test_rows_that_are_not_ready_are_not_covered() -> None:
    author = Author(1)
    updates = [author.type(word) for word in "abcd"]
    del updates[2]
    snapshot = fold_snapshot(stored(updates), LIMITS, 0)
    assert snapshot is not None and snapshot.upto == 2
    assert fold_snapshot(stored(updates[2:]), LIMITS, 0) is None


@pytest.mark.parametrize("told", ["told", "looked for", "damaged"])
def test_a_snapshot_tells_what_has_a_key(
    told: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    author = Author(1)
    author.type("hello")
    author.map["k"] = 1
    snapshot = fold_snapshot(stored([author.state()]), LIMITS, 0)
    assert snapshot is not None
    places = snapshot.places
    assert places is not None
    if told == "looked for":  # It was made by an older version.
        snapshot = replace(snapshot, places=None)
    elif told == "damaged":
        snapshot = replace(snapshot, places=places[:-1])
    else:
        monkeypatch.delattr("plait.server.wire.keys.one_by_one_in_steps")
    document, _ = read(stored([], snapshot), LIMITS)
    monkeypatch.undo()
    assert ("damaged" in caplog.text) is (told == "damaged")
    # Client 1's sixth place is the value.
    assert document.apply(bytes.fromhex("01010900440105016100")).misplaced == ((9, 0),)


def test_what_has_to_be_mended_is_looked_for_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """pycrdt joins no values of a key. If it did, they would have to be taken apart."""
    state = bytes.fromhex("010307002701016d016f0128000700016b037d017d027d03a80703017d040107010103")
    monkeypatch.setattr(Document, "encode", lambda document: state)
    snapshot = fold_snapshot(stored([state]), LIMITS, 0)
    assert snapshot is not None and snapshot.places is None


def test_nothing_to_cover_is_no_snapshot() -> None:
    assert fold_snapshot(Stored("a"), LIMITS, 0) is None


def test_a_snapshot_that_is_not_the_document_is_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """pycrdt-store compacted documents into nothing and dropped their log."""
    monkeypatch.setattr(folding, "slice_state", lambda state: [Author(9).type("other")])
    with pytest.raises(DocumentBroken, match="is not the document"):
        fold_snapshot(stored([Author(1).type("hello")]), LIMITS, 0)


def test_what_pycrdt_cannot_encode_is_merged_from_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Document) -> bytes:
        raise DocumentBroken("the encoded state is not the document's state")

    updates = history(1, 50)
    text = text_of(state_of(stored(updates)))
    with monkeypatch.context() as patch:
        patch.setattr(Document, "encode", fail)
        snapshot = fold_snapshot(stored(updates), LIMITS, 0)
    assert snapshot is not None
    assert text_of(state_of(stored([], snapshot))) == text


def test_values_and_characters_that_pycrdt_mishandles_survive_snapshots() -> None:
    snapshot = fold_snapshot(stored([BIG_INT, Author(1).type("\U0001f600")]), LIMITS, 0)
    assert snapshot is not None and snapshot.lossy
    assert bytes.fromhex("7a0020000000000001") in b"".join(snapshot.slices)


def test_emoji_are_noted_so_that_halves_are_recognised_after_loading() -> None:
    snapshot = fold_snapshot(stored(HALF_EMOJI[:1]), LIMITS, 0)
    assert snapshot is not None and snapshot.astral
    whole = state_of(stored(HALF_EMOJI))
    assert state_of(stored(HALF_EMOJI[1:], snapshot, first=2)) == whole


def test_garbage_in_the_log_is_an_error() -> None:
    with pytest.raises(UpdateRefused):
        fold_snapshot(stored([b"\xff"]), LIMITS, 0)


@pytest.mark.parametrize("seed", range(5))
def test_a_segment_holds_its_rows_wherever_they_are_in_the_log(seed: int) -> None:
    updates = history(seed)
    rows = stored(updates).updates[50:120]
    segment = fold_rows(rows)
    assert (segment.first, segment.last) == (51, 120)
    folded = [*updates[:50], segment.update, *updates[120:]]
    assert text_of(state_of(stored(folded))) == text_of(state_of(stored(updates)))


def test_a_segment_that_lost_something_is_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    updates = history(3, 20)
    monkeypatch.setattr(folding, "merge", lambda rows: rows[0])
    with pytest.raises(DocumentBroken, match="are not what they were"):
        fold_rows(stored(updates).updates)


def test_a_segment_keeps_big_integers() -> None:
    segment = fold_rows(stored([BIG_INT, Author(1).type("x")]).updates)
    assert bytes.fromhex("7a0020000000000001") in segment.update


def test_a_log_full_of_torn_characters_is_loaded_without_building_the_document_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each took as long as loading all before it: a load took minutes, and blocked the server."""
    started = []
    build = Document._build_anew

    def counted(self: Document, state: bytes) -> None:
        started.append(state)
        build(self, state)

    monkeypatch.setattr(Document, "_build_anew", counted)
    updates = torn_history(30)
    live = Document(LIMITS)
    for update in updates:
        live.apply(update)
    assert len(started) >= 30, "each cut while it goes on"
    started.clear()
    loaded, waiting = read(stored(updates), LIMITS)
    assert not started and not waiting
    assert loaded.equals(live)
    snapshot = fold_snapshot(stored(updates[:50]), LIMITS, 0)
    assert snapshot is not None
    started.clear()
    again, _ = read(stored(updates[50:], snapshot, first=51), LIMITS)
    assert not started
    assert again.equals(live)
    live.apply(updates[-1])


def torn_history(count: int) -> list[bytes]:
    """Return updates that type emoji, as one client, and delete the first half of each."""
    updates = []
    for number in range(count):
        clock = var_uint(4 * number)
        origin = b"\x84\x07" + var_uint(4 * number - 1) if number else b"\x04\x01\x01t"
        updates.append(b"\x01\x01\x07" + clock + origin + b"\x06a\xf0\x9f\x98\x80b\x00")
        updates.append(b"\x00\x01\x07\x01" + var_uint(4 * number + 2) + b"\x01")
    return updates


def test_deletions_that_are_kept_in_other_runs_are_the_same() -> None:
    """A snapshot that was right was not believed, since pycrdt joins deleted runs when it loads."""
    updates = [bytes.fromhex(update) for update in UNJOINED_RUNS]
    plain = Document(LIMITS)
    for update in updates:
        plain.apply(update)
    with pytest.raises(DocumentBroken):
        fold_snapshot(stored(updates), LIMITS, 0, strict=True)
    snapshot = fold_snapshot(stored(updates), LIMITS, 0)
    assert snapshot is not None
    assert folding.same(read(stored([], snapshot), LIMITS)[0], plain)


UNJOINED_RUNS = (
    "010181bcc1960b000401017408616263646566676800",
    "010881bcc1960b0204010174036f6e658481bcc1960b0201208481bcc1960b030474776f200401016d0574687265"
    "654681bcc1960b0004626f6c640474727565c681bcc1960b0281bcc1960b0304626f6c64046e756c6c0401016104"
    "74776f20c481bcc1960b0381bcc1960b0f0474776f200181bcc1960b0304040d060108",
    "000181bcc1960b0200030d01",
    "010381bcc086960b000701017803097061726167726170688781bcc1960b0006040081bcc1960b01056166746572"
    "00",
)


def test_a_row_with_a_gap_costs_nothing_but_what_builds_on_it() -> None:
    lost = Author(7)
    lost.type("lost ")
    behind = lost.type("behind")
    own = Author(1).type("own")
    rows = [merge([own, behind]), Author(2).type(" more")]
    document, waiting = read(stored(rows), LIMITS)
    assert text_of(document.encode()) in ("own more", " moreown")
    assert [row.seq for row in waiting] == [1]
    whole, waiting = read(stored([*rows, lost.state()]), LIMITS)
    assert not waiting and "lost behind" in text_of(whole.encode())
