"""Take large updates into a room without stopping the others.

A large update is inspected and cut into parts in another process, and the parts are applied with
rests in between. Rules:

1. It is one change all the same. Only when all parts are in is it logged, in one append, broadcast
   as its author sent it, and acknowledged. Yjs has to get a state in one update (`wire.slices`),
   and a crash in the middle leaves nothing of it in the log.
2. Until then nobody is shown the parts. Whoever asks for the document meanwhile is answered from
   what was there before, or waits (`plait.server.answers`).
3. So nobody can build upon the parts either, unless they had the same content before. What they
   send of that waits in line (`concerns`): acknowledged, it would depend on what is not logged yet.
4. The updates of one room that are large, or wait in line, are taken in one after another, in the
   order in which they came. A member with one in the line is not read from (`Connection.waiting`).
5. An author who leaves does not take the update along.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from plait.server.cutting import LARGE_BYTES, Cut, cut, is_partly_known
from plait.server.document import Applied, Document
from plait.server.errors import DocumentBroken, PlaitError, RoomUnavailable, UpdateRefused
from plait.server.limits import Limits
from plait.server.member import Member
from plait.server.pace import Pace
from plait.server.remote import RemoteDocument
from plait.server.wire.readiness import Missing
from plait.server.wire.update import Id, Run, Runs, Shape, inspect

log = logging.getLogger(__name__)


class Receipt(NamedTuple):
    """What became of an update that came by no socket."""

    changed: bool
    left_bytes: int = 0
    """What is not in the document, since it builds upon structs that are missing."""
    missing: tuple[Missing, ...] = ()
    """What those are."""
    shadowed: tuple[Run, ...] = ()
    """Runs of structs that are not in the document, since it has others with the same ids."""


class Commitment:
    """Whoever waits until an update is committed.

    Args:
        future: done then.
    """

    __slots__ = ("future", "receipt")

    def __init__(self, future: "asyncio.Future[Receipt]") -> None:
        self.future = future
        self.receipt = Receipt(changed=False)

    def keep(self) -> None:
        """Tell that the update is committed."""
        if not self.future.done():
            self.future.set_result(self.receipt)

    def fail(self, error: Exception) -> None:
        """Tell that it is not, and why."""
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(eq=False, slots=True)
class Upload:
    """An update that is taken in, in its turn."""

    update: bytes
    author: Member | None = None
    who: str = ""
    append: bool = True
    """Whether it is not in the log yet."""
    check: Callable[[], None] | None = None
    """Called just before anything changes; may raise a `PlaitError` to prevent it."""
    commitment: Commitment | None = None
    """Told when it is, or why it can't be."""
    cut: Cut | None = None
    known: dict[int, int] = field(default_factory=dict)
    """The clocks for which it was cut."""
    strangers: frozenset[Id] = frozenset()
    """What structs are in, but is no shared type."""
    tried: bool = False
    """Whether the document's process has died of it, or with it, once."""
    done: "asyncio.Future[Applied | None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """Told what became of it when it has left the line; None if it failed."""


class Host(Protocol):
    """The room, as far as it is needed here."""

    name: str
    document: Document
    ready: asyncio.Event
    dead: bool

    async def admit(self, upload: Upload, shape: Shape) -> None:
        """Check that an update that is ready and new may be applied.

        Raises:
            PlaitError: it may not.
        """

    def taken_in(self, upload: Upload, cut: Cut, applied: Applied, shadowed: Runs) -> None:
        """Make what was ready of an update known, and keep the rest.

        Args:
            shadowed: structs in it that the document has with other content.
        """

    def not_taken_in(self, upload: Upload, error: PlaitError) -> None:
        """Tell the author that an update failed."""

    def rebuild(self) -> None:
        """Load the document anew: it has got a part of an update that can't be completed."""


class Source(Protocol):
    """What runs things elsewhere, or later."""

    def start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Future[None]":
        """Run a coroutine."""

    def cut(
        self, update: bytes, known: dict[int, int], strangers: frozenset[Id]
    ) -> "asyncio.Future[Cut]":
        """Cut an update in another process."""

    def reserve(self, length: int) -> bool:
        """Return whether so many bytes may wait to be taken in, beside those of other rooms."""

    def release(self, length: int) -> None:
        """Give back what was reserved."""


