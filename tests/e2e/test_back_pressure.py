"""Clients that stop reading in the middle of a large document: they cost nobody anything, and have
everything when they read on.
"""

import asyncio
import socket
from contextlib import AsyncExitStack

import pytest

from tests.e2e.conftest import OpenServer
from tests.support.authors import Author
from tests.support.frames import ASK_ALL, STEP1, STEP2, UPDATE, update
from tests.support.peer import peer
from tests.support.serving import Raw, raw

pytestmark = pytest.mark.both_ways

DOCUMENT_BYTES = 3 << 20
STOPPED = 4
EDITS = 30


@pytest.mark.parametrize("length", [3, 100_000], ids=["words", "pages"])
async def test_who_stops_reading_in_the_middle_of_a_document(
    open_server: OpenServer, sockets: str, length: int
) -> None:
    server = await open_server()
    author = Author(1)
    async with AsyncExitStack() as stack:
        editor = await stack.enter_async_context(peer(server.ws_url, "room"))
        await editor.greeted()
        await editor.send(update(author.type("x" * DOCUMENT_BYTES)))
        await editor.expect(UPDATE)
        stopped = []
        for _ in range(STOPPED):
            client = await stack.enter_async_context(raw(server.port, buffer_bytes=4096))
            client.handshake("/ws/room")
            await client.head()
            await client.message(STEP1)
            client.frame(ASK_ALL)
            stopped.append(client)  # From here on it reads no more than its reader's buffer takes.
        before = server.rss_bytes()
        for number in range(EDITS):
            typed = update(author.type(f"{number}".zfill(length)))
            await editor.send(typed)
            await editor.hear(typed)
        # What they were sent is one and the same object for all, unless ASGI copies it for each,
        # and nothing piles up behind it.
        copies = 6 if sockets == "direct" else 6 + 2 * STOPPED
        assert server.rss_bytes() - before < copies * DOCUMENT_BYTES
        # All read on at once: none is kept waiting until the server has lost its patience.
        for messages in await asyncio.gather(*(read_on(each, author) for each in stopped)):
            if length > 10_000:
                assert messages < EDITS, "it was told of every single edit"
    await server.stop()


async def read_on(client: Raw, author: Author) -> int:
    """Read until what the author has is there; return how many messages that took."""
    connection = client.writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    reader, messages = Author(2), 0
    while reader.doc.get_state() != author.doc.get_state():
        reader.hear((await client.message(STEP2, UPDATE)).payload)
        messages += 1
    assert str(reader.text) == str(author.text)
    return messages
