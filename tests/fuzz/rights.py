"""Targets: what tokens say, and the patterns in them."""

import json
from itertools import product

from plait.server.auth.principal import (
    Access,
    BadGrant,
    Grant,
    Principal,
    check_pattern,
    includes,
    literal,
    literal_prefix,
    matches,
    parse_principal,
)
from plait.server.errors import BadRequest
from tests.fuzz.bytes_of import change_json, join, split
from tests.fuzz.target import Target, expect

NOW = 1_790_000_000.0
FRESH = "\U0010fffd"
"""A character that is in no pattern."""

CLAIMS = (
    {"sub": "zoë", "grants": [{"docs": "notes/*", "access": "write"}], "exp": NOW + 1},
    {"sub": "", "name": "Zoë 😀", "color": "#1b746c", "jti": "17", "iat": NOW - 1},
    {"grants": [{"docs": r"a\*b\\", "access": "read", "until": NOW + 5}], "exp": 1e300},
    {"grants": [{"docs": "*", "access": "admin"}, {"docs": "*/*", "access": "read"}]},
    {"sub": None, "color": None, "exp": None, "other": [1, {"a": "b"}]},
)


def principal(data: bytes) -> str:
    """Make a principal of a token's payload, and use it."""
    try:
        claims = json.loads(data)
    except (ValueError, RecursionError):
        return "no JSON"
    if not isinstance(claims, dict):
        return "no object"
    try:
        made = parse_principal(claims)
    except BadGrant as error:
        str(error).encode()  # It is told as JSON, and logged.
        return "refused"
    # What goes into the log, the store, answers and presence is written as UTF-8.
    for word in (made.subject, made.name, made.color, made.token_id):
        word.encode()
    told = [grant.as_json() for grant in made.grants]
    json.dumps(told, ensure_ascii=False, allow_nan=False).encode()
    again = parse_principal({"grants": json.loads(json.dumps(told))})
    expect(again.grants == made.grants, "grants are told wrongly")
    for grant in made.grants[:3]:
        name = grant.docs.replace("*", "x")
        access = made.access_to(name, NOW)
        expect(access <= Access.ADMIN, "no right")
        expect(made.changes_at(name, NOW) > NOW or made.until <= NOW, "it changes in the past")
        if made.may_grant(grant, NOW):
            expect(_admin_of(made, grant), "it gives what it has not")
    return "principal"


def _admin_of(made: Principal, grant: Grant) -> bool:
    """Whether a principal is admin of a document that is in a grant, and of no other by chance."""
    name = "".join(part + FRESH for part in _plain(grant.docs))[: -len(FRESH)]
    return made.access_to(name, NOW) is Access.ADMIN


def _plain(pattern: str) -> list[str]:
    """Return the texts between asterisks, read with a loop of our own."""
    parts, place = [""], 0
    while place < len(pattern):
        if pattern[place] == "\\":
            place += 1
            parts[-1] += pattern[place]
        elif pattern[place] == "*":
            parts.append("")
        else:
            parts[-1] += pattern[place]
        place += 1
    return parts


def pattern(data: bytes) -> str:
    """Compare what patterns match, and which of them includes the other, with what is obvious."""
    outer, inner, name = [part.decode(errors="replace") for part in (*split(data), *[b""] * 3)[:3]]
    if FRESH in outer:
        return "not fresh"
    try:
        for each in (outer, inner):
            check_pattern(each)
    except BadRequest:
        return "refused"
    expect(matches(outer, name) is slowly_matches(outer, name), "matches errs")
    expect(matches(literal(name), name), "a name does not match itself")
    if matches(inner, name):
        expect(name.startswith(literal_prefix(inner)), "a name without the prefix matches")
        if includes(outer, inner):
            expect(matches(outer, name), "a name is in the smaller pattern only")
    # An asterisk can be a character that only asterisks of the other match.
    typical = FRESH.join(_plain(inner))
    expect(includes(outer, inner) is slowly_matches(outer, typical), "includes errs")
    return f"{matches(outer, name)} {includes(outer, inner)}"


def slowly_matches(glob: str, name: str) -> bool:
    """Return whether a name matches a pattern, by trying everything."""
    first, *others = _plain(glob)
    if not others:
        return name == first
    if not name.startswith(first):
        return False
    ends = {len(first)}
    for part in others[:-1]:
        ends = {
            at + len(part)
            for at in range(min(ends, default=len(name) + 1), len(name) + 1)
            if name.startswith(part, at)
        }
    return any(end <= len(name) - len(others[-1]) for end in ends) and name.endswith(others[-1])


def seeds_of_patterns() -> list[bytes]:
    """Return patterns, of which some include the others, and names."""
    globs = ("*", "a*", "*a", "a*b*c", r"a\*b", "**", "ab*ab", r"\\*", "notes/*")
    return [
        join(outer.encode(), inner.encode(), inner.replace("*", "xa").encode())
        for outer, inner in product(globs, globs)
    ]


TARGETS = {
    "principal": Target(
        principal, lambda: [json.dumps(each).encode() for each in CLAIMS], change_json
    ),
    "pattern": Target(pattern, seeds_of_patterns, bytes_max=128),
}
