"""One client on one document, as a pure state machine: a message and the time go in, effects come
out.

Rules:

1. Everything that depends on *which* client sent a message is decided here: what it may do, what it
   still owes, what it was last sent. What depends on the document is decided by the room, which
   carries the effects out.
2. This module knows no socket, no clock and no pycrdt, so two sessions can be wired together in a
   test, or a thousand in a simulation.

Theory of operation. A session is `OPEN` from the moment its member joins a room until it is
`CLOSED`. What a message leads to is a table, `_HANDLERS`. An update that comes while the document
is loaded anew (`hold`) waits here, within a bound.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from plait.server.errors import LimitReached, RoomUnavailable
from plait.server.limits import Limits
from plait.server.wire.messages import (
    AwarenessUpdate,
    Message,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    SyncUpdate,
)
from plait.server.wire.presence import Entry, decode_presence

REFUSED_SECONDS: Final = 5.0
"""How often a client that goes on typing is told that it may not, or that it can't be shown."""

NOTHING: Final = b"\x00\x00"
"""The update that holds no struct and no deletion."""


@dataclass(frozen=True, slots=True)
class SendMissing:
    """Answer with what the client misses beyond its state vector."""

    state_vector: bytes


@dataclass(frozen=True, slots=True)
class ApplyUpdate:
    """Apply the client's update, tell the others, store it, acknowledge it once it is stored."""

    update: bytes


@dataclass(frozen=True, slots=True)
class ApplyPresence:
    """Take in what the client tells of presence, and tell everybody."""

    entries: list[Entry]


@dataclass(frozen=True, slots=True)
class RefusePresence:
    """Tell the client, unless it was told just before, that what it shows can't be shown."""

    error: LimitReached


@dataclass(frozen=True, slots=True)
class SendPresence:
    """Tell the client who is here."""


@dataclass(frozen=True, slots=True)
class RefuseUpdate:
    """Tell the client, unless it was told just before, that it may not edit."""


Effect = SendMissing | ApplyUpdate | ApplyPresence | RefusePresence | SendPresence | RefuseUpdate


class State(Enum):
    """Whether the session takes messages."""

    OPEN = auto()
    CLOSED = auto()


class Session:
    """What the server knows of one client on one document."""

    __slots__ = (
        "_held_bytes",
        "_limits",
        "_not_shown_at",
        "_refused_at",
        "held",
        "may_write",
        "state",
        "takes_updates",
    )

    def __init__(self, limits: Limits, *, may_write: bool = True) -> None:
        self._limits = limits
        self.held: list[bytes] = []
        """Updates that wait for the document."""
        self._held_bytes = 0
        self.state = State.OPEN
        self.may_write = may_write
        """Whether updates of the client may change the document."""
        self.takes_updates = may_write
        """Whether a `SyncUpdate` leads to an `ApplyUpdate` without any ado."""
        self._refused_at = self._not_shown_at = -REFUSED_SECONDS

    def receive(self, message: Message) -> Effect | None:
        """Return what the room has to do for a message; None if nothing.

        Raises:
            DecodeError: the message carries presence that is malformed.
        """
        if self.state is State.CLOSED:
            return None
        return _HANDLERS[type(message)](self, message)

    def permit(self, may_write: bool) -> None:
        """Let the client write from now on, or no more; what is held then will never be applied."""
        self.may_write = may_write
        self.takes_updates = may_write and self.state is State.OPEN
        self._refused_at = -REFUSED_SECONDS
        if not may_write:
            self.take_held()

    def tells_refused(self, now: float) -> bool:
        """Whether to tell the client that an update was refused: not for every key pressed."""
        tells = now - self._refused_at >= REFUSED_SECONDS
        if tells:
            self._refused_at = now
        return tells

    def tells_not_shown(self, now: float) -> bool:
        """Whether to tell the client that its presence is not shown: not for each move of it."""
        tells = now - self._not_shown_at >= REFUSED_SECONDS
        if tells:
            self._not_shown_at = now
        return tells

    def close(self) -> None:
        """Take no more messages, and let go of what is held."""
        self.state = State.CLOSED
        self.takes_updates = False
        self.held.clear()
        self._held_bytes = 0

    # Updates that came while the document was loaded anew

    def hold(self, update: bytes) -> None:
        """Keep an update until there is a document again.

        Raises:
            RoomUnavailable: more than `Limits.pending_bytes_max` would be held.
        """
        self._held_bytes += len(update)
        if self._held_bytes > self._limits.pending_bytes_max:
            raise RoomUnavailable("the document is being loaded; connect again", limit="pending")
        self.held.append(update)

    def take_held(self) -> list[bytes]:
        """Return the held updates, oldest first, and hold none."""
        held, self.held, self._held_bytes = self.held, [], 0
        return held

    # One handler a kind of message

    def _on_step1(self, message: SyncStep1) -> Effect:
        return SendMissing(message.state_vector)

    def _on_step2(self, message: SyncStep2) -> Effect | None:
        return self._on_update(message)

    def _on_update(self, message: SyncStep2 | SyncUpdate) -> Effect | None:
        if message.update == NOTHING:
            return None
        return ApplyUpdate(message.update) if self.may_write else RefuseUpdate()

    def _on_awareness(self, message: AwarenessUpdate) -> Effect:
        limit = self._limits.awareness_bytes_max
        if len(message.update) > limit:
            return RefusePresence(
                LimitReached(
                    f"one message may have {limit} bytes, not {len(message.update)}",
                    limit="presence",
                )
            )
        try:
            entries = decode_presence(message.update, self._limits.awareness_entries_max)
        except LimitReached as error:
            return RefusePresence(error)
        return ApplyPresence(entries)

    def _on_query(self, message: QueryAwareness) -> Effect:
        return SendPresence()


_HANDLERS: dict[type[Any], Callable[[Session, Any], Effect | None]] = {
    SyncStep1: Session._on_step1,
    SyncStep2: Session._on_step2,
    SyncUpdate: Session._on_update,
    AwarenessUpdate: Session._on_awareness,
    QueryAwareness: Session._on_query,
}
