"""REST under `/api`: list documents, read and change their content, import, delete and bring back.

A change made here goes through the document's room like any other: it is checked, reaches everybody
who is connected, and is answered when it is committed.

Every operation on a document takes a right on it (`plait.server.rest`); the list shows what one may
read. A page may send requests to 127.0.0.1, and with a visitor's cookie. So every operation checks
`Origin`, which browsers send with every POST, PUT and DELETE; and a body has to be
`application/octet-stream`, which no form can send.
"""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from hashlib import blake2b
from urllib.parse import quote

from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from plait.persistence import DocumentInfo
from plait.server import rights
from plait.server.apart import run_apart
from plait.server.auth.guard import Guard
from plait.server.auth.principal import Access
from plait.server.content import roots_as_json
from plait.server.errors import (
    BadRequest,
    DocumentBroken,
    DocumentGone,
    DocumentInTheWay,
    DocumentUnknown,
    RoomUnavailable,
    UpdateRefused,
)
from plait.server.hub import Hub
from plait.server.intake import Receipt
from plait.server.listing import readable
from plait.server.negotiation import disposition, has, wanted_state_vector, wants_json
from plait.server.openapi import (
    BYTES,
    EXAMPLE,
    JSON,
    UPDATE,
    Answer,
    Json,
    Operation,
    Parameter,
    content,
    describe,
)
from plait.server.origins import Origins
from plait.server.rest import Bodies, Busy, Call, Rest
from plait.server.rights import Rights
from plait.server.room import Room
from plait.server.update_report import report
from plait.server.wire.state_vector import EMPTY as EMPTY_STATE_VECTOR
from plait.server.wire.structs import join_garbage

log = logging.getLogger(__name__)

PAGE = 100
PAGE_MAX = 1000
"""Documents in one part of the list."""
COMMIT_SECONDS = 30.0
"""How long a change waits for the store before its sender is told to try again."""
CONTENT_SECONDS = 20.0
"""How long a document may take to be written as JSON."""
JOINED_AT_ONCE_BYTES = 64 << 10
"""States from here on are looked through for garbage in another process: 1 MB takes 50 ms."""
HASHED_AT_ONCE_BYTES = 1 << 20
"""States from here on are hashed in a thread: 20 MB take 20 ms."""
CONTENTS = 2
"""Documents written as JSON at once; each takes a processor and several times its size."""

NOTHING = (b"", b"\x00\x00")

Method = Callable[["Api", Call], Awaitable[Response]]

_table: list[tuple[Operation, Method]] = []

_TRUTH: Json = {"type": "boolean", "default": False}
_DOCUMENT = content("Document", EXAMPLE)
_UNKNOWN = {404: "There is no document of that name."}
_ABSENT = {**_UNKNOWN, 410: "The document was deleted."}


def _serves(operation: Operation) -> Callable[[Method], Method]:
    """Put a method and its description into the table."""

    def register(method: Method) -> Method:
        _table.append((operation, method))
        return method

    return register


def operations() -> list[Operation]:
    """Return what there is under `/api`."""
    return [operation for operation, _ in _table] + rights.operations()


