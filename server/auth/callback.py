"""Ask the application who a token belongs to.

It is sent the token and the document in JSON, signed as Standard Webhooks are
(https://www.standardwebhooks.com), so that it knows who asks. It answers 200 with what a token's
payload would say, or 401, 403 or 404. Whatever else comes, or does not, lets nobody in.
"""

import binascii
import hmac
import json
import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable
from hashlib import sha256

from plait.server.auth.asking import Asker, Flights
from plait.server.auth.principal import BadGrant, Principal, parse_principal
from plait.server.errors import ConfigError, Unauthorized

BYTES_MAX = 64 * 1024
REFUSALS = frozenset((401, 403, 404))
SECRET_PREFIX = "whsec_"
SECRET_BYTES_MIN = 24


class Callback:
    """Verifies tokens that the application knows.

    Args:
        url: was checked.
        secret: signs the questions; they are not signed if it is empty.
        timeout_seconds: for one question.
        counts_seconds: how long an answer counts.
        wall: seconds since 1970.
    """

    name = "callback"
    per_document = True

    def __init__(
        self,
        url: str,
        secret: str,
        timeout_seconds: float,
        counts_seconds: float,
        wall: Callable[[], float],
    ) -> None:
        self.counts_seconds = counts_seconds
        self._asker = Asker("the application (auth_url)", url, timeout_seconds, BYTES_MAX)
        self._secret = signing_key(secret, "auth_secret") if secret else b""
        self._wall = wall
        self._flights: Flights[tuple[bytes, str | None], Principal] = Flights()

    async def verify(self, token: str, document: str | None) -> Principal | None:
        """Return who a token belongs to; the application knows all kinds."""
        digest = sha256(token.encode(errors="surrogatepass")).digest()
        return await self._flights.join(
            (digest, document), lambda: self._ask(token, digest, document)
        )

    async def close(self) -> None:
        """Stop asking."""
        await self._flights.close()
        await self._asker.close()

    async def _ask(self, token: str, digest: bytes, document: str | None) -> Principal:
        body = json.dumps({"token": token, "document": document}).encode()
        headers = {"content-type": "application/json"}
        if self._secret:
            headers |= signature_headers(self._secret, body, self._wall())
        answer = await self._asker.ask("POST", body, headers)
        if answer.status in REFUSALS:
            self._asker.well()
            raise Unauthorized("the token is not valid here: the application does not know it")
        if answer.status != 200:
            raise self._asker.failed(f"the answer has the status {answer.status}")
        principal = self._read(answer.body, digest)
        self._asker.well()
        if self._wall() >= principal.until:
            raise Unauthorized("the token has expired; get a new one")
        return principal

    def _read(self, body: bytes, digest: bytes) -> Principal:
        try:
            claims = json.loads(body)
            if not isinstance(claims, dict):
                raise BadGrant("it is not an object")
            if not claims.get("jti"):
                claims["jti"] = "sha256:" + digest.hex()[:32]
            return parse_principal(claims)
        except (ValueError, RecursionError):
            raise self._asker.failed("the answer is not JSON") from None
        except BadGrant as error:
            raise self._asker.failed(f"the answer can't be used: {error}") from None


def signing_key(secret: str, setting: str) -> bytes:
    """Return the key that a secret stands for: what follows `whsec_` in base64, or its characters.

    Raises:
        ConfigError: it is too short, or not base64.
    """
    try:
        key = (
            b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
            if secret.startswith(SECRET_PREFIX)
            else secret.encode()
        )
    except (binascii.Error, ValueError):
        raise ConfigError(f"{setting}: what follows {SECRET_PREFIX} has to be base64") from None
    if len(key) < SECRET_BYTES_MIN:
        raise ConfigError(
            f"{setting} has to have {SECRET_BYTES_MIN} bytes or more; openssl rand -base64 32"
            " makes one"
        )
    return key


def signature_headers(key: bytes, body: bytes, now: float) -> dict[str, str]:
    """Return the headers by which who is asked knows who asks, and when."""
    id, timestamp = "msg_" + secrets.token_hex(16), str(int(now))
    mac = hmac.new(key, b".".join((id.encode(), timestamp.encode(), body)), sha256).digest()
    return {
        "webhook-id": id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{b64encode(mac).decode()}",
    }
