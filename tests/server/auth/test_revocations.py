"""What is taken away, from whom, and what stays."""

import json
import random
from math import inf

import pytest

from plait.persistence import Record
from plait.server.auth.principal import Access, BadGrant, Grant, Principal
from plait.server.auth.revocations import (
    KIND,
    Revocation,
    Revocations,
    new_revocation,
    parse_revocation,
    to_record,
)
from tests.server.auth.parts import NOW

EVERYTHING = (Grant("*", Access.ADMIN),)


def ann(issued: float | None = NOW - 1, token_id: str = "t1") -> Principal:
    return Principal("ann", EVERYTHING, token_id=token_id, issued=issued)


def taken(**what: object) -> Revocation:
    return new_revocation(now=NOW, **what)  # type: ignore[arg-type]


def left(revocations: Revocations, principal: Principal, document: str = "notes/a") -> Access:
    return revocations.left(principal, document, NOW)


def holding(*found: Revocation) -> Revocations:
    revocations = Revocations()
    for each in found:
        revocations.add(each)
    return revocations


# Whom it concerns


@pytest.mark.parametrize(
    ("what", "concerned"),
    [
        ({"subject": "ann"}, {"ann t1", "ann t2"}),
        ({"token": "t1"}, {"ann t1", "bob t1"}),
        ({"docs": "notes/*"}, {"ann t1", "ann t2", "bob t1", " "}),
        ({"docs": "other"}, set()),
        ({"subject": "ann", "docs": "notes/*"}, {"ann t1", "ann t2"}),
        ({"subject": "ann", "docs": "other"}, set()),
        ({"subject": "ann", "token": "t2"}, {"ann t2"}),
        ({"subject": "bob", "token": "t2"}, set()),
        ({"token": "t1", "docs": "notes/a"}, {"ann t1", "bob t1"}),
    ],
)
def test_all_that_it_names_has_to_be_right(what: dict[str, str], concerned: set[str]) -> None:
    revocations = holding(taken(**what))
    found = set()
    for subject, token_id in (("ann", "t1"), ("ann", "t2"), ("bob", "t1"), ("", "")):
        principal = Principal(subject, EVERYTHING, token_id=token_id, issued=NOW - 1)
        if left(revocations, principal) < Access.ADMIN:
            found.add(f"{subject} {token_id}")
    assert found == concerned


def test_what_was_issued_before_is_concerned_and_nothing_else() -> None:
    revocations = holding(taken(subject="ann"))
    assert left(revocations, ann(NOW - 0.001)) is Access.NONE
    assert left(revocations, ann(NOW)) is Access.ADMIN
    assert left(revocations, ann(NOW + 1)) is Access.ADMIN
    assert left(revocations, ann(None)) is Access.NONE, "it may have been before"


def test_a_token_that_is_named_is_concerned_whenever_it_was_issued() -> None:
    """There is but one, and the clock of who issued it may be ahead."""
    revocations = holding(taken(token="t1"))
    assert left(revocations, ann(NOW + 5)) is Access.NONE
    assert revocations.ended(ann(NOW + 5), NOW)


def test_the_least_that_is_left_counts() -> None:
    revocations = holding(
        taken(subject="ann", access=Access.READ),
        taken(docs="notes/b"),
    )
    assert left(revocations, ann(), "notes/a") is Access.READ
    assert left(revocations, ann(), "notes/b") is Access.NONE
    assert left(revocations, Principal("bob", issued=0), "notes/a") is Access.ADMIN


