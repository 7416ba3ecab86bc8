"""What the commands on tokens and keys have in common: grants as options give them, and somebody's
rights for reading.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from plait.server.auth.principal import (
    GRANTABLE,
    Grant,
    Principal,
    check_pattern,
    parse_principal,
)
from plait.server.errors import BadRequest
from plait.server.terminal import Misused, counted, json_text, printable, time_json, time_text

BY = "command line"
"""Who did it, in the audit log and among revocations."""

_UNITS = ((24 * 60 * 60, "day"), (60 * 60, "hour"), (60, "minute"), (1, "second"))


def described(
    subject: str,
    given: Sequence[tuple[str, str]],
    *,
    name: str,
    color: str,
    issued: float,
    until: float,
) -> Principal:
    """Return the principal that options describe.

    Raises:
        Misused: they can't be meant so.
    """
    if not subject:
        raise Misused("--subject can't be empty: it is by what rights are taken away")
    try:
        said = parse_principal({"sub": subject, "name": name, "color": color})
        return replace(said, grants=grants_of(given), issued=issued, until=until)
    except BadRequest as error:
        raise Misused(str(error)) from None


def grants_of(given: Sequence[tuple[str, str]]) -> tuple[Grant, ...]:
    """Return the grants of `--docs` and `--access`, in the order in which they were given: each
    access is for the documents before it; a single one may come first.

    Raises:
        Misused: it is not clear which belong together.
    """
    options = [option for option, _ in given]
    if options[0] == "--access" and options.count("--access") == 1:
        given = [*given[1:], given[0]]
    grants: list[Grant] = []
    waiting: list[str] = []
    for option, value in given:
        if option == "--docs":
            waiting.append(check_pattern(value))
        elif not waiting:
            raise Misused(f"--access {value} has no --docs before it")
        else:
            grants += [Grant(docs, GRANTABLE[value]) for docs in waiting]
            waiting = []
    if waiting:
        raise Misused(f"--docs {waiting[0]} needs an --access after it: read, write or admin")
    return tuple(grants)


def principal_json(principal: Principal) -> dict[str, Any]:
    """Return what is known of somebody, for JSON."""
    return {
        "id": principal.token_id,
        "subject": principal.subject,
        "name": principal.name,
        "color": principal.color,
        "grants": [grant.as_json() for grant in principal.grants],
        "issued": at_json(principal.issued),
        "expires": at_json(principal.until),
    }


def grants_text(grants: Sequence[Grant]) -> str:
    """Return grants for reading."""
    return (
        "; ".join(
            f"{grant.access.word} on {printable(grant.docs)}"
            + ("" if grant.until == inf else f" until {time_text(int(grant.until * 1000))} UTC")
            for grant in grants
        )
        or "none: it may do nothing"
    )


def as_text(values: Sequence[Mapping[str, Any]]) -> str:
    """Return a list as JSON for reading."""
    return json_text(values, indent=2)


def at_json(at: float | None) -> str | None:
    """Return a time, in seconds since 1970, as ISO 8601; None if it never comes."""
    return None if at is None or at == inf else time_json(int(at * 1000))


def at_text(at: float | None, now: float, never: str) -> str:
    """Return a time, in seconds since 1970, for reading, with how far it is from now."""
    if at is None or at == inf:
        return never
    far = abs(at - now)
    unit, word = next((each for each in _UNITS if far >= 2 * each[0]), _UNITS[-1])
    distance = counted(round(far / unit), word)
    text = f"in {distance}" if at > now else f"{distance} ago"
    text = "just now" if far < 1 else text
    try:
        return f"{time_text(int(at * 1000))} UTC, {text}"
    except (ValueError, OverflowError):  # A year that has five digits.
        return text
