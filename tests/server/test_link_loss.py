"""A room among nodes: what is lost on the way is noticed, and all come to the same in the end."""

from plait.server.link import ASK_SECONDS, AUDIT_SECONDS, Link
from plait.server.wire.envelope import Kind, decode_hello
from tests.support.authors import Author
from tests.support.link import Net, type_at
from tests.support.rooms import told

# 1. Gaps


def test_who_lost_something_asks_the_node_that_said_it_alone() -> None:
    net = Net()
    a, b, c = net.node(), net.node(), net.node()
    author = Author(1)
    net.lose(Kind.UPDATE, to=b)
    type_at(net, a, author.type("one "))
    net.heal()
    net.said()
    type_at(net, a, author.type("two"))
    *updates, hello, diff = net.said()
    assert [(each.sender, each.target) for each in updates] == [(a, b), (a, c)]
    assert (hello.sender, hello.target, hello.kind) == (b, a, Kind.HELLO)
    assert decode_hello(hello.envelope.payload).wants
    assert (diff.sender, diff.target, diff.kind) == (a, b, Kind.DIFF)
    assert b.text == c.text == "one two"
    assert (a.losses, b.losses, c.losses) == (0, 1, 0)


def test_a_gap_is_noticed_though_what_follows_does_not_build_upon_it() -> None:
    net = Net()
    a, b = net.node(), net.node()
    net.lose(Kind.UPDATE)
    type_at(net, a, Author(1).type("x"))
    net.heal()
    type_at(net, a, Author(2).type("y"))
    assert sorted(b.text) == ["x", "y"]


def test_a_gap_shows_by_presence_as_well() -> None:
    net = Net()
    a, b = net.node(), net.node()
    net.lose(Kind.UPDATE)
    client = type_at(net, a, Author(1).type("x"))
    net.heal()
    client.send(told(1, 1))
    net.run()
    assert b.text == "x"


def test_what_follows_without_a_gap_leads_to_no_question() -> None:
    net = Net()
    a, b = net.node(), net.node()
    author = Author(1)
    net.said()
    for letter in "abc":
        type_at(net, a, author.type(letter)).send(told(7, ord(letter)))
        net.run()
    assert {said.kind for said in net.said()} == {Kind.UPDATE, Kind.PRESENCE}
    assert b.losses == 0


def test_after_an_answer_the_count_goes_on() -> None:
    net = Net()
    a, b = net.node(), net.node()
    author = Author(1)
    net.lose(Kind.UPDATE)
    type_at(net, a, author.type("a"))
    net.heal()
    type_at(net, a, author.type("b"))
    net.said()
    type_at(net, a, author.type("c"))
    assert [said.kind for said in net.said()] == [Kind.UPDATE]
    assert (b.text, b.losses) == ("abc", 1)


def test_a_message_that_comes_late_leads_to_no_question() -> None:
    net = Net()
    a, b = net.node(), net.node()
    type_at(net, a, Author(1).type("a"))
    late = net.said(Kind.UPDATE)[0].envelope
    type_at(net, a, Author(2).type("b"))
    net.said()
    b.link.receive(late, b.now)
    net.run()
    assert net.said() == []


def test_a_node_is_asked_once_and_again_if_it_does_not_answer() -> None:
    net = Net()
    a, b = net.node(), net.node()
    author = Author(1)
    net.lose(Kind.UPDATE)
    type_at(net, a, author.type("a"))
    net.lose(Kind.DIFF)
    for letter in "bcd":
        type_at(net, a, author.type(letter))
    net.said()
    type_at(net, a, author.type("e"))
    assert net.said(Kind.HELLO) == []
    assert b.losses == 1
    b.wait(ASK_SECONDS - 0.5)
    assert net.said(Kind.HELLO) == []
    net.heal()
    b.wait(0.5)
    (hello,) = net.said(Kind.HELLO)
    assert (hello.sender, hello.target) == (b, a)
    assert b.text == "abcde"
    b.wait(10 * ASK_SECONDS)
    assert net.said(Kind.HELLO) == []


