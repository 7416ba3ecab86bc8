"""What a document shows, as text that can be compared: to prove that one looks like another.

A document does not know its own schema. The kinds of its root types are inferred from what they
hold, since pycrdt must not be asked to read one as something that it is not: an array that holds
formatting makes it loop for ever. Nested types say themselves what they are.
"""

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

import pycrdt

from plait.server.shown import MARK, attributes, entries, read_original
from plait.server.wire import stand_ins
from plait.server.wire.structs import Struct, read_structs
from plait.server.wire.update import (
    ANY,
    BINARY,
    DOC,
    EMBED,
    FORMAT,
    GC,
    JSON,
    SKIP,
    STRING,
    TYPE,
    XML_ELEMENT,
    XML_HOOK,
    Id,
)

_MARK = MARK.decode()
_XML_FRAGMENT, _XML_TEXT = 4, 6
_XML = frozenset((XML_ELEMENT, _XML_FRAGMENT, _XML_TEXT, XML_HOOK))
"""References of the shared types that XML consists of (yjs `src/structs/ContentType.js`)."""

_ROOTS: dict[str, type[Any]] = {
    "map": pycrdt.Map,
    "text": pycrdt.Text,
    "array": pycrdt.Array,
    "xml": pycrdt.XmlFragment,
}

Place = tuple[str, bool]
"""A root's name, and whether it is one of its keys (and not of its sequence)."""


def appearance(update: bytes, *, ordered: bool = True) -> str:
    """Return what a state shows. Two states show the same if and only if these are equal.

    Only content counts: neither ids nor history, and of formatting only its effect.

    Args:
        ordered: whether the order of keys in objects counts, too.

    Raises:
        RecursionError: types are nested too deeply.
    """
    doc: pycrdt.Doc[Any] = pycrdt.Doc()
    arrays = {
        name: _Elements(doc.get(name, type=pycrdt.Array))
        for name, kinds in root_kinds(update).items()
        if kinds == {"array"}
    }
    doc.apply_update(stand_ins.hide(update, MARK))
    shown = []
    for name, kind, root in _roots(doc, update):
        content = _shown(arrays[name].values if name in arrays else root, ordered=ordered)
        if content not in ("[]", "{}"):
            shown.append(f"{name!r} {kind}: {content}")
    return "\n".join(shown)


class _Elements:
    """Collects the elements of an array while they arrive.

    pycrdt looks for each from the first on, so reading a whole array is quadratic: 40,000 maps take
    17 s, and 0.4 s this way.
    """

    def __init__(self, array: "pycrdt.Array[Any]") -> None:
        self.values: list[Any] = []
        self._array = array  # or pycrdt forgets who observes it
        array.observe(self._inserted)

    def _inserted(self, event: Any) -> None:
        for change in event.delta:
            self.values += change["insert"]


def texts(doc: "pycrdt.Doc[Any]") -> "Iterator[pycrdt.Text | pycrdt.XmlText]":
    """Return every text in a document, however deep, before those that are in it."""
    left = [root for _, _, root in _roots(doc, doc.get_update())]
    while left:
        value = left.pop()
        if isinstance(value, pycrdt.Text | pycrdt.XmlText):
            yield value
        left += _within(value)


def _roots(doc: "pycrdt.Doc[Any]", update: bytes) -> Iterator[tuple[str, str, Any]]:
    """Return the root types of a document as what they can be read as: name, kind and type."""
    for name, kinds in sorted(root_kinds(update).items()):
        for kind in sorted(kinds):
            yield name, kind, doc.get(name, type=_ROOTS[kind])


def _within(value: Any) -> list[Any]:
    """Return what is directly in a shared type."""
    match value:
        case pycrdt.Text() | pycrdt.XmlText():
            return [content for content, _ in value.diff()]
        case pycrdt.XmlElement() | pycrdt.XmlFragment():
            return list(value.children)
        case pycrdt.Map():
            return list(entries(value).values())
        case pycrdt.Array():
            return list(value)
    return []