class Api:
    """The REST interface to a hub's documents."""

    def __init__(
        self, hub: Hub, guard: Guard, origins: Origins, bodies: Bodies, rights: Rights
    ) -> None:
        self._hub = hub
        self._guard = guard
        self._origins = origins
        self._bodies = bodies
        self._rights = rights
        self._contents = asyncio.Semaphore(CONTENTS)

    def routes(self) -> list[BaseRoute]:
        """Return what serves all of `/api`."""
        table = [(operation, method.__get__(self)) for operation, method in _table]
        table += self._rights.table()
        check_name, reach = self._hub.check_name, self._hub.counters.reach
        return [Rest(table, self._guard, self._origins, check_name, reach)]

    # The list

    @_serves(
        Operation(
            "list_documents",
            "GET",
            "/api/docs",
            "List documents by name",
            {
                200: Answer(
                    "A part of the list, in the order of the names' UTF-8 bytes.",
                    content("Page", {"docs": [EXAMPLE], "next": None}),
                )
            },
            "Documents in the store, and those that somebody has open and has not written in yet, "
            "of which one may read.",
            (
                Parameter("prefix", "Only documents whose names begin with this."),
                Parameter("after", "Only names above this one: `next` of the part before."),
                Parameter(
                    "limit",
                    "How many documents at most.",
                    {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE},
                ),
                Parameter("deleted", "List deleted documents instead.", _TRUTH),
            ),
        )
    )
    async def list_documents(self, call: Call) -> Response:
        """Answer with a part of the list."""
        prefix, after = call.query.get("prefix", ""), call.query.get("after", "")
        limit, deleted = _limit(call), call.truth("deleted")
        page: list[bytes] = []
        last = further = None
        found = readable(self._hub, self._guard, call.principal, prefix, after, deleted=deleted)
        async with aclosing(found):
            async for name, info in found:
                if len(page) == limit:
                    further = last
                    break
                # One by one, since `readable` gives way between them.
                page.append(_json(self._shown(name, info)))
                last = name
        body = b'{"docs":[%s],"next":%s}' % (b",".join(page), _json(further))
        return Response(body, 200, media_type=JSON)

    # One document

    @_serves(
        Operation(
            "show_document",
            "GET",
            "/api/docs/{name}",
            "Tell what is known of a document",
            {200: Answer("The document.", _DOCUMENT)},
            errors=_ABSENT,
        )
    )
    async def show_document(self, call: Call) -> Response:
        """Answer with what is known of a document."""
        return JSONResponse(self._shown(call.name, await self._existing(call.name)))

    @_serves(
        Operation(
            "import_document",
            "PUT",
            "/api/docs/{name}",
            "Create a document from a state",
            {
                200: Answer(
                    "There was one, and the state was merged into it (`merge`).",
                    content("Change", {"changed": True}),
                ),
                201: Answer(
                    "It was created.", _DOCUMENT, {"Location": "Where the document is from now on."}
                ),
            },
            "A document that is open and still empty is not in the way: its editors get the state.",
            (Parameter("merge", "If there is such a document, merge the state into it.", _TRUTH),),
            takes="The whole state of a document as one Yjs update (version 1).",
            errors={
                409: "There is a document of that name.",
                410: "A document of that name was deleted, and not purged.",
            },
            needs=Access.WRITE,
        )
    )
    async def import_document(self, call: Call) -> Response:
        """Create a document, or merge into it."""
        merge = call.truth("merge")
        there = await self._there(call.name)
        if there and not merge:
            raise _in_the_way()
        state = await self._bodies.read(call.request)
        if state in NOTHING:
            raise _nothing()
        receipt = await self._apply(call, state, create=not merge)
        self._note("document.imported", call, merged=there)
        if there:
            return JSONResponse(_change(receipt))
        if not receipt.changed:
            raise _nothing()
        info = self._shown(call.name, await self._existing(call.name)) | _left_out(receipt)
        return JSONResponse(info, 201, {"location": f"/api/docs/{quote(call.name, safe='')}"})

    @_serves(
        Operation(
            "delete_document",
            "DELETE",
            "/api/docs/{name}",
            "Delete a document",
            {204: Answer("It is deleted.")},
            "Its editors are closed with 4404. It can be brought back until it is purged.",
            (Parameter("purge", "Forget its content too; this can't be taken back.", _TRUTH),),
            errors={**_UNKNOWN, 410: "It is deleted already, and `purge` was not asked for."},
            needs=Access.ADMIN,
        )
    )
    async def delete_document(self, call: Call) -> Response:
        """Delete a document and, if asked to, forget it."""
        purge = call.truth("purge")
        stored = await self._hub.store.info(call.name)
        if not (purge and stored is not None and stored.deleted_ms is not None):
            await self._existing(call.name)
        await self._hub.delete(call.name, purge=purge)
        self._note("document.purged" if purge else "document.deleted", call)
        return Response(status_code=204)

    @_serves(
        Operation(
            "undelete_document",
            "POST",
            "/api/docs/{name}/undelete",
            "Bring a deleted document back",
            {200: Answer("The document, as it was.", _DOCUMENT)},
            errors={404: "There is no deleted document of that name."},
            needs=Access.ADMIN,
        )
    )
    async def undelete_document(self, call: Call) -> Response:
        """Take a deletion back."""
        if not await self._hub.store.undelete(call.name):
            raise DocumentUnknown("there is no deleted document of that name")
        self._note("document.undeleted", call)
        return JSONResponse(self._shown(call.name, await self._existing(call.name)))

    # Content

    @_serves(
        Operation(
            "read_state",
            "GET",
            "/api/docs/{name}/state",
            "Read a document's content",
            {
                200: Answer(
                    "The state as one Yjs update (version 1), or the content as JSON.",
                    {
                        UPDATE: {"schema": BYTES},
                        **content(
                            "Content",
                            {"name": "notes", "roots": {"t": {"type": "text", "value": "Hello"}}},
                        ),
                    },
                    {
                        "ETag": "Stands for the content; give it as `If-None-Match` next time.",
                        "Content-Disposition": "A file name made of the document's.",
                    },
                ),
                304: Answer("The content is still that of `If-None-Match`."),
            },
            "JSON is answered if `Accept` prefers it to `application/octet-stream`, or if "
            '`format=json`. Bytes in it are `{"$bytes": base64}`, subdocuments `{"$doc": guid}`, '
            "integers beyond 2^53 decimal strings, NaN and infinities null. Objects keep the order "
            "of their keys; a root has `type` and `value`, and perhaps `or` (what it may be as "
            "well), `delta` (formats and embeds of a text) and `attributes`.",
            (
                Parameter(
                    "state_vector",
                    "Base64 of a state vector: only what its holder misses is answered.",
                    {"type": "string", "contentEncoding": "base64url"},
                ),
                Parameter("format", "Decides instead of `Accept`.", {"enum": ["update", "json"]}),
            ),
            errors=_ABSENT,
        )
    )
    async def read_state(self, call: Call) -> Response:
        """Answer with a document's state, a difference, or JSON."""
        as_json = wants_json(call)
        state_vector = wanted_state_vector(call)
        if as_json and state_vector != EMPTY_STATE_VECTOR:
            raise BadRequest("a difference can't be told as JSON; leave out state_vector or JSON")
        await self._existing(call.name)
        async with self._room(call.name) as room:
            state = await room.answers.read(state_vector, self._hub.clock.monotonic())
        if state_vector == EMPTY_STATE_VECTOR:
            state = await _as_loaded(state)
        digest = await _digest(state)
        etag = f'"json-{digest}"' if as_json else f'"{digest}"'
        headers = {"etag": etag, "vary": "accept"}
        if has(call.request, etag):
            return Response(status_code=304, headers=headers)
        if as_json:
            return Response(await self._as_json(call.name, state), 200, headers, JSON)
        headers["content-disposition"] = disposition(call.name)
        return Response(state, 200, headers, UPDATE)

    @_serves(
        Operation(
            "apply_update",
            "POST",
            "/api/docs/{name}/updates",
            "Apply an update to a document",
            {200: Answer("It is applied and stored.", content("Change", {"changed": True}))},
            "The document need not exist before. Sending an update twice does no harm. What builds "
            "on structs that the document lacks is left out, and the answer says so.",
            takes="A Yjs update (version 1).",
            errors={410: "The document was deleted."},
            needs=Access.WRITE,
        )
    )
    async def apply_update(self, call: Call) -> Response:
        """Apply an update and wait until it is stored."""
        update = await self._bodies.read(call.request)
        if not update:
            raise UpdateRefused("the body is empty; send a Yjs update")
        return JSONResponse(_change(await self._apply(call, update)))

    # The description

    @_serves(
        Operation(
            "describe_api",
            "GET",
            "/api/openapi.json",
            "Describe this interface",
            {200: Answer("An OpenAPI document.", {JSON: {"schema": {"type": "object"}}})},
            public=True,
        )
    )
    async def describe_api(self, call: Call) -> Response:
        """Answer with the OpenAPI document."""
        return JSONResponse(describe(operations()))

    # What the operations share

    def _note(self, event: str, call: Call, **facts: object) -> None:
        address = call.request.client.host if call.request.client else None
        who = {"subject": call.principal.subject, "address": address}
        self._guard.audit.note(event, document=call.name, **who, **facts)

    def _shown(self, name: str, info: DocumentInfo | None) -> Json:
        """Return what is told of a document; without an info, of one that is not stored yet."""
        room = self._hub.open_room(name)
        return {
            "name": name,
            "bytes": info.log_bytes + info.snapshot_bytes if info else 0,
            "updates": info.updates if info else 0,
            "created_ms": info.created_ms if info else None,
            "modified_ms": info.modified_ms if info else None,
            "deleted_ms": info.deleted_ms if info else None,
            "members": len(room.members) if room else 0,
            "open": room is not None,
        }

    async def _existing(self, name: str) -> DocumentInfo | None:
        """Return what the store knows of a document; None if it is open and not stored yet.

        Raises:
            DocumentUnknown, DocumentGone
        """
        info = await self._hub.store.info(name)
        if info is not None and info.deleted_ms is not None:
            raise DocumentGone(
                "the document was deleted; bring it back with POST …/undelete, or forget it with "
                "DELETE …?purge=true"
            )
        room = self._hub.open_room(name)
        if info is None and (room is None or not (room.members or room.busy)):
            raise DocumentUnknown("there is no document of that name")
        return info

    async def _there(self, name: str) -> bool:
        """Whether a document has content.

        Raises:
            DocumentGone
        """
        try:
            stored = await self._existing(name) is not None
        except DocumentUnknown:
            return False
        room = self._hub.open_room(name)
        return stored or (room is not None and bool(room.document.clocks()))

    @asynccontextmanager
    async def _room(self, name: str) -> AsyncIterator[Room]:
        """Hold a room whose document can be used."""
        async with self._hub.room(name) as room:
            await room.ready.wait()
            if room.dead:
                raise RoomUnavailable("the document was deleted or can't be loaded now; try again")
            yield room

    async def _apply(self, call: Call, update: bytes, *, create: bool = False) -> Receipt:
        """Apply what is ready of an update, wait for the commit, and return what became of it.

        Args:
            create: only if nothing is in the document.
        """
        if self._hub.writer.full:
            raise Busy("too much is not stored yet; try again")
        async with self._room(call.name) as room:

            def check_empty() -> None:
                """Refuse the second of two who create the same document."""
                if room.document.clocks():
                    raise _in_the_way()

            who = call.principal.subject if call.principal.token_id else ""
            committed = room.apply(update, who, check=check_empty if create else None)
            try:
                async with asyncio.timeout(COMMIT_SECONDS):
                    return await committed
            except TimeoutError:
                raise Busy("the update is not stored yet; send it again") from None

    async def _as_json(self, name: str, state: bytes) -> bytes:
        async with self._contents:
            try:
                found = await run_apart(roots_as_json, CONTENT_SECONDS, state)
            except DocumentBroken as error:
                raise DocumentBroken(
                    f"the document can't be told as JSON: {error}; get it as {UPDATE}"
                ) from error
        return b'{"name":%s,"roots":%s}' % (json.dumps(name, ensure_ascii=False).encode(), found)


