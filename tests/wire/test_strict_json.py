"""The real `JSON.parse` and the real pycrdt decide what is right."""

import json

import pytest
from pycrdt import merge_updates

from plait.server.wire.lib0 import var_string
from plait.server.wire.strict_json import is_plain, javascript_problem
from tests.support.node import run_node

TEXTS = [
    *("null", "true", "{}", '""', "[]", "0", "-0", "1.5", "1e5", "1E-7", " 1\n", '{"a": [1, {}]}'),
    *(
        "",
        " ",
        "nul",
        "NaN",
        "Infinity",
        "-Infinity",
        "undefined",
        "01",
        "+1",
        ".5",
        "1.",
        "1e",
        "0x1",
    ),
    *(
        "'a'",
        '{"a":1,}',
        "[1,]",
        "{a:1}",
        "{}{}",
        "1 2",
        "\ufeff1",
        "\xa01",
        "[",
        '"',
        '"\\x"',
        "//",
    ),
    *(
        '"\t"',
        '"\x7f"',
        '"\u2028"',
        '"\\u00e9"',
        '"\\/"',
        '"é😀"',
        '{"a":1,"a":2}',
        '{"__proto__":1}',
    ),
    *("9007199254740993", "9223372036854775807", "9223372036854775808", "18446744073709551615"),
    *("18446744073709551616", "-9223372036854775809", "1e308", "1e309", "1" * 400, "1" * 5000),
    *(
        '"\\ud83d\\ude00"',
        '"\\ud83d"',
        '"\\ude00x"',
        '{"\\ud83d":1}',
        '"\\\\ud83d"',
        '"\\ud83d\\u0041"',
    ),
    *("[" * depth + "]" * depth for depth in (64, 127, 128, 500, 5000)),
    '{"a":' * 127 + "1" + "}" * 127,
    '{"a":' * 128 + "1" + "}" * 128,
    '"' + "[" * 500 + '"',
    '"\\"' + "[" * 500 + '"',
]


def test_javascript_agrees() -> None:
    script = """
    import fs from 'fs'
    const parses = text => { try { JSON.parse(text); return true } catch { return false } }
    console.log(JSON.stringify(JSON.parse(fs.readFileSync(0, 'utf8')).map(parses)))
    """
    parses = json.loads(run_node(script, stdin=json.dumps(TEXTS).encode()))
    ours = [javascript_problem(text, 10_000) is None for text in TEXTS]
    # Python's parser is recursive, so it gives up where JavaScript's does not; see `depth_max`.
    assert [text for text, a, b in zip(TEXTS, parses, ours, strict=True) if a != b] == [
        "[" * 5000 + "]" * 5000
    ]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_pycrdt_writes_what_is_plain_as_it_is(text: str) -> None:
    """What is no JSON at all never gets there: `is_plain` only has to tell among the rest."""
    if javascript_problem(text, 10_000) is None and is_plain(text):
        update = b"\x01\x01\x07\x00\x05\x01\x01t" + var_string(text) + b"\x00"
        assert merge_updates(update, b"\x00\x00") == update


def test_what_editors_send_most_is_plain() -> None:
    for text in (
        "true",
        "null",
        '"é😀"',
        "1",
        "-0.0001",
        "12345678.0001",
        '{"href":"https://x"}',
        '{"a":{"b":-12}}',
        "{}",
    ):
        assert is_plain(text), text
    for text in (
        '{"a":1,"b":2}',
        '"\\ud83d"',
        "1e19",
        "0.50",
        "0.00001",
        "-0",
        "[1]",
        '{"a":[{}]}',
    ):
        assert not is_plain(text), text


def test_depth_is_bounded_exactly() -> None:
    assert javascript_problem('[{"a":["[[["]}]', 3) is None
    assert javascript_problem('[{"a":["[[["]}]', 2) == "JSON is nested deeper than 2 levels"
