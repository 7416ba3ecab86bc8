"""Decide whether an update may reach pycrdt, and tell what it builds upon.

pycrdt trusts updates: a few hostile bytes crash the process, lock it for ever, or poison a document
so that it can never be encoded again, and no `except` of ours can catch that. So every update from
outside is walked here first. The walk refuses what is known to harm pycrdt, what makes a JavaScript
peer throw, and what pycrdt would misread; it accepts everything that Yjs 13 writes. What pycrdt
can't read of that has stand-ins, see `stand_ins`.

Defined by yjs `src/utils/UpdateDecoder.js` (version 1), `src/utils/encoding.js`, `src/structs/*.js`
and `src/utils/DeleteSet.js`:

    update      var_uint clients, and for each of them:
                    var_uint structs, var_uint client, var_uint clock of the first, the structs
                then the delete set: var_uint clients, and for each of them:
                    var_uint client, var_uint ranges, (var_uint clock, var_uint length) * ranges
    struct      info byte: the low 5 bits are its kind, the others see `HAS_ORIGIN`
                GC and Skip: var_uint length
                others: the origin and the right origin, each var_uint client, var_uint clock;
                with neither, the parent and the key, see `_parent`; the content, see `_content`

This is the hottest code of the server: it is flat, reads single bytes in place, and leaves all that
is rare to functions.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, NoReturn

from plait.server.errors import UpdateRefused
from plait.server.wire.lib0 import UintTooLong, read_var_uint
from plait.server.wire.values import beta_values_end, json_end, string_end, values_end

CLOCK_MAX: Final = (1 << 31) - 1
"""pycrdt counts clocks with 32 bits, and near the end it panics or loops; no document gets here."""

# Kinds of structs: yjs `src/structs/Item.js` (`contentRefs`), `GC.js` and `Skip.js`.
GC: Final = 0
DELETED: Final = 1
JSON: Final = 2
BINARY: Final = 3
STRING: Final = 4
EMBED: Final = 5
FORMAT: Final = 6
TYPE: Final = 7
ANY: Final = 8
DOC: Final = 9
SKIP: Final = 10

# The parts of a struct's info byte.
HAS_ORIGIN: Final = 128
HAS_RIGHT_ORIGIN: Final = 64
HAS_KEY: Final = 32
KIND: Final = 31

XML_ELEMENT: Final = 3
XML_HOOK: Final = 5
_XML_TEXT: Final = 6


Id = tuple[int, int]
"""(client, clock) of a struct, or of one place within it."""

Run = tuple[int, int, int]
"""(client, first clock, end clock) of an unbroken run of structs."""
Runs = list[Run]


class Shape(NamedTuple):
    """What an inspected update consists of and what it builds upon."""

    runs: Runs
    """The runs of structs, in order.

    A receiver must know all of that client's structs before the first clock. A client has several
    runs when the update has gaps (Skip structs), otherwise one.
    """
    needs: dict[int, int]
    """For each client, the clock up to which its structs must be known, or be contained in `runs`.

    From origins, right origins, parents and deleted ranges. References of a client to its own
    earlier structs are left out, since the run's first clock says the same.
    """
    deletes: bool
    """Whether anything is deleted."""
    types: Sequence[Id]
    """Shared types that it creates. Endless nesting of them overflows pycrdt's stack."""
    parents: Sequence[Id]
    """What its structs are to be in, other than root types and `types`: see `parents`."""
    lossless: bool
    """False when pycrdt writes something else than it reads, or can't read it: see `stand_ins`."""
    astral: bool
    """Whether text has characters of two UTF-16 units, which can be split: see `surrogates`."""
    keyed: bool
    """Whether a struct tells a key; others take theirs from a neighbour: see `keys`."""


TYPED_MAX: Final = 127
"""The longest text that `typed` accepts."""

_BEHIND: Final = HAS_ORIGIN | STRING
_BETWEEN: Final = HAS_ORIGIN | HAS_RIGHT_ORIGIN | STRING

# What `typed` accepts.
_ID: Final = rb"([\x80-\xff]{0,7}[\x00-\x7f])([\x80-\xff]{0,7}[\x00-\x7f])"
_typing: Final = re.compile(
    rb"\x01\x01" + _ID + rb"(?:\x84|(\xc4))" + _ID + rb"(?(3)" + _ID + rb")"
    rb"([\x01-\x7f])([\x00-\x7f]+)\x00"
).fullmatch


