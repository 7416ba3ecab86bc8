"""The presence table: whose word counts, and when it ends."""

import pytest

from plait.server.awareness import Awareness
from plait.server.limits import Limits
from plait.server.wire.presence import Entry

ANN, BEN = "ann's connection", "ben's connection"


def awareness() -> Awareness:
    return Awareness(Limits())


def test_a_new_state_is_news() -> None:
    table = awareness()
    entry = Entry(7, 1, b'{"name":"Ann"}')
    assert table.apply([entry], ANN, 0).news == [entry]
    assert table.states() == [entry]


def test_only_a_higher_clock_replaces_a_state() -> None:
    table = awareness()
    table.apply([Entry(7, 5, b"1")], ANN, 0)
    for clock, accepted in ((4, False), (5, False), (6, True)):
        heard = table.apply([Entry(7, clock, b"2")], ANN, 0)
        assert bool(heard.news) is accepted, clock


def test_the_owner_takes_its_state_away_at_the_same_clock() -> None:
    table = awareness()
    table.apply([Entry(7, 5, b"1")], ANN, 0)
    assert table.apply([Entry(7, 5, None)], ANN, 0).news == [Entry(7, 5, None)]
    assert len(table) == 0


def test_nobody_else_takes_it_away() -> None:
    """y-websocket clients repeat what they hear, and what they time out."""
    table = awareness()
    table.apply([Entry(7, 5, b"1")], ANN, 0)
    for clock in (5, 6, 100):
        assert table.apply([Entry(7, clock, None)], BEN, 0).news == []
    assert len(table) == 1


def test_repeating_a_state_does_not_make_one_its_owner() -> None:
    table = awareness()
    table.apply([Entry(7, 5, b"1")], ANN, 0)
    assert table.apply([Entry(7, 5, b"1")], BEN, 0).news == []
    assert table.leave(BEN) == []
    assert len(table) == 1


def test_a_client_that_comes_back_on_another_connection_is_owned_by_that() -> None:
    table = awareness()
    table.apply([Entry(7, 5, b"1")], ANN, 0)
    table.apply([Entry(7, 6, b"2")], BEN, 0)
    assert table.leave(ANN) == []
    assert table.leave(BEN) == [Entry(7, 7, None)]


def test_leaving_removes_with_the_next_clock() -> None:
    table = awareness()
    table.apply([Entry(7, 5, b"1"), Entry(8, 2, b"2")], ANN, 0)
    assert table.leave(ANN) == [Entry(7, 6, None), Entry(8, 3, None)]
    assert table.states() == []
    assert table.leave(ANN) == []


def test_who_tells_of_somebody_gone_is_told_so() -> None:
    """A client that reconnects tells its old clock; the removal makes it announce itself anew."""
    table = awareness()
    table.apply([Entry(7, 5, b"1")], ANN, 0)
    table.leave(ANN)
    heard = table.apply([Entry(7, 5, b"1")], BEN, 0)
    assert heard.news == []
    assert heard.corrections == [Entry(7, 6, None)]
    assert table.apply([Entry(7, 7, b"1")], BEN, 0).news == [Entry(7, 7, b"1")]


def test_a_state_that_is_not_renewed_expires() -> None:
    table = awareness()
    table.apply([Entry(7, 1, b"1")], ANN, 0)
    table.apply([Entry(8, 1, b"1")], BEN, 20)
    assert table.expire(30) == []
    assert table.expire(31) == [Entry(7, 2, None)]
    assert [entry.client for entry in table.states()] == [8]


def test_a_connection_owns_a_limited_number_of_clients() -> None:
    table = Awareness(Limits(awareness_states_max=2))
    table.apply([Entry(1, 1, b"1"), Entry(2, 1, b"1")], ANN, 0)
    heard = table.apply([Entry(3, 1, b"1"), Entry(1, 2, b"2")], ANN, 0)
    assert heard.news == [Entry(1, 2, b"2")], "the others of its message count"
    assert "2 clients" in str(heard.refused)
    assert table.apply([Entry(3, 1, b"1")], BEN, 0).news


