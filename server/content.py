"""Tell what is in a document, as JSON, without knowing its schema.

Yjs does not write of what type a root is: whoever opens a document knows. pycrdt believes whatever
it is told, and a wrong guess makes it loop for ever. So the types are taken from the structs: what
a root holds shows what it is. And as nobody can prove that every document is harmless, this is
meant to run in a process of its own (`plait.server.apart`) with a time-out; therefore it uses
pycrdt, which otherwise only `plait.server.document` does.

What JSON can't hold: bytes become `{"$bytes": base64}`, a subdocument `{"$doc": guid}`, integers
beyond 2^53 decimal strings, and NaN, infinities and `undefined` null.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any

import pycrdt

from plait.server.errors import BadRequest, DocumentBroken
from plait.server.shown import MARK, as_json, delta, entries, written
from plait.server.wire import stand_ins, surrogates
from plait.server.wire.structs import Struct, read_structs
from plait.server.wire.update import (
    DELETED,
    EMBED,
    FORMAT,
    GC,
    SKIP,
    STRING,
    TYPE,
    XML_ELEMENT,
    XML_HOOK,
    Id,
)

XML_FRAGMENT, XML_TEXT = 4, 6
_XML = frozenset((XML_ELEMENT, XML_FRAGMENT, XML_TEXT, XML_HOOK))
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
    return written(roots(update)).encode()


def roots(update: bytes) -> dict[str, dict[str, Any]]:
    """Return the type and the value of each root of a whole state that `inspect` has accepted.

    A root that may be of another type as well has those in `or`; one that has keys beside its
    sequence (an XML element, an XML text) has `attributes`; and a text with formats or embeds has a
    `delta`.

    Raises:
        BadRequest: it is nested deeper than `DEPTH_MAX`.
        DocumentBroken: pycrdt failed.
    """
    found = _contents(update)
    kinds = {name: each.kind for name, each in found.items()}
    torn = surrogates.broken(surrogates.pairs(update), surrogates.cuts(update))
    doc: pycrdt.Doc[Any] = pycrdt.Doc()
    # The types are told to pycrdt before the content, so that at no time it has to guess.
    types = {name: doc.get(name, type=_TYPES[kind]) for name, kind in kinds.items()}
    arrays = {name: _Elements(root) for name, root in types.items() if kinds[name] == "array"}
    try:
        doc.apply_update(stand_ins.hide(surrogates.rewrite(update, torn) if torn else update, MARK))
        return {
            name: _shown(doc, name, found[name], arrays[name].values if name in arrays else root)
            for name, root in sorted(types.items())
        }
    except BadRequest:
        raise
    except Exception as error:
        raise DocumentBroken(f"pycrdt failed: {error}") from error


def _shown(doc: "pycrdt.Doc[Any]", name: str, held: "_Held", root: Any) -> dict[str, Any]:
    shown: dict[str, Any] = {"type": held.kind}
    if held.others:
        shown["or"] = held.others
    shown["value"] = None if held.kind == "unknown" else as_json(root)
    if held.kind == "text" and held.contents - {STRING, DELETED}:
        shown["delta"] = delta(root)
    if held.keyed and held.kind != "map":
        attributes = entries(doc.get(name, type=pycrdt.Map))
        if attributes:
            shown["attributes"] = as_json(attributes)
    return shown


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


class _Held:
    """What a root holds: the kinds of contents of its sequence, and whether it has keys."""

    def __init__(self) -> None:
        self.contents: set[int] = set()
        """Of a shared type its reference, negative and less one."""
        self.keyed = False

    @property
    def kind(self) -> str:
        """What it is taken for."""
        if self.contents & {STRING, FORMAT, EMBED}:
            return "text"
        if visible := self.contents - {DELETED}:
            return "xml" if visible <= _XML_CONTENTS else "array"
        return "map" if self.keyed else "unknown"

    @property
    def others(self) -> list[str]:
        """What it may be just as well: a text may hold embedded types alone. XML elements are taken
        for what they nearly always are.
        """
        visible = self.contents - {DELETED}
        only_types = bool(visible) and all(each < 0 for each in visible)
        return ["text"] if only_types and visible.isdisjoint(_ELEMENTS) else []


_XML_CONTENTS = frozenset(-1 - reference for reference in _XML)
_ELEMENTS = _XML_CONTENTS - {-1 - XML_TEXT}


def root_kinds(update: bytes) -> dict[str, str]:
    """Return for each root whether it is a text, map, array, xml, or unknown, because all that it
    held was deleted.

    An array of nothing but XML nodes can't be told from an XML fragment, and is taken for one.
    """
    return {root: held.kind for root, held in _contents(update).items()}


def _contents(update: bytes) -> dict[str, _Held]:
    structs = list(read_structs(update))
    found: dict[str, _Held] = {}
    for struct, place in zip(structs, _places(structs), strict=True):
        if place is None:
            continue
        root, has_key = place
        held = found.setdefault(root, _Held())
        if has_key:
            held.keyed = True
        elif struct.kind != TYPE:
            held.contents.add(struct.kind)
        else:
            held.contents.add(-1 - update[struct.content])
    return found


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


_TYPES: Mapping[str, Any] = {
    "text": pycrdt.Text,
    "map": pycrdt.Map,
    "array": pycrdt.Array,
    "xml": pycrdt.XmlFragment,
    "unknown": pycrdt.Map,
}