def test_who_was_not_heard_of_is_found_half_a_minute_later() -> None:
    """Until then the store is the way between them."""
    net = Net()
    a = net.node()
    type_at(net, a, Author(1).type("a"))
    net.lose(Kind.HELLO)
    b = net.node()
    net.heal()
    type_at(net, a, Author(2).type("b"))
    a.wait(AUDIT_SECONDS + 1)
    assert sorted(b.text) == ["a", "b"]
    assert b.losses == 0


def test_who_does_not_know_where_a_node_s_count_is_asks_and_counts_no_loss() -> None:
    net = Net()
    a = net.node()
    type_at(net, a, Author(1).type("a"))
    net.lose(Kind.DIFF)
    b = net.node()
    net.heal()
    type_at(net, a, Author(2).type("b"))
    assert sorted(b.text) == ["a", "b"]
    assert b.losses == 0


def test_a_fresh_hello_brings_the_count_along() -> None:
    net = Net()
    a = net.node()
    net.lose(Kind.DIFF)  # so that the hello of b is all that a knows of it
    b = net.node()
    net.heal()
    net.said()
    a.link.hello(wants=False)
    net.run()
    assert [said.kind for said in net.said() if (said.sender, said.target) == (a, b)] == [Kind.DIFF]
    type_at(net, b, Author(1).type("a"))
    assert [said.kind for said in net.said()] == [Kind.UPDATE]
    assert a.text == "a"


def test_a_node_that_opened_the_room_again_is_taken_at_its_new_count() -> None:
    net = Net()
    a, b = net.node(), net.node()
    for _ in range(3):
        type_at(net, a, Author(len(net.log)).type("x"))
    a.link.close()
    for ahead in (5.0, -7.0):  # Clocks of machines that were started anew begin anew.
        a.link = Link(a.rig.room, a, a.rig.limits, a.now + ahead)
        a.rig.room.link = a.link
        a.link.hello(fresh=True)
        net.run()
        net.said()
        type_at(net, a, Author(100 + int(ahead)).type("y"))
        assert [said.kind for said in net.said()] == [Kind.UPDATE]
    assert b.losses == 0


# 2. Hellos


def test_a_room_that_is_opened_learns_what_is_not_in_the_store() -> None:
    net = Net()
    a = net.node()
    type_at(net, a, Author(1).type("unsaved"))
    net.said()
    b = net.node()
    assert b.text == "unsaved"
    hello, diff = net.said()
    assert (hello.sender, hello.target, hello.kind) == (b, None, Kind.HELLO)
    assert decode_hello(hello.envelope.payload).fresh
    assert (diff.sender, diff.target, diff.kind) == (a, b, Kind.DIFF)


def test_who_has_less_than_who_says_hello_asks_it() -> None:
    net = Net()
    a, b = net.node(), net.node()
    net.lose()
    type_at(net, a, Author(1).type("x"))
    type_at(net, b, Author(2).type("y"))
    net.heal()
    a.link.hello()
    net.run()
    assert a.text == b.text
    assert sorted(a.text) == ["x", "y"]


def test_who_lacks_what_one_who_says_hello_has_of_others_asks_it() -> None:
    """It was lost here, and its node cannot be asked any more."""
    net = Net()
    a, b, c = net.node(), net.node(), net.node()
    net.lose(to=b)
    type_at(net, c, Author(1).type("x"))
    net.loses = lambda said, node: c in (said.sender, node)
    assert (a.text, b.text) == ("x", "")
    net.said()
    a.link.hello(wants=False)
    net.run()
    assert b.text == "x"
    questions = [said for said in net.said(Kind.HELLO) if said.target is not None]
    assert [(said.sender, said.target) for said in questions] == [(b, a)]


