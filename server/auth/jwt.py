"""Tokens that say themselves who they are for: JSON Web Tokens (RFC 7519), signed with a secret
that is shared with the application (HS256), or by an identity provider whose public keys are known.

A token that no key here has signed is not of this kind: another verifier may know it. One that is
signed has to have an end, and to be for this server.
"""

import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import inf
from typing import Any

import jwt

from plait.server.auth.jwks import Jwks
from plait.server.auth.principal import BadGrant, Principal, parse_principal
from plait.server.auth.signatures import ALGORITHMS, SECRET_ALGORITHM, VerifyingKey
from plait.server.errors import BadRequest, Unauthorized

COUNTS_SECONDS = 600.0
"""As long as a JWKS is used without looking for another."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token's claims are compared with."""

    issuer: str = ""
    audience: str = ""
    grants: str = "grants"
    leeway: float = 10.0


@dataclass(frozen=True, slots=True)
class Parsed:
    """A token, not verified."""

    header: dict[str, Any]
    claims: dict[str, Any] | None
    """None if the payload is no JSON object."""
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


class Jwt:
    """Verifies JSON Web Tokens.

    Args:
        keys: known from the start.
        jwks: where others are found.
        expected: what tokens have to say.
        wall: seconds since 1970.
    """

    name = "jwt"
    counts_seconds = COUNTS_SECONDS
    per_document = False

    def __init__(
        self,
        keys: Sequence[VerifyingKey],
        jwks: Jwks | None,
        expected: Expected,
        wall: Callable[[], float],
    ) -> None:
        self._keys = tuple(keys)
        self._jwks = jwks
        self._expected = expected
        self._wall = wall

    async def verify(self, token: str, document: str | None) -> Principal | None:
        """Return who a token is for; None if no key here has signed it."""
        parsed = parse(token)
        if parsed is None or not await self._is_signed(parsed):
            return None
        # What has to be understood (crit) is not, and b64 changes what is signed.
        if "crit" in parsed.header or "b64" in parsed.header:
            raise Unauthorized("the token is not valid here: its header has crit or b64")
        if parsed.claims is None:
            raise Unauthorized("the token is not valid here: its payload is not an object of JSON")
        return principal_of(parsed.claims, token, self._expected, self._wall())

    async def close(self) -> None:
        """Stop fetching keys."""
        if self._jwks is not None:
            await self._jwks.close()

    async def _is_signed(self, parsed: Parsed) -> bool:
        algorithm, kid = parsed.header.get("alg"), parsed.header.get("kid", "")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            return False
        kid = kid if isinstance(kid, str) else ""
        signed, signature = parsed.signed, parsed.signature
        if any(
            key.fits(algorithm, kid) and key.verifies(algorithm, signed, signature)
            for key in self._keys
        ):
            return True
        if self._jwks is None or algorithm == SECRET_ALGORITHM:
            return False
        return any(
            key.verifies(algorithm, signed, signature)
            for key in await self._jwks.fitting(algorithm, kid)
        )


def principal_of(
    claims: Mapping[str, Any], token: str, expected: Expected, now: float
) -> Principal:
    """Return who a verified token is for.

    Raises:
        Unauthorized: it does not count here, or not now.
    """
    try:
        principal = parse_principal(claims, expected.grants)
        not_before = parse_principal({"iat": claims.get("nbf")}).issued
    except BadGrant as error:
        raise Unauthorized(f"the token is not valid here: {error}") from None
    if principal.until == inf:
        raise Unauthorized("the token has no end (exp), which it needs to be accepted")
    if now >= principal.until + expected.leeway:
        raise Unauthorized("the token has expired; get a new one")
    if not_before is not None and not_before > now + expected.leeway:
        raise Unauthorized("the token is not valid yet (nbf)")
    if principal.issued is not None and principal.issued > now + expected.leeway:
        raise Unauthorized("the token is issued in the future (iat): a clock is wrong")
    if expected.issuer and claims.get("iss") != expected.issuer:
        raise Unauthorized("the token is not valid here: it is of another issuer (iss)")
    if not _is_for(claims.get("aud"), expected.audience):
        raise Unauthorized("the token is not valid here: it is for another audience (aud)")
    return replace(
        principal,
        token_id=principal.token_id or token_id(token),
        until=principal.until + expected.leeway,
    )


def token_id(token: str) -> str:
    """Return what a token without `jti` is revoked by: a digest of what is signed. The signature
    is no part of it, since there may be another that is as good.
    """
    return "sha256:" + sha256(token.rpartition(".")[0].encode()).hexdigest()[:32]


def parse(token: str) -> Parsed | None:
    """Return what a token consists of; None if it is not a JSON Web Token."""
    parts = token.split(".", 3)
    if len(parts) != 3 or not token.isascii():
        return None
    header = _object(parts[0])
    if header is None:
        return None
    try:
        signature = _bytes(parts[2])
    except ValueError:
        return None
    signed = token[: len(parts[0]) + 1 + len(parts[1])].encode()
    return Parsed(header, _object(parts[1]), signed, signature)


def inspect(token: str) -> Parsed:
    """Return what a token says, whether it is true or not.

    Raises:
        BadRequest: it is not a JSON Web Token.
    """
    parsed = parse(token.strip())
    if parsed is None:
        raise BadRequest("this is not a JSON Web Token: three parts with points between")
    return parsed


def sign(secret: str, claims: Mapping[str, Any]) -> str:
    """Return a token that says this. `plait.server.auth.setup.issue` adds what is expected."""
    return jwt.encode(dict(claims), secret, SECRET_ALGORITHM)


def _is_for(audience: Any, expected: str) -> bool:
    """Whether a token is for this server. One that names an audience is for nobody else (RFC 7519,
    4.1.3), so a server without a name is not meant.
    """
    if audience is None:
        return not expected
    named = audience if isinstance(audience, list) else [audience]
    return bool(expected) and expected in named


def _object(part: str) -> dict[str, Any] | None:
    try:
        value = json.loads(_bytes(part))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _bytes(part: str) -> bytes:
    """Decode base64url; what is not of its alphabet is an error, not overlooked."""
    if "+" in part or "/" in part or "=" in part:
        raise binascii.Error("not base64url")
    padded = part.replace("-", "+").replace("_", "/") + "=" * (-len(part) % 4)
    return binascii.a2b_base64(padded, strict_mode=True)
