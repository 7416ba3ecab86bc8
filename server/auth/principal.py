"""Who somebody is, and what they may do: a principal with grants.

A grant names documents by a pattern, in which `*` stands for any characters, also none and also
`/`; `\\*` is an asterisk and `\\\\` a backslash. There are three rights, each of which includes
those before it:

    read    receive content, and be seen
    write   edit, and create a document by editing
    admin   delete and bring back, issue tokens for these documents, take rights away

Nobody has a right that no grant gives. All times are seconds since 1970.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from math import inf
from typing import Any

from plait.server.errors import BadRequest

GRANTS_MAX = 1000
"""Grants of one principal."""
PATTERN_MAX = 1024
"""Characters of a pattern."""
ASTERISKS_MAX = 8
"""In a pattern; more would make comparing two of them slow."""
WORDS_MAX = 256
"""Characters of a subject, a name or a token's id."""
_ONE = r"(?:[^*\\]|\\[*\\])"
PATTERN = rf"^{_ONE}*(?:\*+{_ONE}+){{0,{ASTERISKS_MAX - 1}}}(?:\*+{_ONE}*)?$"
"""What a pattern is, besides its length, as a regular expression of JSON Schema (ECMA 262). There
is one way at most in which a text fits it, so that trying takes no longer than reading.
"""
COLOR = re.compile(r"#[0-9A-Fa-f]{3,8}\Z")


class Access(IntEnum):
    """A right, comparable: whoever has a greater one has the smaller ones too."""

    NONE = 0
    READ = 1
    WRITE = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        """What it is called in tokens, answers and logs."""
        return self.name.lower()


GRANTABLE = {access.word: access for access in Access if access}


class BadGrant(BadRequest):
    """Raised when a description of a principal or a grant can't be understood."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A right on all documents that match a pattern, until a time."""

    docs: str
    access: Access
    until: float = inf

    def covers(self, document: str) -> bool:
        """Whether it is about a document."""
        return matches(self.docs, document)

    def as_json(self) -> dict[str, Any]:
        """Return it as it stands in tokens and answers."""
        told: dict[str, Any] = {"docs": self.docs, "access": self.access.word}
        return told if self.until == inf else {**told, "until": self.until}


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody whose credential was verified."""

    subject: str
    """Who it is to the application; empty for somebody unknown."""
    grants: tuple[Grant, ...] = ()
    name: str = ""
    """What others are shown."""
    color: str = ""
    """`#rrggbb`, or empty."""
    token_id: str = ""
    """What the credential is revoked by: a token's `jti`, or a digest of it; empty if there is no
    credential.
    """
    issued: float | None = None
    """When the credential was issued, if it says so."""
    until: float = inf
    """When it ends."""

    def access_to(self, document: str, now: float) -> Access:
        """Return the greatest right that a grant gives on a document."""
        if now >= self.until:
            return Access.NONE
        best = Access.NONE
        for grant in self.grants:
            if grant.access > best and now < grant.until and grant.covers(document):
                best = grant.access
        return best

    def changes_at(self, document: str, now: float) -> float:
        """Return when the right on a document may change by itself; infinity if never."""
        ends = [grant.until for grant in self.grants if grant.until > now]
        return min(self.until, min(ends, default=inf))

    def may_grant(self, grant: Grant, now: float) -> bool:
        """Whether it may give somebody a right: it has to be admin of all documents in question,
        for at least as long. (What is given may outlive the credential that gave it.)
        """
        return now < self.until and any(
            mine.access is Access.ADMIN
            and now < mine.until
            and grant.until <= mine.until
            and includes(mine.docs, grant.docs)
            for mine in self.grants
        )


def parse_principal(claims: Mapping[str, Any], grants_name: str = "grants") -> Principal:
    """Return the principal that a token's payload, or an application's answer, describes.

    Known are `sub`, `name`, `color`, `jti`, `iat`, `exp` (RFC 7519) and the grants. Without grants
    it may do nothing.

    Raises:
        BadGrant: one of them has a value that it can't have.
    """
    return Principal(
        _words(claims, "sub"),
        parse_grants(claims.get(grants_name, [])),
        _words(claims, "name"),
        _color(claims.get("color", "")),
        _words(claims, "jti"),
        _time(claims, "iat"),
        inf if (until := _time(claims, "exp")) is None else until,
    )


def parse_grants(value: Any) -> tuple[Grant, ...]:
    """Return grants from JSON.

    Raises:
        BadGrant: it is not a list of objects with `docs`, `access` and perhaps `until`.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise BadGrant("grants have to be a list of objects with docs and access")
    if len(value) > GRANTS_MAX:
        raise BadGrant(f"there may be {GRANTS_MAX} grants; use patterns: notes/*")
    return tuple(_grant(each) for each in value)


