"""The public keys that an identity provider publishes (JWKS, RFC 7517).

They are fetched when they are needed, again after ten minutes, and again when a token names a key
that is not among them: that is how providers change keys. While the provider is away, those that
are known go on counting for a day.
"""

import json
import time
from collections.abc import Callable
from math import inf

from plait.server.auth.asking import UNAVAILABLE, Asker, Flights
from plait.server.auth.signatures import VerifyingKey, jwks_keys
from plait.server.errors import AuthUnavailable

BYTES_MAX = 1024 * 1024
KEYS_MAX = 100
FRESH_SECONDS = 600.0
KEPT_SECONDS = 86_400.0
UNKNOWN_SECONDS = 30.0
"""How often unknown keys may cause a question: anybody can make them up."""
RETRY_SECONDS = 5.0
"""How long a provider that did not answer is left alone."""


class Jwks:
    """The keys of one URL.

    Args:
        url: was checked.
        timeout_seconds: for fetching them.
        monotonic: seconds that only go forward.
    """

    def __init__(
        self,
        url: str,
        timeout_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._asker = Asker("the keys of the identity provider", url, timeout_seconds, BYTES_MAX)
        self._monotonic = monotonic
        self._flights: Flights[None, None] = Flights()
        self._keys: tuple[VerifyingKey, ...] = ()
        self._fetched = self._failed = self._sought = -inf

    async def fitting(self, algorithm: str, kid: str) -> list[VerifyingKey]:
        """Return the keys that a token may be signed with, by what its header says.

        Raises:
            AuthUnavailable: they are not known, and can't be fetched.
        """
        age = self._monotonic() - self._fetched
        if age >= FRESH_SECONDS and self._monotonic() - self._failed >= RETRY_SECONDS:
            try:
                await self._flights.join(None, self._fetch)
            except AuthUnavailable:
                if age >= KEPT_SECONDS:
                    raise
        elif age >= KEPT_SECONDS:
            raise AuthUnavailable(UNAVAILABLE)
        found = self._among(algorithm, kid)
        if not found and kid:
            if self._may_seek():
                await self._flights.join(None, self._fetch)
                found = self._among(algorithm, kid)
            elif self._failed > self._fetched:
                # It may well be one of those that could not be fetched.
                raise AuthUnavailable(UNAVAILABLE)
        return found

    async def close(self) -> None:
        """Stop fetching."""
        await self._flights.close()
        await self._asker.close()

    def _among(self, algorithm: str, kid: str) -> list[VerifyingKey]:
        return [key for key in self._keys if key.fits(algorithm, kid)]

    def _may_seek(self) -> bool:
        now = self._monotonic()
        if now - self._sought < UNKNOWN_SECONDS or now - self._failed < RETRY_SECONDS:
            return False
        self._sought = now
        return True

    async def _fetch(self) -> None:
        try:
            answer = await self._asker.ask()
            if answer.status != 200:
                raise self._asker.failed(f"the answer has the status {answer.status}")
            keys = self._read(answer.body)
        except AuthUnavailable:
            self._failed = self._monotonic()
            raise
        self._asker.well()
        self._keys = keys
        self._fetched = self._monotonic()

    def _read(self, body: bytes) -> tuple[VerifyingKey, ...]:
        try:
            keys = jwks_keys(json.loads(body)["keys"][:KEYS_MAX])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._asker.failed("the answer is not a JWKS") from None
        if not keys:
            raise self._asker.failed("there is no key among them that can verify tokens")
        return keys
