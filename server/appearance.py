"""What a document shows, as text that can be compared: to prove that one looks like another.

A document does not know its own schema. The kinds of its root types are inferred from what they
hold, since pycrdt must not be asked to read one as something that it is not: an array that holds
formatting makes it loop for ever. Nested types say themselves what they are.
"""

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

import pycrdt

from plait.server.content import entries
from plait.server.wire.structs import Struct, read_structs
from plait.server.wire.update import (
    ANY,
    BINARY,
    DOC,
    EMBED,
    FORMAT,
    GC,
    SKIP,
    STRING,
    TYPE,
    XML_ELEMENT,
    Id,
)

_XML_FRAGMENT, _XML_TEXT = 4, 6
_XML = frozenset((XML_ELEMENT, _XML_FRAGMENT, _XML_TEXT))
"""References of the shared types that XML consists of (yjs `src/structs/ContentType.js`)."""

_ROOTS: dict[str, type[Any]] = {
    "map": pycrdt.Map,
    "text": pycrdt.Text,
    "array": pycrdt.Array,
    "xml": pycrdt.XmlFragment,
}

Place = tuple[str, bool]
"""A root's name, and whether it is one of its keys (and not of its sequence)."""


def appearance(update: bytes) -> str:
    """Return what a state shows. Two states show the same if and only if these are equal.

    Only content counts: neither ids nor history, and of formatting only its effect.

    Raises:
        RecursionError: types are nested too deeply.
    """
    doc: pycrdt.Doc[Any] = pycrdt.Doc()
    arrays = {
        name: _Elements(doc.get(name, type=pycrdt.Array))
        for name, kinds in root_kinds(update).items()
        if kinds == {"array"}
    }
    doc.apply_update(update)
    shown = []
    for name, kind, root in _roots(doc, update):
        content = _shown(arrays[name].values if name in arrays else root)
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
    if struct.kind in (ANY, BINARY, DOC):
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


def _shown(value: Any) -> str:
    """Return a value, or a shared type with all that is in it, in a form of its own."""
    match value:
        case pycrdt.XmlText():
            return f"xmltext {_shown(_attributes(value))} {_segments(value)}"
        case pycrdt.Text():
            return _segments(value)
        case pycrdt.XmlElement():
            children = _shown(list(value.children))
            return f"<{value.tag} {_shown(_attributes(value))}>{children}"
        case pycrdt.XmlFragment():
            return _shown(list(value.children))
        case pycrdt.Map():
            return _shown(entries(value))
        case pycrdt.Array():
            return _shown(list(value))
        case pycrdt.Doc():
            return f"document {value.guid!r}"
        case dict():
            return "{" + ", ".join(f"{k!r}: {_shown(value[k])}" for k in sorted(value)) + "}"
        case list():
            return "[" + ", ".join(map(_shown, value)) + "]"
        case _:
            return repr(value)


def _attributes(node: "pycrdt.XmlElement | pycrdt.XmlText") -> dict[str, Any]:
    pairs: Any = node.attributes  # an iterable of pairs, which its own types do not say
    return dict(iter(pairs))


def _segments(text: "pycrdt.Text | pycrdt.XmlText") -> str:
    """Return the content of a text with its formatting, neighbours of one format joined."""
    segments: list[tuple[str, list[str]]] = []
    for content, attributes in text.diff():
        kept = {name: value for name, value in (attributes or {}).items() if value is not None}
        look = _shown(kept)
        if not isinstance(content, str):
            segments.append((f"embed {look} ", [_shown(content)]))
        elif segments and segments[-1][0] == look:
            segments[-1][1].append(content)
        else:
            segments.append((look, [content]))
    return "[" + ", ".join(f"{look} {''.join(parts)!r}" for look, parts in segments) + "]"
