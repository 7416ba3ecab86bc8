"""Walk what the structs of an update hold: strings, JSON, and values like those of JSON."""

from struct import Struct
from typing import Any, Final

from plait.server.errors import UpdateRefused
from plait.server.wire import strict_json
from plait.server.wire.lib0 import read_var_uint

# Bytes after the tag of an Any value (lib0 `encoding.js`, `writeAny`) whose size is fixed.
_ANY_SIZES = {127: 0, 126: 0, 124: 4, 123: 8, 122: 8, 121: 0, 120: 0}
_UNDEFINED: Final = b"\x09undefined"
"""What ContentJSON has in place of JSON for `undefined` (yjs `src/structs/ContentJSON.js`)."""
_NUMBERS: Final = {124: Struct(">f"), 123: Struct(">d"), 122: Struct(">q")}
_CONSTANTS: Final = {127: None, 126: None, 121: False, 120: True}


def string_end(update: bytes, position: int) -> int:
    """Check a string and return the position after it."""
    size, position = read_var_uint(update, position)
    end = position + size
    update[position:end].decode()
    return end


def json_end(update: bytes, position: int, depth_max: int) -> tuple[int, bool]:
    """Check a string of JSON and return the position after it, and whether pycrdt writes it as it
    reads it.

    Raises:
        UpdateRefused: Yjs can't read it, or it is too deep.
    """
    size, position = read_var_uint(update, position)
    end = position + size
    text = update[position:end].decode()
    if strict_json.is_deeper(text, depth_max):
        told = f"An embed or a format is nested deeper than {depth_max} levels."
        raise UpdateRefused(told, genuine=True)
    problem = strict_json.javascript_problem(text, depth_max)
    if problem:
        raise UpdateRefused(f"The update has an embed or a format that can't be used: {problem}.")
    return end, strict_json.is_plain(text)


def beta_values_end(update: bytes, position: int, count: int, depth_max: int) -> int:
    """Check a number of values as ContentJSON has them, and return the position after them."""
    for _ in range(count):
        if update.startswith(_UNDEFINED, position):
            position += len(_UNDEFINED)
        else:
            position, _ = json_end(update, position, depth_max)
    return position


def value_end(update: bytes, position: int) -> tuple[int, bool]:
    """Return the position after an Any value that was inspected, and whether pycrdt writes it as it
    reads it.

    The same walk as that of `values_end`, without the checks, in half the time.
    """
    outer: list[int] = []
    count, keyed, lossless = 1, False, True
    while True:
        while not count:
            if not outer:
                return position, lossless
            count = outer.pop()
            keyed = count & 1 == 1
            count >>= 1
        count -= 1
        if keyed:
            size = update[position]
            if size < 128:
                position += 1
            else:
                size, position = read_var_uint(update, position)
            position += size
        tag = update[position]
        position += 1
        if tag == 125:
            if update[position] == 64:
                lossless = False
            while update[position] > 127:
                position += 1
            position += 1
        elif tag == 119 or tag == 116:
            size, position = read_var_uint(update, position)
            position += size
        elif tag == 118 or tag == 117:
            outer.append(count << 1 | keyed)
            count, position = read_var_uint(update, position)
            keyed = tag == 118
            if keyed and count > 1:
                lossless = False
        elif tag == 123:
            position += 8
        elif tag == 124:
            position += 4
        elif tag == 122:
            position += 8
            lossless = False


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
                told = f"Values are nested deeper than {depth_max} levels."
                raise UpdateRefused(told, genuine=True)
            outer.append((count, keyed))
            count, position = read_var_uint(update, position)
            keyed = tag == 118
            if keyed and count > 1:
                # pycrdt writes the keys in any order.
                lossless = False
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


def read_value(data: bytes) -> Any:
    """Return an Any value that was inspected: integers as `float`, as JavaScript has them, and only
    a BigInt as `int`.
    """
    return _read_value(data, 0)[0]


def _read_value(data: bytes, position: int) -> tuple[Any, int]:
    tag = data[position]
    position += 1
    if tag == 119 or tag == 116:
        size, position = read_var_uint(data, position)
        content = data[position : position + size]
        return content.decode() if tag == 119 else content, position + size
    if tag == 118:
        found: dict[str, Any] = {}
        count, position = read_var_uint(data, position)
        for _ in range(count):
            size, position = read_var_uint(data, position)
            key = data[position : position + size].decode()
            found[key], position = _read_value(data, position + size)
        return found, position
    if tag == 117:
        values: list[Any] = []
        count, position = read_var_uint(data, position)
        for _ in range(count):
            value, position = _read_value(data, position)
            values.append(value)
        return values, position
    if tag == 125:
        return _read_integer(data, position)
    if tag in _NUMBERS:
        number = _NUMBERS[tag]
        return number.unpack_from(data, position)[0], position + number.size
    return _CONSTANTS[tag], position


def _read_integer(data: bytes, position: int) -> tuple[float, int]:
    """Return an integer of lib0 (`decoding.js`, `readVarInt`): the first byte holds 6 bits and the
    sign.
    """
    first = data[position]
    number = first & 63
    if first > 127:
        more, position = read_var_uint(data, position + 1)
        number += more << 6
    else:
        position += 1
    return -float(number) if first & 64 else float(number), position
