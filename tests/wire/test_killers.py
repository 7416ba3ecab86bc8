"""Each update that is known to harm pycrdt: first that it does, then that we stop it.

A test that fails here because pycrdt no longer dies is good news: then the rule can go.
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
from pycrdt import Doc, Text, get_state, merge_updates

from plait.server.errors import UpdateRefused
from plait.server.limits import Limits
from plait.server.wire import surrogates
from plait.server.wire.state_vector import decode_state_vector
from plait.server.wire.structs import read_deletes, sections
from plait.server.wire.update import inspect, ready
from tests.support.hostile import CLOCK_OVERFLOW, NO_STRUCTS, nested_types, nested_values
from tests.wire.test_surrogates import HALF_DELETED, HALF_DELETED_TEXT

PANIC = "PanicException"
CRASH = "SIGSEGV"

CHILD = """
import resource, sys
from pycrdt import Doc
# The stack that most systems give; whoever runs the tests may have asked for more.
resource.setrlimit(resource.RLIMIT_STACK, (8 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]))
doc = Doc()
for line in sys.stdin:
    doc.apply_update(bytes.fromhex(line))
doc.get_update()
print(doc.get_state().hex())
"""


SERVER = """
import sys
from plait.server.document import Document
from plait.server.errors import UpdateRefused
from plait.server.limits import Limits
made = Document(Limits())
for line in sys.stdin:
    try:
        made.apply(bytes.fromhex(line))
    except UpdateRefused as error:
        print(error)