def _grant(value: Any) -> Grant:
    if not isinstance(value, Mapping):
        raise BadGrant('a grant has to be an object: {"docs": "notes/*", "access": "write"}')
    if unknown := sorted(str(key) for key in value.keys() - {"docs", "access", "until"}):
        raise BadGrant(f"a grant has docs, access and until, not {unknown[0]!r}")
    docs, access = value.get("docs"), value.get("access")
    if not isinstance(access, str) or access not in GRANTABLE:
        raise BadGrant(f"a grant's access is read, write or admin, not {access!r}")
    until = _time(value, "until")
    return Grant(check_pattern(docs), GRANTABLE[access], inf if until is None else until)


def check_pattern(docs: Any) -> str:
    """Return a pattern if it is one.

    Raises:
        BadGrant
    """
    if not isinstance(docs, str) or not 0 < len(docs) <= PATTERN_MAX or not _is_unicode(docs):
        raise BadGrant(f"a grant's docs is a document's name or a pattern, not {docs!r:.100}")
    _tokens(docs)
    return docs


def _words(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name, "")
    if value is None:
        return ""
    if (
        not isinstance(value, str)
        or len(value) > WORDS_MAX
        or any(ord(c) < 32 for c in value)
        or not _is_unicode(value)
    ):
        raise BadGrant(f"{name} has to be text of at most {WORDS_MAX} characters, in one line")
    return value


def _is_unicode(text: str) -> bool:
    """Whether a text can be sent and stored: JSON may hold halves of characters (surrogates)."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _color(value: Any) -> str:
    if value in ("", None):
        return ""
    if not isinstance(value, str) or not COLOR.match(value):
        raise BadGrant(f"color has to be like #1b746c, not {value!r:.50}")
    return value


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise BadGrant(f"{name} has to be seconds since 1970")
    return float(value)


# Patterns

_ANY = None
"""What stands for an asterisk among the characters of a pattern."""


@lru_cache(maxsize=4096)
def _tokens(pattern: str) -> tuple[str | None, ...]:
    tokens: list[str | None] = []
    characters = iter(pattern)
    for character in characters:
        if character == "\\":
            escaped = next(characters, "")
            if escaped not in ("*", "\\"):
                raise BadGrant(r"in a pattern a backslash is followed by * or by another: \* or \\")
            tokens.append(escaped)
        elif character != "*":
            tokens.append(character)
        elif not tokens or tokens[-1] is not _ANY:
            tokens.append(_ANY)
    if tokens.count(_ANY) > ASTERISKS_MAX:
        raise BadGrant(f"a pattern may have {ASTERISKS_MAX} asterisks")
    return tuple(tokens)


@lru_cache(maxsize=4096)
def _parts(pattern: str) -> tuple[str, ...]:
    """Return the texts between the asterisks of a pattern."""
    parts = [""]
    for token in _tokens(pattern):
        if token is _ANY:
            parts.append("")
        else:
            parts[-1] += token
    return tuple(parts)


def matches(pattern: str, name: str) -> bool:
    """Whether a name matches a pattern; takes no longer than reading both, whatever they are."""
    first, *others = _parts(pattern)
    if not others:
        return name == first
    *middle, last = others
    if not name.startswith(first) or not name.endswith(last, len(first)):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return at <= end


def includes(outer: str, inner: str) -> bool:
    """Whether every name that matches one pattern matches another."""
    wide, narrow = _tokens(outer), _tokens(inner)
    # Positions in `wide` that can be reached after each token of `narrow`, as a set.
    reached = _closed(wide, {0})
    for token in narrow:
        following = set()
        for at in reached:
            if at < len(wide) and wide[at] is _ANY:
                following.add(at)
            elif at < len(wide) and token is not _ANY and wide[at] == token:
                following.add(at + 1)
        reached = _closed(wide, following)
    return len(wide) in reached


def _closed(wide: tuple[str | None, ...], positions: set[int]) -> set[int]:
    """Add the positions that are reached by letting asterisks stand for nothing."""
    closed = set(positions)
    for at in sorted(positions):
        while at < len(wide) and wide[at] is _ANY:
            at += 1
            closed.add(at)
    return closed


def literal_prefix(pattern: str) -> str:
    """Return what every name that matches a pattern begins with."""
    tokens = _tokens(pattern)
    end = tokens.index(_ANY) if _ANY in tokens else len(tokens)
    return "".join(token for token in tokens[:end] if token is not _ANY)


def literal(name: str) -> str:
    """Return the pattern that matches one name."""
    return name.replace("\\", "\\\\").replace("*", "\\*")
