"""Bring a document back to an earlier content by a new edit, whatever its schema is.

A CRDT can't be rewound: its clients hold the present and would merge it right back. So the way back
is an edit like any other: all that was inserted since is deleted, and all that was deleted since is
inserted anew, which pycrdt's `UndoManager` does when it is told what "since" is. What clients type
meanwhile is merged with it, as with any edit.

    scratch     a document without garbage collection, given the old state first, because only that
                holds the content of what was deleted since, and then the present one
    insertions  the clocks that the present has and the old state has not
    deletions   what is deleted in the present and was not in the old state

What pycrdt would not give back as it is has stand-ins meanwhile (`plait.server.wire.stand_ins`).
A character beyond U+FFFF that was cut in half since is deleted as a whole and inserted anew, since
its halves are U+FFFD by now, in every client (`plait.server.torn_characters`).

The outcome is applied to a copy of the present document and compared with the old one before
anybody is given it.
"""

from collections.abc import Sequence
from typing import Any

import pycrdt

from plait.server.appearance import appearance
from plait.server.document import Applied, Document
from plait.server.errors import DocumentBroken, PlaitError
from plait.server.limits import Limits
from plait.server.torn_characters import TornCharacters
from plait.server.updates import EMPTY_UPDATE, difference, merge
from plait.server.wire import stand_ins, surrogates
from plait.server.wire.state_vector import decode_state_vector
from plait.server.wire.structs import (
    Deletes,
    read_deletes,
    read_structs,
    sections,
    write_deletes,
)
from plait.server.wire.update import Id

Ranges = dict[int, list[tuple[int, int]]]
"""For each client, ranges of its clocks: the first, and the one after the last."""


def reverting_update(present: bytes, old: bytes, limits: Limits) -> bytes:
    """Return an update that gives a document in its present state the content of its old state.

    Takes long for large documents and runs pycrdt on all of them: call it with
    `plait.server.apart.run_apart`.

    Args:
        present: the whole state, as `Document.encode` gives it.
        old: likewise. Need not be of the same document: then its content replaces the present one.

    Returns:
        The update, or `EMPTY_UPDATE` if the document shows the old content already. It applies to
        every document that holds the present state, with more edits or without.

    Raises:
        PlaitError: the old content can't be reached by an edit.
    """
    try:
        return _reverting_update(present, old, limits)
    except PlaitError:
        raise
    except RecursionError:
        raise DocumentBroken("the document is nested too deeply to bring it back") from None
    except BaseException as error:
        # A Rust panic is a BaseException that can't be imported.
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise DocumentBroken(f"pycrdt failed to bring the document back: {error}") from error
        raise


def _reverting_update(present: bytes, old: bytes, limits: Limits) -> bytes:
    wanted = appearance(old)
    if appearance(present) == wanted:
        return EMPTY_UPDATE
    mark = stand_ins.new_mark()
    cut = _cut_since(present, old)
    characters = TornCharacters(old, cut)
    # Their halves can't be made whole again, so what is left of them goes as well.
    remains = b"\x00" + write_deletes(_pairs_as_deletes(cut))
    torn = _torn(present, old) - cut
    scratch_old, scratch_present = (
        characters.put_in(stand_ins.hide(surrogates.rewrite(state, torn), mark))
        for state in (old, present)
    )
    undone = merge([remains, _undo_since(scratch_old, [scratch_present, remains], characters)])
    undone = stand_ins.show(characters.take_out(undone), mark)
    update = _with_what_was_lost(undone, present, old, limits)
    document = Document(limits)
    document.apply(present)
    document.apply(update)
    if appearance(document.encode()) != wanted:
        raise DocumentBroken("the old content can't be reached by an edit of the document")
    return update


def _with_what_was_lost(undone: bytes, present: bytes, old: bytes, limits: Limits) -> bytes:
    """Return an update together with what the old state has and the present one lacks altogether.

    There is such only if the present document is not a later one of the same history.
    """
    document = Document(limits)
    document.apply(present)
    lost = difference(old, document.state_vector())
    if document.apply(lost)[0] is Applied.KNOWN:
        return undone
    return merge([lost, undone])


