"""Ask another server, trusting neither its speed nor its size: what verifiers need to know is
elsewhere, and what they can't get to know in time they say they don't know.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import httpx

from plait.server.errors import AuthUnavailable, ConfigError
from plait.server.origins import is_loopback

log = logging.getLogger(__name__)

AT_ONCE_MAX = 100
"""Questions that one server is asked at a time; more wait, within their own time-out."""

UNAVAILABLE = "whether the token is valid can't be told now; try again"

# They tell of every request with its URL, and of what is received.
for name in ("httpx", "httpcore"):
    logging.getLogger(name).setLevel(logging.WARNING)

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


def check_url(url: str, setting: str) -> str:
    """Return a URL if tokens and keys may travel there.

    Raises:
        ConfigError: it is not https://, and not on this machine.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise ConfigError(f"{setting} has to be a URL such as https://app.example.org/path")
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigError(
            f"{setting} has to be https://, or others on the way could read and answer it;"
            " http:// is for this machine only (http://127.0.0.1:3000/path)"
        )
    if parts.username or parts.password:
        raise ConfigError(f"{setting} can't hold a user or a password; leave out what is before @")
    return url


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered, complete."""

    status: int
    body: bytes


class Asker:
    """Asks one URL, and reads no more than so much, and for no longer than so long. Redirects are
    answers, not followed.

    Args:
        what: what is told to operators and clients if there is no answer, as "the application".
        url: was checked with `check_url`.
        timeout_seconds: for one question, waiting for its turn included.
        bytes_max: of an answer.
    """

    def __init__(self, what: str, url: str, timeout_seconds: float, bytes_max: int) -> None:
        self._what = what
        self._url = url
        self._timeout = timeout_seconds
        self._bytes_max = bytes_max
        self._turns = asyncio.Semaphore(AT_ONCE_MAX)
        self._client: httpx.AsyncClient | None = None
        self._away = False

    async def ask(
        self, method: str = "GET", body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Return the answer.

        Raises:
            AuthUnavailable: there is none in time, or it is too long. The reason is in the log.
        """
        try:
            async with asyncio.timeout(self._timeout), self._turns:
                answer = await self._exchange(method, body, headers or {})
        except TimeoutError:
            raise self.failed(f"no answer within {self._timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise self.failed(f"{type(error).__name__}: {error}".rstrip(": ")) from None
        return answer

    def failed(self, why: str) -> AuthUnavailable:
        """Tell operators why there is no use of an answer, and return what clients are told."""
        if not self._away:
            self._away = True
            # Without path and query: they may hold what is not everybody's business.
            log.warning("%s (%s) can't be asked: %s", self._what, urlsplit(self._url).hostname, why)
        return AuthUnavailable(UNAVAILABLE)

    def well(self) -> None:
        """Tell operators that answers are of use again."""
        if self._away:
            self._away = False
            log.info("%s can be asked again", self._what)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _exchange(self, method: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        if self._client is None:
            self._client = httpx.AsyncClient(
                timeout=self._timeout,
                # Proxies of the environment are for what leaves the machine.
                trust_env=self._url.lower().startswith("https:"),
                limits=httpx.Limits(max_connections=AT_ONCE_MAX, max_keepalive_connections=10),
            )
        # What is compressed may be as large as it likes once it is not.
        sent = {"accept": "application/json", "accept-encoding": "identity", **headers}
        request = self._client.stream(method, self._url, content=body or None, headers=sent)
        async with request as response:
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise httpx.DecodingError("the answer is compressed, which was not asked for")
            received = bytearray()
            async for chunk in response.aiter_raw():
                received += chunk
                if len(received) > self._bytes_max:
                    raise httpx.DecodingError(f"the answer is above {self._bytes_max} bytes")
            return Answer(response.status_code, bytes(received))


class Flights(Generic[K, T]):
    """Lets those who want to know the same at the same time wait for one answer."""

    def __init__(self) -> None:
        self._tasks: dict[K, asyncio.Task[T]] = {}

    async def join(self, key: K, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what `start` returns, or did for somebody who asked before and still waits. Who
        gives up takes nothing from the others.
        """
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(start())
            task.add_done_callback(lambda done: self._landed(key, done))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            mine = asyncio.current_task()
            if task.cancelled() and mine is not None and not mine.cancelling():
                raise AuthUnavailable("the server is stopping; try again") from None
            raise

    async def close(self) -> None:
        """End all of them."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _landed(self, key: K, task: asyncio.Task[T]) -> None:
        self._tasks.pop(key, None)
        # Looked at, since everybody may have left; Python complains of errors that nobody sees.
        if not task.cancelled():
            task.exception()
