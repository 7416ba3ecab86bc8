"""Who is let in, what they may do, and that whoever holds a pass is told when that changes.

The verifiers are real ones, and so is the store; holders of passes keep what they are told.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from itertools import pairwise
from math import inf
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from plait.persistence import Record, RecordChanges
from plait.persistence.memory import MemoryStore
from plait.server import pace
from plait.server.audit import Audit
from plait.server.auth import guard, setup
from plait.server.auth.chain import Verifiers
from plait.server.auth.guard import Guard, Pass
from plait.server.auth.keys import KIND as KEY
from plait.server.auth.keys import ApiKeys, make_key
from plait.server.auth.principal import Access, Grant, Principal, parse_grants
from plait.server.auth.revocations import KIND as REVOCATION
from plait.server.auth.revocations import new_revocation, to_record
from plait.server.auth.verifier import Verifier
from plait.server.errors import NotAllowed, PlaitError, Unauthorized
from plait.server.settings import Settings
from tests.server.auth.parts import NOW, SECRET, Clock, token


class Holder:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def permit(self, may_write: bool) -> None:
        self.told.append("write" if may_write else "read")

    def close(self, error: PlaitError) -> None:
        self.told.append(f"{int(error.close_code)} {error}")


class Rig:
    """A guard, and what it needs."""

    def __init__(
        self, *more: Verifier, open_to_this_machine: bool = False, **settings: Any
    ) -> None:
        self.clock = Clock()
        self.store = MemoryStore()
        known = Settings(**{"token_secret": (SECRET,), **settings})
        self.verifiers = setup.build(known, self.store, self.clock)
        if more:
            self.verifiers = Verifiers(more, None, self.clock)
        self.guard = Guard(
            self.verifiers,
            Audit(self.clock),
            self.clock,
            open_to_this_machine=open_to_this_machine,
            only_keys=not setup.verifies_tokens(known),
            cookie="auth",
        )

    async def come(self, document: str, bearer: str | None = None) -> tuple[Pass, Holder]:
        """Come in as a socket does."""
        principal = await self.guard.identify(connection(bearer), document)
        held = self.guard.let_in(principal, document)
        held.holder = holder = Holder()
        return held, holder

    async def revoke(self, **what: Any) -> Record:
        """Learn of a revocation."""
        record = to_record(new_revocation(now=self.clock.at, **what), 0)
        await self.guard.learn(RecordChanges(1, (record,)))
        return record

    async def give_back(self, record: Record) -> None:
        """Learn that a record is gone."""
        await self.guard.learn(RecordChanges(1, (), ((record.kind, record.id),)))


def connection(bearer: str | None = None, *, host: str = "localhost") -> HTTPConnection:
    headers = [(b"host", host.encode())]
    if bearer is not None:
        headers.append((b"authorization", b"Bearer " + bearer.encode()))
    return HTTPConnection(
        {"type": "http", "headers": headers, "query_string": b"", "client": ("127.0.0.1", 1)}
    )


def can(*grants: tuple[str, str], **more: Any) -> str:
    """Return Ann's token, by which she may do so much."""
    said = [{"docs": docs, "access": access} for docs, access in grants]
    return token(**{"grants": said, "iat": NOW - 60, **more})


# Who


async def test_where_nothing_is_configured_this_machine_may_do_everything() -> None:
    rig = Rig(open_to_this_machine=True)
    principal = await rig.guard.identify(connection(), "x")
    assert rig.guard.access(principal, "x") is Access.ADMIN
    assert rig.guard.is_operator(principal)
    with pytest.raises(Unauthorized, match="allow-anonymous"):
        await rig.guard.identify(connection(host="evil.example"), "x")


async def test_an_api_key_counts_where_nothing_is_configured() -> None:
    rig = Rig(open_to_this_machine=True, token_secret=())
    key, record = make_key("robot", "", parse_grants([{"docs": "x", "access": "read"}]), NOW)
    await rig.store.put_record(record)
    principal = await rig.guard.identify(connection(key, host="elsewhere.example"), "x")
    assert rig.guard.access(principal, "x") is Access.READ
    with pytest.raises(Unauthorized, match="API key"):
        await rig.guard.identify(connection(key[:19] + key[19:].swapcase()), "x")


