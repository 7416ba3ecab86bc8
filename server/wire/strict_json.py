"""Tell whether a text is JSON that every peer can parse.

Presence, embeds and formats travel as JSON text inside binary messages, and Plait forwards them as
they are. One that makes `JSON.parse` throw would break the event handler of every other client, so
it has to be found before.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any

_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")

# The texts that editors send most: formats that are switched on and off.
_COMMON = frozenset(("true", "null", "false", "{}", '""'))


def javascript_problem(text: str, depth_max: int) -> str | None:
    """Return what keeps `JSON.parse` from parsing a text, or None.

    JSON nested deeper than `depth_max` levels is a problem as well.
    """
    return _problem(text, depth_max, _decode_javascript)


def pycrdt_problem(text: str, depth_max: int) -> str | None:
    """Return what keeps `JSON.parse` or pycrdt from parsing a text, or None.

    pycrdt's parser, serde, wants numbers in the range of a double, refuses integers from 2^63 to
    2^64, and half of a surrogate pair written as an escape.
    """
    problem = _problem(text, depth_max, _decode_pycrdt)
    if problem is None and "\\u" in text and _has_lone_surrogate(text):
        return "a text has half of a surrogate pair"
    return problem


def _problem(text: str, depth_max: int, decode: Callable[[str], Any]) -> str | None:
    if text in _COMMON:
        return None
    if text.count("[") + text.count("{") > depth_max and _depth(text) > depth_max:
        return f"JSON is nested deeper than {depth_max} levels"
    try:
        decode(text)
    except (ValueError, RecursionError) as error:
        return f"a text is not JSON ({error})"
    return None


def _depth(text: str) -> int:
    """Return how deeply the brackets outside of strings are nested, whether they match or not."""
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        if bracket in "[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def _has_lone_surrogate(text: str) -> bool:
    try:
        json.dumps(_decode_javascript(text), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _refuse_constant(name: str) -> None:
    # Python's parser accepts what JavaScript's does, and NaN and Infinity besides.
    raise ValueError(f"{name} is no value")


def _pycrdt_number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is out of range")
    return number


def _pycrdt_integer(text: str) -> float:
    if len(text) < 25 and 1 << 63 <= int(text) < 1 << 64:
        raise ValueError("an integer is out of range")
    return _pycrdt_number(text)


# Integers become floats, as in JavaScript; Python itself refuses one of 4,300 digits.
_decode_javascript = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=float).decode
_decode_pycrdt = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_int=_pycrdt_integer, parse_float=_pycrdt_number
).decode