def test_they_are_found_as_by_looking_at_all() -> None:
    """Those that concern everybody are found by what names begin with."""
    random.seed(1)
    patterns = (
        "*",
        "a*",
        "ab",
        "ab*",
        "*b",
        "a*b",
        "a\\*",
        "a\\**",
        "abc/*",
        "é*",
        "xyz",
        "ab/*/c",
    )
    names = ("a", "ab", "a*", "a*b", "abc", "abc/", "abc/d", "b", "é", "éa", "xyz", "ab/x/c", "")
    revocations, known = Revocations(), dict[str, Revocation]()
    for _ in range(500):
        if known and random.random() < 0.4:
            revocations.remove(id := random.choice(list(known)))
            del known[id]
        else:
            whose = random.choice([{}, {}, {}, {"subject": "ann"}, {"token": "t1"}])
            access = random.choice([Access.NONE, Access.READ])
            new = taken(docs=random.choice(patterns), access=access, **whose)
            revocations.add(new)
            known[new.id] = new
        for name in names:
            expected = [Access.ADMIN]
            expected += [each.access for each in known.values() if each.covers(name)]
            assert left(revocations, ann(), name) is min(expected)
        for docs in (None, *patterns):
            about = [each for each in known.values() if each.is_about_somebody]
            everybody = [each for each in known.values() if not each.is_about_somebody]
            concerned = bool(about) or any(each.covers(n) for each in everybody for n in names)
            if docs == "*":
                assert revocations.concern(ann(), NOW, docs) == concerned
            elif docs is None:
                assert revocations.concern(ann(), NOW, None) == bool(about)
    for id in list(known):
        revocations.remove(id)
    assert not revocations._groups and not revocations._lengths


