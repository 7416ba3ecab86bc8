"""One client's messages never keep the loop from the others."""

import asyncio
from collections.abc import Iterator

from plait.persistence import CompactionPolicy, Writer
from plait.persistence.memory import MemoryStore
from plait.server.compaction import Compactor
from plait.server.hub import Hub, SystemClock
from plait.server.limits import Limits
from plait.server.pump import LinkLost, pump
from plait.server.wire.ywebsocket import YWEBSOCKET
from tests.support.authors import Author

MESSAGES = 5_000


class FullLink:
    """A link on which all messages have arrived already, so that reading never waits. Implements
    `pump.Link`.
    """

    def __init__(self, messages: Iterator[bytes]) -> None:
        self._messages = messages

    async def receive(self) -> bytes:
        for message in self._messages:
            return message
        raise LinkLost

    async def send(self, frame: bytes) -> None:
        pass

    async def close(self, code: int, reason: str) -> None:
        pass


async def test_a_client_with_much_to_say_lets_the_others_speak() -> None:
    store, limits, clock = MemoryStore(), Limits(), SystemClock()
    await store.open()
    compactor = Compactor(store, CompactionPolicy(), limits, clock.wall_ms)
    async with Hub(store, Writer(store), compactor, limits, clock=clock) as hub:
        author, turns = Author(1), 0
        messages = (YWEBSOCKET.sync_update(author.type("word ")) for _ in range(MESSAGES))

        async def speak() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        speaking = asyncio.create_task(speak())
        async with hub.room("room") as room:
            await pump(hub, room, YWEBSOCKET, FullLink(messages), "test")
        speaking.cancel()
    # About a second of work, and a turn for the others every two milliseconds.
    assert turns > 20
