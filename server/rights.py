"""REST for rights: issue tokens, take rights away and give them back, make API keys.

Nobody can give away more than they have: a token, or a key, is for documents that its maker is
admin of. What takes rights away is for admins of the documents in question; about a subject or a
token as a whole, for admins of all documents.
"""

import secrets
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

from starlette.responses import JSONResponse, Response

from plait.persistence import Record
from plait.server.auth.guard import Guard, parsed
from plait.server.auth.keys import KIND as KEY
from plait.server.auth.keys import make_key, read_key
from plait.server.auth.principal import (
    Access,
    BadGrant,
    Grant,
    Principal,
    parse_grants,
    parse_principal,
)
from plait.server.auth.revocations import KIND as REVOCATION
from plait.server.auth.revocations import (
    LEFT,
    REVOCATIONS_MAX,
    new_revocation,
    to_record,
)
from plait.server.errors import BadRequest, ClientError, NotAllowed, Unauthorized
from plait.server.openapi import Answer, Operation, Parameter, content
from plait.server.records import Records
from plait.server.rest import Bodies, Call

EXPIRES_SECONDS = 3600.0
EXPIRES_SECONDS_MAX = 366 * 86_400.0
"""How long a token is valid if its maker does not say, and at most."""
PAGE_MAX = 1000
GRANTS_GIVEN_MAX = 100
"""Grants of one token that is issued here: each is compared with all that its maker has."""

TOKEN_WISH = {
    "sub": "ann",
    "name": "Ann",
    "grants": [{"docs": "notes/*", "access": "write"}],
    "expires_in": 3600,
}
GRANTS = [{"docs": "notes/*", "access": "write"}]
REVOCATION_TOLD = {
    "id": "3f9c1b2a4d5e",
    "subject": "ann",
    "token": None,
    "docs": None,
    "access": "none",
    "before": 1790000000.0,
    "until": None,
    "by": "app",
    "reason": "left the team",
}
KEY_TOLD = {
    "id": "0123456789ab",
    "subject": "app",
    "name": "",
    "grants": [{"docs": "*", "access": "admin"}],
    "created": 1790000000.0,
    "until": None,
}

Method = Callable[["Rights", Call], Awaitable[Response]]


class NoSuchRight(ClientError):
    """Raised when there is no such revocation or key."""

    status = 404


class NoSecret(ClientError):
    """Raised when this server can't sign tokens."""

    status = 409