def test_a_decision_costs_what_is_about_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the 100,000 that there may be, each decision once took seven tenths of a second."""
    found = (taken(docs=f"{kind}/{n}") for n in range(500) for kind in ("notes", "team/*/x"))
    revocations = holding(*found)
    looked_at: list[str | None] = []
    covers = Revocation.covers

    def counted(revocation: Revocation, document: str) -> bool:
        looked_at.append(revocation.docs)
        return covers(revocation, document)

    monkeypatch.setattr(Revocation, "covers", counted)
    assert left(revocations, ann(), "notes/7") is Access.NONE
    assert left(revocations, ann(), "notes/x") is Access.ADMIN
    assert looked_at == ["notes/7"]


def test_one_that_has_ended_takes_nothing() -> None:
    revocations = holding(taken(subject="ann", until=NOW + 10))
    assert revocations.left(ann(), "x", NOW + 9.9) is Access.NONE
    assert revocations.left(ann(), "x", NOW + 10) is Access.ADMIN
    assert not revocations.ended(ann(), NOW + 10)


def test_nothing_is_left_anywhere_only_if_it_is_about_all_documents() -> None:
    assert holding(taken(subject="ann")).ended(ann(), NOW)
    assert holding(taken(token="t1")).ended(ann(), NOW)
    assert not holding(taken(subject="ann", access=Access.READ)).ended(ann(), NOW)
    assert not holding(taken(subject="ann", docs="*")).ended(ann(), NOW)
    assert not holding(taken(docs="*")).ended(ann(), NOW)


# Many


def test_one_is_taken_back_or_takes_the_place_of_one_of_the_same_id() -> None:
    first = taken(subject="ann")
    revocations = holding(first)
    second = Revocation(first.id, "bob", None, None, Access.NONE, NOW)
    revocations.add(second)
    assert len(revocations) == 1
    assert left(revocations, ann()) is Access.ADMIN
    assert revocations.remove(first.id) == second
    assert revocations.remove(first.id) is None
    assert len(revocations) == 0


def test_others_revocations_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    many = holding(*(taken(subject=f"subject {number}") for number in range(5_000)))
    for number in range(5_000):
        many.add(taken(token=f"token {number}"))
    assert left(many, Principal("subject 7", issued=0)) is Access.NONE
    assert left(many, Principal("x", token_id="token 7", issued=0)) is Access.NONE
    looked_at: list[Revocation] = []
    concerns = Revocation.concerns

    def counted(self: Revocation, principal: Principal) -> bool:
        looked_at.append(self)
        return concerns(self, principal)

    monkeypatch.setattr(Revocation, "concerns", counted)
    assert left(many, ann()) is Access.ADMIN
    assert not looked_at
    assert left(many, Principal("subject 8", issued=0)) is Access.NONE
    assert [each.subject for each in looked_at] == ["subject 8"]


def test_those_that_have_ended_are_let_go_of() -> None:
    revocations = holding(
        taken(subject="ann", until=NOW + 10),
        taken(token="t9", until=NOW + 20),
        taken(docs="x"),
    )
    assert revocations.take_ended(NOW + 9) == []
    assert [each.subject for each in revocations.take_ended(NOW + 10)] == ["ann"]
    assert len(revocations) == 2
    assert [each.token for each in revocations.take_ended(NOW + 99)] == ["t9"]
    assert revocations.take_ended(inf) == []
    assert len(revocations) == 1


def test_one_that_was_taken_back_or_put_again_does_not_end_a_second_time() -> None:
    gone, changed = taken(subject="ann", until=NOW + 1), taken(subject="bob", until=NOW + 1)
    revocations = holding(gone, changed)
    revocations.remove(gone.id)
    later = Revocation(changed.id, "bob", None, None, Access.NONE, NOW, NOW + 5)
    revocations.add(later)
    assert revocations.take_ended(NOW + 2) == []
    assert revocations.take_ended(NOW + 5) == [later]


# What can't be


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ({}, "name a subject"),
        ({"subject": ""}, "empty"),
        ({"token": ""}, "empty"),
        ({"subject": "x" * 257}, "256 characters"),
        ({"subject": "a\nb"}, "256 characters"),
        ({"token": "x", "reason": "x" * 257}, "256 characters"),
        ({"docs": ""}, "pattern"),
        ({"docs": "a\\b"}, "backslash"),
        ({"subject": "ann", "access": Access.WRITE}, "none or read"),
        ({"subject": "ann", "access": Access.ADMIN}, "none or read"),
        ({"subject": "\ud800"}, "256 characters"),
    ],
)
def test_what_cannot_be_is_refused(what: dict[str, object], reason: str) -> None:
    with pytest.raises(BadGrant, match=reason):
        taken(**what)


# In the store


@pytest.mark.parametrize(
    "what",
    [
        {"subject": "ann", "reason": "left", "by": "app"},
        {"token": "t", "until": NOW + 60},
        {"docs": "ü/*", "access": Access.READ},
    ],
)
def test_it_comes_back_from_the_store(what: dict[str, object]) -> None:
    revocation = taken(**what)
    record = to_record(revocation, int(NOW * 1000))
    assert (record.kind, record.id) == (KIND, revocation.id)
    assert record.until_ms == (None if revocation.until == inf else (NOW + 60) * 1000)
    assert parse_revocation(record) == revocation


@pytest.mark.parametrize(
    "change",
    [
        {"access": "write"},
        {"before": "soon"},
        {"docs": 7},
        {"docs": "a\\b"},
        {"subject": ...},
    ],
)
def test_a_record_that_is_none_is_told(change: dict[str, object]) -> None:
    record = to_record(taken(subject="ann"), 0)
    told = json.loads(record.value) | change
    told = {name: value for name, value in told.items() if value is not ...}
    with pytest.raises(BadGrant):
        parse_revocation(Record(KIND, "x", json.dumps(told), 0))
    for text in ("", "[]", "7", "{"):
        with pytest.raises(BadGrant):
            parse_revocation(Record(KIND, "x", text, 0))


# What an administrator may still do


def test_who_was_taken_anything_from_in_person_is_no_administrator() -> None:
    for what in ({"subject": "ann"}, {"token": "t1"}, {"subject": "ann", "docs": "far/away"}):
        revocations = holding(taken(**what))
        assert revocations.concern(ann(), NOW, None)
        assert revocations.concern(ann(), NOW, "notes/*")
        assert not revocations.concern(Principal("bob", issued=0), NOW, "*")


def test_what_was_taken_from_everybody_counts_for_these_documents_only() -> None:
    revocations = holding(taken(docs="far/*"))
    assert not revocations.concern(ann(), NOW, None)
    assert not revocations.concern(ann(), NOW, "notes/*")
    for docs in ("far/*", "far/away", "*", "f*"):
        assert revocations.concern(ann(), NOW, docs), docs
    assert not revocations.concern(ann(NOW + 1), NOW, "far/*"), "issued afterwards"
