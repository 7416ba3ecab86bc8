"""What is told of an event, and by what the receiver knows that it is we who tell it: a message of
the Standard Webhooks specification (https://www.standardwebhooks.com, version 1.0.0).

A message has an id, by which a receiver drops what it has heard already. It is the same for every
attempt, on every node. For a change it stands for what is told (which state the document has), not
for the event: if an answer was lost and the document has changed again meanwhile, the next attempt
tells more than the last, and must not be dropped.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from plait.persistence import CHANGED, CREATED, DELETED, UNDELETED, DocumentInfo, Event
from plait.server import __version__
from plait.server.errors import ConfigError

CONNECTED, DISCONNECTED = "connected", "disconnected"
KINDS = (CREATED, CHANGED, DELETED, UNDELETED, CONNECTED, DISCONNECTED)
SECRET_PREFIX = "whsec_"
SECRET_BYTES_MIN = 24
"""As the specification asks: a shorter one could be guessed from a single message."""
ID_DIGITS = 32


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent, but for the time of the attempt."""

    id: str
    body: bytes

    def headers(self, key: bytes, now_seconds: int) -> dict[str, str]:
        """Return the headers of an attempt, with its time and signature."""
        signed = f"{self.id}.{now_seconds}.".encode() + self.body
        signature = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
        return {
            "content-type": "application/json",
            "user-agent": f"plait/{__version__}",
            "webhook-id": self.id,
            "webhook-timestamp": str(now_seconds),
            "webhook-signature": f"v1,{signature}",
        }


@dataclass(frozen=True, slots=True)
class Target:
    """Who is told what: the settings, once they were checked."""

    url: str = field(repr=False)
    """Its path or query may be a secret."""
    key: bytes = field(repr=False)
    kinds: frozenset[str]

    @property
    def name(self) -> str:
        """What the log calls it."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


def target(url: str, secret: str, events: Collection[str]) -> Target:
    """Return whom to tell.

    Raises:
        ConfigError: one of the settings can't be used.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or any(c <= " " for c in url):
        raise ConfigError("webhook_url has to be a URL such as https://app.example.org/hooks/plait")
    if parts.username or parts.password:
        raise ConfigError(
            "webhook_url can't hold a user or a password: the signature tells who calls"
        )
    if not events:
        raise ConfigError("webhook_events names no event, but there is a webhook_url")
    for kind in events:
        if kind not in KINDS:
            raise ConfigError(f"webhook_events: {kind!r} is none of {', '.join(KINDS)}")
    return Target(url, _key(secret), frozenset(events))


def _key(secret: str) -> bytes:
    """Return the key that a secret stands for; what is wrong is told without it."""
    if not secret:
        raise ConfigError(
            "webhook_url needs a webhook_secret, by which the receiver knows who calls: "
            "whsec_ and the output of `openssl rand -base64 32`"
        )
    key = secret.encode()
    if secret.startswith(SECRET_PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise ConfigError("webhook_secret: what follows whsec_ is not base64") from None
    if len(key) < SECRET_BYTES_MIN:
        raise ConfigError(
            f"webhook_secret has {len(key)} bytes; it has to have {SECRET_BYTES_MIN} or more"
        )
    return key


def message(store: str, event: Event, info: DocumentInfo | None) -> Message:
    """Return what is told of an event.

    Args:
        store: its identity, so that ids of different stores differ.
        info: what is known of the document now; None if it was forgotten since.
    """
    body = {
        "type": f"document.{event.kind}",
        "timestamp": _iso(event.at_ms),
        "data": {"document": event.document, **_facts(event, info)},
    }
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return Message(_id(store, event, info), text.encode())


def state_of(info: DocumentInfo) -> tuple[int, ...]:
    """Return numbers that are others after every change."""
    return (info.created_ms, info.modified_ms, info.updates, info.log_bytes)


def _facts(event: Event, info: DocumentInfo | None) -> dict[str, Any]:
    if event.kind in (CREATED, CHANGED):
        names = ("created_ms", "modified_ms", "updates", "log_bytes")
        return {name: getattr(info, name) if info else None for name in names}
    found = json.loads(event.data) if event.data else {}
    return found if isinstance(found, dict) else {}


def _id(store: str, event: Event, info: DocumentInfo | None) -> str:
    told: list[Any] = [store, event.kind, event.document]
    told += state_of(info) if event.kind == CHANGED and info else (event.id, event.at_ms)
    digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    return f"msg_{digest[:ID_DIGITS]}"


def _iso(at_ms: int) -> str:
    text = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
