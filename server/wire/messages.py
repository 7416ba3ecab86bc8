"""The messages that all dialects share, and what a dialect's codec can do.

Named after y-protocols `sync.js` and `awareness.js`. A dialect adds an envelope (an address, a type
number); it does not add meaning.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SyncStep1:
    """The sender's state vector: "send me what I miss"."""

    state_vector: bytes


@dataclass(frozen=True, slots=True)
class SyncStep2:
    """The answer to a `SyncStep1`: "this is what you miss"."""

    update: bytes


@dataclass(frozen=True, slots=True)
class SyncUpdate:
    """A change, as it happens."""

    update: bytes


@dataclass(frozen=True, slots=True)
class AwarenessUpdate:
    """Presence of one or more clients, encoded as in y-protocols `awareness.js`."""

    update: bytes


@dataclass(frozen=True, slots=True)
class QueryAwareness:
    """The question who is here."""


@dataclass(frozen=True, slots=True)
class Authenticate:
    """A token that takes the place of the one that the sender came with."""

    token: str = field(repr=False)


Message = SyncStep1 | SyncStep2 | SyncUpdate | AwarenessUpdate | QueryAwareness | Authenticate


class Codec(Protocol):
    """Turn one dialect's frames into messages and back, for one address on a socket.

    Members that share a codec object are sent the same bytes, so a frame is encoded once for all of
    them.
    """

    def plain_update(self, frame: bytes) -> bytes | None:
        """Return the update of a frame that is exactly what `sync_update` makes of it; None if the
        frame is, or might be, anything else. A short cut: it may give up early.
        """

    def decode(self, frame: bytes) -> Message:
        """Return the message of a whole frame.

        Raises:
            DecodeError: the frame is not exactly one message of this dialect.
        """

    def opening(self, start: bytes, length: int) -> tuple[Callable[[bytes], Message], int]:
        """Return what makes a message of its payload, and where the payload begins, of a long frame
        that nobody should copy in order to look at it.

        Args:
            start: the first bytes of the frame, a hundred at least.
            length: of the frame, of which the payload is the rest.

        Raises:
            DecodeError: the frame is not exactly one message of this dialect.
        """

    def sync_step1(self, state_vector: bytes) -> bytes:
        """Return a frame that asks for what is missing beyond a state vector."""

    def sync_step2(self, update: bytes) -> bytes:
        """Return a frame that answers a `SyncStep1`."""

    def sync_update(self, update: bytes) -> bytes:
        """Return a frame that tells of a change."""

    def awareness(self, update: bytes) -> bytes:
        """Return a frame that carries presence."""

    def denied(self, reason: str) -> bytes:
        """Return a frame that says why edits, or a token, are not accepted."""

    def permission(self, *, writes: bool) -> bytes:
        """Return a frame that says whether edits are accepted from now on."""
