"""Find out whether a document holds structs as their author wrote them.

Yjs tells structs apart by client and clock alone. If two authors use one client id, the structs of
whoever comes second are taken for known and are dropped; the first ones shadow them.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

from plait.server.wire.lib0 import read_var_uint
from plait.server.wire.structs import Struct, read_section, sections
from plait.server.wire.update import (
    ANY,
    DELETED,
    DOC,
    EMBED,
    FORMAT,
    GC,
    JSON,
    SKIP,
    STRING,
    Id,
    Runs,
)
from plait.server.wire.values import read_value, value_end

_WITHOUT_CONTENT: Final = (GC, SKIP, DELETED)
_HALF: Final = b"\xfd\xff"
"""U+FFFD in UTF-16, which stands for half a character of two units: see `surrogates`."""


def shadowed(update: bytes, held: bytes) -> Runs:
    """Return the runs of structs in an update that a document has with other content or elsewhere.

    What was deleted is passed over: nobody can tell any more what it was.

    Args:
        held: what the document has of the same clients from the update's clocks on, as an update.
    """
    theirs = {section.client: section for section in sections(held)[0]}
    found: Runs = []
    for section in sections(update)[0]:
        other = theirs.get(section.client)
        if other is None:
            continue
        for one, two in _overlaps(read_section(update, section), read_section(held, other)):
            first = max(one.clock, two.clock)
            end = min(one.clock + one.length, two.clock + two.length)
            if not _same(update, one, held, two, first, end):
                _add(found, (section.client, first, end))
    return found


def _add(runs: Runs, run: tuple[int, int, int]) -> None:
    client, first, end = run
    if runs and runs[-1][0] == client and runs[-1][2] == first:
        runs[-1] = (client, runs[-1][1], end)
    else:
        runs.append(run)


def _overlaps(ones: Iterator[Struct], twos: Iterator[Struct]) -> Iterator[tuple[Struct, Struct]]:
    """Return the pairs of structs of one client that share clocks."""
    one, two = next(ones, None), next(twos, None)
    while one is not None and two is not None:
        end, other_end = one.clock + one.length, two.clock + two.length
        if one.clock < other_end and two.clock < end:
            yield one, two
        if end <= other_end:
            one = next(ones, None)
        if other_end <= end:
            two = next(twos, None)


def _same(update: bytes, one: Struct, held: bytes, two: Struct, first: int, end: int) -> bool:
    if one.kind in _WITHOUT_CONTENT or two.kind in _WITHOUT_CONTENT:
        return True
    return (
        one.kind == two.kind
        and _place(one, first) == _place(two, first)
        and _same_content(update, one, held, two, first, end)
    )


def _place(struct: Struct, clock: int) -> tuple[Id | None, Id | None, Id | bytes | None, bytes]:
    """Return where the part of a struct from a clock on is: its neighbours when it was inserted, or
    its parent and its key. Yjs joins structs, and cuts them, without changing that.
    """
    if clock > struct.clock:
        return (struct.client, clock - 1), struct.right_origin, None, b""
    if struct.origin is not None or struct.right_origin is not None:
        return struct.origin, struct.right_origin, None, b""
    parent = struct.parent if struct.root is None else struct.root
    return None, None, parent, struct.key or b""


def _same_content(
    update: bytes, one: Struct, held: bytes, two: Struct, first: int, end: int
) -> bool:
    kind = one.kind
    mine, theirs = update[one.content : one.end], held[two.content : two.end]
    if kind == STRING:
        return _same_text(_units(mine, one, first, end), _units(theirs, two, first, end))
    if kind == ANY or kind == JSON:
        values = zip(
            list(_values(mine, kind))[first - one.clock : end - one.clock],
            list(_values(theirs, kind))[first - two.clock : end - two.clock],
            strict=True,
        )
        same = _same_value if kind == ANY else _same_json
        return all(same(value, other) for value, other in values)
    if mine == theirs:
        return True
    if kind == EMBED:
        return _same_json(_string(mine, 0)[0], _string(theirs, 0)[0])
    if kind == FORMAT:
        key, position = _string(mine, 0)
        other_key, other_position = _string(theirs, 0)
        return key == other_key and _same_json(
            _string(mine, position)[0], _string(theirs, other_position)[0]
        )
    return kind == DOC and _string(mine, 0)[0] == _string(theirs, 0)[0]


def _units(content: bytes, struct: Struct, first: int, end: int) -> bytes:
    """Return the part of a text between two clocks, in UTF-16."""
    text = _string(content, 0)[0].decode().encode("utf-16-le", "surrogatepass")
    return text[2 * (first - struct.clock) : 2 * (end - struct.clock)]


def _same_text(mine: bytes, theirs: bytes) -> bool:
    if mine == theirs:
        return True
    if len(mine) != len(theirs):
        return False
    return all(
        mine[place : place + 2] == theirs[place : place + 2]
        or theirs[place : place + 2] == _HALF
        or mine[place : place + 2] == _HALF
        for place in range(0, len(mine), 2)
    )


def _values(content: bytes, kind: int) -> Iterator[bytes]:
    count, position = read_var_uint(content, 0)
    for _ in range(count):
        if kind == JSON:
            text, position = _string(content, position)
            yield text
        else:
            start = position
            position, _ = value_end(content, start)
            yield content[start:position]


def _same_value(mine: bytes, theirs: bytes) -> bool:
    # A client that is written with pycrdt has keys in another order each time, and numbers in
    # another form than lib0.
    if mine == theirs:
        return True
    try:
        one, two = read_value(mine), read_value(theirs)
        return bool(one == two) or _canonical(one) == _canonical(two)
    except RecursionError:
        return len(mine) == len(theirs)


def _canonical(value: Any) -> str:
    """Return a text for a value, in which NaN is like itself."""
    return json.dumps(value, sort_keys=True, default=bytes.hex)


def _same_json(mine: bytes, theirs: bytes) -> bool:
    if mine == theirs:
        return True
    try:
        return bool(json.loads(mine) == json.loads(theirs))
    except (ValueError, RecursionError):
        return len(mine) == len(theirs)


def _string(content: bytes, position: int) -> tuple[bytes, int]:
    size, position = read_var_uint(content, position)
    return content[position : position + size], position + size
