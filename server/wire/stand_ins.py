"""Give pycrdt stand-ins for what it would not give back as it is.

pycrdt turns a BigInt into a number, a negative zero into zero, and shuffles the keys of objects,
each time in another way. It can't read some of the JSON that Yjs writes in embeds and formats (half
of an emoji, integers beyond 2^63, more than 128 levels), misreads two contents, and never frees a
document that had a subdocument in it: each holds the other. So it is given something else in place
of these, which has the same length in clocks, is cut and joined like it, and carries the bytes as
they came. They are put back into whatever pycrdt encodes. Which updates need it, `Shape.lossless`
tells.

    content                   what pycrdt is given
    value of ContentAny       bytes among values: mark `v` value
    ContentEmbed              JSON: {"mark": base64 of the JSON, with its length}
    ContentFormat, its value  likewise
    Y.XmlHook                 an XML element by the name of: mark `h` name
    ContentDoc                binary content: mark `d` guid and options
    ContentJSON               for each value, binary content: mark `j` JSON

A mark is `MARK_BYTES` random characters of ASCII, which no client ever sees. So what is behind it
is found without taking an update apart, but for binary content.

Defined by yjs `src/structs/Content*.js` and `src/types/YXmlHook.js`.
"""

import os
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Iterator
from typing import Final

from plait.server.wire.lib0 import read_var_uint, var_bytes, write_var_uint
from plait.server.wire.strict_json import is_plain
from plait.server.wire.structs import Struct, exchange, read_structs, replace_parts
from plait.server.wire.update import (
    ANY,
    BINARY,
    DELETED,
    DOC,
    FORMAT,
    GC,
    HAS_KEY,
    HAS_ORIGIN,
    HAS_RIGHT_ORIGIN,
    JSON,
    KIND,
    SKIP,
    STRING,
    TYPE,
    XML_ELEMENT,
    XML_HOOK,
)
from plait.server.wire.values import value_end

MARK_BYTES: Final = 16

_VALUE: Final = 0x76
_HOOK: Final = 0x68
_DOC: Final = b"d"
_JSON: Final = b"j"
_QUOTE: Final = 0x22

_Part = tuple[int, int, bytes]


