"""One client in one room: the session, the dialect, and what it was last known to have.

A socket may be a member of many rooms, so what belongs to the socket (its outbox) is shared and
what belongs to the room is here. A member whose socket lags (`plait.server.outbox`) is not sent
what happens; instead `lagging_from` remembers the state that it has, and `missed_presence` that it
does not know who is here.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from plait.server.document import Applied
from plait.server.errors import PlaitError, RoomUnavailable
from plait.server.limits import Limits
from plait.server.outbox import Outbox
from plait.server.session import Session
from plait.server.wire.messages import Codec
from plait.server.wire.presence import Entry, encode_presence

CARED_FOR_A_STEP: Final = 64
"""Members that are looked at in one turn of the loop: up to a millisecond, if all are told."""


class Socket(Protocol):
    """What a room knows of a connection."""

    outbox: Outbox

    def close(self, error: PlaitError) -> None:
        """Close the whole connection and say why. Returns at once, and calls nobody back before it
        has.
        """


class Member:
    """One client in one room."""

    __slots__ = (
        "codec",
        "intake",
        "lagging_from",
        "missed_presence",
        "outbox",
        "sent_at",
        "session",
        "socket",
        "unacknowledged",
        "waits_for_state",
        "who",
    )

    def __init__(
        self,
        socket: Socket,
        codec: Codec,
        limits: Limits,
        now: float,
        who: str = "",
        *,
        may_write: bool = True,
    ) -> None:
        self.socket = socket
        self.outbox = socket.outbox
        self.codec = codec
        self.sent_at = now
        """When it was sent something; one that hears nothing for long gives up."""
        self.who = who
        """Subject of its principal, empty if unknown; written into the log beside its updates."""
        self.session = Session(limits, may_write=may_write)
        self.unacknowledged = 0
        """Updates of its own that are not committed yet."""
        self.lagging_from: dict[int, int] | None = None
        """Clocks of the state that it has, or less; None if it has been sent everything."""
        self.missed_presence = False
        self.waits_for_state = False
        """Whether it asked for the document and is not answered yet. Meanwhile it is treated as one
        that lags: updates without what they build upon would be of no use to it.
        """
        self.intake: asyncio.Future[Applied | None] | None = None
        """Done when the room has taken in the last of its large updates."""

    @property
    def busy(self) -> bool:
        """Whether the room is still taking in what it sent, so that its messages have to wait."""
        return self.intake is not None and not self.intake.done()

    @property
    def behind(self) -> bool:
        """Whether it may have to be brought up to date."""
        return self.lagging_from is not None or self.missed_presence or self.waits_for_state

    def send(self, frame: bytes, now: float) -> bool:
        """Send a frame of sync; return whether it will arrive."""
        arrives = self.outbox.push(frame, now)
        if arrives:
            self.sent_at = now
        return arrives

    def send_presence(self, entries: list[Entry], now: float) -> None:
        """Send presence, which a lagging member does without."""
        self.send_presence_frame(self.codec.awareness(encode_presence(entries)), now)

    def send_presence_frame(self, frame: bytes, now: float) -> None:
        """Send presence that is encoded already."""
        if self.outbox.push_presence(frame, now):
            self.sent_at = now
        else:
            self.missed_presence = True


def care(members: Mapping[Member, None], now: float, keepalive_seconds: float) -> Iterator[None]:
    """Keep silent members alive and close those who do not read, some in each step."""
    for number, member in enumerate(list(members), 1):
        if member not in members:
            continue  # It left meanwhile.
        if member.outbox.lagging_since is not None and member.outbox.overdue(now):
            error = RoomUnavailable("you read too slowly; connect again", limit="slow_reader")
            member.socket.close(error)
        elif now - member.sent_at >= keepalive_seconds:
            member.send_presence([], now)
        if number % CARED_FOR_A_STEP == 0:
            yield
