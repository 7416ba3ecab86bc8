"""Tells the members of a room who is here: at the end of a turn, what is newest of each client, in
one frame for each dialect.

Whoever drags a selection tells of it sixty times a second, and a hundred clients that come back
tell of themselves at once. A turn of the event loop is as long as the server is busy, so the more
there is to tell, the more of it is told together.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Final

from plait.server.awareness import Awareness
from plait.server.changes import Clock
from plait.server.counters import Counters
from plait.server.errors import LimitReached
from plait.server.member import Member
from plait.server.wire.messages import Codec
from plait.server.wire.presence import Entry, encode_presence

NOT_SHOWN: Final = "your presence is not shown"


class Attendance:
    """What has changed in the presence of a room's members since they were told.

    Args:
        members: those of the room, at any time.
        call_soon: calls something at the end of the turn.
    """

    def __init__(
        self,
        members: Collection[Member],
        clock: Clock,
        call_soon: Callable[[Callable[[], None]], object],
        counters: Counters,
    ) -> None:
        self._members = members
        self._clock = clock
        self._call_soon = call_soon
        self._counters = counters
        self._news: dict[int, Entry] = {}
        self.forward: Callable[[Iterable[Entry]], None] | None = None
        """Tells the other nodes what is news of this node's clients, if there are any."""
        self._own: dict[int, Entry] = {}

    def tell(self, entries: Iterable[Entry], *, own: bool = True) -> None:
        """Have everybody told, at the end of the turn.

        Args:
            own: whether other nodes do not know it yet.
        """
        for entry in entries:
            if not self._news:
                self._call_soon(self.flush)
            self._news[entry.client] = entry
            if own and self.forward is not None:
                self._own[entry.client] = entry

    def take_in(self, member: Member, awareness: Awareness, entries: Iterable[Entry]) -> None:
        """Take in what a member tells, and have everybody told what is news.

        Raises:
            DecodeError: something of it is malformed; the rest counts.
        """
        self._counters.presence_messages += 1
        now = self._clock.monotonic()
        heard = awareness.apply(entries, member, now)
        self.tell(heard.news)
        if heard.corrections:
            member.send_presence(heard.corrections, now)
        if heard.refused is not None:
            self.refuse(member, heard.refused)
        if heard.malformed is not None:
            raise heard.malformed

    def refuse(self, member: Member, error: LimitReached) -> None:
        """Tell a member that something of its presence is not shown."""
        self._counters.reach(error)
        now = self._clock.monotonic()
        if member.session.tells_not_shown(now):
            member.send(member.codec.denied(f"{NOT_SHOWN}: {error}"), now)

    def flush(self) -> None:
        """Tell everybody now."""
        if not self._news:
            return
        update = encode_presence(self._news.values())
        self._news = {}
        if self._own and self.forward is not None:
            own, self._own = self._own, {}
            self.forward(own.values())
        now = self._clock.monotonic()
        frames: dict[Codec, bytes] = {}
        for member in self._members:
            frame = frames.get(member.codec)
            if frame is None:
                frame = frames[member.codec] = member.codec.awareness(update)
            member.send_presence_frame(frame, now)
        self._counters.send(len(self._members), len(update))