def root_kinds(update: bytes) -> dict[str, set[str]]:
    """Return what each root type of a state can be read as: `map`, and one of `text`, `array` and
    `xml`. Roots with nothing but deleted content are left out.
    """
    found: dict[str, set[str]] = {}
    kinds: dict[str, set[str]] = {}
    for place, struct in _in_roots(update):
        name, keyed = place
        if keyed:
            kinds.setdefault(name, set()).add("map")
        else:
            found.setdefault(name, set()).add(_kind(update, struct))
    for name, members in found.items():
        # Text may hold anything, an array all but text.
        kind = next((each for each in ("text", "array", "xml") if each in members), None)
        if kind is not None:
            kinds.setdefault(name, set()).add(kind)
    return kinds


def _kind(update: bytes, struct: Struct) -> str:
    """Return what kind of root is needed to hold a struct in its sequence."""
    if struct.kind in (STRING, FORMAT, EMBED):
        return "text"
    if struct.kind in (ANY, BINARY, DOC, JSON):
        return "array"
    if struct.kind == TYPE:
        return "xml" if update[struct.content] in _XML else "array"
    return "any"


def _in_roots(update: bytes) -> Iterator[tuple[Place, Struct]]:
    """Return the structs that are directly in a root type.

    A struct names its parent only if it has no neighbours; else it is where its neighbour is.
    """
    structs: dict[int, list[Struct]] = {}
    for struct in read_structs(update):
        structs.setdefault(struct.client, []).append(struct)
    clocks = {client: [each.clock for each in found] for client, found in structs.items()}
    places: dict[Id, Place | None] = {}

    def place_of(struct: Struct) -> Place | None:
        way: list[Id] = []
        while True:
            key = (struct.client, struct.clock)
            if key in places:
                place = places[key]
                break
            way.append(key)
            neighbour = struct.origin or struct.right_origin
            if neighbour is None or neighbour[0] not in clocks:
                place = None
                if struct.root is not None:
                    place = struct.root.decode(), struct.key is not None
                break
            client, clock = neighbour
            struct = structs[client][max(bisect_right(clocks[client], clock) - 1, 0)]
        for key in way:
            places[key] = place
        return place

    for found in structs.values():
        for struct in found:
            if struct.kind not in (GC, SKIP) and (place := place_of(struct)) is not None:
                yield place, struct


def _shown(value: Any, *, ordered: bool) -> str:
    """Return a value, or a shared type with all that is in it, in a form of its own."""

    def shown(value: Any) -> str:
        return _shown(value, ordered=ordered)

    match value:
        case pycrdt.XmlText():
            return f"xmltext {shown(attributes(value))} {_segments(value, ordered=ordered)}"
        case pycrdt.Text():
            return _segments(value, ordered=ordered)
        case pycrdt.XmlElement():
            children = shown(list(value.children))
            return f"<{value.tag} {shown(attributes(value))}>{children}"
        case pycrdt.XmlFragment():
            return shown(list(value.children))
        case pycrdt.Map():
            return shown(entries(value))
        case pycrdt.Array():
            return shown(list(value))
        case pycrdt.Doc():
            return f"document {value.guid!r}"
        case bytes() | bytearray():
            found = stand_ins.original(bytes(value), MARK)
            return repr(bytes(value)) if found is None else _original(*found, ordered=ordered)
        case dict():
            if len(value) == 1 and _MARK in value:
                return _original("json", stand_ins.original_json(value[_MARK]), ordered=ordered)
            return "{" + ", ".join(f"{k!r}: {shown(value[k])}" for k in sorted(value)) + "}"
        case list():
            return "[" + ", ".join(map(shown, value)) + "]"
        case _:
            return repr(value)


def _original(kind: str, original: bytes, *, ordered: bool) -> str:
    """Return what a stand-in stands for; in the order of its bytes, if that counts."""
    if ordered or kind == "document":
        return f"{kind} {original!r}"
    return f"{kind} {_shown(read_original(kind, original), ordered=False)}"


def _segments(text: "pycrdt.Text | pycrdt.XmlText", *, ordered: bool) -> str:
    """Return the content of a text with its formatting, neighbours of one format joined."""
    segments: list[tuple[str, list[str]]] = []
    for content, format in text.diff():
        kept = {name: value for name, value in (format or {}).items() if value is not None}
        look = _shown(kept, ordered=ordered)
        if not isinstance(content, str):
            segments.append((f"embed {look} ", [_shown(content, ordered=ordered)]))
        elif segments and segments[-1][0] == look:
            segments[-1][1].append(content)
        else:
            segments.append((look, [content]))
    return "[" + ", ".join(f"{look} {''.join(parts)!r}" for look, parts in segments) + "]"