# `Shape(...)` is a function written in Python, twice as slow.
_new_shape: Final = tuple.__new__


@lru_cache(4096)
def _client_id(data: bytes) -> int:
    return read_var_uint(data, 0)[0]


class _Findings:
    """What the walk has come upon that is rare."""

    # Defaults in the class make an instance cheap.
    lossless = True
    astral = False
    keyed = False
    any_depth_max = 512

    def __init__(self) -> None:
        self.types: list[Id] = []
        self.parents: list[Id] = []


def inspect(update: bytes, *, any_depth_max: int = 512) -> Shape:
    """Return the shape of an update that pycrdt and Yjs can apply.

    Args:
        update: the bytes, in version 1 of the format.
        any_depth_max: how many levels JSON-like values may be nested.

    Raises:
        UpdateRefused: the bytes are not such an update.
    """
    try:
        shape = typed(update)
        return _walk(update, any_depth_max) if shape is None else shape
    except IndexError:
        raise UpdateRefused("The update ends too early.") from None
    except UnicodeDecodeError:
        raise UpdateRefused("A string in the update is not valid UTF-8.") from None
    except UintTooLong as error:
        raise UpdateRefused(str(error)) from None


def typed(update: bytes) -> Shape | None:
    """Return the shape of an update if it is what typing makes: one struct of a few ASCII
    characters behind another one, and no deletions. None if it is anything else, or nothing at all.

    Raises:
        UpdateRefused: it is such an update and breaks a rule all the same.
    """
    # Without a regular expression: compiled, which counts, this takes a third of the time.
    try:
        if update[0] != 1 or update[1] != 1:
            return None
        client, position = read_var_uint(update, 2)
        clock, position = read_var_uint(update, position)
        info = update[position]
        if info != _BEHIND and info != _BETWEEN:
            return None
        left, position = read_var_uint(update, position + 1)
        left_clock, position = read_var_uint(update, position)
        right, right_clock = left, left_clock
        if info == _BETWEEN:
            right, position = read_var_uint(update, position)
            right_clock, position = read_var_uint(update, position)
        length = update[position]
        position += 1
        end = position + length
        if not 0 < length <= TYPED_MAX or len(update) != end + 1 or update[end]:
            return None
    except (IndexError, UintTooLong):
        return None
    if not update[position:end].isascii():
        return None
    if clock + length > CLOCK_MAX:
        _refuse_length(client, clock + length)
    needs: dict[int, int] = {}
    if left != client or left_clock >= clock:
        _note(left, left_clock, client, clock, needs)
    if info == _BETWEEN and (right != client or right_clock >= clock):
        _note(right, right_clock, client, clock, needs)
    return _new_shape(
        Shape, ([(client, clock, clock + length)], needs, False, (), (), True, False, False)
    )


def typed_neighbours(update: bytes) -> list[tuple[int, int]]:
    """Return the (client, clock) of what is left of the text in an update that `typed` accepts,
    and of what is right of it, if anything is.
    """
    match = _typing(update)
    assert match is not None
    _, _, _, left, left_clock, right, right_clock, *_ = match.groups()
    found = [(_client_id(left), read_var_uint(left_clock, 0)[0])]
    if right:
        found.append((_client_id(right), read_var_uint(right_clock, 0)[0]))
    return found


def continued(one: bytes, two: bytes) -> bytes | None:
    """Return as one two updates that `typed` accepts, if the text of the second follows that of the
    first at once and is left of the same; None otherwise, or if `typed` would not accept it.

    Yjs stores them as one as well (yjs `src/structs/Item.js`, `mergeWith`).
    """
    before, after = _typing(one), _typing(two)
    if before is None or after is None:
        return None
    length, more = before[8][0], after[8][0]
    if (length, more) != (len(before[9]), len(after[9])) or length + more > TYPED_MAX:
        return None
    own, last = before[1], read_var_uint(before[2], 0)[0] + length - 1
    if (
        after.group(1, 4, 6, 7) != (own, own, before[6], before[7])
        or read_var_uint(after[2], 0)[0] != last + 1
        or read_var_uint(after[5], 0)[0] != last
    ):
        return None
    return b"%b%c%b%b\0" % (one[: before.start(8)], length + more, before[9], after[9])


def is_update(update: bytes) -> bool:
    """Return whether `inspect` accepts an update."""
    try:
        inspect(update)
    except UpdateRefused:
        return False
    return True