def test_one_who_joins_a_crowd_may_repeat_all_of_it() -> None:
    table = Awareness(Limits(awareness_states_max=2))
    crowd = [Entry(client, 1, b"1") for client in range(100)]
    for entry in crowd:
        table.apply([entry], entry.client, 0)
    assert table.apply(crowd, ANN, 0).news == []


@pytest.mark.parametrize("state", [b'"' + b"x" * 200 + b'"', b"[" * 80 + b"]" * 80])
def test_what_can_t_be_shown_is_passed_over(state: bytes) -> None:
    table = Awareness(Limits(awareness_state_bytes_max=200))
    table.apply([Entry(1, 1, b"1")], ANN, 0)
    heard = table.apply([Entry(1, 2, state), Entry(2, 2, b"2")], ANN, 10)
    assert (heard.news, heard.corrections) == ([Entry(2, 2, b"2")], [])
    assert heard.refused is not None and heard.refused.limit == "presence"
    assert table.states() == [Entry(1, 1, b"1"), Entry(2, 2, b"2")]
    assert table.expire(31) == [Entry(1, 2, None)], "what was shown before is not renewed by it"
    heard = table.apply([Entry(1, 3, state), Entry(3, 1, state)], ANN, 40)
    assert (heard.news, heard.corrections) == ([], [])
    assert table.apply([Entry(1, 4, b"1")], ANN, 50).news == [Entry(1, 4, b"1")]


def test_what_is_no_news_is_not_looked_at() -> None:
    table = Awareness(Limits(awareness_state_bytes_max=10))
    table.apply([Entry(1, 5, b"1")], ANN, 0)
    table.apply([Entry(2, 5, b"1")], BEN, 0)
    table.leave(BEN)
    repeated = [Entry(1, 5, b"x" * 11), Entry(1, 4, b"{"), Entry(2, 6, b"{")]
    heard = table.apply(repeated, "Eve", 0)
    assert (heard.news, heard.refused, heard.malformed) == ([], None, None)
    assert heard.corrections == [Entry(2, 6, None)]


def test_what_no_client_sends_is_told_apart() -> None:
    table = awareness()
    heard = table.apply([Entry(1, 1, b"{"), Entry(2, 1, b"1")], ANN, 0)
    assert heard.malformed is not None and heard.refused is None
    assert heard.news == table.states() == [Entry(2, 1, b"1")]


def test_removed_clients_are_remembered_up_to_a_limit() -> None:
    table = Awareness(Limits(awareness_tombstones_max=3))
    for client in range(5):
        table.apply([Entry(client, 1, b"1")], ANN, 0)
        table.leave(ANN)
    told = table.apply([Entry(client, 1, b"1") for client in range(5)], BEN, 0)
    assert [entry.client for entry in told.news] == [0, 1]
    assert [entry.client for entry in told.corrections] == [2, 3, 4]


def test_a_node_may_tell_of_more_clients_than_a_connection() -> None:
    table = Awareness(Limits(awareness_states_max=1))
    crowd = [Entry(client, 1, b"1") for client in range(3)]
    assert table.apply(crowd, b"a node", 0, 3).news == crowd
    assert table.apply([Entry(3, 1, b"1")], b"a node", 0, 3).news == []


def test_presences_of_one_kind_of_owners_can_be_left_out() -> None:
    table = awareness()
    own, others = Entry(7, 1, b"1"), Entry(8, 1, b"2")
    table.apply([own], ANN, 0)
    table.apply([others], b"a node", 0)
    assert table.states(but=bytes) == [own]
    assert (table.owner(7), table.owner(8), table.owner(9)) == (ANN, b"a node", None)


def test_some_of_what_an_owner_has_may_stay() -> None:
    table = awareness()
    table.apply([Entry(7, 1, b"1"), Entry(8, 1, b"2")], ANN, 0)
    assert table.leave(ANN, but={8, 9}) == [Entry(7, 2, None)]
    assert table.leave(ANN) == [Entry(8, 2, None)]
