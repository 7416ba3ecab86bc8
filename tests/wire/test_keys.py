"""Values of a key: what pycrdt is given of them, and what is refused."""

from collections import Counter
from typing import Any

import pytest
from pycrdt import Array, Doc, Map

from plait.server.document import Applied, Document
from plait.server.errors import UpdateRefused
from plait.server.limits import Limits
from plait.server.wire.keys import STEP_STRUCTS, one_by_one, one_by_one_in_steps
from plait.server.wire.places import Places
from plait.server.wire.slices import slice_state
from plait.server.wire.structs import read_structs
from plait.server.wire.update import DELETED, inspect
from tests.wire.recorded import histories

# Yjs wrote these: `o` is a map in the map `m`, and its `k` is set to 1, 2, 3 and 4.
WITHOUT_GC = bytes.fromhex("010307002701016d016f0128000700016b037d017d027d03a80703017d040107010103")
"""A state, of a document with `gc: false`."""
KEPT_FOR_UNDO = [
    bytes.fromhex(made)
    for made in (
        "010107002701016d016f0100",
        "0102070128000700016b037d017d027d03a80703017d040107010103",
        "000107010401",
        "01010705a80704017d0400",
    )
]
"""One transaction that a `Y.UndoManager` watches, which is undone and redone."""


def told(update: str, *before: str) -> str:
    keyed = Places()
    for each in before:
        keyed.add(one_by_one(bytes.fromhex(each), keyed)[1])
    given, _ = one_by_one(bytes.fromhex(update), keyed)
    inspect(given)
    return given.hex()


def test_several_values_are_given_as_deleted_ones_and_the_last() -> None:
    assert told("010103002801016d016b037d017d027d0300") == (
        "0102030021" + "01016d016b02" + "a80301017d0300"
    )
    # Text, by UTF-16 units, as Yjs shows it; the last may be half a character.
    assert told("010103002401016d016b046c65667400") == (
        "0102030021" + "01016d016b03" + "a40302017400"
    )
    assert told("010103002401016d016b04f09f988000").endswith("a4030003efbfbd00")


def test_a_key_is_taken_from_the_origin() -> None:
    first = "010103002801016d016b017d0100"
    assert told("01010301a80300027d027d0300", first) == "01020301a1030001" + "a80301017d0300"
    assert told("01010301a80300027d027d0300") == "01010301a80300027d027d0300"
    # In one update, of which the part of the other client, which comes first, builds upon this one.
    both = "020109008803" + "0002" + "7d027d03" + "0103002801016d016b017d0100"
    assert told(both) == (
        "02020900" + "81030001" + "a809" + "00017d03" + "0103002801016d016b017d01" + "00"
    )


def test_what_is_deleted_or_has_no_key_stays_as_it_is() -> None:
    for update in ("010103002101016d016b0300", "010103000801016d037d017d027d0300"):
        assert told(update) == update


def test_nothing_comes_to_the_left_of_a_value() -> None:
    value = "010103002801016d016b017d0100"
    for left in ("01010301480300017d0200", "01010301c803000300017d0200"):
        assert told(left) == left
        with pytest.raises(UpdateRefused, match="left of a value that has a key"):
            told(left, value)
    made = Document(Limits())
    made.apply(bytes.fromhex(value))
    before = made.encode()
    # As typing makes it, which takes a shorter way. It is garbage for everybody.
    outcome = made.apply(bytes.fromhex("010107004403000161" + "00"))
    assert outcome.misplaced == ((7, 0),)
    assert outcome.update == bytes.fromhex("01010700" + "0001" + "00")
    assert made.clocks() == {3: 1, 7: 1} and made.encode() != before
    doc: Doc[Any] = Doc()
    doc.apply_update(made.encode())
    assert doc.get("m", type=Map).to_py() == {"k": 1}


def test_typing_behind_a_value_takes_the_long_way() -> None:
    made = Document(Limits())
    made.apply(bytes.fromhex("010103002801016d016b017d0100"))
    update = bytes.fromhex("010103018403000261" + "6200")
    assert made.apply_typed(update) is None
    assert made.apply(update)[0] is Applied.CHANGED
    structs = list(read_structs(made.encode()))
    assert [(each.kind == DELETED, each.length) for each in structs] == [(True, 2), (False, 1)]


