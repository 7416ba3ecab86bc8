"""All verifiers together: who is asked, what is remembered, what is forgotten."""

import asyncio
from dataclasses import dataclass, field
from math import inf

import pytest

from plait.persistence.memory import MemoryStore
from plait.server.auth import chain
from plait.server.auth.chain import REFUSED_SECONDS, Verifiers
from plait.server.auth.credentials import Credential
from plait.server.auth.keys import KIND, ApiKeys, make_key
from plait.server.auth.principal import Access, Grant, Principal
from plait.server.errors import AuthUnavailable, Unauthorized
from tests.server.auth.parts import NOW, Clock, token, verifier
from tests.support.deadlines import eventually


@dataclass
class Book:
    """A verifier that knows tokens by heart, and notes what it is asked."""

    known: dict[str, Principal | Exception] = field(default_factory=dict)
    name: str = "book"
    counts_seconds: float = 60.0
    per_document: bool = False
    asked: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None
    about: list[str | None] = field(default_factory=list)

    async def verify(self, token: str, document: str | None) -> Principal | None:
        self.asked.append(token)
        self.about.append(document)
        found = self.known.get(token)
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(found, Exception):
            raise found
        return found

    async def close(self) -> None:
        self.asked.append("closed")


def shown(token: str) -> Credential:
    return Credential(token, "header")


async def test_a_token_is_needed_unless_anybody_may_come() -> None:
    with pytest.raises(Unauthorized, match="a token is needed: send it as Authorization: Bearer"):
        await Verifiers([], None, Clock()).principal(None, "a")
    nobody = Principal("", (Grant("*", Access.READ),))
    assert await Verifiers([], nobody, Clock()).principal(None, "a") is nobody


async def test_who_shows_a_wrong_token_is_not_anonymous() -> None:
    nobody = Principal("")
    with pytest.raises(Unauthorized, match="^the token is not valid here$"):
        await Verifiers([verifier()], nobody, Clock()).principal(shown("x"), "a")


async def test_each_kind_finds_its_verifier() -> None:
    store, clock = MemoryStore(), Clock()
    key, record = make_key("robot", "", [], NOW)
    await store.put_record(record)
    last = Book({"ticket": Principal("ben", token_id="3")})
    both = Verifiers([ApiKeys(store, clock), verifier(), last], None, clock, clock)
    said = [await both.principal(shown(each), None) for each in (key, token(), "ticket")]
    assert [each.subject for each in said] == ["robot", "ann", "ben"]
    assert last.asked == ["ticket"]


async def test_what_was_said_is_remembered_for_its_time() -> None:
    clock, book = Clock(), Book({"a": Principal("a"), "b": Principal("b", until=NOW + 10)})
    verifiers = Verifiers([book], None, clock, clock)
    for document in ("x", "y", None):
        await verifiers.principal(shown("a"), document)
        await verifiers.principal(shown("b"), document)
    assert book.asked == ["a", "b"]
    clock.at += 10
    await verifiers.principal(shown("b"), None)
    assert book.asked == ["a", "b", "b"]
    clock.at += 50
    await verifiers.principal(shown("a"), None)
    assert book.asked == ["a", "b", "b", "a"]


async def test_a_refusal_is_remembered_for_a_moment() -> None:
    clock, book = Clock(), Book({"bad": Unauthorized("it is bad")})
    verifiers = Verifiers([book], None, clock, clock)
    for _ in range(3):
        with pytest.raises(Unauthorized, match="it is bad"):
            await verifiers.principal(shown("bad"), "x")
        with pytest.raises(Unauthorized, match="not valid here"):
            await verifiers.principal(shown("unknown"), "x")
    assert book.asked == ["bad", "unknown"]
    clock.at += REFUSED_SECONDS
    book.known["bad"] = Principal("better")
    assert (await verifiers.principal(shown("bad"), "x")).subject == "better"


QUESTIONS = (None, "x", "y", "None", "")


@pytest.mark.parametrize("first", QUESTIONS)
@pytest.mark.parametrize("token", ["known", "bad", "unknown"])
async def test_an_answer_about_one_document_says_nothing_of_another_or_of_none(
    token: str, first: str | None
) -> None:
    """`GET /api/docs` asks about no document; what was answered once counted for all of them."""
    clock = Clock()
    book = Book({"known": Principal("a"), "bad": Unauthorized("it is bad")}, per_document=True)
    verifiers = Verifiers([verifier(), book], None, clock, clock)
    others = [each for each in QUESTIONS if each != first]
    for document in (first, *others, *others, first):
        if token == "known":
            await verifiers.principal(shown(token), document)
        else:
            with pytest.raises(Unauthorized):
                await verifiers.principal(shown(token), document)
    assert book.about == [first, *others]


