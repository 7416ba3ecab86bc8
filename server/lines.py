"""How fast the lines of a room's members are, and states that go over slow ones in portions.

A message that takes long to arrive looks like silence: y-websocket gives up after 30 s, connects
anew, and asks for the same again, for ever. So what is larger than `WHOLE_BYTES` is not sent in one
before it is known that the line is fast enough:

1. The *opening* goes first, a portion that is part of any way to send the state
   (`plait.server.wire.portions`), and after it a question that is answered at once when it has
   arrived, however many proxies there are in between (`Outbox.ask_receipt`). Where no such question
   can be asked, the line counts as slow.
2. On a fast line the whole follows in one, as to everybody. That costs a round trip.
3. Otherwise the state is cut, in another process, into portions of some seconds, each sent when the
   one before has been taken. What else happens waits, as for one that reads slowly; presence goes
   between the portions.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from plait.server.errors import RoomUnavailable
from plait.server.limits import Limits
from plait.server.member import Member
from plait.server.wire.portions import opening

log = logging.getLogger(__name__)

WHOLE_BYTES = 1_000_000
"""What is not larger goes in one: 20 s at 50 KB/s, the slowest line that is catered for."""
WHOLE_SECONDS = 10.0
"""What takes no longer goes in one, however large."""
OPENING_BYTES = 256 << 10
"""What is sent to measure a line."""
ANSWER_SECONDS: Final = 6.0
"""A line that has not taken the opening by then is as slow as may be."""
PORTION_BYTES = 384 << 10
"""The smallest portion: 8 s on the slowest line."""
PORTION_SECONDS = 8.0
"""How long larger ones may take. Each costs the client as much as all before it."""
UNKNOWN_BYTES_PER_SECOND = 96 << 10
"""How fast a line counts that can't be measured."""
MEASURED_SECONDS: Final = 30.0
"""For how long a measurement is believed."""

Clocks = dict[int, int]


class Host(Protocol):
    """The room, as far as it is needed here."""

    name: str

    def catch_up(self, member: Member) -> None:
        """Bring a member up to date, if that is possible now."""


class Source(Protocol):
    """Where portions come from."""

    def portions(
        self, state: bytes, size: int, known: Mapping[int, int], whole: bool
    ) -> "asyncio.Future[list[bytes]]":
        """Cut a state in another process; see `plait.server.wire.portions`."""


class _Delivery:
    """A state on its way to one member."""

    def __init__(
        self, state: bytes, has: Clocks, after: Clocks, turn: int, whole: bool, now: float
    ) -> None:
        self.state = state
        self.has = has
        self.after = after
        self.whole = whole
        self.turn = turn
        self.opening_bytes = 0
        self.asked = False
        """Whether the client was asked for a receipt of the opening."""
        self.measured = False
        self.left: deque[bytes] | None = None
        """The portions that are still to be sent; None before there are any."""
        self.at = now
        """When it last came on."""


