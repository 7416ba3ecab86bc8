"""States that go over slow lines: in portions, so that a client that gives up when it hears nothing
complete for long gets them all the same.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from pycrdt import Doc, Text

from plait.server import answers, lines
from plait.server.limits import Limits
from plait.server.outbox import Outbox
from plait.server.wire.messages import AwarenessUpdate, Message, SyncStep1, SyncStep2, SyncUpdate
from tests.support.authors import Author
from tests.support.deadlines import eventually
from tests.support.direct import Node, node
from tests.support.drivers import Driver
from tests.support.frames import update
from tests.support.peer import Peer, peer
from tests.support.proxy import Proxy
from tests.support.rooms import Client, Rig, told

# What is sent when


class Line(Outbox):
    """An outbox that can find out what has arrived, when the test says so."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits, lambda: None)
        self.arrived: list[Callable[[], None]] = []

    def ask_receipt(self, arrived: Callable[[], None]) -> bool:
        self.arrived.append(arrived)
        return True

    def answer(self) -> None:
        """Tell that everything has arrived."""
        arrived, self.arrived = self.arrived, []
        for each in arrived[-1:]:  # The first question is about what was sent before.
            each()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let little count as much."""
    monkeypatch.setattr(lines, "WHOLE_BYTES", 2000)
    monkeypatch.setattr(lines, "OPENING_BYTES", 1000)
    monkeypatch.setattr(lines, "PORTION_BYTES", 1000)


def room_with_text(letters: int = 10_000) -> tuple[Rig, Author, Client, Line]:
    """Return a room with a text, its author, and a member that has nothing of it."""
    rig, author = Rig(), Author(1)
    rig.client().send(SyncUpdate(author.type("x" * letters)))
    rig.turn()
    rig.log.commit()
    late = rig.client()
    line = late.member.outbox = late.socket.outbox = Line(rig.limits)
    late.send(SyncStep1(b"\x00"))
    return rig, author, late, line


def states(messages: list[Message]) -> list[bytes]:
    """Return the updates that came."""
    return [each.update for each in messages if isinstance(each, SyncUpdate | SyncStep2)]


async def rest(rig: Rig, client: Client) -> list[Message]:
    """Return what is sent to one that takes everything, one after another."""
    found: list[Message] = []
    while messages := client.received():
        whole = isinstance(messages[0], SyncStep2)
        assert len(messages) == 1 or whole, "the next one is sent when the one before is taken"
        found += messages
        rig.room.catch_up(client.member)
        await asyncio.sleep(0)
    return found


async def test_over_a_fast_line_the_whole_follows_the_opening(small: None) -> None:
    rig, author, late, line = room_with_text()
    (first,) = states(late.received())
    assert len(first) < 1100
    rig.room.catch_up(late.member)
    rig.clock.now += 0.1
    line.answer()
    (whole,) = late.received()
    assert isinstance(whole, SyncStep2) and len(whole.update) > 10_000
    late.send(SyncStep1(b"\x00"))
    assert len(late.received()) == 1, "for a while it is known to be fast"


async def test_over_a_slow_line_it_comes_in_portions_and_then_what_happened_since(
    small: None,
) -> None:
    rig, author, late, line = room_with_text()
    found = states(late.received())
    rig.room.catch_up(late.member)
    rig.clock.now += 5.9
    line.answer()
    await asyncio.sleep(0)
    writer = rig.client()
    writer.send(SyncUpdate(author.type(" and more")))
    writer.send(told(7, 1))
    rig.turn()
    late.send(SyncStep1(b"\x00"))  # Who asks again meanwhile changes nothing.
    reader = Author(2)
    messages = late.received()
    assert len(states(messages)) == 1
    assert any(isinstance(each, AwarenessUpdate) for each in messages), "it goes in between"
    found += states(messages)
    rig.room.catch_up(late.member)
    sent = await rest(rig, late)
    assert len(sent) > 8 and all(len(each) < 1100 for each in states(sent))
    assert [type(each) for each in sent[-2:]] == [SyncStep2, SyncStep2]
    for each in found + states(sent):
        reader.hear(each)
    assert str(reader.text) == str(author.text)
    writer.send(SyncUpdate(author.type("!")))
    rig.turn()
    assert len(late.received()) == 1, "from now on it is told what happens"


async def test_a_line_that_can_not_be_measured_counts_as_slow(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "UNKNOWN_BYTES_PER_SECOND", 100)
    rig, author, late, line = room_with_text()
    late.received()
    monkeypatch.setattr(line, "ask_receipt", lambda arrived: False)
    rig.room.catch_up(late.member)
    await asyncio.sleep(0)
    assert len(await rest(rig, late)) > 8


async def test_who_does_not_answer_has_a_slow_line_and_who_does_not_read_is_closed(
    small: None,
) -> None:
    rig, author, late, line = room_with_text()
    late.received()
    rig.room.catch_up(late.member)
    rig.clock.now += 7
    rig.room.tick()
    await asyncio.sleep(0)
    assert len(states(late.received())) == 1
    rig.clock.now += rig.limits.outbox_drain_seconds * 2 + 1
    rig.room.tick()
    assert late.socket.closed_with is not None
    assert late.socket.closed_with.limit == "slow_reader"


async def test_one_that_leaves_is_sent_nothing_more(small: None) -> None:
    rig, author, late, line = room_with_text()
    late.received()
    rig.room.catch_up(late.member)
    late.leave()
    line.answer()
    await asyncio.sleep(0)
    rig.room.tick()
    assert late.received() == []


# Real clients, for which time passes ten times as fast

RATE = 60_000
"""Of the line, where 5,000 would be the slowest that is catered for."""


def rich() -> bytes:
    """Return a document with formats, whose text was replaced after it was formatted."""
    doc: Doc[Any] = Doc(client_id=7)
    text = doc.get("text", type=Text)
    for number in range(2000):
        with doc.transaction():
            text.insert(0, f"words {number} " * 10, {"bold": True} if number % 2 else None)
    for number in range(300):
        with doc.transaction():
            del text[number * 100 + 5 : number * 100 + 20]
            text.insert(number * 100 + 5, "others instead")
    return doc.get_update()


def plain() -> bytes:
    """Return a document of text without formats."""
    doc: Doc[Any] = Doc(client_id=7)
    text = doc.get("text", type=Text)
    for number in range(3500):
        with doc.transaction():
            text.insert(0 if number % 2 else len(text), f"words {number} " * 6)
    return doc.get_update()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the server count as fast as the clients do."""
    for name in ("WHOLE_BYTES", "OPENING_BYTES", "PORTION_BYTES", "UNKNOWN_BYTES_PER_SECOND"):
        monkeypatch.setattr(lines, name, getattr(lines, name) // 10)
    for name in ("WHOLE_SECONDS", "PORTION_SECONDS"):
        monkeypatch.setattr(lines, name, getattr(lines, name) / 10)
    monkeypatch.setattr(answers, "INLINE_BYTES", 32 << 10)
    monkeypatch.setattr(answers, "DIFF_BYTES", 32 << 10)


def writer_of(server: Node) -> AbstractAsyncContextManager[Peer]:
    """Return a client that writes into the room."""
    return peer(server.url, "room")


@pytest.mark.parametrize(("version", "state"), [("v1", rich), ("v3", plain)])
async def test_a_state_arrives_over_a_slow_line_at_the_first_attempt(
    hasty: None, version: str, state: Callable[[], bytes]
) -> None:
    made = state()
    assert len(made) > RATE * 4, "it takes longer than the client waits"
    async with node() as server, writer_of(server) as writer, Driver("slow.mjs") as driver:
        await writer.send(update(made))
        await eventually(lambda: server.room.document.clocks())
        async with Proxy(server.port, bytes_per_second=RATE) as proxy:
            url = f"ws://127.0.0.1:{proxy.port}/ws"
            await driver.ask("open", version=version, url=url, room="room")
            assert (await driver.ask("begun", number=0))["begun"]
            typed = update(Author(9).type("meanwhile"))
            await writer.send(typed)
            assert await driver.ask("synced", number=0) == {"synced": True, "closings": 0}
            now = server.room.document.encode()
            assert await driver.ask("equals", number=0, state=now.hex()) == {"equal": True}
            assert proxy.sent < len(made) * 1.3


async def test_who_comes_back_with_a_part_of_a_text_is_sent_the_rest(hasty: None) -> None:
    made = plain()
    async with node() as server, writer_of(server) as writer, Driver("slow.mjs") as driver:
        await writer.send(update(made))
        await eventually(lambda: server.room.document.clocks())
        async with Proxy(server.port, bytes_per_second=RATE) as proxy:
            url = f"ws://127.0.0.1:{proxy.port}/ws"
            await driver.ask("open", version="v3", url=url, room="room")
            await eventually(lambda: proxy.sent > len(made) // 2)
            await proxy.cut()
            proxy.sent = 0
            await proxy.heal()
            assert (await driver.ask("synced", number=0))["synced"]
            assert await driver.ask("equals", number=0, state=made.hex()) == {"equal": True}
            assert proxy.sent < len(made) * 0.8
