"""All verifiers, one after the other, and what they said a moment ago."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import inf

from plait.server.auth.credentials import Credential
from plait.server.auth.principal import Principal
from plait.server.auth.verifier import Verifier
from plait.server.errors import PlaitError, Unauthorized

VERIFIED_WEIGHT_MAX = 50_000
"""How much of what was verified is remembered: a principal weighs one, and one more for each eight
grants.
"""
REFUSED_MAX = 10_000
REFUSED_SECONDS = 5.0
"""How long a refusal counts: a client that tries again and again costs next to nothing."""

NEEDED = (
    "a token is needed: send it as Authorization: Bearer TOKEN, or as ?token=TOKEN where a"
    " WebSocket is opened"
)
UNKNOWN = "the token is not valid here"

Key = tuple[bytes] | tuple[bytes, str | None]
"""What an answer is about: a token whatever it is presented for, or a token presented for one
document, or, with None, for none. What is said of the latter says nothing about a document.
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one verifier says of a token."""

    verifier: str
    principal: Principal | None
    reason: str
    """Why there is no principal; empty if there is one."""


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    until: float
    """By the monotonic clock; the principal may end earlier, by that of the wall."""
    weight: int


class Verifiers:
    """Tells who somebody is.

    Args:
        verifiers: in the order in which they are asked.
        anonymous: whoever has no token; None if everybody needs one.
        wall: seconds since 1970.
        monotonic: seconds that only go forward.
    """

    def __init__(
        self,
        verifiers: Sequence[Verifier],
        anonymous: Principal | None,
        wall: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._verifiers = tuple(verifiers)
        self._anonymous = anonymous
        self._wall = wall
        self._monotonic = monotonic
        self._per_document = any(each.per_document for each in self._verifiers)
        self._known: OrderedDict[Key, _Known] = OrderedDict()
        self._by_token: dict[str, set[Key]] = {}
        """What is known of each token, by its id."""
        self._weight = 0
        self._refused: OrderedDict[Key, tuple[float, str]] = OrderedDict()
        self._forgotten = 0

    async def principal(self, credential: Credential | None, document: str | None) -> Principal:
        """Return who somebody is.

        Args:
            credential: what was presented, if anything.
            document: the document that it is presented for, if it is about one.

        Raises:
            Unauthorized: a token is needed, or this one is not, or no more, valid.
            AuthUnavailable: that can't be told now.
        """
        if credential is None:
            if self._anonymous is None:
                raise Unauthorized(NEEDED)
            return self._anonymous
        digest = sha256(credential.token.encode(errors="surrogatepass")).digest()
        for key in (_about(digest, document, per_document=each) for each in (False, True)):
            if known := self._remembered(key):
                return known
        return await self._ask(credential.token, digest, document)

    def forget(self, token_id: str | None = None) -> None:
        """Ask again about the token of this id when it comes next; about all of them if None."""
        self._forgotten += 1
        self._refused.clear()
        if token_id is None:
            self._known.clear()
            self._by_token.clear()
            self._weight = 0
        else:
            for key in list(self._by_token.get(token_id, ())):
                self._drop(key)

    async def inspect(self, token: str, document: str | None) -> list[Verdict]:
        """Return what every verifier says of a token; nothing is remembered."""
        verdicts = []
        for verifier in self._verifiers:
            principal, reason = None, ""
            try:
                principal = await verifier.verify(token, document)
                if principal is None:
                    reason = "it is not of this kind, or not signed with a key that is known here"
            except PlaitError as error:
                reason = str(error)
            verdicts.append(Verdict(verifier.name, principal, reason))
        return verdicts

    async def close(self) -> None:
        """Let go of connections to others."""
        for verifier in self._verifiers:
            await verifier.close()

    def _remembered(self, key: Key) -> Principal | None:
        known = self._known.get(key)
        if known is not None:
            if self._monotonic() < known.until and self._wall() < known.principal.until:
                self._known.move_to_end(key)
                return known.principal
            self._drop(key)
        elif refused := self._refused.get(key):
            until, reason = refused
            if self._monotonic() < until:
                raise Unauthorized(reason)
            del self._refused[key]
        return None

    async def _ask(self, token: str, digest: bytes, document: str | None) -> Principal:
        begun = self._forgotten
        for verifier in self._verifiers:
            key = _about(digest, document, per_document=verifier.per_document)
            try:
                principal = await verifier.verify(token, document)
            except Unauthorized as error:
                self._refuse(key, str(error), verifier.counts_seconds, begun)
                raise
            if principal is not None:
                self._remember(key, principal, verifier.counts_seconds, begun)
                return principal
        unknown = _about(digest, document, per_document=self._per_document)
        self._refuse(unknown, UNKNOWN, inf, begun)
        raise Unauthorized(UNKNOWN)

    def _remember(self, key: Key, principal: Principal, seconds: float, begun: int) -> None:
        # What was said before somebody asked to forget may be about what was then.
        if seconds <= 0 or begun != self._forgotten:
            return
        self._drop(key)
        weight = 1 + len(principal.grants) // 8
        self._known[key] = _Known(principal, self._monotonic() + seconds, weight)
        self._by_token.setdefault(principal.token_id, set()).add(key)
        self._weight += weight
        while self._weight > VERIFIED_WEIGHT_MAX:
            self._drop(next(iter(self._known)))

    def _refuse(self, key: Key, reason: str, seconds: float, begun: int) -> None:
        if seconds <= 0 or begun != self._forgotten:
            return
        self._refused[key] = (self._monotonic() + min(seconds, REFUSED_SECONDS), reason)
        self._refused.move_to_end(key)
        while len(self._refused) > REFUSED_MAX:
            self._refused.popitem(last=False)

    def _drop(self, key: Key) -> None:
        if known := self._known.pop(key, None):
            self._weight -= known.weight
            keys = self._by_token[known.principal.token_id]
            keys.discard(key)
            if not keys:
                del self._by_token[known.principal.token_id]


def _about(digest: bytes, document: str | None, *, per_document: bool) -> Key:
    return (digest, document) if per_document else (digest,)
