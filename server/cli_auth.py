"""What `plait token` does: each function is a command and returns its exit code."""

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from plait.persistence import Store
from plait.persistence.memory import MemoryStore
from plait.server.audit import Audit
from plait.server.auth import jwt
from plait.server.auth.chain import Verdict
from plait.server.auth.credentials import Credential
from plait.server.auth.keys import FORMAT as KEY_FORMAT
from plait.server.auth.principal import Access, BadGrant, Principal, parse_principal
from plait.server.auth.revocations import (
    KIND,
    LEFT,
    Revocation,
    Revocations,
    new_revocation,
    parse_revocation,
    to_record,
)
from plait.server.auth.setup import build, check, issue
from plait.server.cli_auth_words import (
    BY,
    as_text,
    at_json,
    at_text,
    described,
    grants_text,
    principal_json,
)
from plait.server.command import Command
from plait.server.errors import BadRequest, PlaitError
from plait.server.interruption import standard_input
from plait.server.settings import Settings
from plait.server.terminal import Misused, Terminal, printable, time_text

SECRET_BYTES = 32
TOGETHER = 1000
"""Records that are read at a time."""


def print_secret(terminal: Terminal) -> int:
    """Print a new secret."""
    _show(terminal, "secret", secrets.token_hex(SECRET_BYTES))
    return 0


async def create_token(
    command: Command,
    subject: str,
    given: Sequence[tuple[str, str]],
    *,
    name: str,
    color: str,
    seconds: float,
) -> int:
    """Issue a token."""
    if not command.settings.token_secret:
        raise Misused(
            "there is no secret to sign tokens with: give the server and this command the same "
            "token_secret, in PLAIT_TOKEN_SECRET or in the file that --config names; "
            "`plait token secret` makes one"
        )
    check(command.settings)
    now = time.time()
    principal = replace(
        described(subject, given, name=name, color=color, issued=now, until=now + seconds),
        token_id=secrets.token_hex(8),
    )
    token = issue(command.settings, _claims(principal))
    note(command, "token.created", of=subject, token=principal.token_id)
    _show(command.terminal, "token", token, principal_json(principal))
    return 0


def note(command: Command, event: str, **facts: object) -> None:
    """Write an event into the audit log, if there is one in a file."""
    if command.settings.audit_log:
        audit = Audit(time.time, command.settings.audit_log)
        try:
            audit.note(event, by=BY, **facts)
        finally:
            audit.close()


def _claims(principal: Principal) -> dict[str, Any]:
    assert principal.issued is not None
    claims = {
        "sub": principal.subject,
        "name": principal.name,
        "color": principal.color,
        "jti": principal.token_id,
        "iat": round(principal.issued, 3),
        "exp": round(principal.until, 3),
        "grants": [grant.as_json() for grant in principal.grants],
    }
    return {name: value for name, value in claims.items() if value != ""}


def _show(terminal: Terminal, name: str, value: str, more: dict[str, Any] | None = None) -> None:
    """Print a secret so that a script can take it."""
    if terminal.as_json:
        terminal.result({name: value} | (more or {}))
    else:
        terminal.lines([value])


# plait token inspect


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known of a token after it was looked at."""

    told: Principal | None
    """What it says, verified or not; None if that can't be read."""
    verdicts: Sequence[Verdict]
    refusal: str
    """Why it is not accepted; empty if it is."""
    taken: Sequence[Revocation]
    """What takes rights away from it."""


