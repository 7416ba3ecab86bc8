"""The registry of rooms: who wants one gets it, loaded once; when nobody wants it any more, it
goes.

Rules:

1. A room is in the table from the first wish for it until it is unloaded, and all who come
   meanwhile wait for the same load. There is no moment in which a second copy could come to be.
2. A room is held by *leases*. It is unloaded only without a lease and with nothing unsaved, in one
   step without `await`.
3. A load that fails leaves no entry, and is an error to those who wait; never an empty document.
4. Every task belongs to the hub's task group and ends with it.
5. The store may have other writers: the command line, a restore script, another server on the same
   file. What they append is noticed within about a second, and edited into the open rooms.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from plait.persistence import Store, Update, Writer
from plait.server.changes import Clock
from plait.server.clock import SystemClock
from plait.server.cluster import Cluster
from plait.server.compaction import Compactor
from plait.server.counters import Counters
from plait.server.document import Document
from plait.server.errors import (
    BadRoomName,
    DocumentGone,
    ServerFull,
    ServerStopping,
)
from plait.server.following import Following
from plait.server.leases import Entry, Lease
from plait.server.limits import Limits
from plait.server.loading import Loader, refusal
from plait.server.records import shared_key
from plait.server.room import Room
from plait.server.rooms import Rooms
from plait.server.source import RoomSource, Uploads
from plait.server.tempo import Tempo
from plait.server.upkeep import Upkeep

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
FOLLOW_SECONDS = 1.0
"""How often the store is asked for what others wrote into it."""
FOLLOW_RELAYED_SECONDS = 5.0
"""The same while other nodes tell by the relay what they write."""
CLOSED_A_SECOND, CLOSE_STEP_SECONDS = 100.0, 0.01
"""How fast connections are closed when the server stops, or faster if time demands it. Whoever is
not closed yet is served, and who is closed has to wait for fewer others who come back.
"""
_control = re.compile(r"[\x00-\x1f\x7f]").search
PURGE_SECONDS = 2.0
"""How long other nodes get to notice that a document was deleted before it is forgotten."""
DELETE_SECONDS = 30.0
"""How long a deletion waits for the store to take what is on its way."""

STOPPING = "the server is stopping; connect again"
FAREWELL_TURNS = 4
"""Turns of the loop in which acknowledgements of the last commit reach their sockets."""

T = TypeVar("T")


class Hub:
    """All rooms of this node. An async context manager; nothing works outside of it.

    Args:
        store: opened before, closed after.
        idle_seconds: how long a room is kept that nobody holds.
        memory_bytes_max: what documents may take in all before idle ones have to go at once.
    """

    def __init__(
        self,
        store: Store,
        writer: Writer,
        compactor: Compactor,
        limits: Limits,
        *,
        idle_seconds: float = 30.0,
        memory_bytes_max: int = 1 << 30,
        clock: Clock | None = None,
        counters: Counters | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        self.counters = counters or Counters()
        self.store = store
        self.writer = writer
        self.limits = limits
        self.clock: Clock = clock or SystemClock()
        self.loader = Loader(store, writer, limits, self._borrowed, self.clock.monotonic)
        self.stopping = False
        self.ticked: list[Callable[[], Awaitable[None] | None]] = []
        """Called about once a second, one after the other. What takes long gives way in between."""
        self.on_notice: Callable[[], None] = lambda: None
        """Called when another node says that there is something new among the store's records."""
        self._compactor = compactor
        self._rooms = Rooms(self.clock)
        self._entries = self._rooms.entries
        self._upkeep = Upkeep(
            self._rooms,
            self._forget,
            compactor,
            limits,
            self.clock,
            idle_seconds=idle_seconds,
            memory_bytes_max=memory_bytes_max,
        )
        self._loads = asyncio.Semaphore(limits.loads_max)
        self._uploads = Uploads(limits)
        self._crowded = False
        """Whether no room can make way for another, as far as is known until the next tick."""
        self.cluster = cluster
        if cluster is not None:
            cluster.hub = self
        self._following = Following(store, self._entries, self._send_away, self._follow_seconds)
        self._tasks = asyncio.TaskGroup()
        self._running: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        if self.cluster is not None:
            self.cluster.share(await self.store.identity(), await shared_key(self.store))
        await self._tasks.__aenter__()
        works = [
            self.writer.run(),
            self._compactor.run(),
            self._tick_forever(),
            self._following.run(),
        ]
        if self.cluster is not None:
            works.append(self.cluster.run())
        for work in works:
            self._running.append(self._tasks.create_task(work))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._running:
            task.cancel()
        self._end_processes()  # so that nothing waits for them
        if kind is asyncio.CancelledError:
            await self._tasks.__aexit__(kind, error, traceback)
        else:  # A task group would wrap in a group what is not its own, a StoreError of `drain`.
            await self._tasks.__aexit__(None, None, None)
        self._end_processes()

    def _end_processes(self) -> None:
        for room in self.rooms().values():
            if room.document.remote:
                room.document.close()

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run a coroutine as a task of the hub's, which its owner may cancel."""
        return self._tasks.create_task(work)

    def start(self, work: Coroutine[Any, Any, T]) -> "asyncio.Future[T]":
        """Run a coroutine as a task of the hub's; its failure concerns the future alone."""
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            try:
                result = await work
            except Exception as error:
                if not outcome.done():
                    outcome.set_exception(error)
                    outcome.exception()  # or asyncio complains if nobody waits any more
            except BaseException:
                outcome.cancel()
                raise
            else:
                if not outcome.done():
                    outcome.set_result(result)

        self._tasks.create_task(run())
        return outcome

    # Rooms

    @asynccontextmanager
    async def room(self, name: str) -> AsyncIterator[Room]:
        """Hold a room for the length of a `with`, loading it if need be; raises like `lease`."""
        lease = await self.lease(name)
        try:
            yield lease.room
        finally:
            lease.release()

    async def lease(self, name: str) -> "Lease":
        """Hold a room until the lease is released, loading it if need be.

        Raises:
            BadRoomName: the name can't be a room's.
            DocumentGone: the document was deleted.
            RoomUnavailable: it can't be loaded now.
            ServerFull: there are `Limits.rooms_max` rooms, and all of them are in use.
            ServerStopping: the server takes nobody in any more.
        """
        self.check_name(name)
        if (held := self.lease_open(name)) is not None:
            return held
        entry = self._entries.get(name)
        if entry is None or (entry.loaded is not None and entry.loaded.dead):
            self._make_place(name)
            entry = self._rooms.add(name)
            entry.room = self.start(self._open(name, entry))
        entry.begin_lease()
        try:
            room = await asyncio.shield(entry.room)
            if self.stopping:  # Those who are in are being sent away.
                raise ServerStopping(STOPPING)
            return Lease(room, entry, self.clock)
        except BaseException:
            entry.end_lease(self.clock)
            raise

    def lease_open(self, name: str) -> "Lease | None":
        """Hold a room until the lease is released, if it is open; otherwise it has to be loaded.

        Raises:
            ServerStopping: the server takes nobody in any more.
        """
        if self.stopping:
            raise ServerStopping(STOPPING)
        entry = self._entries.get(name)
        if entry is None or (room := entry.loaded) is None or room.dead:
            return None
        entry.begin_lease()
        return Lease(room, entry, self.clock)

    def rooms(self) -> dict[str, Room]:
        """Return the rooms that are open, by name. There may be very many: for tests and the end;
        who serves somebody asks for one, or for a part of the names.
        """
        return self._rooms.all()

    def open_room(self, name: str) -> Room | None:
        """Return a room if it is open, for a look at it."""
        return self._rooms.open(name)

    def each_room(self) -> Iterator[Room]:
        """Yield every room that is open; others may be opened and unloaded meanwhile."""
        for entry in list(self._entries.values()):
            if entry.table is not None and (room := entry.loaded) is not None:
                yield room

    def open_names(self, prefix: str, after: str, limit: int) -> list[str]:
        """Return names of open rooms that begin with a prefix and are above another, in order."""
        return self._rooms.names(prefix, after, limit)

    @property
    def open_count(self) -> int:
        """How many rooms are open."""
        return len(self._rooms)

    async def delete(self, name: str, *, purge: bool = False) -> bool:
        """Delete a document and send away who edits it; return whether it was there.

        With `purge` it is forgotten, a document that was deleted before as well.
        """
        self.check_name(name)
        now = self.clock.wall_ms()
        deleted = await self.store.delete(name, now)
        # What the writer still holds would bring the document back, in part, after a purge; and
        # one that was never stored comes into being with it.
        self._send_away(name)
        await self.writer.flush(DELETE_SECONDS)
        deleted = await self.store.delete(name, now) or deleted
        if self.cluster is not None:
            self.cluster.tell_deleted(name)
        if purge:
            if self.cluster is not None or self.store.shared:
                # What another node's clients have just typed would bring it back, in part.
                await asyncio.sleep(PURGE_SECONDS)
            deleted = bool(await self.store.purge(document=name)) or deleted
        return deleted

    def check_name(self, name: str) -> None:
        """Check that a name can be a room's.

        Raises:
            BadRoomName: it is empty, too long, or has control characters.
        """
        limit = self.limits.room_name_bytes_max
        if not name.strip():
            raise BadRoomName("a room needs a name")
        if len(name.encode(errors="replace")) > limit:
            raise BadRoomName(f"a room's name may have {limit} bytes")
        if _control(name):
            raise BadRoomName("a room's name can't have control characters")

    async def drain(self, timeout_seconds: float) -> None:
        """Take nobody in any more, send everybody away, and wait until all is stored.

        Raises:
            StoreError: something could not be stored in time.
        """
        self.stopping = True
        try:
            try:
                await self._flush(timeout_seconds)  # what is acknowledged is not typed again
            finally:
                await self._send_all_away(timeout_seconds / 2)
            await self._flush(timeout_seconds)
        finally:
            if self.cluster is not None:  # What could not be stored here, others have to store.
                await self.cluster.farewell()

    async def _send_all_away(self, seconds_max: float) -> None:
        """Close everybody's connection, one after the other: they come back to other nodes."""
        members = [member for room in self.rooms().values() for member in room.members]
        rate = max(CLOSED_A_SECOND, len(members) / max(seconds_max, 0.1))
        time = asyncio.get_running_loop().time
        begun, closed = time(), 0
        while closed < len(members):
            if closed:
                await asyncio.sleep(CLOSE_STEP_SECONDS)
            due = int((time() - begun) * rate) + 1
            for member in members[closed:due]:
                member.socket.close(ServerStopping(STOPPING))
            closed = max(closed, due)

    async def _flush(self, timeout_seconds: float) -> None:
        try:
            async with asyncio.timeout(timeout_seconds):
                for room in self.rooms().values():
                    await room.intake.empty()
        except TimeoutError:
            log.error("large updates were not taken in in time; their authors keep them")
        for room in self.rooms().values():
            room.flush()
        await self.writer.flush(timeout_seconds)
        for _ in range(FAREWELL_TURNS):
            await asyncio.sleep(0)

    # Loading and unloading

    async def _open(self, name: str, entry: Entry) -> Room:
        try:
            async with self._loads:
                begun = self.clock.monotonic()
                if self.cluster is not None:  # First: what is said while it is loaded is not lost.
                    await self.cluster.enter(name)
                loaded = await self.loader.load(name)
            self.counters.load_seconds.observe(self.clock.monotonic() - begun)
        except BaseException as error:
            self.counters.load_failures += 1
            if self._entries.get(name) is entry:
                self._forget(entry)
            raise refusal(name, error) from error
        entry.waiting, entry.followed = loaded.waiting, loaded.seq
        loop = asyncio.get_running_loop()
        room = Room(
            name,
            loaded.document,
            self.writer.unsaved,
            self.limits,
            source=RoomSource(name, self.start, self.loader, self._uploads, self.reload),
            clock=self.clock,
            call_soon=loop.call_soon,
            end_turn=Tempo(loop),
            counters=self.counters,
        )
        room.saving.logged = loaded.rows
        if self.cluster is not None:
            room.link = self.cluster.attach(room)
        self._rooms.opened(entry, room)
        return room

    def _forget(self, entry: Entry) -> None:
        self._rooms.remove(entry)
        if self.cluster is not None:
            self.cluster.leave(entry.name)

    def _borrowed(self, name: str) -> list[Update]:
        entry = self._entries.get(name)
        room = entry.loaded if entry is not None else None
        return room.link.unsaved_rows(self.clock.wall_ms()) if room and room.link else []

    async def reload(self, name: str, remote: bool) -> Document:
        """Load the document of an open room anew."""
        loaded = await self.loader.load(name, remote=remote)
        if (entry := self._entries.get(name)) is not None:
            entry.waiting, entry.followed = loaded.waiting, loaded.seq
        return loaded.document

    def _make_place(self, name: str) -> None:
        """See to it that one more room may be opened.

        Raises:
            ServerFull: none of the others can be spared.
        """
        rooms_max = self.limits.rooms_max
        if not rooms_max or name in self._entries or len(self._entries) < rooms_max:
            return
        if not self._crowded:
            self._crowded = not self._upkeep.make_place()
        if self._crowded:
            raise ServerFull(
                f"all {rooms_max} rooms of this server are in use (rooms_max); try again",
                limit="rooms_max",
            )

    def _send_away(self, name: str) -> None:
        """Close a deleted document's room; who comes from now on asks the store, which refuses."""
        entry = self._entries.get(name)
        if entry is not None and (room := entry.loaded) is not None and not room.dead:
            room.dead = True
            room.flush()
            room.close(DocumentGone("this document was deleted"))

    # What time brings

    async def tick(self) -> None:
        """Do what time demands of other nodes and of rooms, and unload those that nobody wants."""
        self._crowded = False
        if self.cluster is not None:
            self.cluster.tick()  # First: others wait for a sign of life.
        await self._upkeep.tick()

    async def follow(self) -> None:
        """Take in what others wrote into the store; raises `StoreError`."""
        await self._following.follow()

    # Implements `cluster.Told`

    def look(self, name: str | None) -> None:
        """Ask the store soon for what is new in a room, or in all."""
        self._following.look(name)

    def deleted(self, name: str) -> None:
        """Send everybody away from a document that another node has deleted. It may be purged by
        now, so that the store knows nothing of it.
        """
        self._send_away(name)

    def noticed(self) -> None:
        """Have the records read that another node has changed."""
        self.on_notice()

    def _follow_seconds(self) -> float:
        relayed = self.cluster is not None and self.cluster.whole
        return FOLLOW_RELAYED_SECONDS if relayed else FOLLOW_SECONDS

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for tick in (self.tick, *self.ticked):
                try:
                    if (going_on := tick()) is not None:
                        await going_on
                except Exception:
                    log.exception("a tick failed")
