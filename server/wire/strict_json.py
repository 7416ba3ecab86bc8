"""Tell whether a text is JSON that every peer can parse.

Presence, embeds and formats travel as JSON text inside binary messages, and Plait forwards them as
they are. One that makes `JSON.parse` throw would break the event handler of every other client, so
it has to be found before.
"""

import json
import re
from typing import Final

_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")

_PLAIN: Final = re.compile(
    r'(?:\{"[^"\\\x00-\x1f]*":){0,100}'
    r'(?:"[^"\\\x00-\x1f]*"|true|false|null|0|-?[1-9][0-9]{0,14}|'
    r"-?(?:0|[1-9][0-9]{0,7})\.[0-9]{0,3}[1-9]|\{\}|\[\])\}{0,100}"
).fullmatch

# The texts that editors send most: formats that are switched on and off.
_COMMON: Final = frozenset(("true", "null", "false", "{}", '""'))


def javascript_problem(text: str, depth_max: int) -> str | None:
    """Return what keeps `JSON.parse` from parsing a text, or None.

    JSON nested deeper than `depth_max` levels is a problem as well.
    """
    if text in _COMMON:
        return None
    if is_deeper(text, depth_max):
        return f"JSON is nested deeper than {depth_max} levels"
    try:
        _decode(text)
    except (ValueError, RecursionError) as error:
        return f"a text is not JSON ({error})"
    return None


def is_plain(text: str) -> bool:
    """Return whether pycrdt writes a text of JSON again as it is: one value, in objects of one key.

    It may well be so for others: numbers that are no integers, lists and escapes.
    """
    return text in _COMMON or _PLAIN(text) is not None


def is_deeper(text: str, depth_max: int) -> bool:
    """Whether JSON is nested deeper than so many levels."""
    return text.count("[") + text.count("{") > depth_max and _depth(text) > depth_max


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


def _refuse_constant(name: str) -> None:
    # Python's parser accepts what JavaScript's does, and NaN and Infinity besides.
    raise ValueError(f"{name} is no value")


# Integers become floats, as in JavaScript; Python itself refuses one of 4,300 digits.
_decode = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=float).decode
