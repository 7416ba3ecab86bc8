"""What waits for missing structs is bounded, and asked for a few times."""

from plait.server.limits import Limits
from plait.server.pending import ASK_SECONDS, ASKS_MAX, HURRY_SECONDS, PIECES_MAX, Pending
from plait.server.wire.readiness import split
from tests.support.authors import Author


class Typing:
    """Somebody whose first words were lost."""

    def __init__(self, client: int) -> None:
        self.author = Author(client)
        self.lost = self.author.type("lost")

    def add(self, pending: Pending[str], member: str, now: float = 0.0, text: str = "x") -> bool:
        _, rest, missing = split(self.author.type(text), {})
        return pending.add(member, member, rest, missing, now)[1]

    def add_all(self, pending: Pending[str], member: str, now: float = 0.0) -> tuple[bool, bool]:
        update = self.author.doc.get_update(b"\x01" + bytes((self.client, 4)))
        _, rest, missing = split(update, {})
        return pending.add(member, member, rest, missing, now)

    @property
    def client(self) -> int:
        return int(self.author.doc.client_id)


def test_a_gap_is_asked_for_a_few_times_with_growing_pauses() -> None:
    pending: Pending[str] = Pending(Limits())
    ann = Typing(1)
    assert ann.add(pending, "ann")
    asked_at = [0.0]
    for now in range(1, 2000):
        assert not ann.add(pending, "ann", now), "it is the same gap"
        asked_at += [now for _ in pending.due({}, now)]
    assert len(asked_at) == ASKS_MAX
    pauses = [later - before for before, later in zip(asked_at, asked_at[1:], strict=False)]
    assert pauses == [ASK_SECONDS * 2**number for number in range(ASKS_MAX - 1)]
    assert pending.gave_up("ann")


def test_new_gaps_are_asked_for_once_a_second() -> None:
    pending: Pending[str] = Pending(Limits())
    asks = 0
    for client in range(1, 51):
        now = client * HURRY_SECONDS / 25
        asks += Typing(client).add(pending, "ann", now)
        asks += len(pending.due({}, now))
    assert asks == 2


def test_each_member_is_asked() -> None:
    pending: Pending[str] = Pending(Limits())
    ann = Typing(1)
    assert ann.add(pending, "ann") and ann.add(pending, "ben")


def test_a_gap_that_closes_gives_back_what_waits() -> None:
    pending: Pending[str] = Pending(Limits())
    ann, ben = Typing(1), Typing(2)
    ann.add(pending, "ann")
    ben.add(pending, "ben")
    assert pending.take([3], {3: 9}) == []
    (piece,) = pending.take([1], {1: 4})
    assert piece.author == "ann"
    assert len(pending) == 1
    assert pending.due({1: 4}, 1) == [] and not pending.of("ann")
    (piece,) = pending.take_all({1: 4, 2: 4})
    assert piece.author == "ben"
    assert pending.bytes == 0
    pending.due({1: 4, 2: 4}, 2)
    assert not pending


def test_what_is_sent_again_takes_no_more_room() -> None:
    pending: Pending[str] = Pending(Limits())
    ann = Typing(1)
    for _ in range(5):
        ann.add(pending, "ann")
    assert len(pending) == 5
    assert ann.add_all(pending, "ann") == (True, False)
    assert len(pending) == 1, "everything at once takes the place of the parts"
    before = pending.bytes
    assert ann.add_all(pending, "ann") == (True, False)
    assert (len(pending), pending.bytes) == (1, before)


def test_what_stays_of_one_that_left_belongs_to_it_when_it_is_back() -> None:
    pending: Pending[str] = Pending(Limits())
    ann = Typing(1)
    ann.add(pending, "ann")
    _, rest, missing = split(ann.author.doc.get_update(b"\x01\x01\x04"), {})
    pending.leave("ann")
    assert len(pending) == 1
    assert pending.add("ann again", "ann", rest, missing, 0)[0]
    assert [piece.author for piece in pending.take_all({1: 4})] == ["ann again"]


def test_what_is_kept_is_bounded_and_asked_for_when_the_gap_has_closed() -> None:
    pending: Pending[str] = Pending(Limits(pending_bytes_max=2000, document_pending_bytes_max=3500))
    ann, ben = Typing(1), Typing(2)
    for _ in range(5):
        ann.add(pending, "ann")
        ben.add(pending, "ben")
    assert pending.bytes <= 3500 and 0 < len(pending) < 10
    assert len(pending.take_all({1: 4, 2: 4})) < 10
    assert pending.due({1: 4, 2: 4}, 1) == ["ann", "ben"], "to have what was not kept"
    assert pending.due({1: 4, 2: 4}, 100) == []
    assert not pending


def test_one_member_may_have_so_many_pieces() -> None:
    pending: Pending[str] = Pending(Limits())
    ann = Typing(1)
    for _ in range(PIECES_MAX + 10):
        ann.add(pending, "ann")
    assert len(pending) == PIECES_MAX
    ann.add_all(pending, "ann")
    assert len(pending) == 1, "all in one takes the place of the many"


def test_those_who_left_make_way() -> None:
    pending: Pending[str] = Pending(Limits(pending_bytes_max=2000, document_pending_bytes_max=2000))
    ann, ben = Typing(1), Typing(2)
    for _ in range(3):
        ann.add(pending, "ann")
    pending.leave("ann")
    for _ in range(3):
        ben.add(pending, "ben")
    assert [piece.author for piece in pending.take_all({1: 4, 2: 4})] == ["ben"] * 3


def test_nothing_is_kept_beyond_what_the_node_may() -> None:
    pending: Pending[str] = Pending(Limits())
    _, rest, missing = split(Typing(1).author.doc.get_update(b"\x01\x01\x02"), {})
    assert pending.add("ann", "", rest, missing, 0, room_for_more=False) == (False, True)
    assert not len(pending)


def test_who_may_not_write_any_more_leaves_nothing() -> None:
    pending: Pending[str] = Pending(Limits())
    Typing(1).add(pending, "ann")
    pending.forget("ann")
    assert not pending and pending.bytes == 0


def test_gaps_are_told_once_a_client() -> None:
    pending: Pending[str] = Pending(Limits())
    ann = Typing(1)
    ann.add(pending, "ann")
    ann.add(pending, "ben")
    assert pending.missing() == [(1, 0, 5)] or pending.missing() == [(1, 0, 4)]