async def test_where_nothing_verifies_tokens_others_count_as_none() -> None:
    """An application may send its own token to servers that do not look at it."""
    rig = Rig(open_to_this_machine=True, token_secret=())
    assert rig.guard.access(await rig.guard.identify(connection("x"), "x"), "x") is Access.ADMIN
    rig = Rig(token_secret=(), allow_anonymous=True, anonymous_access="read")
    assert rig.guard.access(await rig.guard.identify(connection("x"), "x"), "x") is Access.READ
    with pytest.raises(Unauthorized):
        await Rig(allow_anonymous=True).guard.identify(connection("garbage"), "x")


async def test_without_a_token_nobody_comes_in() -> None:
    with pytest.raises(Unauthorized, match="a token is needed"):
        await Rig().guard.identify(connection(), "x")


async def test_an_expired_token_is_refused_to_the_second() -> None:
    rig = Rig(jwt_leeway_seconds=0.0)
    bearer = can(("x", "read"), exp=NOW + 60)
    rig.clock.at = NOW + 59.9
    await rig.guard.identify(connection(bearer), "x")
    rig.clock.at = NOW + 60
    with pytest.raises(Unauthorized, match="expired"):
        await rig.guard.identify(connection(bearer), "x")


async def test_who_has_ended_is_refused_whatever_the_verifier_says() -> None:
    class Lenient:
        """Looks at no time."""

        name = "lenient"
        counts_seconds = 0.0
        per_document = False

        async def verify(self, token: str, document: str | None) -> Principal | None:
            return Principal("ann", (Grant("x", Access.READ),), token_id="t", until=NOW)

        async def close(self) -> None:
            """Nothing is held."""

    with pytest.raises(Unauthorized, match="expired"):
        await Rig(Lenient()).guard.identify(connection("any"), "x")


async def test_a_revoked_token_is_refused_though_it_was_verified_just_before() -> None:
    rig = Rig()
    bearer = can(("x", "write"), jti="t1")
    await rig.guard.identify(connection(bearer), "x")
    await rig.revoke(token="t1")
    with pytest.raises(Unauthorized, match="taken away"):
        await rig.guard.identify(connection(bearer), "x")
    await rig.guard.identify(connection(can(("x", "write"), jti="t2")), "x")


async def test_a_key_that_is_deleted_while_it_is_looked_up_lets_nobody_in() -> None:
    key, record = make_key("robot", "", parse_grants([{"docs": "*", "access": "read"}]), NOW)

    class Slow(MemoryStore):
        """Tells of the key what was so before it was deleted."""

        async def record(self, kind: str, id: str) -> Record | None:
            found = await super().record(kind, id)
            if found is not None:
                await self.remove_record(kind, id)
                await rig.guard.learn(RecordChanges(2, (), ((kind, id),)))
            return found

    store = Slow()
    rig = Rig(ApiKeys(store, Clock()))
    await store.put_record(record)
    with pytest.raises(Unauthorized, match="API key"):
        await rig.guard.identify(connection(key), "x")


# What they may


@pytest.mark.parametrize(
    ("access", "needed", "fine"),
    [
        ("read", Access.READ, True),
        ("read", Access.WRITE, False),
        ("read", Access.ADMIN, False),
        ("write", Access.READ, True),
        ("write", Access.WRITE, True),
        ("write", Access.ADMIN, False),
        ("admin", Access.ADMIN, True),
    ],
)
async def test_a_right_has_to_be_enough(access: str, needed: Access, fine: bool) -> None:
    rig = Rig()
    principal = await rig.guard.identify(connection(can(("notes/*", access))), "notes/a")
    if fine:
        assert rig.guard.require(principal, "notes/a", needed).word == access
    else:
        with pytest.raises(NotAllowed):
            rig.guard.require(principal, "notes/a", needed)
    with pytest.raises(NotAllowed):
        rig.guard.require(principal, "other", Access.READ)


