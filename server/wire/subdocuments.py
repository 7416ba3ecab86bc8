"""Keep subdocuments away from pycrdt.

pycrdt never frees a document that has had a subdocument in it: each holds the other. So a server
would lose that memory whenever such a document is unloaded. Nor does it keep their options. What
pycrdt is given instead is binary content, which has the same length of one clock, is never joined
with a neighbour either, and carries the subdocument's bytes behind a mark.

Defined by yjs `src/structs/ContentDoc.js` (guid and options) and `ContentBinary.js`.
"""

from collections.abc import Iterator

from plait.server.wire.lib0 import read_var_uint, var_bytes
from plait.server.wire.structs import read_structs, replace_parts
from plait.server.wire.update import BINARY, DOC, KIND


def hide(update: bytes, mark: bytes) -> bytes:
    """Return an update with marked binary content in place of each subdocument.

    Args:
        mark: bytes with which no other binary content begins.
    """

    def parts() -> Iterator[tuple[int, int, bytes]]:
        for struct in read_structs(update):
            if struct.kind == DOC:
                yield struct.start, struct.start + 1, _as(BINARY, update[struct.start])
                yield (
                    struct.content,
                    struct.end,
                    var_bytes(mark + update[struct.content : struct.end]),
                )

    return replace_parts(update, parts())


def show(update: bytes, mark: bytes) -> bytes:
    """Return an update with the subdocuments that `hide` put away."""

    def parts() -> Iterator[tuple[int, int, bytes]]:
        for struct in read_structs(update):
            if struct.kind == BINARY:
                _, start = read_var_uint(update, struct.content)
                if update.startswith(mark, start):
                    yield struct.start, struct.start + 1, _as(DOC, update[struct.start])
                    yield struct.content, struct.end, update[start + len(mark) : struct.end]

    return replace_parts(update, parts())


def _as(kind: int, info: int) -> bytes:
    """Return an info byte with another kind of content."""
    return bytes((info & ~KIND | kind,))