async def test_that_nobody_knows_is_not_remembered() -> None:
    clock, book = Clock(), Book({"a": AuthUnavailable("away")})
    verifiers = Verifiers([book], None, clock, clock)
    with pytest.raises(AuthUnavailable):
        await verifiers.principal(shown("a"), None)
    book.known["a"] = Principal("a")
    assert (await verifiers.principal(shown("a"), None)).subject == "a"


async def test_what_is_forgotten_is_asked_about_again() -> None:
    clock = Clock()
    book = Book({name: Principal(name, token_id=name) for name in "ab"})
    verifiers = Verifiers([book], None, clock, clock)

    async def show() -> str:
        book.asked.clear()
        await verifiers.principal(shown("a"), None)
        await verifiers.principal(shown("b"), None)
        return "".join(book.asked)

    assert [await show(), await show()] == ["ab", ""]
    verifiers.forget("a")
    assert await show() == "a"
    verifiers.forget()
    assert await show() == "ab"


async def test_what_is_forgotten_on_the_way_is_not_remembered() -> None:
    clock, gate = Clock(), asyncio.Event()
    book = Book({"a": Principal("a", token_id="a")}, gate=gate)
    verifiers = Verifiers([book], None, clock, clock)
    asking = asyncio.create_task(verifiers.principal(shown("a"), None))
    await eventually(lambda: book.asked, "the question")
    verifiers.forget("a")
    book.known["a"] = Unauthorized("taken back")
    gate.set()
    await asking
    with pytest.raises(Unauthorized, match="taken back"):
        await verifiers.principal(shown("a"), None)


async def test_a_key_that_was_taken_back_counts_no_more_once_it_is_forgotten() -> None:
    store, clock = MemoryStore(), Clock()
    key, record = make_key("robot", "", [], NOW)
    await store.put_record(record)
    verifiers = Verifiers([ApiKeys(store, clock)], None, clock, clock)
    somebody = await verifiers.principal(shown(key), None)
    await store.remove_record(KIND, record.id)
    assert await verifiers.principal(shown(key), None) is somebody
    verifiers.forget(somebody.token_id)
    with pytest.raises(Unauthorized):
        await verifiers.principal(shown(key), None)


async def test_only_so_much_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "VERIFIED_WEIGHT_MAX", 10)
    monkeypatch.setattr(chain, "REFUSED_MAX", 10)
    clock, many = Clock(), (Grant("x", Access.READ),) * 32
    book = Book({str(number): Principal("x") for number in range(20)})
    book.known["heavy"] = Principal("x", many)
    verifiers = Verifiers([book], None, clock, clock)
    for number in range(20):
        await verifiers.principal(shown(str(number)), None)
        with pytest.raises(Unauthorized):
            await verifiers.principal(shown(f"bad{number}"), None)
    assert (len(verifiers._known), verifiers._weight, len(verifiers._refused)) == (10, 10, 10)
    await verifiers.principal(shown("heavy"), None)
    assert (len(verifiers._known), verifiers._weight) == (6, 10)
    verifiers.forget()
    assert (len(verifiers._known), verifiers._weight) == (0, 0)


async def test_tokens_are_not_kept() -> None:
    clock = Clock()
    verifiers = Verifiers([Book({"a-long-token": Principal("a")})], None, clock, clock)
    await verifiers.principal(shown("a-long-token"), None)
    assert "a-long-token" not in repr(vars(verifiers)["_known"])


async def test_every_verifier_tells_what_it_thinks() -> None:
    book = Book({token(): AuthUnavailable("away")})
    verifiers = Verifiers([verifier(), book], None, Clock())
    yes, away = await verifiers.inspect(token(), None)
    assert (yes.verifier, yes.reason) == ("jwt", "") and yes.principal is not None
    assert (away.verifier, away.principal, away.reason) == ("book", None, "away")
    no, _ = await verifiers.inspect("x", None)
    assert no.principal is None and "not of this kind" in no.reason
    await verifiers.close()
    assert book.asked[-1] == "closed"


async def test_a_verifier_may_be_right_for_ever() -> None:
    clock, book = Clock(), Book({"a": Principal("a")}, counts_seconds=inf)
    verifiers = Verifiers([book], None, clock, clock)
    for _ in range(2):
        await verifiers.principal(shown("a"), None)
        clock.at += 1e9
    assert book.asked == ["a"]
