"""A document's encoded state, kept for who asks next, with what has happened since.

Encoding a state costs much more than keeping the updates that come after it; and who is sent both
has everything.
"""

import logging
from typing import NamedTuple, Protocol

from plait.server.errors import DocumentBroken
from plait.server.updates import merge
from plait.server.wire.messages import Codec

log = logging.getLogger(__name__)

TAIL_BYTES_MAX = 256 << 10
"""A tail longer than this, and than an eighth of its state, has the state encoded anew."""
TAIL_BYTES_LIMIT = 4 << 20
"""A tail longer than this, and than its state, is not kept."""
CHUNK_UPDATES = 64
CHUNK_BYTES = 64 << 10
"""So many updates, or bytes of them, of a tail are merged into one."""

Clocks = dict[int, int]


class State(NamedTuple):
    """A document's whole state as of one moment."""

    encoded: bytes
    clocks: dict[int, int]


class Broadcast(Protocol):
    """An update that was sent to the members."""

    update: bytes

    @property
    def mergeable(self) -> bool:
        """Whether merging it with others loses nothing."""


class Tail:
    """The updates since a state, in order and in not too many pieces."""

    def __init__(self) -> None:
        self.size = 0
        self._chunks: list[bytes] = []
        self._open: list[bytes] = []
        self._open_bytes = 0

    def add(self, update: bytes, *, mergeable: bool) -> None:
        """Append an update."""
        self.size += len(update)
        if not mergeable or len(update) > CHUNK_BYTES // 4:
            self._close()
            self._chunks.append(update)
            return
        self._open.append(update)
        self._open_bytes += len(update)
        if len(self._open) >= CHUNK_UPDATES or self._open_bytes >= CHUNK_BYTES:
            self._close()

    def updates(self) -> list[bytes]:
        """Return what holds everything that was appended."""
        self._close()
        return self._chunks

    def _close(self) -> None:
        if not self._open:
            return
        try:
            self._chunks.append(merge(self._open, plain=True))
        except DocumentBroken:
            log.exception("pycrdt applied updates that it can't merge; they are sent one by one")
            self._chunks += self._open
        self._open, self._open_bytes = [], 0


class Kept:
    """A state, its tail, and frames that are made of them."""

    def __init__(self, state: State, tail: Tail) -> None:
        self.state = state
        self.tail = tail
        self._frames: dict[Codec, bytes] = {}

    @property
    def size(self) -> int:
        """The memory that it takes."""
        return len(self.state.encoded) + self.tail.size + sum(map(len, self._frames.values()))

    @property
    def outgrown(self) -> bool:
        """Whether encoding the state anew pays."""
        return self.tail.size > max(TAIL_BYTES_MAX, len(self.state.encoded) >> 3)

    @property
    def useless(self) -> bool:
        """Whether its tail takes more memory than it is worth."""
        return too_long(self.tail, self.state)

    def frames(self, codec: Codec) -> list[bytes]:
        """Return the frames that answer the question for the whole state."""
        first = self._frames.get(codec)
        if first is None:
            first = self._frames[codec] = codec.sync_step2(self.state.encoded)
        return [first, *(codec.sync_update(update) for update in self.tail.updates())]


def too_long(tail: Tail, state: State) -> bool:
    """Whether a tail takes more memory than it is worth."""
    return tail.size > max(TAIL_BYTES_LIMIT, len(state.encoded))


def problem(state: State, at_least: Clocks) -> DocumentBroken | None:
    """Return what is wrong with a state that lacks something that was there before it was made."""
    if all(state.clocks.get(client, 0) >= clock for client, clock in at_least.items()):
        return None
    return DocumentBroken("the stored document has less than the open one")