async def inspect_token(
    command: Command, given: str, *, document: str | None = None, online: bool = False
) -> int:
    """Tell what a token says, and whether it is accepted.

    Returns:
        1 if it is not.
    """
    token = _token(given)
    check(command.settings)
    settings = command.settings if online else _offline(command.settings)
    now = time.time()
    async with _store_if_any(command) as store:
        revocations = [each async for each in _all(store)]
        found = await _look(settings, store, token, document, revocations, now)
    unasked = [name for name in ("jwt_jwks", "auth_url") if getattr(command.settings, name)]
    if found.refusal and unasked and not online:
        command.terminal.warn(f"{' and '.join(unasked)} was not asked: add --online")
    value: dict[str, Any] = {
        "accepted": not found.refusal,
        "refusal": found.refusal or None,
        "verifiers": {verdict.verifier: verdict.reason or "accepted" for verdict in found.verdicts},
        "token": None if found.told is None else principal_json(found.told),
        "revocations": [_revocation_json(each) for each in found.taken],
    }
    lines = _description(found, now)
    if document is not None:
        right = _right(found, document, now)
        value["document"] = {"name": document, "access": right.word}
        lines.insert(-1, f"Here       {right.word} on {printable(document)}")
    command.terminal.result(value, *lines)
    return 1 if found.refusal else 0


async def _look(
    settings: Settings,
    store: Store,
    token: str,
    document: str | None,
    revocations: Sequence[Revocation],
    now: float,
) -> _Found:
    verifiers = build(settings, store, time.time)
    told, refusal = None, ""
    try:
        verdicts = await verifiers.inspect(token, document)
        try:
            told = await verifiers.principal(Credential(token, "command line"), document)
        except PlaitError as error:
            refusal = str(error)
    finally:
        await verifiers.close()
    # What a token says of itself, rather than what the leeway makes of it.
    told = _unverified(settings, token) or told
    if by := next((each.verifier for each in verdicts if each.reason == refusal), ""):
        refusal = f"{refusal} ({by})" if refusal else ""
    taken = [] if told is None else [r for r in revocations if _takes(r, told, now)]
    if not refusal and told is not None:
        if any(each.docs is None and each.access is Access.NONE for each in taken):
            refusal = "its rights were taken away"
    return _Found(told, verdicts, refusal, taken)


def _takes(revocation: Revocation, principal: Principal, now: float) -> bool:
    return now < revocation.until and revocation.concerns(principal)


def _right(found: _Found, document: str, now: float) -> Access:
    if found.refusal or found.told is None:
        return Access.NONE
    known = Revocations()
    for revocation in found.taken:
        known.add(revocation)
    return min(found.told.access_to(document, now), known.left(found.told, document, now))


def _unverified(settings: Settings, token: str) -> Principal | None:
    """Return what a token says of itself, if it can be read."""
    parsed = jwt.parse(token)
    if parsed is None or parsed.claims is None:
        return None
    try:
        said = parse_principal(parsed.claims, settings.jwt_grants)
    except BadGrant:
        return None
    return said if said.token_id else replace(said, token_id=jwt.token_id(token))


def _description(found: _Found, now: float) -> list[str]:
    lines = []
    if (told := found.told) is not None:
        shown = [f"shown as {printable(told.name)}"] if told.name else []
        shown += [told.color] if told.color else []
        subject = printable(told.subject) or "nobody in particular"
        lines = [
            f"Subject    {', '.join([subject, *shown])}",
            f"Grants     {grants_text(told.grants)}",
            f"Issued     {at_text(told.issued, now, 'it does not say when')}",
            f"Expires    {at_text(told.until, now, 'never')}",
            f"Id         {printable(told.token_id)}",
        ]
    lines += [f"Taken away {_taken_text(each)}" for each in found.taken]
    if found.refusal:
        return [*lines, f"Refused    {found.refusal}"]
    by = next(each.verifier for each in found.verdicts if each.principal is not None)
    return [*lines, f"Accepted   by {by}"]


def _offline(settings: Settings) -> Settings:
    """Return the settings without those by which others are asked."""
    left = replace(settings, jwt_jwks="", auth_url="", auth_secret="")
    if not left.token_secret and not left.jwt_keys:
        left = replace(left, jwt_issuer="", jwt_audience="")
    return left


@asynccontextmanager
async def _store_if_any(command: Command) -> AsyncIterator[Store]:
    """Open the store, or an empty one in its place: a token can be looked at without any."""
    if command.settings.store.startswith("memory:"):
        yield MemoryStore()
        return
    file = command.file
    if file is None or file.exists():
        async with command.store() as store:
            yield store
        return
    command.terminal.warn(f"there is no store {file}: keys and revocations are not known")
    yield MemoryStore()


