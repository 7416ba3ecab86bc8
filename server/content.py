"""Tell what is in a document, as JSON, without knowing its schema.

Yjs does not write of what type a root is: whoever opens a document knows. pycrdt believes whatever
it is told, and a wrong guess makes it loop for ever. So the types are taken from the structs: what
a root holds shows what it is. And as nobody can prove that every document is harmless, this is
meant to run in a process of its own (`plait.server.apart`) with a time-out; therefore it uses
pycrdt, which otherwise only `plait.server.document` does.

What JSON can't hold: bytes become `{"$bytes": base64}`, a subdocument `{"$doc": guid}`, integers
beyond 2^53 decimal strings, and NaN, infinities and `undefined` null.
"""

import json
import math
from base64 import b64encode
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import pycrdt

from plait.server.errors import BadRequest, DocumentBroken
from plait.server.wire import surrogates
from plait.server.wire.lib0 import read_var_uint
from plait.server.wire.structs import Struct, read_structs
from plait.server.wire.update import DELETED, EMBED, FORMAT, GC, SKIP, STRING, TYPE, XML_ELEMENT, Id

DEPTH_MAX = 200
"""Levels of nesting; many JSON parsers give up at a few hundred, Python's functions at 1,000."""

SAFE_INTEGER_MAX = (1 << 53) - 1
"""Larger integers lose digits in JavaScript (`Number.MAX_SAFE_INTEGER`)."""

XML_FRAGMENT, XML_TEXT = 4, 6
_XML = frozenset((XML_ELEMENT, XML_FRAGMENT, XML_TEXT))
"""References of shared types in a struct (yjs `src/structs/ContentType.js`)."""

Place = tuple[str, bool] | None
"""The root that a struct is directly in, and whether it has a key there; None if it is elsewhere.
"""


def roots_as_json(update: bytes) -> bytes:
    """Return `roots` as JSON in UTF-8, so that the work of writing it is done apart as well.

    Raises:
        BadRequest: it is nested deeper than `DEPTH_MAX`.
        DocumentBroken: pycrdt failed.
    """
    return json.dumps(
        roots(update),
        ensure_ascii=False,
        allow_nan=False,
        # pycrdt gives the keys of a map in another order each time.
        sort_keys=True,
        separators=(",", ":"),
    ).encode()


def roots(update: bytes) -> dict[str, dict[str, Any]]:
    """Return the type and the value of each root of a whole state that `inspect` has accepted.

    Raises:
        BadRequest: it is nested deeper than `DEPTH_MAX`.
        DocumentBroken: pycrdt failed.
    """
    kinds = root_kinds(update)
    torn = surrogates.broken(surrogates.pairs(update), surrogates.cuts(update))
    doc: pycrdt.Doc[Any] = pycrdt.Doc()
    # The types are told to pycrdt before the content, so that at no time it has to guess.
    types = {name: doc.get(name, type=_TYPES[kind]) for name, kind in kinds.items()}
    arrays = {name: _Elements(root) for name, root in types.items() if kinds[name] == "array"}
    try:
        doc.apply_update(surrogates.rewrite(update, torn) if torn else update)
        return {
            name: {
                "type": kind,
                "value": None
                if kind == "unknown"
                else _list(arrays[name].values, 0)
                if kind == "array"
                else _value(types[name], 0),
            }
            for name, kind in sorted(kinds.items())
        }
    except BadRequest:
        raise
    except Exception as error:
        raise DocumentBroken(f"pycrdt failed: {error}") from error


class _Elements:
    """Collects the elements of an array at the top of a document while they arrive.

    pycrdt looks for an element from the first on, so reading all of them is quadratic (40,000 maps:
    17 s); what it tells observers takes 0.4 s.
    """

    def __init__(self, array: Any) -> None:
        self.values: list[Any] = []
        array.observe(self._inserted)

    def _inserted(self, event: Any) -> None:
        for change in event.delta:
            self.values += change["insert"]


# Which types the roots have