async def test_who_has_no_token_is_told_to_get_one() -> None:
    rig = Rig(allow_anonymous=True, anonymous_access="read", anonymous_docs=("open/*",))
    nobody = await rig.guard.identify(connection(), "open/a")
    assert rig.guard.require(nobody, "open/a", Access.READ) is Access.READ
    for document, needed in (("open/a", Access.WRITE), ("closed", Access.READ)):
        with pytest.raises(Unauthorized, match="a token with the right"):
            rig.guard.require(nobody, document, needed)
    assert rig.guard.let_in(nobody, "open/a").who == ""


async def test_what_was_taken_from_everybody_can_be_given_back_by_an_administrator() -> None:
    rig = Rig()
    admin = await rig.guard.identify(connection(can(("*", "admin"))), None)
    await rig.revoke(docs="far/*")
    assert rig.guard.access(admin, "far/a") is Access.NONE
    assert rig.guard.administers(admin, "far/*") and rig.guard.is_operator(admin)
    assert rig.guard.may_grant(admin, Grant("notes/*", Access.READ, NOW + 9), NOW)
    assert not rig.guard.may_grant(admin, Grant("far/*", Access.READ, NOW + 9), NOW)
    assert not rig.guard.may_grant(admin, Grant("*", Access.READ, NOW + 9), NOW)


async def test_who_lost_anything_in_person_gives_nothing_away() -> None:
    rig = Rig()
    admin = await rig.guard.identify(connection(can(("*", "admin"))), None)
    await rig.revoke(subject="ann", docs="far/*")
    assert not rig.guard.administers(admin, "notes/*")
    assert not rig.guard.is_operator(admin)
    assert not rig.guard.may_grant(admin, Grant("notes/*", Access.READ, NOW + 9), NOW)


# A pass is kept true


async def test_a_right_that_ends_closes_the_socket() -> None:
    rig = Rig(jwt_leeway_seconds=0.0)
    _, holder = await rig.come("x", can(("x", "read"), exp=NOW + 60))
    rig.clock.at = NOW + 59
    await rig.guard.tick()
    assert holder.told == []
    rig.clock.at = NOW + 60
    await rig.guard.tick()
    await rig.guard.tick()
    (told,) = holder.told
    assert told.startswith("4401 the token has expired")