class Lines:
    """What goes to the members of one room over slow lines."""

    def __init__(
        self,
        room: Host,
        source: Source,
        limits: Limits,
        clock: Callable[[], float],
        turns: Callable[[], int],
    ) -> None:
        self._room = room
        self._turns = turns
        self._source = source
        self._limits = limits
        self._clock = clock
        self._deliveries: dict[Member, _Delivery] = {}
        self._speeds: dict[Member, tuple[float, float]] = {}
        """Bytes a second, and when that was measured."""
        self._shared = b""
        """The state that was cut last for somebody who had nothing; others may want the same."""
        self._cuts: dict[int, asyncio.Future[list[bytes]]] = {}
        """Its portions, by their size."""

    def __contains__(self, member: Member) -> bool:
        return member in self._deliveries

    @property
    def size(self) -> int:
        """The memory that portions take which several may want."""
        done = [each for each in self._cuts.values() if each.done() and not each.cancelled()]
        return sum(sum(map(len, each.result())) for each in done if each.exception() is None)

    def drop(self) -> None:
        """Keep no portions for others."""
        self._shared = b""
        self._cuts.clear()

    def forget(self, member: Member) -> None:
        """Deliver nothing more to a member."""
        self._deliveries.pop(member, None)
        self._speeds.pop(member, None)

    def deliver(
        self,
        member: Member,
        state: bytes,
        has: Clocks,
        after: Clocks,
        turn: int,
        *,
        whole: bool = False,
    ) -> bool:
        """Send a state in portions, if it may take long; if not, do nothing and return False.

        Args:
            has, after: clocks of what the member has without it, and with it.
            turn: when the document was just that, by the number of turns.
            whole: the state is all of the document, of which the member may have a part.
        """
        if len(state) <= WHOLE_BYTES:
            return False
        now = self._clock()
        speed, at = self._speeds.get(member, (0.0, 0.0))
        known = speed > 0 and now - at < MEASURED_SECONDS
        if known and len(state) <= speed * WHOLE_SECONDS:
            return False
        member.waits_for_state = True
        member.lagging_from = dict(has)
        delivery = _Delivery(state, dict(has), after, turn, whole, now)
        self._deliveries[member] = delivery
        if known:
            self._cut(member, delivery, speed)
            return True
        first = opening(state, OPENING_BYTES)
        delivery.opening_bytes = len(first)
        if not len(member.outbox):  # What is on its way already does not count.
            member.outbox.ask_receipt(lambda: self._begun(delivery))
        member.send(member.codec.sync_update(first), now)
        self.go_on(member)
        return True

    def go_on(self, member: Member) -> None:
        """Send as much as the line takes now of what is on its way to a member."""
        delivery = self._deliveries[member]
        outbox = member.outbox
        if not delivery.measured and not delivery.asked and not len(outbox):
            delivery.asked = True
            if not outbox.ask_receipt(lambda: self._arrived(member, delivery)):
                self._measured(member, delivery, UNKNOWN_BYTES_PER_SECOND)
                return
        left = delivery.left
        while left is not None and not len(outbox) and outbox.lagging_since is None:
            delivery.at = now = self._clock()
            portion = left.popleft()
            if not left:
                self._end(member)
                member.lagging_from = None
                arrives = member.send(member.codec.sync_step2(portion), now)
                if not arrives or delivery.turn != self._turns():
                    member.lagging_from = dict(delivery.after)
                    self._room.catch_up(member)
                return
            member.send(member.codec.sync_update(portion), now)
            if outbox.fast is None:
                return  # It is called again when that has been taken.

    def tick(self) -> None:
        """Go on without answers that do not come, and without members that do not read."""
        now = self._clock()
        for member, delivery in list(self._deliveries.items()):
            waited = now - delivery.at
            if not delivery.measured and waited > ANSWER_SECONDS:
                self._arrived(member, delivery)
            elif delivery.left is not None and waited > 2 * self._limits.outbox_drain_seconds:
                told = "you read too slowly; connect again"
                member.socket.close(RoomUnavailable(told, limit="slow_reader"))

    def _begun(self, delivery: _Delivery) -> None:
        delivery.at = self._clock()

    def _arrived(self, member: Member, delivery: _Delivery) -> None:
        if self._deliveries.get(member) is delivery and not delivery.measured:
            seconds = max(self._clock() - delivery.at, 1e-3)
            self._measured(member, delivery, delivery.opening_bytes / seconds)

    def _measured(self, member: Member, delivery: _Delivery, speed: float) -> None:
        self._speeds[member] = speed, self._clock()
        if len(delivery.state) <= speed * WHOLE_SECONDS:
            self._end(member)
            self._room.catch_up(member)
        else:
            self._cut(member, delivery, speed)

    def _cut(self, member: Member, delivery: _Delivery, speed: float) -> None:
        delivery.measured = True
        log.info(
            "room %r: %d bytes go in portions over a line of %d bytes a second",
            self._room.name,
            len(delivery.state),
            speed,
        )
        size = PORTION_BYTES
        while 2 * size <= speed * PORTION_SECONDS:
            size *= 2
        future = self._portions(delivery, size)
        delivery.state = b""  # It may be large, and others may be done with it.

        def cut(done: "asyncio.Future[list[bytes]]") -> None:
            failed = done.cancelled() or done.exception() is not None
            if failed:
                self.drop()
            if self._deliveries.get(member) is not delivery:
                return
            if failed:
                log.error("room %r: a state can't be cut: %s", self._room.name, done)
                self._speeds[member] = float("inf"), self._clock()
                self._end(member)
                self._room.catch_up(member)
                return
            delivery.left = deque(done.result())
            delivery.at = self._clock()
            self.go_on(member)

        future.add_done_callback(cut)

    def _portions(self, delivery: _Delivery, size: int) -> "asyncio.Future[list[bytes]]":
        state = delivery.state
        if delivery.has or not delivery.whole:
            return self._source.portions(state, size, delivery.has, delivery.whole)
        if state is not self._shared:
            self._shared = state
            self._cuts = {}
        future = self._cuts.get(size)
        if future is None:
            future = self._cuts[size] = self._source.portions(state, size, {}, True)
        return future

    def _end(self, member: Member) -> None:
        del self._deliveries[member]
        member.waits_for_state = False
