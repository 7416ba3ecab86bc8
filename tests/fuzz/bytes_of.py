"""How several byte strings are one input, and how inputs are changed so that they still mean
something.
"""

import json
import random
from collections.abc import Callable
from typing import Any

from plait.server.wire.lib0 import UintTooLong, read_var_uint, var_bytes
from tests.wire import fuzz_updates

Change = Callable[[random.Random, bytes], bytes]

PARTS_MAX = 40

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 1.5, 1e300, -0.0, 1 << 53, 10**30, "", "*", "\\", "\\*", "a"),
    *("\ud800", "\x00", "\u2028", "#1b746c", "😀", [], {}, [[]], {"docs": "*", "access": "write"}),
)
"""What may stand where something else is expected."""
KEYS = ("sub", "name", "color", "jti", "iat", "exp", "grants", "docs", "access", "until", "", "x")


def join(*parts: bytes) -> bytes:
    """Return one input for several byte strings."""
    return b"".join(map(var_bytes, parts))


def split(data: bytes) -> list[bytes]:
    """Return the byte strings of an input; every input has some."""
    parts: list[bytes] = []
    position = 0
    while position < len(data) and len(parts) < PARTS_MAX:
        try:
            length, position = read_var_uint(data, position)
        except (IndexError, UintTooLong):
            break
        parts.append(data[position : position + length])
        position += length
    return parts


def change_update(rng: random.Random, update: bytes) -> bytes:
    """Change structs of an update if it is one, and bytes of it if not."""
    if not update:
        return rng.choice(fuzz_updates.corpus()[0])
    if rng.random() < 0.6:
        try:
            return fuzz_updates.change_structs(rng, update)
        except Exception:  # It is not an update, and may be anything.
            pass
    return fuzz_updates.change_bytes(rng, update)


def in_parts(change: Change) -> Change:
    """Return a change of one part of an input of several."""

    def changed(rng: random.Random, data: bytes) -> bytes:
        parts = split(data) or [b""]
        place, what = rng.randrange(len(parts)), rng.random()
        if what < 0.8:
            parts[place] = change(rng, parts[place])
        elif what < 0.87:
            parts.insert(place, parts[rng.randrange(len(parts))])
        elif what < 0.94:
            other = rng.randrange(len(parts))
            parts[place], parts[other] = parts[other], parts[place]
        else:
            del parts[place]
        return join(*parts)

    return changed


def change_json(rng: random.Random, data: bytes) -> bytes:
    """Put another value, or another key, into JSON."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return fuzz_updates.change_bytes(rng, data or b"{}")
    holder = [value]
    at: tuple[Any, Any] = (holder, 0)
    while rng.random() < 0.8:
        inner = at[0][at[1]]
        if isinstance(inner, dict) and inner:
            at = inner, rng.choice(list(inner))
        elif isinstance(inner, list) and inner:
            at = inner, rng.randrange(len(inner))
        else:
            break
    place, key = at
    target, new = place[key], rng.choice(VALUES)
    if isinstance(target, dict) and rng.random() < 0.7:
        target[rng.choice(KEYS)] = new
    elif isinstance(target, list) and rng.random() < 0.5:
        target.append(new)
    elif isinstance(target, str) and rng.random() < 0.6:
        cut = rng.randrange(len(target) + 1)
        place[key] = target[:cut] + rng.choice("*\\a/\x00\ud800😀") + target[cut:]
    else:
        place[key] = new
    return json.dumps(holder[0]).encode()