def _token(given: str) -> str:
    """Return a token that is named, or that comes from standard input."""
    token = (standard_input().decode(errors="replace") if given == "-" else given).strip()
    if not token:
        raise Misused("there is no token")
    return token


# Rights that are taken away


async def revoke(
    command: Command,
    *,
    subject: str | None,
    token: str | None,
    docs: str | None,
    access: str,
    seconds: float | None,
    reason: str,
) -> int:
    """Take rights away."""
    now = time.time()
    try:
        revocation = new_revocation(
            now=now,
            subject=subject,
            token=None if token is None else _id_of(_token(token)),
            docs=docs,
            access=LEFT[access],
            until=inf if seconds is None else now + seconds,
            by=BY,
            reason=reason,
        )
    except BadRequest as error:
        raise Misused(str(error)) from None
    async with command.store() as store:
        await store.put_record(to_record(revocation, int(now * 1000)))
    value = _revocation_json(revocation)
    note(command, "revocation.created", id=revocation.id, **_facts(revocation))
    command.terminal.result(
        value,
        f"Took away {_taken_text(revocation)}.",
        f"`plait token restore {revocation.id}` takes that back.",
    )
    return 0


async def list_revocations(command: Command) -> int:
    """List rights that were taken away."""
    now = time.time()
    async with command.store() as store:
        found = [each async for each in _all(store) if now < each.until]
    found.sort(key=lambda each: (each.before, each.id))
    if command.terminal.as_json:
        command.terminal.lines([as_text([_revocation_json(each) for each in found])])
        return 0
    command.terminal.lines([] if command.terminal.quiet else [f"{'ID':<12}  WHAT"])
    for each in found:
        more = f", by {printable(each.by)}" if each.by else ""
        more += f": {printable(each.reason)}" if each.reason else ""
        command.terminal.lines([f"{each.id:<12}  {_taken_text(each)}{more}"])
    return 0


async def restore(command: Command, id: str) -> int:
    """Take a revocation back."""
    async with command.store() as store:
        record = await store.record(KIND, id)
        if record is None or not await store.remove_record(KIND, id):
            raise PlaitError(f"there is no revocation {id!r}; `plait token revocations` lists them")
    note(command, "revocation.removed", id=id)
    command.terminal.result({"id": id, "removed": True}, f"Took revocation {printable(id)} back.")
    return 0


async def _all(store: Store) -> AsyncIterator[Revocation]:
    after = ""
    while records := await store.records(KIND, after=after, limit=TOGETHER):
        after = records[-1].id
        for record in records:
            yield parse_revocation(record)


def _id_of(token: str) -> str:
    """Return the id by which a token or a key is revoked; an id is its own."""
    if key := KEY_FORMAT.match(token):
        return str(key[1])
    parsed = jwt.parse(token)
    if parsed is None:
        return token
    said = (parsed.claims or {}).get("jti")
    return said if isinstance(said, str) and said else jwt.token_id(token)


def _revocation_json(revocation: Revocation) -> dict[str, Any]:
    times = {"before": at_json(revocation.before), "until": at_json(revocation.until)}
    return revocation.as_json() | times


def _facts(revocation: Revocation) -> dict[str, object]:
    return {
        "subject": revocation.subject,
        "token": revocation.token,
        "docs": revocation.docs,
        "access": revocation.access.word,
        "reason": revocation.reason,
    }


def _taken_text(revocation: Revocation) -> str:
    """Return what a revocation does, for reading."""
    what = "all rights" if revocation.access is Access.NONE else "all rights but read"
    if revocation.docs is not None:
        what += f" on {printable(revocation.docs)}"
    if revocation.token is not None:
        what += f" of token {printable(revocation.token)}"
    if revocation.subject is not None:
        what += f" of {printable(revocation.subject)}"
    what += f", issued before {time_text(int(revocation.before * 1000))} UTC"
    if revocation.until != inf:
        what += f", until {time_text(int(revocation.until * 1000))} UTC"
    return what