def ready(shape: Shape, known: Mapping[int, int]) -> bool:
    """Return whether a document with this state vector has everything that an update builds upon.

    The answer leaves out one case, which no client of Yjs makes: structs of two clients within the
    update, each of which waits for the other. They show in a state vector that does not grow.
    """
    ends: dict[int, int] = {}
    for client, first, end in shape.runs:
        if known.get(client, 0) < first:
            return False
        ends[client] = end
    for client, clock in shape.needs.items():
        if known.get(client, 0) < clock and ends.get(client, 0) < clock:
            return False
    return True


def _walk(update: bytes, any_depth_max: int) -> Shape:
    """Return the shape of any update."""
    runs: Runs = []
    needs: dict[int, int] = {}
    findings = _Findings()
    if any_depth_max != findings.any_depth_max:
        findings.any_depth_max = any_depth_max
    clients, position = read_var_uint(update, 0)
    for _ in range(clients):
        position = _client(update, position, runs, needs, findings)
    deletes = update[position] != 0
    position = _delete_set(update, position, needs, findings) if deletes else position + 1
    if position != len(update):
        # Beyond the end as well: a string that is cut off is seen here only.
        _refuse("The length of the update does not fit its content.")
    if clients > 1 and len({run[0] for run in runs}) != clients:
        # Yjs takes only the last, yrs both, with a gap of 2^32 between them.
        _refuse("A client occurs twice in the update.")
    types, parents = tuple(findings.types), tuple(findings.parents)
    if parents:
        parents = tuple(sorted(set(parents).difference(types)))
    return _new_shape(
        Shape,
        (
            *(runs, needs, deletes, types, parents),
            *(findings.lossless, findings.astral, findings.keyed),
        ),
    )


def _client(
    update: bytes, position: int, runs: Runs, needs: dict[int, int], findings: _Findings
) -> int:
    """Walk the structs of one client and return the position after them."""
    structs, start = read_var_uint(update, position)
    client, position = read_var_uint(update, start)
    # Most references are to the client's own structs, and comparing bytes is faster than reading.
    own = update[start:position]
    own_size = position - start
    startswith = update.startswith
    clock, position = read_var_uint(update, position)
    first = clock
    for _ in range(structs):
        info = update[position]
        position += 1
        if info & HAS_ORIGIN:
            if startswith(own, position):
                origin, position = read_var_uint(update, position + own_size)
                if origin >= clock:
                    _refuse_reference(client, clock)
            else:
                position = _reference(update, position, client, clock, needs)
        if info & HAS_RIGHT_ORIGIN:
            if startswith(own, position):
                origin, position = read_var_uint(update, position + own_size)
                if origin >= clock:
                    _refuse_reference(client, clock)
            else:
                position = _reference(update, position, client, clock, needs)
        kind = info & KIND
        if not info & (HAS_ORIGIN | HAS_RIGHT_ORIGIN) and info and info != SKIP:
            position = _parent(update, position, info, client, clock, needs, findings)
        if kind == STRING:
            size = update[position]
            if size < 128:
                position += 1
            else:
                size, position = read_var_uint(update, position)
            text = update[position : position + size]
            position += size
            length = size if text.isascii() else _utf16_length(text, findings)
        elif info == SKIP:
            length, position = read_var_uint(update, position)
            if clock > first:
                runs.append((client, first, clock))
            first = clock + length
        elif info == GC or kind == DELETED:
            length, position = read_var_uint(update, position)
        else:
            length, position = _content(update, position, kind, client, clock, findings)
        clock += length
        if not length or clock > CLOCK_MAX:
            _refuse_length(client, clock)
    if clock > first:
        runs.append((client, first, clock))
    elif not runs or runs[-1][0] != client:
        _refuse(f"Client {client} occurs without structs.")
    return position


def _reference(update: bytes, position: int, client: int, clock: int, needs: dict[int, int]) -> int:
    """Note the struct that another struct, (client, clock), refers to."""
    other, position = read_var_uint(update, position)
    target, position = read_var_uint(update, position)
    _note(other, target, client, clock, needs)
    return position


def _note(other: int, target: int, client: int, clock: int, needs: dict[int, int]) -> None:
    if other == client:
        if target >= clock:
            _refuse_reference(client, clock)
    elif target >= needs.get(other, 0):
        if target >= CLOCK_MAX:
            _refuse_length(other, target + 1)
        needs[other] = target + 1


