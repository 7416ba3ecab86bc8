"""API keys: credentials of programs, which an administrator makes and takes back.

A key is `plait_ID_SECRET`. The store has, under its id, a hash of the secret and what the key may
do. The secret is random and long, so a plain SHA-256 can't be guessed back.
"""

import json
import logging
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from math import inf
from typing import Any, Protocol

from plait.persistence import Record, StoreError
from plait.server.auth.principal import Grant, Principal, parse_principal
from plait.server.errors import AuthUnavailable, BadRequest, Unauthorized

log = logging.getLogger(__name__)

KIND = "key"
COUNTS_SECONDS = 60.0
"""How long a node may take to notice that a key is gone, if it is not told."""
FORMAT = re.compile(r"plait_([0-9a-f]{12})_([A-Za-z0-9_-]{43})\Z")
ID = re.compile(r"[0-9a-f]{12}\Z")
INVALID = "the API key is not valid"

_NOBODY = sha256(b"").hexdigest()


class Records(Protocol):
    """What is needed of a store."""

    async def record(self, kind: str, id: str) -> Record | None:
        """Return a record, or None."""
        ...


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What the store knows of a key."""

    id: str
    principal: Principal

    def as_json(self) -> dict[str, Any]:
        """Return it as administrators see it."""
        told: dict[str, Any] = {
            "id": self.id,
            "subject": self.principal.subject,
            "name": self.principal.name,
            "grants": [grant.as_json() for grant in self.principal.grants],
            "created": self.principal.issued,
        }
        return told if self.principal.until == inf else {**told, "until": self.principal.until}


def make_key(
    subject: str, name: str, grants: Sequence[Grant], created: float, until: float = inf
) -> tuple[str, Record]:
    """Return a new key, which is shown once, and the record to keep of it.

    Raises:
        BadGrant: a part of it is not what it may be.
    """
    id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    value: dict[str, Any] = {
        "hash": hash_of(secret),
        "subject": subject,
        "name": name,
        "grants": [grant.as_json() for grant in grants],
        "created": created,
    }
    if until != inf:
        value["until"] = until
    record = Record(KIND, id, json.dumps(value), int(created * 1000))
    read_key(record)
    return f"plait_{id}_{secret}", record


def hash_of(secret: str) -> str:
    """Return what is kept of a secret."""
    return sha256(secret.encode()).hexdigest()


def read_key(record: Record) -> ApiKey:
    """Return what a record says of a key.

    Raises:
        BadRequest: it says something else.
    """
    try:
        value = json.loads(record.value)
        told = {name: value.get(name) for name in ("name", "grants")}
        told |= {"sub": value["subject"], "iat": value["created"], "exp": value.get("until")}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadRequest("the record of an API key can't be read") from None
    return ApiKey(record.id, parse_principal({**told, "jti": record.id}))


class ApiKeys:
    """Verifies API keys.

    Args:
        store: has a record of each.
        wall: seconds since 1970.
    """

    name = "keys"
    counts_seconds = COUNTS_SECONDS
    per_document = False

    def __init__(self, store: Records, wall: Callable[[], float]) -> None:
        self._store = store
        self._wall = wall

    async def verify(self, token: str, document: str | None) -> Principal | None:
        """Return who a key belongs to; None if it is not an API key."""
        found = FORMAT.match(token)
        if found is None:
            return None
        id, secret = found.groups()
        try:
            record = await self._store.record(KIND, id)
        except StoreError as error:
            log.warning("API keys can't be looked up: %s", error)
            raise AuthUnavailable("API keys can't be looked up now; try again") from None
        # As much is done for an id that there is not, so that time does not tell which there are.
        if not compare_digest(hash_of(secret), _hash_in(record)) or record is None:
            raise Unauthorized(INVALID)
        try:
            principal = read_key(record).principal
        except BadRequest as error:
            log.error("API key %s is refused: %s", id, error)
            raise Unauthorized(INVALID) from None
        ends = inf if record.until_ms is None else record.until_ms / 1000
        if self._wall() >= min(principal.until, ends):
            raise Unauthorized("the API key has expired; get a new one")
        return principal

    async def close(self) -> None:
        """Nothing is held; the store is somebody else's."""


def _hash_in(record: Record | None) -> str:
    if record is None:
        return _NOBODY
    try:
        kept = json.loads(record.value)["hash"]
    except (ValueError, KeyError, TypeError):
        return _NOBODY
    return kept if isinstance(kept, str) and kept.isascii() else _NOBODY
