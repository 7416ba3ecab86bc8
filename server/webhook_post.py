"""The way to the receiver of webhooks: one POST, and what came of it."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Self

import httpx

from plait.server.origins import is_loopback
from plait.server.webhook_message import Message, Target
from plait.server.webhook_pace import AT_ONCE

log = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0
"""How long the receiver may take to answer."""
BODY_SECONDS = 1.0
"""How long it may take to complete an answer that nobody reads."""
BODY_BYTES_MAX = 64 << 10
"""What is read of an answer, so that the connection can be used again."""

GONE, TOO_MANY = 410, 429


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt."""

    problem: str = ""
    """Why it failed; empty if it did not."""
    away: bool = False
    """Whether it would have been the same for any message."""
    final: bool = False
    """Whether the receiver does not want to be asked again."""
    wait_ms: int = 0
    """How long it wants to be left alone."""


class Receiver:
    """Posts messages. An async context manager.

    Args:
        seconds: how long an answer may take.
    """

    def __init__(self, target: Target, *, seconds: float = ANSWER_SECONDS) -> None:
        self._target = target
        self._seconds = seconds
        local = is_loopback(httpx.URL(target.url).host)
        self._secure = target.url.lower().startswith("https:")
        self._client = httpx.AsyncClient(
            timeout=None,  # One for all of it is below.
            follow_redirects=False,
            # Proxies of the environment are for what leaves the machine.
            trust_env=self._secure and not local,
            limits=httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE),
        )
        if not self._secure and not local:
            log.warning(
                "webhooks to %s are not encrypted: on the way everybody can read names of "
                "documents, and who edits them",
                target.name,
            )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def post(self, message: Message, now_ms: int) -> Outcome:
        """Send a message, and return what came of it; never fails."""
        headers = message.headers(self._target.key, now_ms // 1000)
        headers["accept-encoding"] = "identity"
        request = self._client.build_request(
            "POST", self._target.url, content=message.body, headers=headers
        )
        try:
            async with asyncio.timeout(self._seconds):
                response = await self._client.send(request, stream=True)
        except TimeoutError:
            return Outcome(f"no answer within {self._seconds:g} s")
        except (httpx.ConnectError, httpx.ProxyError) as error:
            return Outcome(f"it can't be reached: {_text(error)}", away=True)
        except (httpx.HTTPError, OSError) as error:
            return Outcome(_text(error))
        await _finish(response)
        return outcome_of(response)


def outcome_of(response: httpx.Response) -> Outcome:
    """Return what a status means; redirects are not followed, as the specification says."""
    status = response.status_code
    if 200 <= status < 300:
        return Outcome()
    text = response.headers.get("retry-after", "")
    wait_ms = int(text) * 1000 if text.isascii() and text.isdigit() and len(text) < 9 else 0
    asked = bool(wait_ms) or status == TOO_MANY
    return Outcome(f"it answered {status}", away=asked, final=status == GONE, wait_ms=wait_ms)


async def _finish(response: httpx.Response) -> None:
    """Read the rest of a short answer, so that the connection stays; drop that of another."""
    received = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in response.aiter_raw():
                received += len(chunk)
                if received > BODY_BYTES_MAX:
                    break
    except (TimeoutError, httpx.HTTPError, OSError) as error:
        log.debug("the answer to a webhook was not complete: %s", _text(error))
    finally:
        await response.aclose()


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
