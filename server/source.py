"""What a room can't do at once: load its document, encode it, cut a large update. Each is a task of
the hub's, and mostly the work of another process.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from plait.server.apart import run_apart_now
from plait.server.cutting import CUT_SECONDS, Cut, cut, in_portions
from plait.server.document import Document
from plait.server.kept_state import State
from plait.server.limits import Limits
from plait.server.loading import Loader
from plait.server.wire.update import Id

T = TypeVar("T")


class Start(Protocol):
    """Runs a coroutine as a task that somebody looks after."""

    def __call__(self, work: Coroutine[Any, Any, T], /) -> "asyncio.Future[T]": ...


class Uploads:
    """Counts the bytes of all large updates of a node that are being taken in."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.bytes = 0

    def reserve(self, length: int) -> bool:
        """Take so much, if there is as much; one update may always be taken in."""
        if self.bytes and self.bytes + length > self.limits.uploads_bytes_max:
            return False
        self.bytes += length
        return True

    def release(self, length: int) -> None:
        """Give back what was reserved."""
        self.bytes -= length


class RoomSource:
    """Implements `room.Source` for one room.

    Args:
        reload: loads the document of the room anew.
    """

    def __init__(
        self,
        name: str,
        start: Start,
        loader: Loader,
        uploads: Uploads,
        reload: Callable[[str, bool], Coroutine[Any, Any, Document]],
    ) -> None:
        self._name = name
        self._loader = loader
        self._uploads = uploads
        self._reload = reload
        self.start = start
        self.reserve = uploads.reserve
        self.release = uploads.release

    def document(self, *, remote: bool = False) -> "asyncio.Future[Document]":
        """Load the document anew, with the updates that are not committed yet."""
        return self.start(self._reload(self._name, remote))

    def missing(self, state_vector: bytes) -> "asyncio.Future[bytes]":
        """Return from the log what a holder of the state vector misses."""
        return self.start(self._loader.missing(self._name, state_vector))

    def state(self) -> "asyncio.Future[State]":
        """Encode the document in another process."""
        return self.start(self._state())

    def cut(
        self, update: bytes, known: dict[int, int], strangers: frozenset[Id]
    ) -> "asyncio.Future[Cut]":
        """Cut an update in another process."""
        limits = self._uploads.limits
        return self.start(run_apart_now(cut, CUT_SECONDS, update, known, limits, strangers))

    def portions(
        self, state: bytes, size: int, known: Mapping[int, int], whole: bool
    ) -> "asyncio.Future[list[bytes]]":
        """Cut a state for a slow line in another process."""
        return self.start(run_apart_now(in_portions, CUT_SECONDS, state, size, known, whole))

    async def _state(self) -> State:
        return State(*await self._loader.state(self._name))
