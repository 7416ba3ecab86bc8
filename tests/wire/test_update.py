"""What real Yjs writes is accepted and understood; what it never writes is refused."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Doc

from plait.server.errors import UpdateRefused
from plait.server.limits import Limits
from plait.server.wire.lib0 import var_string, write_var_uint
from plait.server.wire.state_vector import decode_state_vector
from plait.server.wire.update import CLOCK_MAX, Shape, inspect, ready
from tests.wire.recorded import histories, updates, vectors

LOSSY = {f"lossy values{part}" for part in (" 1", " 2", ": state")} | {
    f"subdocuments{part}" for part in (" 1", " 2", ": state")
}
LOSSY |= {"formatting 4", "values 2", "values: state"}
LOSSY |= {f"orders and odd JSON{part}" for part in (" 1", " 2", " 3", " 4", " 5", " 6", ": state")}
ASTRAL = {f"text beyond ASCII{part}" for part in (" 2", " 3", ": state")}
RECORDED = [pytest.param(vector, id=vector["name"]) for vector in vectors("updates")]


def update(*structs: bytes, client: int = 7, clock: int = 0, deletes: bytes = b"\x00") -> bytes:
    """An update with structs of one client."""
    header = b"\x01" + write_var_uint(len(structs)) + write_var_uint(client)
    return header + write_var_uint(clock) + b"".join(structs) + deletes


def item(kind: int, content: bytes) -> bytes:
    """A struct at the start of the root `t`."""
    return bytes((kind,)) + b"\x01\x01t" + content


def after(clock: int, text: bytes, client: int = 7) -> bytes:
    """A struct of text to the right of another."""
    return b"\x84" + write_var_uint(client) + write_var_uint(clock) + bytes((len(text),)) + text


def expected(vector: dict[str, Any]) -> Shape:
    """The shape, worked out from what Yjs itself finds in an update."""
    runs: list[tuple[int, int, int]] = []
    needs: dict[int, int] = {}
    for struct in vector["structs"]:
        client, clock, end = struct["client"], struct["clock"], struct["clock"] + struct["length"]
        if struct["kind"] != 10:
            if runs and runs[-1][0] == client and runs[-1][2] == clock:
                runs[-1] = (client, runs[-1][1], end)
            else:
                runs.append((client, clock, end))
        for reference in (struct["origin"], struct["right_origin"], struct["parent"]):
            if reference and reference[0] != client:
                needs[reference[0]] = max(needs.get(reference[0], 0), reference[1] + 1)
    for client, ranges in vector["deletes"]:
        needs[client] = max([needs.get(client, 0), *(clock + length for clock, length in ranges)])
    types = [(each["client"], each["clock"]) for each in vector["structs"] if each["kind"] == 7]
    parents = {tuple(each["parent"]) for each in vector["structs"] if each["parent"]}
    return Shape(
        runs,
        needs,
        deletes=bool(vector["deletes"]),
        types=tuple(types),
        parents=tuple(sorted(parents - {*types})),
        lossless=vector["name"] not in LOSSY,
        astral=vector["name"] in ASTRAL,
        keyed=any(struct["key"] is not None for struct in vector["structs"]),
    )


@pytest.mark.parametrize("vector", RECORDED)
def test_finds_in_an_update_what_yjs_finds(vector: dict[str, Any]) -> None:
    assert inspect(bytes.fromhex(vector["hex"])) == expected(vector)


@pytest.mark.parametrize("vector", RECORDED)
def test_truncated_anywhere_or_with_trailing_bytes_is_refused(vector: dict[str, Any]) -> None:
    whole = bytes.fromhex(vector["hex"])
    for end in range(len(whole)):
        with pytest.raises(UpdateRefused):
            inspect(whole[:end])
    for tail in (b"\x00", b"a", whole):
        with pytest.raises(UpdateRefused):
            inspect(whole + tail)


def test_no_genuine_update_is_refused_and_each_is_ready_in_order(
    rounds: Callable[[int], int],
) -> None:
    for history in histories("rich", seed=1, count=rounds(60), edits=40):
        known: dict[int, int] = {}
        for made in history["updates"]:
            shape = inspect(bytes.fromhex(made))
            assert ready(shape, known)
            for client, first, end in shape.runs:
                assert known.get(client, 0) == first
                known[client] = end
        for made in history["states"] + history["more"]:
            inspect(bytes.fromhex(made))


def test_ready_tells_what_pycrdt_would_leave_waiting() -> None:
    for history in histories("emoji", seed=2, count=20, edits=30):
        made = [bytes.fromhex(each) for each in history["updates"]]
        for left_out in range(0, len(made), 5):
            doc: Doc[Any] = Doc()
            for each in made[:left_out] + made[left_out + 1 :]:
                shape, known = inspect(each), decode_state_vector(doc.get_state())
                if ready(shape, known):
                    doc.apply_update(each)
                    known = decode_state_vector(doc.get_state())
                    assert all(known[client] >= end for client, _, end in shape.runs)


def test_ready_within_one_update() -> None:
    shape = Shape([(9, 0, 4), (7, 2, 5)], {9: 4, 7: 5, 3: 1}, False, (), (), True, False, False)
    assert ready(shape, {7: 2, 3: 1})
    assert ready(shape, {7: 5, 3: 1, 9: 8})
    assert not ready(shape, {7: 1, 3: 1})
    assert not ready(shape, {7: 2})
    assert not ready(shape._replace(needs={9: 5}), {7: 2})


TEXT = item(4, b"\x01x")
DEEP = b"\x08\x01\x01t\x01" + b"\x75\x01" * 513 + b"\x7e"
REFUSED = {
    "nothing at all": (b"", "ends too early"),
    "no delete set": (b"\x00", "ends too early"),
    "trailing bytes": (b"\x00\x00\x00", "length"),
    "a client without structs": (b"\x01\x00\x07\x00\x00", "without structs"),
    "a client with gaps only": (update(b"\x0a\x05"), "without structs"),
    "a client twice": (b"\x02" + update(TEXT)[1:-1] + update(TEXT, clock=1)[1:], "twice"),
    "a client twice in the delete set": (b"\x00\x02\x07\x01\x00\x01\x07\x01\x02\x01", "twice"),
    "a client id beyond JavaScript": (b"\x01\x01" + b"\xff" * 7 + b"\x10\x00\x00\x01\x00", "2.53"),
    "an endless integer": (b"\xff" * 100, "2.53"),
    "a clock beyond reach": (update(TEXT, clock=CLOCK_MAX), "no document reaches"),
    "a length beyond reach": (update(b"\x00" + write_var_uint(1 << 31)), "no document reaches"),
    "an origin beyond reach": (update(after(CLOCK_MAX, b"x", 8)), "no document reaches"),
    "a deletion beyond reach": (b"\x00\x01\x07\x01\x01" + write_var_uint(CLOCK_MAX), "no document"),
    "an origin in itself": (update(after(0, b"x")), "itself or a later"),
    "an origin in the future": (update(after(5, b"x"), clock=5), "itself or a later"),
    "a right origin in itself": (update(b"\x44\x07\x00\x01x"), "itself or a later"),
    "a padded origin in itself": (update(b"\x84\x87\x00\x00\x01x"), "itself or a later"),
    "a parent in itself": (update(b"\x04\x00\x07\x00\x01x"), "itself or a later"),
    "an unknown parent": (update(b"\x04\x02\x01t\x01x"), "parent is marked with 2"),
    "no text": (update(item(4, b"\x00")), "no length"),
    "no values": (update(item(8, b"\x00")), "no length"),
    "a GC without length": (update(b"\x00\x00"), "no length"),
    "a gap without length": (update(TEXT, b"\x0a\x00", TEXT), "no length"),
    "a deletion without length": (b"\x00\x01\x07\x01\x00\x00", "no length"),
    "a GC with flags": (update(b"\x80\x07\x00\x01", clock=1), "kind 0"),
    "a gap with flags": (update(b"\x8a\x07\x00\x01", clock=1), "kind 10"),
    "an unknown kind": (update(item(11, b"\x01x")), "kind 11"),
    "an unknown type": (update(item(7, b"\x07")), "kind 7"),
    "content of a beta that is not JSON": (update(item(2, b"\x01\x04nul}")), "not JSON"),
    "content of a beta of no values": (update(item(2, b"\x00")), "no length"),
    "an XmlHook without a name": (update(item(7, b"\x05")), "ends too early"),
    "an unknown value": (update(item(8, b"\x01\x73")), "tag 115"),
    "an endless integer value": (update(item(8, b"\x01\x7d" + b"\xff" * 9)), "2.53"),
    "values too deep": (update(DEEP), "deeper than 512"),
    "text that is not UTF-8": (update(item(4, b"\x02\xff\xfe")), "UTF-8"),
    "text of half a surrogate pair": (update(item(4, b"\x03\xed\xa0\x80")), "UTF-8"),
    "a root that is not UTF-8": (update(b"\x04\x01\x01\xff\x01x"), "UTF-8"),
    "a key that is not UTF-8": (update(b"\x24\x01\x01t\x01\xff\x01x"), "UTF-8"),
    "a value that is not UTF-8": (update(item(8, b"\x01\x77\x01\xff")), "UTF-8"),
    "a key of a value that is not UTF-8": (update(item(8, b"\x01\x76\x01\x01\xff\x7e")), "UTF-8"),
    "a name of an element that is not UTF-8": (update(item(7, b"\x03\x01\xff")), "UTF-8"),
    "a format that is not JSON": (update(item(6, b"\x01b\x03NaN")), "not JSON"),
    "a format with a name that is not UTF-8": (update(item(6, b"\x01\xff\x04true")), "UTF-8"),
    "an embed that is not JSON": (update(item(5, b"\x01{")), "not JSON"),
    "an embed of nothing": (update(item(5, b"\x00")), "not JSON"),
    "an embed too deep": (update(item(5, var_string("[" * 513 + "]" * 513))), "deeper than 512"),
    "a subdocument without options": (update(item(9, b"\x01g\x7e")), "not an object"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_yjs_never_writes_is_refused(name: str) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(UpdateRefused, match=reason):
        inspect(data)


def test_depth_of_values_is_bounded_exactly() -> None:
    for depth in (1, 20, Limits().any_depth_max):
        nested = b"\x08\x01\x01t\x01" + b"\x75\x01" * depth + b"\x7e"
        inspect(update(nested), any_depth_max=depth)
        with pytest.raises(UpdateRefused, match=f"deeper than {depth - 1} "):
            inspect(update(nested), any_depth_max=depth - 1)


def test_typing_and_the_walk_agree() -> None:
    # Text that ends like an update, or that is as long as it says only by chance.
    for text in (b"x", b"\x00", b"x\x00", b"\x01\x07\x01\x00\x01", b"a" * 127):
        for struct in (
            after(2, text),
            after(2, text, 9),
            b"\xc4\x07\x02\x09\x05" + after(0, text)[3:],
        ):
            fast = inspect(update(struct, clock=3))
            # The same with the length padded, which the fast path does not know.
            size = struct.index(bytes((len(text),)) + text, 3)
            padded = struct[:size] + bytes((len(text) | 128, 0)) + text
            assert inspect(update(padded, clock=3)) == fast
    deleting = inspect(update(after(2, b"x"), clock=3, deletes=b"\x01\x07\x01\x00\x01"))
    assert deleting == Shape([(7, 3, 4)], {7: 1}, True, (), (), True, False, False)


def test_padded_integers_are_read_as_lib0_does() -> None:
    assert inspect(b"\x81\x00" + update(TEXT)[1:]).runs == [(7, 0, 1)]


@given(st.binary())
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    try:
        inspect(data)
    except UpdateRefused:
        pass


@given(st.sampled_from(sorted(updates())), st.data())
def test_changed_updates_raise_nothing_else(name: str, data: st.DataObject) -> None:
    changed = bytearray(updates()[name])
    for place in data.draw(st.lists(st.integers(0, len(changed) - 1), max_size=4)):
        changed[place] = data.draw(st.integers(0, 255))
    try:
        inspect(bytes(changed))
    except UpdateRefused:
        pass