class Rights:
    """The operations on rights.

    Args:
        issue: signs a token that says this; None if there is no secret to do it with.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        guard: Guard,
        records: Records,
        bodies: Bodies,
        wall: Callable[[], float],
        issue: Callable[[dict[str, Any]], str] | None,
    ) -> None:
        self._guard = guard
        self._records = records
        self._bodies = bodies
        self._wall = wall
        self._issue = issue

    def table(self) -> list[tuple[Operation, Callable[[Call], Awaitable[Response]]]]:
        """Return the operations and what carries them out."""
        return [(operation, method.__get__(self)) for operation, method in _TABLE]

    # Tokens

    async def create_token(self, call: Call) -> Response:
        """Issue a token."""
        body = await self._bodies.read_json(call.request)
        _check_keys(body, {"sub", "name", "color", "grants", "expires_in"})
        now = self._wall()
        until = now + _seconds(body, EXPIRES_SECONDS, EXPIRES_SECONDS_MAX)
        wished = parse_principal({key: body.get(key) for key in ("sub", "name", "color")})
        if not wished.subject:
            raise BadGrant("sub says who the token is for; it can't be empty")
        grants = parse_grants(body.get("grants"))
        self._check_may_grant(call.principal, grants, until)
        if self._issue is None:
            raise NoSecret("this server has no token_secret to sign tokens with; set one")
        claims: dict[str, Any] = {
            "sub": wished.subject,
            "name": wished.name,
            "color": wished.color,
            "grants": [grant.as_json() for grant in grants],
            "iat": round(now, 3),
            "exp": round(until, 3),
            "jti": secrets.token_hex(8),
        }
        token = self._issue({name: claim for name, claim in claims.items() if claim != ""})
        self._note("token.created", call, of=wished.subject, token=claims["jti"])
        told = {"token": token, "id": claims["jti"], "expires": claims["exp"]}
        return JSONResponse(told, 201, {"cache-control": "no-store"})

    # Revocations

    async def create_revocation(self, call: Call) -> Response:
        """Take rights away."""
        body = await self._bodies.read_json(call.request)
        _check_keys(body, {"subject", "token", "docs", "access", "expires_in", "reason"})
        now = self._wall()
        access = body.get("access", Access.NONE.word)
        if not isinstance(access, str) or access not in LEFT:
            raise BadGrant(f"access is what is left: none or read, not {access!r:.50}")
        seconds = _seconds(body, inf, inf)
        revocation = new_revocation(
            now=now,
            subject=_text(body, "subject"),
            token=_text(body, "token"),
            docs=_text(body, "docs"),
            access=LEFT[access],
            until=now + seconds,
            by=call.principal.subject,
            reason=_text(body, "reason") or "",
        )
        self._check_may_revoke(call.principal, revocation.docs)
        if len(self._guard.revocations) >= REVOCATIONS_MAX:
            raise BadRequest(f"there are {REVOCATIONS_MAX} revocations; take some back")
        await self._records.keep(to_record(revocation, int(now * 1000)))
        told = revocation.as_json()
        self._note("revocation.created", call, **told)
        return JSONResponse(told, 201)

    async def list_revocations(self, call: Call) -> Response:
        """List what was taken away."""
        self._check_may_revoke(call.principal, None)
        found = await self._listed(REVOCATION, call)
        read = (parsed(record) for record in found[:PAGE_MAX])
        shown = [revocation.as_json() for revocation in read if revocation is not None]
        return JSONResponse({"revocations": shown, "next": _next(found)})

    async def remove_revocation(self, call: Call) -> Response:
        """Give rights back."""
        id = call.query.get("id", "")
        record = await self._records.store.record(REVOCATION, id)
        if record is None:
            raise NoSuchRight("there is no such revocation")
        revocation = parsed(record)  # What can't be read is for admins of all documents.
        docs = revocation.docs if revocation is not None else None
        self._check_may_revoke(call.principal, docs)
        await self._records.drop(REVOCATION, id)
        self._note("revocation.removed", call, id=id)
        return Response(status_code=204)

    # API keys

    async def create_key(self, call: Call) -> Response:
        """Make an API key."""
        body = await self._bodies.read_json(call.request)
        _check_keys(body, {"subject", "name", "grants", "expires_in"})
        now = self._wall()
        until = now + _seconds(body, inf, inf)
        subject = _text(body, "subject")
        if not subject:
            raise BadGrant("subject says whose key it is; it can't be empty")
        grants = parse_grants(body.get("grants"))
        self._check_may_grant(call.principal, grants, until)
        key, record = make_key(subject, _text(body, "name") or "", grants, now, until)
        await self._records.keep(record, new=True)
        told = _key_told(record)
        self._note("key.created", call, id=record.id, of=subject)
        return JSONResponse({**told, "key": key}, 201, {"cache-control": "no-store"})

    async def list_keys(self, call: Call) -> Response:
        """List the API keys."""
        self._check_may_revoke(call.principal, None)
        found = await self._listed(KEY, call)
        shown = [_key_told(record) for record in found[:PAGE_MAX]]
        return JSONResponse({"keys": shown, "next": _next(found)})

    async def delete_key(self, call: Call) -> Response:
        """Delete an API key."""
        self._check_may_revoke(call.principal, None)
        id = call.query.get("id", "")
        if not await self._records.drop(KEY, id):
            raise NoSuchRight("there is no such key")
        self._note("key.deleted", call, id=id)
        return Response(status_code=204)

    # What they share

    async def _listed(self, kind: str, call: Call) -> list[Record]:
        after = call.query.get("after", "")
        return list(await self._records.store.records(kind, after=after, limit=PAGE_MAX + 1))

    def _check_may_grant(
        self, principal: Principal, grants: tuple[Grant, ...], until: float
    ) -> None:
        """Check that somebody gives away no more than they have.

        Raises:
            BadGrant: nothing is given.
            Unauthorized, NotAllowed: it is more.
        """
        if not grants:
            raise BadGrant("grants say what the holder may do; there has to be one")
        if len(grants) > GRANTS_GIVEN_MAX:
            raise BadGrant(f"there may be {GRANTS_GIVEN_MAX} grants; use patterns: notes/*")
        now = self._wall()
        for grant in grants:
            lasting = Grant(grant.docs, grant.access, min(grant.until, until))
            if not self._guard.may_grant(principal, lasting, now):
                of = f"{grant.docs!r:.100} for as long as what you give"
                raise _refusal(principal, of)

    def _check_may_revoke(self, principal: Principal, docs: str | None) -> None:
        if not self._guard.administers(principal, docs or "*"):
            raise _refusal(principal, f"{docs or 'all documents'!r:.100}")

    def _note(self, event: str, call: Call, **facts: object) -> None:
        address = call.request.client.host if call.request.client else None
        self._guard.audit.note(event, **{"by": call.principal.subject, "address": address, **facts})


def _refusal(principal: Principal, of: str) -> ClientError:
    """Return what somebody is told who is not admin of something: that a token is needed, or that
    theirs is not enough.
    """
    kind = NotAllowed if principal.token_id else Unauthorized
    return kind(f"you have to be admin of {of}")


def _key_told(record: Record) -> dict[str, Any]:
    return {"until": None, **read_key(record).as_json()}


def _next(found: list[Record]) -> str | None:
    return found[PAGE_MAX - 1].id if found[PAGE_MAX:] else None


def _check_keys(body: dict[str, Any], known: set[str]) -> None:
    if unknown := sorted(body.keys() - known):
        raise BadRequest(f"{unknown[0]!r:.50} is not known here; {', '.join(sorted(known))} are")
    if empty := [name for name, value in body.items() if value is None]:
        raise BadRequest(f"{empty[0]} is null; leave out what is not to be said")


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"{name} has to be text")
    return value


def _seconds(body: dict[str, Any], default: float, most: float) -> float:
    value = body.get("expires_in")
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1e10:
        raise BadRequest("expires_in has to be a number of seconds above 0")
    if value > most:
        raise BadRequest(f"expires_in can be {most:.0f} seconds at most")
    return float(value)


_ID = (Parameter("id", "Which one.", required=True),)
_AFTER = (Parameter("after", "Only those above this id: `next` of the part before."),)

_TABLE: list[tuple[Operation, Method]] = [
    (
        Operation(
            "create_token",
            "POST",
            "/api/tokens",
            "Issue a token",
            {
                201: Answer(
                    "The token, which is told this once.",
                    content(
                        "IssuedToken",
                        {
                            "token": "eyJhbGciOiJIUzI1NiJ9.e30.c2ln",
                            "id": "6f1c",
                            "expires": 1790003600.0,
                        },
                    ),
                )
            },
            "For application servers that do not sign tokens themselves. Nobody can give more "
            "than they have: it takes to be admin of the documents, for as long.",
            takes_json=content("TokenWish", TOKEN_WISH),
            needs=Access.ADMIN,
            errors={409: "The server has no `token_secret`."},
        ),
        Rights.create_token,
    ),
    (
        Operation(
            "create_revocation",
            "POST",
            "/api/revocations",
            "Take rights away",
            {201: Answer("What was taken away.", content("Revocation", REVOCATION_TOLD))},
            "Of a subject, of a token (by its id), on documents (a pattern), or of these together. "
            "It concerns what was issued before. Connections on all nodes lose what they have no "
            "right to any more within a second.",
            takes_json=content("RevocationWish", {"subject": "ann", "reason": "left the team"}),
            needs=Access.ADMIN,
        ),
        Rights.create_revocation,
    ),
    (
        Operation(
            "list_revocations",
            "GET",
            "/api/revocations",
            "List what was taken away",
            {
                200: Answer(
                    "A part of the list, by id.",
                    content("Revocations", {"revocations": [REVOCATION_TOLD], "next": None}),
                )
            },
            parameters=_AFTER,
            needs=Access.ADMIN,
        ),
        Rights.list_revocations,
    ),
    (
        Operation(
            "remove_revocation",
            "DELETE",
            "/api/revocations",
            "Give rights back that were taken away",
            {204: Answer("They are given back.")},
            parameters=_ID,
            needs=Access.ADMIN,
            errors={404: "There is no such revocation."},
        ),
        Rights.remove_revocation,
    ),
    (
        Operation(
            "create_key",
            "POST",
            "/api/keys",
            "Make an API key",
            {
                201: Answer(
                    "The key, which is told this once.",
                    content("NewKey", {**KEY_TOLD, "key": "plait_0123456789ab_secret"}),
                )
            },
            "For servers. Only a digest of it is kept.",
            takes_json=content(
                "KeyWish", {"subject": "app", "grants": [{"docs": "*", "access": "admin"}]}
            ),
            needs=Access.ADMIN,
        ),
        Rights.create_key,
    ),
    (
        Operation(
            "list_keys",
            "GET",
            "/api/keys",
            "List the API keys",
            {
                200: Answer(
                    "A part of the list, by id.",
                    content("Keys", {"keys": [KEY_TOLD], "next": None}),
                )
            },
            parameters=_AFTER,
            needs=Access.ADMIN,
        ),
        Rights.list_keys,
    ),
    (
        Operation(
            "delete_key",
            "DELETE",
            "/api/keys",
            "Delete an API key",
            {204: Answer("It is deleted; connections made with it are closed.")},
            parameters=_ID,
            needs=Access.ADMIN,
            errors={404: "There is no such key."},
        ),
        Rights.delete_key,
    ),
]


def operations() -> list[Operation]:
    """Return the operations on rights."""
    return [operation for operation, _ in _TABLE]
