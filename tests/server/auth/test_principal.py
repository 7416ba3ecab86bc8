"""Principals: what is read of them, what they may, and what patterns match."""

import re
from math import inf, nan
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plait.server.auth.principal import (
    GRANTS_MAX,
    PATTERN_MAX,
    Access,
    BadGrant,
    Grant,
    Principal,
    includes,
    literal,
    literal_prefix,
    matches,
    parse_grants,
    parse_principal,
)

# Few characters, so that they meet.
NAMES = st.text("ab/*\\", max_size=8)
PATTERNS = st.lists(st.sampled_from(["a", "b", "/", "*", r"\*", r"\\"]), max_size=8).map("".join)


def slowly_matches(pattern: str, name: str) -> bool:
    """Whether a name matches a pattern, tried in the simplest way."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(slowly_matches(pattern[1:], name[at:]) for at in range(len(name) + 1))
    if pattern[0] == "\\":
        pattern = pattern[1:]
    return name[:1] == pattern[0] and slowly_matches(pattern[1:], name[1:])


@given(PATTERNS, NAMES)
def test_matching_is_what_it_says(pattern: str, name: str) -> None:
    assert matches(pattern, name) == slowly_matches(pattern, name)


@given(PATTERNS, PATTERNS, NAMES)
def test_what_a_pattern_includes_it_matches(outer: str, inner: str, name: str) -> None:
    if includes(outer, inner) and matches(inner, name):
        assert matches(outer, name)


@example(r"*\*", r"\\*")  # The oracle took an escaped backslash and an asterisk for an escaped one.
@given(PATTERNS, PATTERNS)
def test_what_a_pattern_does_not_include_has_a_name_that_tells(outer: str, inner: str) -> None:
    # A character that neither has stands for whatever an asterisk of the inner one lets through.
    # From left to right: what follows a backslash is itself, also a second backslash.
    witness = re.sub(r"\\(.)|\*", lambda token: token[1] or "z", inner, flags=re.DOTALL)
    assert matches(inner, witness)
    assert includes(outer, inner) == matches(outer, witness)


@given(PATTERNS)
def test_a_pattern_includes_itself_and_a_star_everything(pattern: str) -> None:
    assert includes(pattern, pattern) and includes("*", pattern)


@given(PATTERNS, PATTERNS, PATTERNS)
def test_including_is_transitive(a: str, b: str, c: str) -> None:
    if includes(a, b) and includes(b, c):
        assert includes(a, c)


@given(NAMES, NAMES)
def test_a_literal_matches_one_name(name: str, other: str) -> None:
    assert matches(literal(name), name)
    assert matches(literal(name), other) == (name == other)


@given(PATTERNS, NAMES)
def test_what_matches_begins_with_the_prefix(pattern: str, name: str) -> None:
    if matches(pattern, name):
        assert name.startswith(literal_prefix(pattern))


# Reading


def test_a_principal_is_read() -> None:
    read = parse_principal(
        {
            "sub": "ann",
            "name": "Ann",
            "color": "#1b746c",
            "jti": "t1",
            "iat": 5,
            "exp": 7.5,
            "grants": [{"docs": "a/*", "access": "read", "until": 6}],
            "other": object(),
        }
    )
    grants = (Grant("a/*", Access.READ, 6.0),)
    assert read == Principal("ann", grants, "Ann", "#1b746c", "t1", 5.0, 7.5)
    assert read.grants[0].as_json() == {"docs": "a/*", "access": "read", "until": 6.0}


def test_everything_may_be_missing() -> None:
    assert parse_principal({}) == Principal("")
    nothing = dict.fromkeys(("sub", "name", "color", "jti", "iat", "exp"))
    assert parse_principal(nothing) == Principal("")


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": 7},
        {"sub": "x" * 257},
        {"sub": "a\0b"},
        {"name": "\ud83d"},
        {"jti": ["x"]},
        {"color": "red"},
        {"color": "#12"},
        {"color": "#1b746c\n"},
        {"color": 7},
        {"iat": "1"},
        {"iat": True},
        {"exp": -1},
        {"exp": nan},
        {"exp": inf},
        {"exp": 10**400},
        {"grants": None},
        {"grants": "*"},
        {"grants": {"docs": "*"}},
        {"grants": ["*"]},
        {"grants": [{}]},
        {"grants": [{"docs": "*"}]},
        {"grants": [{"docs": "*", "access": "none"}]},
        {"grants": [{"docs": "*", "access": ["read"]}]},
        {"grants": [{"docs": "*", "access": "read", "acess": 1}]},
        {"grants": [{"docs": "*", "access": "read", "until": "x"}]},
        {"grants": [{"docs": "", "access": "read"}]},
        {"grants": [{"docs": "x" * (PATTERN_MAX + 1), "access": "read"}]},
        {"grants": [{"docs": "a\\b", "access": "read"}]},
        {"grants": [{"docs": "a\\", "access": "read"}]},
        {"grants": [{"docs": "a\ud800", "access": "read"}]},
        {"grants": [{"docs": "x", "access": "read"}] * (GRANTS_MAX + 1)},
    ],
)
def test_what_can_t_be_meant_is_an_error(claims: dict[str, Any]) -> None:
    with pytest.raises(BadGrant):
        parse_principal(claims)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["docs", "access", "until", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["sub", "name", "color", "iat", "exp", "grants"]), JSON))
def test_any_json_is_a_principal_or_an_error(claims: dict[str, Any]) -> None:
    try:
        assert isinstance(parse_principal(claims), Principal)
    except BadGrant as error:
        assert str(error)


def test_grants_are_written_as_they_are_read() -> None:
    grants = (Grant("a", Access.READ), Grant("b*", Access.ADMIN, 7.0))
    assert parse_grants([each.as_json() for each in grants]) == grants


# Rights


def test_the_greatest_right_counts_while_it_lasts() -> None:
    somebody = Principal(
        "ann",
        (Grant("*", Access.READ), Grant("a*", Access.WRITE, 10), Grant("ab", Access.ADMIN, 5)),
        until=20,
    )
    at = [somebody.access_to("ab", now) for now in (0, 5, 10, 20)]
    assert at == [Access.ADMIN, Access.WRITE, Access.READ, Access.NONE]
    assert [somebody.changes_at("ab", now) for now in (0, 5, 10)] == [5, 10, 20]
    assert Principal("ann").changes_at("x", 0) == inf


@pytest.mark.parametrize(
    ("grant", "may"),
    [
        (Grant("a/b", Access.ADMIN, 10), True),
        (Grant("a/*/c*", Access.READ, 10), True),
        (Grant("a/b", Access.READ, 11), False),
        (Grant("a/b", Access.READ), False),
        (Grant("*", Access.READ, 10), False),
        (Grant("*/b", Access.READ, 10), False),
        (Grant("w", Access.READ, 10), False),
    ],
)
def test_somebody_gives_no_more_than_they_administer(grant: Grant, may: bool) -> None:
    somebody = Principal("x", (Grant("a/*", Access.ADMIN, 10), Grant("*", Access.WRITE)), until=12)
    assert somebody.may_grant(grant, 0) is may
    assert not somebody.may_grant(grant, 10)