def new_mark() -> bytes:
    """Return a mark that nobody can guess."""
    return urlsafe_b64encode(os.urandom(MARK_BYTES * 3 // 4))


def hide(update: bytes, mark: bytes) -> bytes:
    """Return an update with stand-ins; the same object if it needs none.

    A large document is read through here whenever it is loaded, so the walk is flat, and counts no
    clocks.
    """
    parts: list[_Part] = []
    clients, position = read_var_uint(update, 0)
    for _ in range(clients):
        structs, position = read_var_uint(update, position)
        _, position = read_var_uint(update, position)
        _, position = read_var_uint(update, position)
        for _ in range(structs):
            start = position
            kind = update[position] & KIND
            if kind == GC or kind == SKIP:
                _, position = read_var_uint(update, position + 1)
                continue
            position = _content(update, position)
            if kind == STRING or kind == BINARY:
                size, position = read_var_uint(update, position)
                position += size
            elif kind == ANY:
                position = _hide_values(update, position, mark, parts)
            elif kind == DELETED:
                _, position = read_var_uint(update, position)
            elif kind == JSON and update[position] != 1:
                return hide(exchange(update, lambda struct: _one_by_one(update, struct)), mark)
            else:
                position = _hide_content(update, start, position, mark, parts)
    return replace_parts(update, parts)


def show(update: bytes, mark: bytes) -> bytes:
    """Return an update with the originals in place of the stand-ins; the same object if it has
    none.
    """
    parts: list[_Part] = []
    binary = False
    found = update.find(mark)
    while found >= 0:
        behind = found + MARK_BYTES
        kind = update[behind]
        if kind == _VALUE:
            start = _size_before(update, found)
            end = found + read_var_uint(update, start)[0]
            parts.append((start - 1, end, update[behind + 1 : end]))
        elif kind == _QUOTE:
            behind += 3
            end = update.index(_QUOTE, behind)
            size = write_var_uint(end + 4 - found)
            parts.append((found - 2 - len(size), end + 2, b64decode(update[behind:end])))
        elif kind == _HOOK:
            start = _size_before(update, found)
            end = found + read_var_uint(update, start)[0]
            name = bytes((XML_HOOK,)) + var_bytes(update[behind + 1 : end])
            parts.append((start - 1, end, name))
        else:
            binary = True
        found = update.find(mark, behind)
    update = replace_parts(update, parts)
    return replace_parts(update, _shown(update, mark)) if binary else update


def original(given: bytes, mark: bytes) -> tuple[str, bytes] | None:
    """Return for bytes in a document that pycrdt was given what they stand for; None for those of
    clients.

    Returns:
        `value`, `document` or `json`, and its bytes.
    """
    if not given.startswith(mark):
        return None
    kind = {_VALUE: "value", _DOC[0]: "document", _JSON[0]: "json"}[given[MARK_BYTES]]
    return kind, given[MARK_BYTES + 1 :]


def original_json(given: str) -> bytes:
    """Return the text that the base64 in a stand-in for an embed or a format stands for."""
    text = b64decode(given)
    return text[read_var_uint(text, 0)[1] :]


def _content(update: bytes, position: int) -> int:
    """Return where the content of a struct is."""
    info = update[position]
    position += 1
    if info & (HAS_ORIGIN | HAS_RIGHT_ORIGIN):
        ids = 4 if info & HAS_ORIGIN and info & HAS_RIGHT_ORIGIN else 2
        for _ in range(ids):
            while update[position] > 127:
                position += 1
            position += 1
        return position
    named, position = read_var_uint(update, position)
    size, position = read_var_uint(update, position)
    if named:
        position += size
    else:
        _, position = read_var_uint(update, position)
    if info & HAS_KEY:
        size, position = read_var_uint(update, position)
        position += size
    return position


def _hide_values(update: bytes, position: int, mark: bytes, parts: list[_Part]) -> int:
    count, position = read_var_uint(update, position)
    for _ in range(count):
        start = position
        position, lossless = value_end(update, start)
        if not lossless:
            size = write_var_uint(MARK_BYTES + 1 + position - start)
            given = b"\x74%b%bv%b" % (size, mark, update[start:position])
            parts.append((start, position, given))
    return position


def _hide_content(update: bytes, start: int, content: int, mark: bytes, parts: list[_Part]) -> int:
    """Add the stand-in for a content of one clock, if it needs one; return the position after it.

    Args:
        start: where its struct is.
    """
    kind = update[start] & KIND
    if kind == TYPE:
        if update[content] == XML_ELEMENT or update[content] == XML_HOOK:
            size, name = read_var_uint(update, content + 1)
            end = name + size
            if update[content] == XML_HOOK:
                given = var_bytes(mark + b"h" + update[name:end])
                parts.append((content, end, bytes((XML_ELEMENT,)) + given))
            return end
        return content + 1
    if kind == DOC:
        size, end = read_var_uint(update, content)
        end, _ = value_end(update, end + size)
        given = mark + _DOC + update[content:end]
    elif kind == JSON:
        size, text = read_var_uint(update, content + 1)
        end = text + size
        given = mark + _JSON + update[text:end]
    else:
        if kind == FORMAT:
            size, content = read_var_uint(update, content)
            content += size
        size, text = read_var_uint(update, content)
        end = text + size
        if not is_plain(update[text:end].decode()):
            given = b'{"%b":"%b"}' % (mark, b64encode(update[content:end]))
            parts.append((content, end, var_bytes(given)))
        return end
    parts.append((start, start + 1, _as(BINARY, update[start])))
    parts.append((content, end, var_bytes(given)))
    return end


def _shown(update: bytes, mark: bytes) -> Iterator[_Part]:
    """Return what makes of binary content what it was."""
    for struct in read_structs(update):
        if struct.kind == BINARY:
            start = read_var_uint(update, struct.content)[1]
            if update.startswith(mark, start):
                content = update[start + MARK_BYTES + 1 : struct.end]
                kind = DOC
                if update.startswith(_JSON, start + MARK_BYTES):
                    kind, content = JSON, b"\x01" + var_bytes(content)
                yield struct.start, struct.start + 1, _as(kind, update[struct.start])
                yield struct.content, struct.end, content


def _one_by_one(update: bytes, struct: Struct) -> list[bytes] | None:
    """Return content of several values, each a text of JSON, as structs of one value each."""
    if struct.kind != JSON or struct.length == 1:
        return None
    right = b""
    if struct.right_origin is not None:
        right = b"".join(map(write_var_uint, struct.right_origin))
    structs: list[bytes] = []
    head = update[struct.start : struct.content]
    end = read_var_uint(update, struct.content)[1]
    for number in range(struct.length):
        start = end
        size, end = read_var_uint(update, start)
        end += size
        structs.append(head + b"\x01" + update[start:end])
        before = write_var_uint(struct.client) + write_var_uint(struct.clock + number)
        has = HAS_ORIGIN | (HAS_RIGHT_ORIGIN if right else 0)
        head = bytes((update[struct.start] & HAS_KEY | JSON | has,)) + before + right
    return structs


def _size_before(update: bytes, position: int) -> int:
    """Return where the var_uint begins that ends at a position, behind a byte below 128."""
    position -= 1
    while update[position - 1] >= 128:
        position -= 1
    return position


def _as(kind: int, info: int) -> bytes:
    """Return an info byte with another kind of content."""
    return bytes((info & ~KIND | kind,))