def encoded(update: bytes) -> bytes:
    doc: Doc[Any] = Doc()
    doc.apply_update(update)
    return doc.get_update()


def map_of(made: Document) -> dict[str, Any] | None:
    doc: Doc[Any] = Doc()
    doc.apply_update(made.encode())
    shown: dict[str, Any] | None = doc.get("m", type=Map).to_py()
    return shown


def test_what_yjs_writes_without_collecting_garbage_is_taken() -> None:
    whole = Document(Limits())
    assert whole.apply(WITHOUT_GC)[0] is Applied.CHANGED
    in_parts = Document(Limits())
    for part in slice_state(WITHOUT_GC, 4):
        in_parts.apply_part(part, inspect(part))
    assert map_of(whole) == map_of(in_parts) == {"o": {"k": 4.0}}
    assert whole.equals(in_parts)


def test_what_yjs_writes_with_an_undo_manager_is_taken() -> None:
    made, shown = Document(Limits()), []
    for update in KEPT_FOR_UNDO:
        assert made.apply(update)[0] is Applied.CHANGED
        shown.append(map_of(made))
    assert shown == [{"o": {}}, {"o": {"k": 4.0}}, {"o": {}}, {"o": {"k": 4.0}}]


def test_histories_of_yjs_end_as_they_would() -> None:
    """They have values in one struct, which an undo manager keeps: all of them are deleted."""
    several = 0
    for history in histories("rich", seed=7, count=40, edits=40):
        bare: Doc[Any] = Doc()
        given: Doc[Any] = Doc()
        keyed = Places()
        for made in map(bytes.fromhex, history["updates"]):
            update, found = one_by_one(made, keyed)
            keyed.add(found)
            several += update != made
            bare.apply_update(made)
            given.apply_update(update)
            assert Counter(given.get_update()) == Counter(bare.get_update())
        for made in map(bytes.fromhex, history["states"]):
            assert Counter(encoded(one_by_one(made, Places())[0])) == Counter(encoded(made))
    assert several


def test_a_loaded_document_knows_the_keys() -> None:
    value, left = (
        bytes.fromhex("010103002801016d016b017d0100"),
        bytes.fromhex("01010301480300017d0200"),
    )
    made = Document(Limits())
    list(made.load_slice(value, lossy=False, astral=False, look=True))
    made.slices_loaded(types=0)
    assert made.apply(left).misplaced == ((3, 1),)


def test_a_long_chain_between_two_clients_takes_no_time() -> None:
    """Each value builds upon one of the other client, whose part of the update comes later."""
    made: list[Doc[Any]] = [Doc(client_id=1), Doc(client_id=2)]
    for number in range(600):
        one, other = made[number % 2], made[1 - number % 2]
        one.get("m", type=Map)["k"] = number
        other.apply_update(one.get_update(other.get_state()))
    made[0].get("a", type=Array).append(1)
    state = made[0].get_update()
    _, found = one_by_one(state, Places())
    assert sum(end - first for _, first, end in found) == 600


def test_looking_through_a_long_update_gives_others_a_chance() -> None:
    """A slice of small values took 20 ms, in which nobody else was served."""
    doc: Doc[Any] = Doc()
    values = doc.get("values", type=Map)
    with doc.transaction():
        for number in range(2 * STEP_STRUCTS):
            values[f"key {number}"] = number
    steps = one_by_one_in_steps(doc.get_update(), Places())
    assert sum(1 for _ in steps) == 2


def test_others_are_told_what_the_document_has() -> None:
    """They were told the update as it came: who joined later had other deletions than they had."""
    several = bytes.fromhex("010203000701016d0128000300016c037d017d017d0100")
    made = Document(Limits())
    applied, _, told, *_ = made.apply(several)
    assert applied is Applied.CHANGED and told != several
    early: Doc[Any] = Doc()
    early.apply_update(told)
    late: Doc[Any] = Doc()
    late.apply_update(made.encode())
    assert early.get_update() == late.get_update()
    assert inspect(late.get_update()).deletes