def root_kinds(update: bytes) -> dict[str, str]:
    """Return for each root whether it is a text, map, array, xml, or unknown, because all that it
    held was deleted.

    An array of nothing but XML nodes can't be told from an XML fragment, and is taken for one.
    """
    structs = list(read_structs(update))
    contents: dict[str, set[int]] = {}
    keyed: set[str] = set()
    for struct, place in zip(structs, _places(structs), strict=True):
        if place is None:
            continue
        root, has_key = place
        held = contents.setdefault(root, set())
        if has_key:
            keyed.add(root)
        elif struct.kind != TYPE:
            held.add(struct.kind)
        else:
            reference, _ = read_var_uint(update, struct.content)
            # Negative: a shared type, beside the kinds of other contents.
            held.add(-1 - reference)
    return {root: _kind(held, root in keyed) for root, held in contents.items()}


def _kind(held: set[int], keyed: bool) -> str:
    if held & {STRING, FORMAT, EMBED}:
        return "text"
    visible = held - {DELETED}
    if visible:
        return "xml" if visible <= {-1 - reference for reference in _XML} else "array"
    return "map" if keyed else "unknown"


def _places(structs: list[Struct]) -> list[Place]:
    """Return the place of each struct. One with a neighbour is where its neighbour is."""
    index = _Index(structs)
    places: dict[int, Place] = {}
    for number in range(len(structs)):
        chain: list[int] = []
        at: int | None = number
        while at is not None and at not in places:
            struct = structs[at]
            neighbour = struct.origin or struct.right_origin
            if neighbour is None or struct.kind == GC or struct.kind == SKIP:
                places[at] = None
                if struct.root is not None:
                    places[at] = struct.root.decode(), struct.key is not None
            else:
                chain.append(at)
                at = index.find(neighbour)
        place = None if at is None else places[at]
        places.update(dict.fromkeys(chain, place))
    return [places[number] for number in range(len(structs))]


class _Index:
    """Finds structs by any of the clocks within them."""

    def __init__(self, structs: Iterable[Struct]) -> None:
        self._ends: dict[int, int] = {}
        self._clocks: dict[int, list[int]] = {}
        self._numbers: dict[int, list[int]] = {}
        for number, struct in enumerate(structs):
            self._clocks.setdefault(struct.client, []).append(struct.clock)
            self._numbers.setdefault(struct.client, []).append(number)
            self._ends[struct.client] = struct.clock + struct.length

    def find(self, place: Id) -> int | None:
        """Return the number of the struct that holds a place; None if there is none."""
        client, clock = place
        if clock >= self._ends.get(client, 0):
            return None
        before = bisect_right(self._clocks[client], clock)
        return self._numbers[client][before - 1] if before else None


# Values

_TYPES: Mapping[str, Any] = {
    "text": pycrdt.Text,
    "map": pycrdt.Map,
    "array": pycrdt.Array,
    "xml": pycrdt.XmlFragment,
    "unknown": pycrdt.Map,
}


def _value(value: Any, depth: int) -> Any:
    """Return a value of pycrdt's as one that JSON can hold."""
    if depth > DEPTH_MAX:
        raise BadRequest(
            f"the document is nested deeper than {DEPTH_MAX} levels, which JSON here does not "
            "reach; get it as application/octet-stream"
        )
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if abs(value) <= SAFE_INTEGER_MAX else str(value)
        case float():
            return _number(value)
        case bytes() | bytearray():
            return {"$bytes": b64encode(value).decode()}
        case dict():
            return {key: _value(each, depth + 1) for key, each in value.items()}
        case pycrdt.Map():
            return _value(entries(value), depth)
        case list() | pycrdt.Array():
            return _list(value, depth)
        case pycrdt.Doc():
            return {"$doc": value.guid}
        case _:
            return str(value)


def _list(values: Iterable[Any], depth: int) -> list[Any]:
    return [_value(each, depth + 1) for each in values]


def _number(number: float) -> int | float | None:
    if not math.isfinite(number):
        return None
    if number.is_integer() and abs(number) <= SAFE_INTEGER_MAX:
        return int(number)
    return number


def entries(value: "pycrdt.Map[Any]") -> dict[str, Any]:
    """Return the entries of a map. A key may stand for what is no value (a format), which only a
    stranger's update does: pycrdt lists it, and has nothing for it.
    """
    found = {}
    for key in value.keys():
        with suppress(KeyError):
            found[key] = value[key]
    return found