@pytest.mark.parametrize("how", ["they end", "a revocation", "a pattern", "a token"])
async def test_when_many_are_closed_others_have_turns_in_between(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart all tokens may be of one second."""
    monkeypatch.setattr(pace, "WORK_SECONDS", 0.0)  # whatever was done was work for long enough
    rig = Rig(jwt_leeway_seconds=0.0)
    bearer = can(("*", "read"), exp=NOW + 60, jti="t")
    holders = [(await rig.come(f"x{number % 7}", bearer))[1] for number in range(50)]
    if how == "they end":
        rig.clock.at = NOW + 60
        work: Coroutine[Any, Any, Any] = rig.guard.tick()
    else:
        about = {"a revocation": {"subject": "ann"}, "a pattern": {"docs": "x*"}}
        work = rig.revoke(**about.get(how, {"token": "t"}))
    going_on = asyncio.create_task(work)
    closed = [0]
    while not going_on.done():
        await asyncio.sleep(0)
        closed.append(sum(bool(each.told) for each in holders))
    assert closed[-1] == len(holders)
    assert all(after - before <= 1 for before, after in pairwise(closed))


async def test_a_grant_that_ends_leaves_what_another_gives() -> None:
    rig = Rig()
    grants = [
        {"docs": "x", "access": "write", "until": NOW + 10},
        {"docs": "*", "access": "read", "until": NOW + 20},
    ]
    held, holder = await rig.come("x", token(grants=grants))
    for seconds in (9, 10, 19, 20):
        rig.clock.at = NOW + seconds
        await rig.guard.tick()
        holder.told.append(f"{seconds}")
    assert holder.told[:3] == ["9", "read", "10"]
    assert holder.told[3] == "19" and holder.told[4].startswith("4401")
    assert held.access is Access.NONE


@pytest.mark.parametrize(
    "what",
    [
        {"subject": "ann"},
        {"token": "t1"},
        {"docs": "x"},
        {"docs": "*"},
        {"subject": "ann", "docs": "x"},
        {"subject": "ann", "token": "t1"},
    ],
)
async def test_what_is_revoked_is_closed_and_nothing_else(what: dict[str, str]) -> None:
    rig = Rig()
    _, ann = await rig.come("x", can(("*", "write"), jti="t1"))
    _, elsewhere = await rig.come("y", can(("*", "write"), jti="t2"))
    _, bob = await rig.come("z", can(("*", "write"), jti="t3", sub="bob"))
    await rig.revoke(**what)
    (told,) = ann.told
    assert told.startswith("4401 the right to read this document was taken away")
    hit = what in ({"subject": "ann"}, {"docs": "*"})
    assert len(elsewhere.told) == hit
    assert len(bob.told) == (what == {"docs": "*"})


async def test_a_right_that_is_lessened_and_given_back_is_told() -> None:
    rig = Rig()
    held, holder = await rig.come("x", can(("*", "write")))
    _, reader = await rig.come("x", can(("*", "read")))
    record = await rig.revoke(subject="ann", access=Access.READ)
    assert holder.told == ["read"] and not held.may_write
    await rig.give_back(record)
    assert holder.told == ["read", "write"] and held.may_write
    assert reader.told == [], "nothing has changed for it"


async def test_a_revocation_that_ends_by_itself_gives_the_right_back() -> None:
    rig = Rig()
    _, holder = await rig.come("x", can(("*", "write")))
    await rig.revoke(docs="x", access=Access.READ, until=NOW + 10)
    rig.clock.at = NOW + 9
    await rig.guard.tick()
    assert holder.told == ["read"]
    rig.clock.at = NOW + 10
    await rig.guard.tick()
    assert holder.told == ["read", "write"]
    assert len(rig.guard.revocations) == 0, "it is in nobody's way"


async def test_who_connects_after_a_revocation_with_a_new_token_stays() -> None:
    rig = Rig()
    await rig.revoke(subject="ann")
    rig.clock.at += 1
    _, holder = await rig.come("x", can(("x", "write"), iat=NOW + 1))
    await rig.revoke(subject="bob")
    assert holder.told == []


async def test_a_deleted_key_closes_its_sockets() -> None:
    rig = Rig()
    grants = parse_grants([{"docs": "*", "access": "write"}])
    (key, record), (other, kept) = (make_key("robot", "", grants, NOW) for _ in range(2))
    for each in (record, kept):
        await rig.store.put_record(each)
    _, holder = await rig.come("x", key)
    _, bystander = await rig.come("x", other)
    await rig.store.remove_record(KEY, record.id)
    await rig.give_back(record)
    assert len(holder.told) == 1 and holder.told[0].startswith("4401")
    assert bystander.told == []
    with pytest.raises(Unauthorized):
        await rig.guard.identify(connection(key), "x")


async def test_what_a_store_that_tells_all_does_not_tell_is_gone() -> None:
    rig = Rig()
    grants = parse_grants([{"docs": "*", "access": "write"}])
    (key, record), (other, kept) = (make_key("robot", "", grants, NOW) for _ in range(2))
    for each in (record, kept):
        await rig.store.put_record(each)
    _, gone = await rig.come("x", key)
    _, stays = await rig.come("x", other)
    _, ann = await rig.come("x", can(("*", "write"), jti="t1"))
    await rig.revoke(subject="ann", access=Access.READ)
    assert ann.told == ["read"]
    await rig.guard.learn(RecordChanges(9, (kept,), (), whole=True))
    assert ann.told == ["read", "write"]
    assert [each[:4] for each in gone.told] == ["4401"] and stays.told == []


async def test_a_pass_that_was_released_is_told_nothing() -> None:
    rig = Rig(jwt_leeway_seconds=0.0)
    held, holder = await rig.come("x", can(("*", "write"), exp=NOW + 5))
    held.release()
    held.release()
    await rig.revoke(subject="ann")
    rig.clock.at += 60
    await rig.guard.tick()
    assert holder.told == []


async def test_a_right_that_ends_before_anybody_holds_the_pass_is_known() -> None:
    rig = Rig()
    principal = await rig.guard.identify(connection(can(("x", "write"))), "x")
    held = rig.guard.let_in(principal, "x")
    await rig.revoke(subject="ann")
    assert held.access is Access.NONE and not held.may_write


async def test_a_revocation_reaches_thousands_of_passes() -> None:
    rig = Rig()
    bearer = can(("*", "write"))
    held = [await rig.come(f"x{number % 7}", bearer) for number in range(1500)]
    await rig.revoke(docs="*", access=Access.READ)
    assert all(holder.told == ["read"] for _, holder in held)


async def test_a_record_that_cannot_be_read_is_no_reason_to_stop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig()
    _, holder = await rig.come("x", can(("*", "write")))
    good = to_record(new_revocation(now=NOW, subject="ann"), 0)
    bad = Record(REVOCATION, "0", "nonsense", 0)
    await rig.guard.learn(RecordChanges(2, (bad, good)))
    assert len(holder.told) == 1
    assert "not a revocation" in caplog.text


# Another token


async def test_another_token_takes_the_place_of_the_old_one() -> None:
    rig = Rig(jwt_leeway_seconds=0.0)
    held, holder = await rig.come("x", can(("x", "write"), exp=NOW + 60, jti="t1"))
    await held.renew(can(("x", "read"), exp=NOW + 120, jti="t2"))
    assert holder.told == ["read"]
    await held.renew(can(("x", "write"), exp=NOW + 120, jti="t3"))
    assert holder.told == ["read", "write"]
    rig.clock.at = NOW + 60
    await rig.guard.tick()
    await rig.revoke(token="t1")
    assert holder.told == ["read", "write"], "the old one is of no account"
    await rig.revoke(token="t3")
    assert len(holder.told) == 3 and holder.told[2].startswith("4401")


@pytest.mark.parametrize(
    ("bearer", "error"),
    [
        ("garbage", Unauthorized),
        (token(key="x" * 40), Unauthorized),
        (can(("x", "write"), exp=NOW - 60), Unauthorized),
        (can(("y", "write")), NotAllowed),
        (can(("x", "write"), sub="bob"), NotAllowed),
        (can(("x", "write"), jti="revoked"), Unauthorized),
    ],
)
async def test_a_token_that_is_no_use_changes_nothing(bearer: str, error: type[PlaitError]) -> None:
    rig = Rig()
    await rig.revoke(token="revoked")
    held, holder = await rig.come("x", can(("x", "write"), jti="t1"))
    with pytest.raises(error):
        await held.renew(bearer)
    assert holder.told == [] and held.may_write
    await rig.revoke(token="t1")
    assert len(holder.told) == 1


async def test_who_renews_without_end_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SECONDS_KEPT", 5)
    rig = Rig()
    held, _ = await rig.come("x", can(("x", "write")))
    bearers = [can(("x", "write"), exp=NOW + 3600 + seconds) for seconds in range(30)]
    for bearer in bearers * 3:
        await held.renew(bearer)
    for bearer in bearers * 3:
        other, _ = await rig.come("x", bearer)
        other.release()
    assert len(rig.guard._ending) == 1, "held alone expects an end"
    assert len(rig.guard._seconds) <= 2 + 5 + 1


async def test_passes_that_end_together_and_renewals_are_not_mixed_up() -> None:
    rig = Rig(jwt_leeway_seconds=0.0)
    found: Sequence[tuple[Pass, Holder]] = [
        await rig.come("x", can(("x", "write"), exp=NOW + 10)) for _ in range(20)
    ]
    for held, _ in found[::2]:
        await held.renew(can(("x", "write"), exp=NOW + 20))
    for held, _ in found[::4]:
        await held.renew(can(("x", "write"), exp=NOW + 10))
    rig.clock.at = NOW + 10
    await rig.guard.tick()
    ended = [number for number, (_, holder) in enumerate(found) if holder.told]
    assert ended == [n for n in range(20) if n % 2 or n % 4 == 0]
    rig.clock.at = NOW + 20
    await rig.guard.tick()
    assert all(len(holder.told) == 1 for _, holder in found)


def test_a_principal_without_end_is_expected_to_end_never() -> None:
    rig = Rig()
    held = rig.guard.let_in(Principal("ann", (Grant("x", Access.READ),), token_id="t"), "x")
    assert held.changes_at == inf and not rig.guard._ending
