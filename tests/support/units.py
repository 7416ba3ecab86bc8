"""What each clock of an update stands for, however Yjs or pycrdt have put it into structs."""

from plait.server.wire.lib0 import read_var_uint
from plait.server.wire.structs import read_structs
from plait.server.wire.update import ANY, DELETED, GC, SKIP, STRING, Id
from plait.server.wire.values import value_end

Unit = tuple[object, ...]
"""The content, the neighbours and the kind; nothing at all if it is deleted."""


def units_of(update: bytes, clients: frozenset[int] | None = None) -> dict[Id, Unit]:
    """Return what is at each clock of an update.

    Args:
        clients: only those of these clients.
    """
    found: dict[Id, Unit] = {}
    for each in read_structs(update):
        if each.kind == SKIP or (clients is not None and each.client not in clients):
            continue
        content = update[each.content : each.end]
        parts: list[object] = [content]
        if each.kind in (GC, DELETED):
            parts = [None] * each.length
        elif each.kind == STRING:
            _, position = read_var_uint(content, 0)
            text = content[position:].decode().encode("utf-16-le")
            parts = [text[at : at + 2] for at in range(0, len(text), 2)]
        elif each.kind == ANY:
            position = read_var_uint(content, 0)[1]
            parts = []
            for _ in range(each.length):
                end, _ = value_end(content, position)
                parts.append(content[position:end])
                position = end
        origin = each.origin
        for clock, part in enumerate(parts, each.clock):
            place = (origin, each.right_origin, each.kind) if part is not None else ()
            found[each.client, clock] = (part, *place)
            origin = each.client, clock
    return found
