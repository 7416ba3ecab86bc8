"""What all REST calls have in common: which operation a request means, how its body is read, and
how an error is told.

Starlette's router is not used below `/api`: it matches the decoded path, in which a slash of a
document's name looks like one between segments.
"""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import quote, unquote_to_bytes

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from plait.persistence import DocumentDeleted, DocumentExists, StoreError, StoreUnavailable
from plait.server.auth.guard import Guard
from plait.server.auth.principal import Principal
from plait.server.counters import kind_of
from plait.server.errors import (
    BadRequest,
    BadRoomName,
    ClientError,
    DocumentGone,
    DocumentInTheWay,
    MessageTooBig,
    NotAllowed,
    PlaitError,
    Unauthorized,
)
from plait.server.limits import Limits
from plait.server.openapi import JSON, UPDATE, Operation
from plait.server.origins import Origins

log = logging.getLogger(__name__)

BODY_SECONDS = 60.0
"""How long a body may take to arrive, and a second more for each `BODY_RATE` bytes of it."""
BODY_RATE = 64 << 10
JSON_BYTES_MAX = 64 << 10
"""A body of JSON."""
BODIES = 4
"""Bodies of the largest size that may be in memory at once."""
RETRY_SECONDS = 5
"""What `Retry-After` proposes."""

HEADERS = {"cache-control": "no-cache", "x-content-type-options": "nosniff"}
"""Every answer has these: it is asked for anew each time, and never taken for a script or a page.
"""

_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class NoSuchPath(ClientError):
    """Raised when a path under /api leads nowhere."""

    status = 404


class MethodNotAllowed(ClientError):
    """Raised when a path does not know the method."""

    status = 405

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


class BodyTooSlow(ClientError):
    """Raised when a body does not arrive in time."""

    status = 408
    retry = True


class UnsupportedMediaType(ClientError):
    """Raised when a body is something else than an update, or compressed."""

    status = 415


class Busy(PlaitError):
    """Raised when the server has to finish other things first."""

    status = 503


class ServerFailed(PlaitError):
    """Raised when the server made a mistake; what it was is in its log."""


class StoreFailed(PlaitError):
    """Raised when the store failed in a way that trying again does not help."""

    retry = False


class StoreAway(PlaitError):
    """Raised when the store can't be used now."""

    status = 503


# One call


@dataclass(frozen=True, slots=True)
class Call:
    """A request that was understood so far."""

    request: Request
    name: str
    """The document's name from the path; empty if the path has none."""
    query: dict[str, str]
    """Parameters that the operation knows, and no others."""
    principal: Principal
    """Who asks; has the right that the operation needs, if it is about one document."""

    def truth(self, parameter: str) -> bool:
        """Return a parameter that is true or false; false if it is not given.

        Raises:
            BadRequest: it is something else.
        """
        text = self.query.get(parameter, "false")
        if text not in ("true", "false"):
            raise BadRequest(f"{parameter} is true or false, not {text!r}")
        return text == "true"


Handler = Callable[[Call], Awaitable[Response]]


NOBODY = Principal("")
"""Who asks for what is for everybody."""