made.encode()
print("alive")
"""


@dataclass(frozen=True)
class Killer:
    updates: list[bytes]
    harm: str
    reason: str
    """Why `inspect` refuses one of them."""


def hexadecimal(*updates: str) -> list[bytes]:
    return [bytes.fromhex(update) for update in updates]


KILLERS = {
    "values in values": Killer([nested_values(30_000)], CRASH, "deeper than 512"),
    # The end of its run is 2^32, which is 0 in 32 bits.
    "a clock at the end": Killer(
        [CLOCK_OVERFLOW, *hexadecimal("01010700040101740161" + "00", "010107018407000162" + "00")],
        PANIC,
        "no document reaches",
    ),
    "a clock at the end, with text": Killer(
        hexadecimal(
            "010107ffffffff0f0401017402616200", "0101070004010174016100", "01010701840700016200"
        ),
        PANIC,
        "no document reaches",
    ),
    "a length up to the end": Killer(
        hexadecimal("0101070000feffffff0f00", "010107ffffffff0f0401017402616200"),
        PANIC,
        "no document reaches",
    ),
    # Of a client that the document knows.
    "no structs": Killer(
        [*hexadecimal("0101c9cd080004010174016100"), NO_STRUCTS], PANIC, "without structs"
    ),
    # It waits for the origin that it would be, and is asked when the origin seems to be there.
    "an origin in the future": Killer(
        hexadecimal("0101070084070202616200", "0101070100feffffff0f00"), CRASH, "itself or a later"
    ),
}


def outcome(
    updates: list[bytes], environment: dict[str, str] | None = None, code: str = CHILD
) -> str:
    """Return what becomes of a process that lets bare pycrdt, or other code, have these updates."""
    child = subprocess.run(
        [sys.executable, "-c", code],
        input="\n".join(update.hex() for update in updates),
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(environment or {})},
    )
    if child.returncode < 0:
        return signal.Signals(-child.returncode).name
    return child.stdout.strip() or child.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("name", KILLERS)
def test_kills_pycrdt_and_is_refused(name: str) -> None:
    killer = KILLERS[name]
    assert killer.harm in outcome(killer.updates)
    with pytest.raises(UpdateRefused, match=killer.reason):
        for update in killer.updates:
            inspect(update)


def test_types_in_types_kill_pycrdt_and_are_counted() -> None:
    update = nested_types(40_000, deleted=True)
    assert outcome([update]) == CRASH
    # They may come in many small updates, so a document counts them: `Limits.nested_types_max`.
    assert len(inspect(update).types) == 40_000
    assert Limits().nested_types_max > 40_000


def test_pending_updates_pile_up_unseen_and_are_not_ready() -> None:
    doc: Doc[Any] = Doc()
    flood = [bytes.fromhex(f"0101{client:02x}00840700016100") for client in range(8, 100)]
    for update in flood:
        doc.apply_update(update)
    assert doc.get_state() == b"\x00" and doc.get_update() == b"\x00\x00"
    assert not any(ready(inspect(update), {}) for update in flood)
    # They were there all the time.
    doc.apply_update(bytes.fromhex("0101070004010174016100"))
    assert len(decode_state_vector(doc.get_state())) == 93


def test_deletions_of_the_unknown_are_not_ready() -> None:
    deletion = bytes.fromhex("000107010005")
    assert not ready(inspect(deletion), {7: 4})
    assert ready(inspect(deletion), {7: 5})


def test_deletions_out_of_order_are_lost_in_a_merge_and_so_never_merged() -> None:
    """Found by fuzzing a room: who was sent the merged updates of a turn missed deletions."""
    unsorted, other = hexadecimal("000107020e010201", "000107010701")
    _, position = sections(merged := merge_updates(unsorted, other))
    assert read_deletes(merged, position) != {7: [(2, 1), (7, 1), (14, 1)]}
    assert not inspect(unsorted).lossless
    # In order, they may overlap.
    for fine in hexadecimal("0001070202010e01", "000107020e020e01"):
        assert inspect(fine).lossless


def test_a_kind_of_type_in_two_bytes_is_not_read_by_pycrdt_and_refused() -> None:
    """Found by fuzzing updates: 84 00 is 4 to Yjs, which writes 04."""
    short, padded = hexadecimal("01010700070101780400", "0101070007010178840000")
    inspect(short)
    doc: Doc[Any] = Doc()
    with pytest.raises(ValueError, match="Cannot decode"):
        doc.apply_update(padded)
    with pytest.raises(UpdateRefused, match="no shared types of kind 132"):
        inspect(padded)


def test_half_a_deleted_emoji_corrupts_pycrdt_and_is_found() -> None:
    doc: Doc[Any] = Doc()
    for update in HALF_DELETED:
        doc.apply_update(update)
    encoded = doc.get_update()
    # The clocks add up by chance, so comparing state vectors does not always find it.
    assert get_state(encoded) == doc.get_state()
    with pytest.raises(UpdateRefused, match="no length"):
        inspect(encoded)
    reloaded: Doc[Any] = Doc()
    reloaded.apply_update(encoded)
    assert str(reloaded.get("t", type=Text)) != HALF_DELETED_TEXT
    assert inspect(HALF_DELETED[0]).astral
    known = surrogates.pairs(HALF_DELETED[0])
    assert surrogates.broken(known, surrogates.cuts(HALF_DELETED[1])) == {(7, 1)}


STRICT = {"MALLOC_PERTURB_": "165", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
"""Makes glibc overwrite memory that is freed, so that its use shows at once."""

USES_FREED_MEMORY = {
    # A map with a key of three values in one struct, of which the last is deleted, then the map,
    # and then the first, which had been left over.
    "several values of a key": hexadecimal(
        "010203000701016d0128000300016c037d017d017d0100",
        "000103010301",
        "000103010001",
        "000103010101",
    ),
    # A map with an element and a key; what comes between the two; the map goes, and the key's
    # value, which had been forgotten.
    "left of a value of a key": hexadecimal(
        "010303000701016d0104000300016128000300016b017d0100",
        "01010303c803010302017d0200",
        "000103010001",
        "000103010201",
    ),
    # The process died of this one when a fuzzer had tried others like it.
    "as it was found": hexadecimal(
        "010181bcc1960b002701016d036d61700100",
        "010181bcc1960b01270081bcc1960b00000000",
        "010181bcc1960b028481bcc1960b010663646566676800",
        "010181bcc1960b08c481bcc1960b0281bcc1960b0303efbfbd0181bcc1960b010001",
        "000181bcc1960b010106",
    ),
}


@pytest.mark.parametrize("name", USES_FREED_MEMORY)
def test_makes_pycrdt_use_freed_memory_and_is_mended_or_refused(name: str) -> None:
    """Found by fuzzing documents; glibc noticed only that its own records were overwritten."""
    updates = USES_FREED_MEMORY[name]
    assert outcome(updates, STRICT) == CRASH
    assert outcome(updates, STRICT, SERVER).endswith("alive")


MISREAD = {
    # Bytes, what pycrdt makes of them, and why they are refused.
    "a client twice": ("020107000002010700000300", "0affffffff0f", "twice"),
    "a parent marked with 2": ("010107000402016d016100", "0000", "marked with 2"),
}


@pytest.mark.parametrize("name", MISREAD)
def test_is_misread_by_pycrdt_and_refused(name: str) -> None:
    update, misread, reason = MISREAD[name]
    doc: Doc[Any] = Doc()
    doc.apply_update(bytes.fromhex(update))
    assert misread in doc.get_update().hex()
    with pytest.raises(UpdateRefused, match=reason):
        inspect(bytes.fromhex(update))
