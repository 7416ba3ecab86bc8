"""Shared types, and the values in them, as what JSON can hold.

pycrdt reads them from a state that has stand-ins in it (`plait.server.wire.stand_ins`), so every
value is told as it was written, with its keys in their order. The keys of a map have none, and are
sorted, as Yjs sorts the attributes of an XML element.
"""

import json
import math
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pycrdt

from plait.server.errors import BadRequest
from plait.server.wire import stand_ins
from plait.server.wire.lib0 import read_var_uint
from plait.server.wire.values import read_value

DEPTH_MAX = 200
"""Levels of nesting; many JSON parsers give up at a few hundred, Python's functions at 1,000."""

SAFE_INTEGER_MAX = (1 << 53) - 1
"""Larger integers lose digits in JavaScript (`Number.MAX_SAFE_INTEGER`)."""

MARK = stand_ins.new_mark()
"""Of the stand-ins in the states that are read here."""

_MARK = MARK.decode()
_HOOK = _MARK + "h"
"""What the name of an XML element begins with that stands for a Y.XmlHook."""


def as_json(value: Any, depth: int = 0) -> Any:
    """Return a value of pycrdt's as one that JSON can hold.

    Raises:
        BadRequest: it is nested deeper than `DEPTH_MAX`.
    """
    _check(depth)
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if abs(value) <= SAFE_INTEGER_MAX else str(value)
        case float():
            return _number(value)
        case bytes() | bytearray():
            return _bytes(bytes(value), depth)
        case dict():
            if len(value) == 1 and _MARK in value:
                return as_json(read_original("json", stand_ins.original_json(value[_MARK])), depth)
            return {key: as_json(each, depth + 1) for key, each in value.items()}
        case pycrdt.Map():
            return as_json(entries(value), depth)
        case list() | pycrdt.Array():
            return [as_json(each, depth + 1) for each in value]
        case pycrdt.XmlElement() | pycrdt.XmlFragment() | pycrdt.XmlText():
            return xml(value, depth)
        case pycrdt.Doc():
            return {"$doc": value.guid}
        case _:
            return str(value)


def written(value: Any) -> str:
    """Return JSON; half of a character beyond U+FFFF as an escape, which has no UTF-8."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode(errors="backslashreplace").decode()


def entries(value: "pycrdt.Map[Any]") -> dict[str, Any]:
    """Return the entries of a map, sorted. A key may stand for what is no value (a format), which
    only a stranger's update does: pycrdt lists it, and has nothing for it.
    """
    found = {}
    for key in sorted(value.keys()):
        with suppress(KeyError):
            found[key] = value[key]
    return found


def xml(node: Any, depth: int = 0) -> str:
    """Return an XML node as Yjs' `toString` does (`src/types/YXmlElement.js`, `YXmlText.js`), but
    with names of elements as they are, JSON for what is no text, and a text that has attributes of
    its own within an element `#text`.

    Like there, nothing is escaped.
    """
    _check(depth)
    if isinstance(node, pycrdt.XmlText):
        content = "".join(_formatted(each, format, depth) for each, format in node.diff())
        own = _attributes(attributes(node), depth)
        return f"<#text{own}>{content}</#text>" if own else content
    content = "".join(xml(child, depth + 1) for child in node.children)
    if not isinstance(node, pycrdt.XmlElement):
        return content
    name = node.tag or ""
    own = _attributes(attributes(node), depth)
    if name.startswith(_HOOK):  # as `YXmlHook.toDOM` has it
        name = name.removeprefix(_HOOK)
        own = f' data-yjs-hook="{name}"{own}'
    return f"<{name}{own}>{content}</{name}>"


def attributes(node: "pycrdt.XmlElement | pycrdt.XmlText") -> dict[str, Any]:
    """Return the attributes of an XML node. Those of a Y.XmlHook may be shared types."""
    pairs: Any = node.attributes  # an iterable of pairs, which its own types do not say
    return {name: node._maybe_as_type_or_doc(value) for name, value in pairs}


def delta(text: "pycrdt.Text | pycrdt.XmlText") -> list[dict[str, Any]]:
    """Return a text with its formats and embeds, as Yjs' `toDelta` does."""
    found: list[dict[str, Any]] = []
    for content, format in text.diff():
        insert = as_json(content, 1)
        if isinstance(content, pycrdt.XmlElement | pycrdt.XmlFragment | pycrdt.XmlText):
            insert = {"$xml": insert}
        elif isinstance(content, pycrdt.Text):
            insert = {"$text": insert}
        part = {"insert": insert}
        if formats := _formats(format):
            part["attributes"] = {name: as_json(formats[name], 1) for name in sorted(formats)}
        if (
            found
            and isinstance(content, str)
            and isinstance(found[-1]["insert"], str)
            and found[-1].get("attributes") == part.get("attributes")
        ):
            found[-1]["insert"] += content
        else:
            found.append(part)
    return found


def _formatted(content: Any, format: Mapping[str, Any] | None, depth: int) -> str:
    shown = content if isinstance(content, str) else _text(content, depth + 1)
    formats = _formats(format)
    for name in sorted(formats, reverse=True):
        value = as_json(formats[name], depth + 1)
        own = _attributes(value, depth) if isinstance(value, dict) else ""
        shown = f"<{name}{own}>{shown}</{name}>"
    return shown


def _formats(format: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a text has; a format that is null is none."""
    return {name: value for name, value in (format or {}).items() if value is not None}


def _attributes(values: Mapping[str, Any], depth: int) -> str:
    return "".join(f' {name}="{_text(values[name], depth + 1)}"' for name in sorted(values))


def _text(value: Any, depth: int) -> str:
    value = as_json(value, depth)
    return value if isinstance(value, str) else written(value)


def _bytes(value: bytes, depth: int) -> Any:
    found = stand_ins.original(value, MARK)
    if found is None:
        return {"$bytes": b64encode(value).decode()}
    kind, original = found
    if kind == "document":
        size, start = read_var_uint(original, 0)
        return {"$doc": original[start : start + size].decode()}
    return as_json(read_original(kind, original), depth)


def read_original(kind: str, original: bytes) -> Any:
    """Return the value that is behind a stand-in for `json` or for a `value`."""
    if kind == "value":
        return read_value(original)
    # Of Yjs betas; it is no JSON.
    return None if original == b"undefined" else json.loads(original, parse_int=float)


def _number(number: float) -> int | float | None:
    if not math.isfinite(number):
        return None
    if number.is_integer() and abs(number) <= SAFE_INTEGER_MAX:
        return int(number)
    return number


def _check(depth: int) -> None:
    if depth > DEPTH_MAX:
        raise BadRequest(
            f"the document is nested deeper than {DEPTH_MAX} levels, which JSON here does not "
            "reach; get it as application/octet-stream"
        )