class Rest(BaseRoute):
    """Everything at and below `/api`, whatever is in the path; a `Route` takes no line break.

    Args:
        table: the operations, and what carries them out.
        check_name: raises `BadRoomName` for a name that no document can have.
        reach: told of every error, for the case that it is about a limit.
    """

    def __init__(
        self,
        table: Sequence[tuple[Operation, Handler]],
        guard: Guard,
        origins: Origins,
        check_name: Callable[[str], None],
        reach: Callable[[PlaitError], None] = lambda error: None,
    ) -> None:
        self._reach = reach
        self._guard = guard
        self._origins = origins
        self._check_name = check_name
        self._paths: dict[tuple[str, ...], dict[str, tuple[Operation, Handler]]] = {}
        for operation, handler in table:
            segments = tuple(operation.path.split("/")[1:])
            self._paths.setdefault(segments, {})[operation.method] = operation, handler

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match what is not there too, so that it is told as JSON."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        ours = scope["type"] == "http" and (path == "/api" or path.startswith("/api/"))
        return Match.FULL if ours else Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, whatever happens."""
        request = Request(scope, receive)
        response = await self._answer(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if request.method == "HEAD":
            response.body = b""
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        try:
            operation, handler, name = self._find(request)
            principal = NOBODY
            if not operation.public:
                self._origins.check(request)
                if name:
                    self._check_name(name)
                # Before anything is told of the document, also whether there is one.
                principal = await self._guard.identify(request, name or None)
                if name:
                    self._guard.require(principal, name, operation.needs)
            return await handler(Call(request, name, _query(request, operation), principal))
        except StoreError as error:
            log.error("%s %s: %s", request.method, request.url.path, error)
            return told(of_store(error))
        except PlaitError as error:
            self._reach(error)
            if isinstance(error, Unauthorized | NotAllowed):
                self._note_refused(request, error)
            return told(error)
        except ClientDisconnect:
            # Nobody is there to read it, but an answer is owed to the server.
            return told(BadRequest("the body ended too early"))
        except Exception:
            log.exception("%s %s failed", request.method, request.url.path)
            return told(ServerFailed("the server failed on this request; its log says why"))

    def _note_refused(self, request: Request, error: PlaitError) -> None:
        self._guard.audit.note(
            "auth.refused",
            method=request.method,
            path=request.url.path,
            address=request.client.host if request.client else None,
            reason=str(error),
        )

    def _find(self, request: Request) -> tuple[Operation, Handler, str]:
        given = segments(request.scope)
        for path, methods in self._paths.items():
            if len(path) != len(given) or not all(map(_fits, path, given)):
                continue
            if "GET" in methods and request.method == "HEAD":
                found = methods["GET"]
            elif request.method in methods:
                found = methods[request.method]
            else:
                allowed = ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])
                raise MethodNotAllowed(f"this path knows {allowed}, not {request.method}", allowed)
            return *found, "".join(g for p, g in zip(path, given, strict=True) if p == "{name}")
        hint = "GET /api/openapi.json lists what there is"
        if given[:2] == ["api", "docs"] and len(given) > 3:
            hint = "a document's name is one segment of the path: write / in it as %2F"
        raise NoSuchPath(f"there is no such path; {hint}")


def segments(scope: Scope) -> list[str]:
    """Return the segments of a request's path, each percent-decoded once.

    Raises:
        BadRoomName: one is not percent-encoded UTF-8.
    """
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    raw = raw.removeprefix(quote(scope.get("root_path", "")).encode())
    if _PERCENT.search(raw):
        raise BadRoomName("a % in a path is followed by two hexadecimal digits; write % as %25")
    try:
        return [unquote_to_bytes(segment).decode() for segment in raw.split(b"/")[1:]]
    except UnicodeDecodeError:
        raise BadRoomName("a document's name has to be UTF-8, percent-encoded") from None


def _fits(expected: str, given: str) -> bool:
    return bool(given) if expected == "{name}" else expected == given


def _query(request: Request, operation: Operation) -> dict[str, str]:
    known = [each.name for each in operation.parameters]
    for each in operation.parameters:
        if each.required and each.name not in request.query_params:
            raise BadRequest(f"the parameter {each.name} is missing")
    query = dict(request.query_params)
    for name in query:
        if name not in known:
            choice = f"it knows {', '.join(known)}" if known else "it knows none"
            raise BadRequest(f"this path has no parameter {name!r}; {choice}")
    return query


# Bodies


class Bodies:
    """Reads bodies of requests, none above `Limits.message_bytes_max`, and only so many at once."""

    def __init__(self, limits: Limits) -> None:
        self._bytes_max = limits.message_bytes_max
        self._held = 0

    async def read(self, request: Request) -> bytes:
        """Return the whole body.

        Raises:
            UnsupportedMediaType, MessageTooBig, BodyTooSlow, Busy
            ClientDisconnect: the client went away before the end.
        """
        return await self._read(request, UPDATE, self._bytes_max)

    async def read_json(self, request: Request) -> dict[str, Any]:
        """Return the object of JSON in a body of up to `JSON_BYTES_MAX`; raises like `read`.

        Raises:
            BadRequest: it is something else.
        """
        body = await self._read(request, JSON, JSON_BYTES_MAX)
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            raise BadRequest("the body is not JSON") from None
        if not isinstance(value, dict):
            raise BadRequest("the body has to be an object of JSON")
        return value

    async def _read(self, request: Request, media_type: str, bytes_max: int) -> bytes:
        _check_headers(request, media_type, bytes_max)
        chunks: list[bytes] = []
        size = 0
        begun = asyncio.get_running_loop().time()
        try:
            async with (
                asyncio.timeout(BODY_SECONDS) as deadline,
                aclosing(request.stream()) as body,
            ):
                async for chunk in body:
                    size += len(chunk)
                    self._held += len(chunk)
                    if size > bytes_max:
                        _refuse_size(bytes_max)
                    if self._held > BODIES * self._bytes_max:
                        raise Busy("too many uploads at once; try again")
                    chunks.append(chunk)
                    deadline.reschedule(begun + BODY_SECONDS + size / BODY_RATE)
        except TimeoutError:
            raise BodyTooSlow("the body came too slowly; try again on a faster line") from None
        finally:
            self._held -= size
        return b"".join(chunks)


def _check_headers(request: Request, expected: str, bytes_max: int) -> None:
    given = request.headers.get("content-type", UPDATE).partition(";")[0].strip().lower()
    if given != expected:
        what = "a Yjs update" if expected == UPDATE else "JSON"
        raise UnsupportedMediaType(
            f"the body has to be {what}, sent with Content-Type: {expected}, not {given}"
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("the body is compressed; send it without Content-Encoding")
    try:
        length = int(request.headers.get("content-length", "0"))
    except ValueError:
        raise BadRequest("Content-Length has to be a number") from None
    if length > bytes_max:
        _refuse_size(bytes_max)


def _refuse_size(bytes_max: int) -> NoReturn:
    hint = "" if bytes_max == JSON_BYTES_MAX else "; see --message-mb"
    raise MessageTooBig(f"a body may have {bytes_max} bytes{hint}")


# Errors


def of_store(error: StoreError) -> PlaitError:
    """Return what a client is told of an error of the store; paths and hints are for operators."""
    match error:
        case DocumentDeleted():
            return DocumentGone("the document was deleted")
        case DocumentExists():
            return DocumentInTheWay("there is another document of that name")
        case StoreUnavailable():
            return StoreAway("the store can't be used now; try again")
        case _:
            return StoreFailed("the store failed on this document; the server's log says why")


def told(error: PlaitError) -> Response:
    """Return the answer that tells of an error."""
    headers = {}
    if error.status == 503:
        headers["retry-after"] = str(RETRY_SECONDS)
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = error.allowed
    body = {"code": kind_of(type(error)), "message": str(error), "retry": error.retry}
    return JSONResponse({"error": body}, error.status, headers)