def _undo_since(old: bytes, later: Sequence[bytes], characters: TornCharacters) -> bytes:
    """Return the update that takes back what later updates have brought to a state."""
    before: pycrdt.Doc[Any] = pycrdt.Doc()
    before.apply_update(old)
    scratch: pycrdt.Doc[Any] = pycrdt.Doc(skip_gc=True)
    scratch.apply_update(old)
    for update in later:
        scratch.apply_update(update)
    had = decode_state_vector(before.get_state())
    has = decode_state_vector(scratch.get_state())
    inserted = {
        client: [(had.get(client, 0), clock)]
        for client, clock in has.items()
        if clock > had.get(client, 0)
    }
    deleted = _without(_deleted(scratch), _deleted(before))
    within: Any = scratch  # its own types ask for a class that pycrdt does not export
    since: pycrdt.StackItem[None] = pycrdt.StackItem(within, _id_set(deleted), _id_set(inserted))
    # Only which type it is matters to the manager; any root may be taken for a map.
    roots = [
        scratch.get(name, type=pycrdt.Map) if root is None else root
        for name, root in scratch.items()
    ]
    manager = pycrdt.UndoManager(scopes=roots, capture_timeout_millis=0, undo_stack=[since])
    updates: list[bytes] = []
    subscription = scratch.observe(lambda event: updates.append(event.update))
    manager.undo()
    characters.make_whole(scratch)
    scratch.unobserve(subscription)
    return merge(updates)


def _torn(present: bytes, old: bytes) -> set[Id]:
    """Return the surrogate pairs that either state cuts in the middle; pycrdt must not meet one."""
    pairs = surrogates.pairs(present) | surrogates.pairs(old)
    if not pairs:
        return set()
    cuts = surrogates.cuts(present, _clocks(old)) | surrogates.cuts(old, _clocks(present))
    return surrogates.broken(pairs, cuts)


def _cut_since(present: bytes, old: bytes) -> set[Id]:
    """Return the surrogate pairs that are whole in the old state, and cut in the present one."""
    pairs = surrogates.pairs(old)
    return surrogates.broken(pairs, surrogates.cuts(present)) if pairs else set()


def _pairs_as_deletes(pairs: set[Id]) -> Deletes:
    deletes: Deletes = {}
    for client, clock in sorted(pairs):
        deletes.setdefault(client, []).append((clock, 2))
    return deletes


def _clocks(state: bytes) -> dict[int, int]:
    """Return, for each client, the clock after its last struct in a state."""
    return {each.client: each.clock + each.length for each in read_structs(state)}


def _deleted(doc: "pycrdt.Doc[Any]") -> Ranges:
    """Return what is deleted in a document."""
    update = doc.get_update(doc.get_state())
    _, position = sections(update)
    return {
        client: [(clock, clock + length) for clock, length in ranges]
        for client, ranges in read_deletes(update, position).items()
    }


def _without(ranges: Ranges, others: Ranges) -> Ranges:
    """Return ranges less what others cover."""
    left: Ranges = {}
    for client, found in ranges.items():
        holes = sorted(others.get(client, []))
        index = 0
        for start, end in sorted(found):
            while index < len(holes) and holes[index][1] <= start:
                index += 1
            at = index
            while at < len(holes) and holes[at][0] < end:
                if holes[at][0] > start:
                    left.setdefault(client, []).append((start, holes[at][0]))
                start = max(start, holes[at][1])
                at += 1
            if start < end:
                left.setdefault(client, []).append((start, end))
    return left


def _id_set(ranges: Ranges) -> pycrdt.IdSet:
    deletes: Deletes = {
        client: [(start, end - start) for start, end in found] for client, found in ranges.items()
    }
    return pycrdt.IdSet.decode(write_deletes(deletes))