def _parent(
    update: bytes,
    position: int,
    info: int,
    client: int,
    clock: int,
    needs: dict[int, int],
    findings: _Findings,
) -> int:
    """Walk the parent and the key of a struct that has no neighbour to take them from."""
    named, position = read_var_uint(update, position)
    if named == 1:
        position = string_end(update, position)
    elif named == 0:
        other, position = read_var_uint(update, position)
        target, position = read_var_uint(update, position)
        _note(other, target, client, clock, needs)
        findings.parents.append((other, target))
    else:
        _refuse(f"A parent is marked with {named}; 0 and 1 are known.")
    if info & HAS_KEY:
        findings.keyed = True
        position = string_end(update, position)
    return position


def _content(
    update: bytes, position: int, kind: int, client: int, clock: int, findings: _Findings
) -> tuple[int, int]:
    """Return the length of a content in clocks, and the position after it."""
    if kind == ANY:
        length, position = read_var_uint(update, position)
        return length, _values(update, position, length, findings)
    if kind == TYPE:
        findings.types.append((client, clock))
        return 1, _type(update, position, findings)
    if kind == FORMAT or kind == EMBED:
        if kind == FORMAT:
            position = string_end(update, position)
        position, plain = json_end(update, position, findings.any_depth_max)
        if not plain:
            findings.lossless = False
        return 1, position
    if kind == BINARY:
        size, position = read_var_uint(update, position)
        return 1, position + size
    if kind == DOC:
        findings.lossless = False
        position = string_end(update, position)
        if update[position] != 118:
            # Yjs reads `opts.shouldLoad`, which throws in every peer when the options are null.
            _refuse("The options of a subdocument are not an object.")
        return 1, _values(update, position, 1, findings)
    if kind == JSON:
        # Of Yjs betas. yrs 0.28 reads one string more than there are.
        findings.lossless = False
        length, position = read_var_uint(update, position)
        return length, beta_values_end(update, position, length, findings.any_depth_max)
    _refuse(f"There are no structs of kind {kind}.")


def _type(update: bytes, position: int, findings: _Findings) -> int:
    # Yjs reads a number of any length, yrs a byte.
    reference = update[position]
    position += 1
    if reference == XML_ELEMENT or reference == XML_HOOK:
        if reference == XML_HOOK:
            # yrs 0.28 knows the number, but forgets to read the name.
            findings.lossless = False
        return string_end(update, position)
    if reference > _XML_TEXT:
        _refuse(f"There are no shared types of kind {reference}.")
    return position


def _values(update: bytes, position: int, count: int, findings: _Findings) -> int:
    position, lossless = values_end(update, position, count, findings.any_depth_max)
    if not lossless:
        findings.lossless = False
    return position


def _delete_set(update: bytes, position: int, needs: dict[int, int], findings: _Findings) -> int:
    """Walk the deleted ranges and return the position after them."""
    clients, position = read_var_uint(update, position)
    seen: set[int] = set()
    for _ in range(clients):
        client, position = read_var_uint(update, position)
        ranges, position = read_var_uint(update, position)
        if client in seen:
            # yrs keeps only the last, Yjs all.
            _refuse(f"Client {client} occurs twice in the delete set.")
        seen.add(client)
        highest = needs.get(client, 0)
        before = 0
        for _ in range(ranges):
            clock, position = read_var_uint(update, position)
            length, position = read_var_uint(update, position)
            end = clock + length
            if not length or end > CLOCK_MAX:
                _refuse_length(client, end)
            if clock < before:
                # yrs 0.28 writes them so at times, but loses some of them when it merges updates:
                # there it takes for granted that they are in order.
                findings.lossless = False
            before = clock
            if end > highest:
                highest = end
        if highest:
            needs[client] = highest
    return position


def _utf16_length(text: bytes, findings: _Findings) -> int:
    """Return the length of UTF-8 text in UTF-16 units, which is how Yjs counts clocks."""
    decoded = text.decode()
    if max(decoded) < "\U00010000":
        return len(decoded)
    findings.astral = True
    return len(decoded.encode("utf-16-le")) >> 1


def _refuse(reason: str) -> NoReturn:
    raise UpdateRefused(reason)


def _refuse_reference(client: int, clock: int) -> NoReturn:
    raise UpdateRefused(f"Struct {clock} of client {client} builds upon itself or a later one.")


def _refuse_length(client: int, clock: int) -> NoReturn:
    if clock > CLOCK_MAX:
        raise UpdateRefused(f"Client {client} has the clock {clock}, which no document reaches.")
    raise UpdateRefused(f"A struct or a deleted range of client {client} has no length.")