class Intake:
    """The line of a room's updates that take long.

    Args:
        shown: called when the document may be shown again, after a large update was applied.
        seconds: the time that its rests go by.
    """

    def __init__(
        self,
        room: Host,
        source: Source,
        limits: Limits,
        shown: Callable[[], None],
        seconds: Callable[[], float],
    ) -> None:
        self._room = room
        self._shown = shown
        self._seconds = seconds
        self._source = source
        self._limits = limits
        self.line: deque[Upload] = deque()
        """What is being taken in, and what waits for that."""
        self._before: dict[int, int] = {}
        """For the clients in the update whose turn it is, their clocks before its first part."""
        self.applying = False
        """Whether the document has got a part of an update."""

    @property
    def busy(self) -> bool:
        """Whether anything is in the line."""
        return bool(self.line)

    async def empty(self) -> None:
        """Wait until nothing is in the line."""
        while self.line:
            await asyncio.wait([upload.done for upload in self.line])

    async def whole(self) -> None:
        """Wait until the document has got no part of an update."""
        while self.applying:
            await asyncio.wait([self.line[0].done])

    def add(self, upload: Upload) -> None:
        """Put an update into the line.

        Raises:
            RoomUnavailable: too much waits in the lines of all rooms.
        """
        if not self._source.reserve(len(upload.update)):
            raise RoomUnavailable("too many large updates at once; try again")
        self.line.append(upload)
        if upload.author is not None:
            upload.author.intake = upload.done
        if len(self.line) == 1:
            self._source.start(self._run())

    def concerns(self, update: bytes) -> bool:
        """Whether an update has to go through the line: it is large, or shares content with the one
        that is being applied.

        Raises:
            UpdateRefused: it is not an update.
        """
        if len(update) > LARGE_BYTES or self._room.document.remote:
            return True
        if not self._before:
            return False
        shape = inspect(update, any_depth_max=self._limits.any_depth_max)
        before = self._before
        return any(
            end > before[client] for client, _, end in shape.runs if client in before
        ) or any(
            clock > before[client] for client, clock in shape.needs.items() if client in before
        )

    def lower(self, clocks: dict[int, int]) -> None:
        """Take out of the document's clocks what has been applied and nobody has been told of."""
        if self.applying:
            for client, clock in self._before.items():
                if not clock:
                    clocks.pop(client, None)
                elif clocks.get(client, 0) > clock:
                    clocks[client] = clock

    # One after another

    async def _run(self) -> None:
        while self.line:
            upload = self.line[0]
            applied = None
            try:
                applied = await self._take_in(upload)
            except PlaitError as error:
                self._room.not_taken_in(upload, error)
            except Exception:
                log.exception("room %r: a large update failed", self._room.name)
                self._room.not_taken_in(upload, PlaitError("the server failed on this message"))
            finally:
                self.line.popleft()
                self._source.release(len(upload.update))
                self._let_go()
                if not upload.done.done():
                    upload.done.set_result(applied)

    async def _take_in(self, upload: Upload) -> Applied:
        room = self._room
        while True:
            document = await self._document()
            found = await self._cut(document, upload)
            if found is None:
                continue
            if found.ready == b"":
                applied = Applied.PENDING
            else:
                applied = document.readiness(found.shape)
            if applied is Applied.CHANGED:
                await room.admit(upload, found.shape)
                if document is not await self._document():
                    continue
                if upload.check is not None:
                    upload.check()
                changed = await self._try(document, upload, found)
                if changed is None:
                    continue
                applied = Applied.CHANGED if changed else Applied.KNOWN
            shadowed: Runs = []
            if found.repeats and upload.append:
                shadowed = await self._shadowed(
                    document, upload.update if found.ready is None else found.ready
                )
            room.taken_in(upload, found, applied, shadowed)
            return applied

    @staticmethod
    async def _shadowed(document: Document, update: bytes) -> Runs:
        try:
            if isinstance(document, RemoteDocument):
                return await document.shadowed_there(update)
            return document.shadowed(update)
        except DocumentBroken as error:
            log.error("what an update repeats can't be compared: %s", error)
            return []

    async def _document(self) -> Document:
        await self._room.ready.wait()
        if self._room.dead:
            raise RoomUnavailable("the document was deleted or can't be loaded now; try again")
        return self._room.document

    async def _cut(self, document: Document, upload: Upload) -> Cut | None:
        """Return an update in parts that fit the document, and reserve the clients in it.

        None if there is another document by now.
        """
        update = upload.update
        while True:
            if upload.cut is None:
                upload.known = document.clocks()
                if len(update) > LARGE_BYTES:
                    upload.cut = await self._source.cut(update, upload.known, upload.strangers)
                else:
                    upload.cut = cut(update, upload.known, self._limits, upload.strangers)
                if not self._current(document):
                    return None
            found, known, now = upload.cut, upload.known, document.clocks()
            if found.ready == b"":
                return found
            # From here on nobody else brings content of these clients: the next time it fits.
            clients = {client for client, _, _ in found.shape.runs}
            self._before = {client: now.get(client, 0) for client in clients}
            same = all(known.get(client, 0) == clock for client, clock in self._before.items())
            if same or (found.unknown is None and not is_partly_known(found.shape, now)):
                strangers = document.strangers(found.shape)
                if not strangers:
                    return found
                upload.strangers = upload.strangers.union(strangers)
            upload.cut = None

    async def _try(self, document: Document, upload: Upload, found: Cut) -> bool | None:
        """Apply all parts and return whether that changed anything; None if there is another
        document by now.
        """
        if not found.parts:
            raise UpdateRefused("the update's structs wait for one another")
        document.check_types(found.shape)
        self.applying = True
        try:
            if isinstance(document, RemoteDocument):
                changed = await document.integrate(found.parts, found.torn)
                return changed if self._current(document) else None
            return await self._apply(document, found)
        except PlaitError as error:
            if not self._current(document):
                return None
            # It has got a part of the update, which has to go again.
            log.error(
                "room %r: an update failed (%s); the document is loaded anew",
                self._room.name,
                error,
            )
            self._room.rebuild()
            if document.remote and isinstance(error, DocumentBroken) and not upload.tried:
                upload.tried = True  # Processes die of other things than updates, too.
                return None
            if isinstance(error, DocumentBroken):
                told = "the update can't be applied to this document"
                raise UpdateRefused(told, genuine=True, broke=True) from error
            raise

    async def _apply(self, document: Document, found: Cut) -> bool | None:
        document.expect_torn(found.torn)
        pace = Pace(self._seconds)
        changed = False
        for number, (part, shape) in enumerate(found.parts):
            if number:
                await pace.rest()
                if self._room.dead or not self._current(document):
                    return None
            changed = document.apply_part(part, shape) or changed
        return changed

    def _current(self, document: Document) -> bool:
        return self._room.ready.is_set() and self._room.document is document

    def _let_go(self) -> None:
        self._before = {}
        if self.applying:
            self.applying = False
            self._shown()
