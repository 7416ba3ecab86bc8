"""One socket, without the socket: frames come in, frames go out, and errors become a close code.

A connection knows the rooms that it is a member of, by the address under which its dialect names
them (y-websocket names none: one room a socket). A *shell* owns the real socket
(`plait.server.endpoint` for Starlette, `plait.server.channel` for pycrdt's Channel). The shell
calls `receive` for every frame that arrives, and is woken when there is something to send: it takes
frames one by one, and closes when `closing` is set and none are left.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from plait.server.counters import Counters
from plait.server.errors import (
    DecodeError,
    MessageTooBig,
    NotAllowed,
    PlaitError,
    Unauthorized,
)
from plait.server.limits import Limits
from plait.server.member import Member
from plait.server.outbox import Outbox
from plait.server.quota import Bucket, Quota
from plait.server.room import Room
from plait.server.wire.messages import Authenticate, Codec, Message

log = logging.getLogger(__name__)

REASON_BYTES_MAX: Final = 123
"""What a WebSocket close frame has room for (RFC 6455, 5.5.1)."""

PAUSE_SECONDS: Final = 0.05
"""For how long at least one is not read that sends more than its quota. A pause for each message
would cost more than the message.
"""


def _only_room(frame: bytes) -> str:
    """Return the address of every frame in a dialect that has none."""
    return ""


def _nobody() -> None:
    """Wake nobody."""


class Visitor(Protocol):
    """Whose connection it is, and what they may do."""

    @property
    def who(self) -> str:
        """What the log of updates calls them."""

    @property
    def may_write(self) -> bool:
        """Whether their edits are accepted."""

    @property
    def shared(self) -> tuple[Bucket, ...]:
        """What they have left together with others."""

    def closed(self, error: PlaitError) -> None:
        """Learn that the connection is closed by us, and why."""

    def renew(self, connection: "Connection", token: str) -> None:
        """Go by another token, and tell the connection what came of it."""


class Closing:
    """Why a connection is being closed, in the words of a close frame."""

    __slots__ = ("code", "reason")

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore")


class Connection:
    """One client's socket and its membership of rooms.

    Args:
        wake: called when there is something to take or to close; must not block.
        address_of: tells from a frame which of the connection's rooms it is meant for.
        clock: seconds that only go forward.
        peer: what the log calls the other side.
        counters: of the node.
        outbox: where frames for the client go, if its shell has one of its own.
        visitor: whose it is; without one it may do everything.
    """

    __slots__ = (
        "_address_of",
        "_alone",
        "_clock",
        "_counters",
        "_ended",
        "_limits",
        "_memberships",
        "_quota",
        "_read_again_at",
        "_visitor",
        "_wake",
        "closing",
        "outbox",
        "peer",
    )

    def __init__(
        self,
        limits: Limits,
        wake: Callable[[], None],
        clock: Callable[[], float],
        peer: str = "-",
        address_of: Callable[[bytes], str] = _only_room,
        counters: Counters | None = None,
        outbox: Outbox | None = None,
        visitor: Visitor | None = None,
    ) -> None:
        self.outbox = Outbox(limits, wake) if outbox is None else outbox
        self.closing: Closing | None = None
        self.peer = peer
        self._limits = limits
        self._wake = wake
        self._clock = clock
        self._address_of = address_of
        self._memberships: dict[str, tuple[Room, Member]] = {}
        self._alone: tuple[Room, Member] | None = None
        """The one membership, in a dialect without addresses."""
        self._visitor = visitor
        self._quota = Quota(limits, clock(), *(visitor.shared if visitor is not None else ()))
        self._read_again_at = 0.0
        """When its quota has earned what was sent beyond it; 0 if nothing ever was."""
        self._counters = counters or Counters()
        self._counters.opened += 1
        self._ended = False

    # Rooms

    def join(self, room: Room, codec: Codec, *, address: str = "") -> None:
        """Become a member of a room; frames with this address are messages to it."""
        assert address not in self._memberships
        visitor = self._visitor
        member = Member(
            self,
            codec,
            self._limits,
            self._clock(),
            visitor.who if visitor is not None else "",
            may_write=visitor is None or visitor.may_write,
        )
        self._memberships[address] = room, member
        if self._address_of is _only_room:
            self._alone = room, member
        room.join(member)

    def lost(self) -> None:
        """Leave every room: the socket is gone."""
        memberships, self._memberships, self._alone = self._memberships, {}, None
        for room, member in memberships.values():
            room.leave(member)
        self.outbox.clear()
        if not self._ended and self.closing is None:
            self._counters.closed["client"] += 1
        self._ended = True

    def forget(self) -> None:
        """Let go of those who refer to it; nothing else may be done with it then."""
        self._wake = self.outbox.wake = _nobody
        self._visitor = None

    # Rights

    def permit(self, may_write: bool) -> None:
        """Accept edits from now on, or no more."""
        for room, member in list(self._memberships.values()):
            room.permit(member, may_write)

    def renewed(self, may_write: bool) -> None:
        """Tell the client that its token was accepted, and what it may do with it."""
        for room, member in list(self._memberships.values()):
            room.send(member, [member.codec.permission(writes=may_write)])

    def deny(self, reason: str) -> None:
        """Tell the client that its token was not accepted; nothing has changed."""
        for room, member in list(self._memberships.values()):
            room.send(member, [member.codec.denied(reason)])

    # Frames

    def receive(self, frame: bytes) -> bool:
        """Handle a frame from the other side; return whether the next one may follow, as far as one
        can tell without looking at `waiting`. What is wrong with it closes this connection, and
        never raises. What exceeds the quota is handled, and the next has to wait.
        """
        if self.closing is not None or self._ended:
            return False
        counters = self._counters
        counters.frames_received += 1
        counters.bytes_received += len(frame)
        in_time = True
        try:
            quota = self._quota
            quota.frames -= 1
            quota.bytes -= len(frame)
            if quota.frames < 0 or quota.bytes < 0:
                in_time = self._refill()
            if (membership := self._alone) is not None:
                room, member = membership
                update = member.codec.plain_update(frame)
                if update is not None and room.receive_plain(member, frame, update):
                    return in_time
            else:
                membership = self._membership(frame)
            room, member = membership
            self._handle(room, member, member.codec.decode(frame))
        except PlaitError as error:
            self.close(error)
        except Exception:
            self._fail(len(frame))
        return False

    def receive_counted(self, frame: bytes) -> None:
        """Handle a frame that came in parts, which were counted as they came."""
        if self.closing is not None or self._ended:
            return
        self._counters.frames_received += 1
        self._counters.bytes_received += len(frame)
        try:
            room, member = self._alone or self._membership(frame)
            self._handle(room, member, member.codec.decode(frame))
        except PlaitError as error:
            self.close(error)
        except Exception:
            self._fail(len(frame))

    def begin(self, start: bytes, length: int) -> None:
        """Look at the first bytes of a long frame, before the rest has come: there is no use in
        taking in 64 MB that are no message.
        """
        try:
            _, member = self._alone or self._membership(start)
            member.codec.opening(start, length)
        except PlaitError as error:
            self.close(error)

    def turn_away(self, error: MessageTooBig) -> None:
        """Tell the client that a message was too large, of which nothing was kept."""
        for room, member in list(self._memberships.values()):
            room.holding.turn_away(member, b"", error)

    async def receive_parts(self, parts: list[bytes]) -> None:
        """Handle a long frame that came in parts, which were counted as they came. It is put
        together in a thread: copying 64 MB takes 40 ms.

        Args:
            parts: the first has a hundred bytes at least.
        """
        length = sum(map(len, parts))
        try:
            room, member = self._alone or self._membership(parts[0])
            make, start = member.codec.opening(parts[0], length)
            # Of bytes, and many, `join` lets other threads run meanwhile; a slice does not.
            payload = await asyncio.to_thread(b"".join, [parts[0][start:], *parts[1:]])
            if self.closing is None and not self._ended:
                self._counters.frames_received += 1
                self._counters.bytes_received += length
                self._handle(room, member, make(payload))
        except PlaitError as error:
            self.close(error)
        except Exception:
            self._fail(length)

    def _membership(self, frame: bytes) -> tuple[Room, Member]:
        membership = self._memberships.get(self._address_of(frame))
        if membership is None:
            raise DecodeError("the message is addressed to a document that is not open here")
        return membership

    def _handle(self, room: Room, member: Member, message: Message) -> None:
        if type(message) is not Authenticate:
            room.receive(member, message)
        elif self._visitor is not None:
            self._visitor.renew(self, message.token)
        else:
            raise DecodeError("tokens mean nothing here")

    def _fail(self, length: int) -> None:
        log.exception("a message of %d bytes from %s failed", length, self.peer)
        self.close(PlaitError("the server failed on this message"))

    def spend(self, length: int) -> None:
        """Count against its quota what came and is no message: pings, parts of messages."""
        if self._quota.spend(length):
            self._refill()

    def _refill(self) -> bool:
        """Draw on its quota; return whether that had what was sent. If not, nothing more is to be
        read until it is earned.
        """
        now = self._clock()
        late = self._quota.refill(now)
        if late is None:
            return True
        self._counters.reach(late.exceeded())
        if not self._read_again_at:  # Once is enough for the log.
            log.info("%s is read more slowly: it sends %s", self.peer, late.exceeded())
        self._read_again_at = now + max(late.debt_seconds, PAUSE_SECONDS)
        return False

    @property
    def waiting(self) -> bool:
        """Whether a message can't be handled now: too much was sent, a room loads its document
        anew, or still takes in a large update of this client. See `ready`.
        """
        if self._read_again_at and self._clock() < self._read_again_at:
            return True
        for room, member in self._memberships.values():
            if not room.ready.is_set() or (member.intake is not None and member.busy):
                return True
        return False

    async def ready(self) -> None:
        """Wait until messages may be handled again, which `waiting` says they may not."""
        left = self._read_again_at - self._clock()
        if left > 0:
            await asyncio.sleep(left)
        for room, member in list(self._memberships.values()):
            await room.ready.wait()
            if member.intake is not None and not member.intake.done():
                await asyncio.wait((member.intake,))

    def take(self) -> bytes | None:
        """Return the next frame to send, or None; brings the members up to date when the outbox has
        drained.
        """
        frame = self.outbox.take()
        if self.outbox.drained() or frame is None:
            for room, member in list(self._memberships.values()):
                if member.lagging_from is not None or member.missed_presence:
                    room.catch_up(member)
            frame = frame or self.outbox.take()
        return frame

    # The end

    def close(self, error: PlaitError) -> None:
        """Close the socket and tell why; what is queued for it is dropped. The first call decides,
        and after the end there is nothing to close.
        """
        if self.closing is not None:
            return
        self.closing = Closing(error.close_code, str(error))
        if not self._ended:
            self._counters.close(error)
            if self._visitor is not None:
                self._visitor.closed(error)
        rooms = ", ".join(repr(room.name) for room, _ in self._memberships.values())
        log.info("closing %s in %s: %d %s", self.peer, rooms, error.close_code, error)
        if isinstance(error, Unauthorized | NotAllowed):  # What is pending must not come in later.
            for _, member in self._memberships.values():
                member.session.permit(False)
        self.lost()
        self._wake()
