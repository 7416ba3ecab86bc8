"""Walk what the structs of an update hold: strings, JSON, and values like those of JSON."""

from typing import Final

from plait.server.errors import UpdateRefused
from plait.server.wire import strict_json
from plait.server.wire.lib0 import read_var_uint

JSON_DEPTH_MAX: Final = 127
"""Nesting of an embed's or a format's JSON, above which pycrdt's parser gives up."""

# Bytes after the tag of an Any value (lib0 `encoding.js`, `writeAny`) whose size is fixed.
_ANY_SIZES = {127: 0, 126: 0, 124: 4, 123: 8, 122: 8, 121: 0, 120: 0}


def string_end(update: bytes, position: int) -> int:
    """Check a string and return the position after it."""
    size, position = read_var_uint(update, position)
    end = position + size
    update[position:end].decode()
    return end


def json_end(update: bytes, position: int) -> int:
    """Check a string of JSON and return the position after it.

    Raises:
        UpdateRefused: pycrdt or Yjs can't read it.
    """
    size, position = read_var_uint(update, position)
    end = position + size
    problem = strict_json.pycrdt_problem(update[position:end].decode(), JSON_DEPTH_MAX)
    if problem:
        raise UpdateRefused(f"The update has an embed or a format that can't be used: {problem}.")
    return end


def value_end(update: bytes, position: int) -> tuple[int, bool]:
    """Return the position after an Any value that was inspected, and whether pycrdt writes it as it
    reads it.
    """
    # The limit then is not known here.
    return values_end(update, position, 1, len(update))


def values_end(update: bytes, position: int, count: int, depth_max: int) -> tuple[int, bool]:
    """Walk a number of Any values (lib0 `encoding.js`, `writeAny`); return the position after them,
    and whether pycrdt writes them as it reads them.

    Not recursive, and bounded: pycrdt reads them recursively and overflows its stack at 26,000
    levels.
    """
    outer: list[tuple[int, bool]] = []
    keyed, lossless = False, True
    while True:
        while not count:
            if not outer:
                return position, lossless
            count, keyed = outer.pop()
        count -= 1
        if keyed:
            position = string_end(update, position)
        tag = update[position]
        position += 1
        if tag == 125:
            if update[position] == 64:
                # pycrdt writes a negative zero as zero.
                lossless = False
            _, position = read_var_uint(update, position)
        elif tag == 119:
            position = string_end(update, position)
        elif tag == 118 or tag == 117:
            if len(outer) >= depth_max:
                raise UpdateRefused(f"Values are nested deeper than {depth_max} levels.")
            outer.append((count, keyed))
            count, position = read_var_uint(update, position)
            keyed = tag == 118
        elif tag == 116:
            size, position = read_var_uint(update, position)
            position += size
        elif tag in _ANY_SIZES:
            position += _ANY_SIZES[tag]
            if tag == 122:
                # pycrdt writes a BigInt as a number.
                lossless = False
        else:
            raise UpdateRefused(f"There are no values with the tag {tag}.")