async def _as_loaded(state: bytes) -> bytes:
    """Return a state as it is when its document has been loaded, so that it is known again."""
    if len(state) < JOINED_AT_ONCE_BYTES:
        return join_garbage(state)
    return await run_apart(join_garbage, CONTENT_SECONDS, state)


def _json(value: object) -> bytes:
    """Return JSON as Starlette writes it."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


async def _digest(state: bytes) -> str:
    """Return what tells states apart. Hashing lets go of the interpreter, so a thread helps."""

    def digest() -> str:
        return blake2b(state, digest_size=16).hexdigest()

    return digest() if len(state) < HASHED_AT_ONCE_BYTES else await asyncio.to_thread(digest)


def _in_the_way() -> DocumentInTheWay:
    return DocumentInTheWay(
        "there is a document of that name; merge into it with PUT …?merge=true, or delete it"
    )


def _left_out(receipt: Receipt) -> Json:
    return report(receipt.left_bytes, receipt.missing, receipt.shadowed)


def _change(receipt: Receipt) -> Json:
    return {"changed": receipt.changed, **_left_out(receipt)}


def _nothing() -> UpdateRefused:
    return UpdateRefused("there is nothing in the update; send a document's whole state")


def _limit(call: Call) -> int:
    text = call.query.get("limit", str(PAGE))
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= PAGE_MAX:
        raise BadRequest(f"limit is a number from 1 to {PAGE_MAX}, not {text!r}")
    return int(text)