def test_a_hello_that_wants_no_answer_gets_one_only_if_something_is_missing() -> None:
    net = Net()
    a, b = net.node(), net.node()
    type_at(net, a, Author(1).type("x"))
    net.said()
    b.link.hello(wants=False)
    net.run()
    assert [said.kind for said in net.said()] == [Kind.HELLO]
    net.lose()
    type_at(net, a, Author(2).type("y"))
    net.heal()
    net.said()
    b.link.hello(wants=False)
    net.run()
    assert net.said(Kind.DIFF) != []
    assert a.text == b.text


# 3. Losses of what was said last


def test_that_something_is_saved_is_told_after_a_second_and_once() -> None:
    net = Net()
    a, _ = net.node(), net.node()
    type_at(net, a, Author(1).type("x"))
    net.said()
    a.wait(1)
    assert net.said() == [], "nothing was committed"
    a.commit()
    assert net.said() == []
    a.wait(1)
    (saved,) = net.said()
    assert saved.kind is Kind.SAVED
    assert saved.envelope.saved == saved.envelope.seq
    a.wait(5)
    assert net.said() == []


def test_that_something_is_saved_is_told_with_the_next_edit() -> None:
    net = Net()
    a, b = net.node(), net.node()
    type_at(net, a, Author(1).type("x"))
    a.commit()
    second = Author(2).type("y")
    type_at(net, a, second)
    assert [update for _, update in b.link.borrowed.rows()] == [second]


def test_the_loss_of_the_last_message_shows_when_it_is_told_to_be_saved() -> None:
    net = Net()
    a, b = net.node(), net.node()
    net.lose(Kind.UPDATE)
    type_at(net, a, Author(1).type("x"))
    net.heal()
    a.commit()
    assert b.text == ""
    a.wait(2)
    assert b.text == "x"
    assert b.losses == 1


def test_a_hello_half_a_minute_after_the_last_edit_heals_what_is_left() -> None:
    net = Net()
    a, b = net.node(), net.node()
    net.lose(Kind.UPDATE, Kind.SAVED)
    type_at(net, a, Author(1).type("x"))
    a.commit()
    net.said()
    a.wait(AUDIT_SECONDS)
    assert [said.kind for said in net.said()] == [Kind.SAVED]
    assert b.text == ""
    a.wait(1)
    hello = net.said()[0]
    assert hello.kind is Kind.HELLO
    assert not decode_hello(hello.envelope.payload).wants
    assert b.text == "x"
    a.wait(10 * AUDIT_SECONDS)
    assert net.said() == [], "once is enough"
    assert not a.touched


def test_who_goes_on_typing_is_audited_half_a_minute_after_the_end() -> None:
    net = Net()
    a, _ = net.node(), net.node()
    author = Author(1)
    for letter in "abc":
        type_at(net, a, author.type(letter))
        a.commit()
        net.said()
        a.wait(AUDIT_SECONDS - 1)
        assert net.said(Kind.HELLO) == []


def test_a_deletion_travels_and_its_loss_is_healed_though_no_state_vector_shows_it() -> None:
    net = Net()
    a, b = net.node(), net.node()
    author = Author(1)
    type_at(net, a, author.type("abcdef"))
    a.commit()
    type_at(net, a, author.delete(0, 2))
    assert b.text == "cdef"
    net.lose(Kind.UPDATE)
    type_at(net, a, author.delete(0, 2))
    net.heal()
    assert b.text == "cdef"
    a.commit()
    a.wait(2)
    assert b.text == "ef"


def test_a_deletion_s_loss_is_healed_by_the_hello_half_a_minute_later() -> None:
    net = Net()
    a, b = net.node(), net.node()
    author = Author(1)
    type_at(net, a, author.type("abc"))
    net.lose(Kind.UPDATE, Kind.SAVED)
    type_at(net, a, author.delete(0, 2))
    a.commit()
    a.wait(AUDIT_SECONDS + 1)
    assert b.text == "c"
