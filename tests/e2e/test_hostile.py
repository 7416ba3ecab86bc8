"""Whoever sends nonsense hurts only himself: the server lives, and the others do not notice.

`PLAIT_TEST_FRAMES` sets how much nonsense; `scripts/torture` and `scripts/fuzz` send more.
"""

import asyncio
import os
import random
import re
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import httpx
import pytest

from tests.e2e.conftest import OpenServer
from tests.support import hostile
from tests.support.authors import Author, text_of
from tests.support.deadlines import eventually
from tests.support.drivers import Driver
from tests.support.frames import DENIED, STEP1, UPDATE, awareness, update
from tests.support.fuzzing import (
    GROWTH_BYTES_MAX,
    REFUSALS,
    answer,
    fuzz,
    mutated_frames,
    mutated_updates,
)
from tests.support.peer import Peer, peer
from tests.support.server import PlaitProcess

pytestmark = pytest.mark.both_ways

FRAMES = int(os.environ.get("PLAIT_TEST_FRAMES", "1000"))
SEED = 20_26
ATTACKERS = 4

EXPECTED = re.compile(r"the document is loaded anew|its state is taken from the log")
"""Errors that the server may log because of it."""

ROOM = "room"


# Nonsense


async def attack(server: PlaitProcess, frames: Iterator[bytes], count: int) -> Counter[int]:
    """Send frames, each from a socket that has not been refused yet; return how they ended: with
    which close code, or 0.
    """
    ends: Counter[int] = Counter()
    while count:
        async with peer(server.ws_url, ROOM) as attacker:
            while count:
                count -= 1
                code = await answer(attacker, next(frames))
                ends[code] += 1
                if code:
                    break
    return ends


async def attack_from_all_sides(
    server: PlaitProcess, nonsense: Callable[[random.Random], Iterator[bytes]], count: int
) -> Counter[int]:
    """Run several attackers at once."""
    async with asyncio.TaskGroup() as tasks:
        attacks = [
            tasks.create_task(
                attack(server, nonsense(random.Random(SEED + number)), count // ATTACKERS)
            )
            for number in range(ATTACKERS)
        ]
    return sum((each.result() for each in attacks), Counter[int]())


async def all_rooms_are_unloaded(server: PlaitProcess) -> None:
    """Wait until the server holds no document, so that its memory can be compared."""

    async def unloaded() -> bool:
        async with httpx.AsyncClient() as http:
            ready = await http.get(f"{server.url}/readyz")
        return bool(ready.json()["rooms"] == 0)

    await eventually(unloaded, "the unloading of all rooms")


@pytest.mark.timeout(0 if FRAMES > 1000 else 300)
@pytest.mark.parametrize("nonsense", [mutated_frames, mutated_updates])
async def test_nonsense_hurts_nobody_else(
    open_server: OpenServer, nonsense: Callable[[random.Random], Iterator[bytes]]
) -> None:
    server = await open_server("--idle-seconds", "0.2", "--log-level", "error")
    await attack_from_all_sides(server, nonsense, 200)
    await all_rooms_are_unloaded(server)
    before = server.rss_bytes()

    async with Driver("converge.mjs") as good:
        place = {"url": server.ws_url + "/ws", "room": ROOM}
        assert (await good.ask("open", versions=["v3", "v1"], **place))["synced"]
        attacking = asyncio.create_task(attack_from_all_sides(server, nonsense, FRAMES))
        while not attacking.done():
            await good.ask("edit", edits=10, drops=False, rest=100)
        ends = await attacking
        settled = await good.ask("settle")
        assert settled["settled"]
        assert settled["present"]
        assert settled["codes"] == [], "a good client was disconnected"
        late = await good.ask("late", version="v3")
        assert late["settled"]

    assert set(ends) <= REFUSALS | {0}, ends
    assert len(set(ends)) > 1, f"none of it was refused: {ends}"
    await all_rooms_are_unloaded(server)
    await eventually(
        lambda: server.rss_bytes() < before + GROWTH_BYTES_MAX,
        f"memory as before ({before >> 20} MiB; now {server.rss_bytes() >> 20} MiB)",
    )
    assert await server.end() == 0
    assert [line for line in server.alarming if not EXPECTED.search(line)] == []


async def test_short_connections_with_nonsense_while_two_type(plait_server: PlaitProcess) -> None:
    report = await fuzz(plait_server, 1000, 1000, SEED)
    assert not report.violations, str(report)
    assert report.ends.keys() & REFUSALS, f"none of it was refused: {report}"
    assert await plait_server.end() == 0


async def test_what_is_not_even_websocket(shared_server: PlaitProcess, room: str) -> None:
    rng = random.Random(SEED)
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    upgrade = (
        f"GET /ws/{room} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\n{key}\r\n"
    ).encode()
    async with peer(shared_server.ws_url, room) as good:
        await good.greeted()
        for start in (b"", upgrade, upgrade[:60]):
            for _ in range(100):
                with socket.create_connection(("127.0.0.1", shared_server.port)) as raw:
                    raw.sendall(start + rng.randbytes(rng.randrange(200)))
        await good.heard_nothing()


# Known killers: the sender is closed with the right code, and the others type on


async def two_good_clients(
    server: PlaitProcess, room: str, attack: Callable[[Peer], Awaitable[None]]
) -> None:
    """Let an attack happen between two edits of a client that another one has to hear."""
    author = Author(1)
    async with peer(server.ws_url, room) as good, peer(server.ws_url, room) as other:
        await good.greeted()
        await other.greeted()
        for word in ("before, ", "after"):
            typed = author.type(word)
            await good.send(update(typed))
            for client in (other, good):
                await client.until_told(UPDATE, typed)  # The attacker was allowed to say something.
            if word != "after":
                async with peer(server.ws_url, room) as bad:
                    await bad.expect(STEP1)
                    await attack(bad)
        assert text_of(await other.state()) == "before, after"


KILLERS = {
    "clock overflow": hostile.CLOCK_OVERFLOW,
    "a client without structs": hostile.NO_STRUCTS,
    # "b", written at clock 0, says that it comes after clock 0.
    "self reference": bytes.fromhex("01010700840700016200"),
    "garbage": b"\xff" * 40,
}


@pytest.mark.parametrize("killer", KILLERS.values(), ids=KILLERS)
async def test_a_known_killer(shared_server: PlaitProcess, room: str, killer: bytes) -> None:
    async def kill(bad: Peer) -> None:
        await bad.send(update(killer))
        assert (await bad.closed())[0] == 4422

    pid = shared_server.pid
    await two_good_clients(shared_server, room, kill)
    assert shared_server.running and shared_server.pid == pid


async def test_values_nested_too_deeply(shared_server: PlaitProcess, room: str) -> None:
    async def nest(bad: Peer) -> None:
        await bad.send(update(hostile.nested_values(30_000)))
        assert b"512 levels" in (await bad.until(DENIED)).payload

    await two_good_clients(shared_server, room, nest)


async def test_a_flood_of_updates_without_their_origin(
    shared_server: PlaitProcess, room: str
) -> None:
    async def flood(bad: Peer) -> None:
        liar = Author(hostile.CLIENT)
        liar.type("this is never sent")
        # Each is answered: who still sends when the server has closed may not see why. What waits
        # is bounded (tests/server/test_room_gaps.py); who is quick is sent away for its bytes.
        for _ in range(100):
            if code := await answer(bad, update(liar.type("x" * 100_000))):
                assert code == 4429
                break

    await two_good_clients(shared_server, room, flood)


async def test_too_many_types_in_one_another(shared_server: PlaitProcess, room: str) -> None:
    async def nest(bad: Peer) -> None:
        await bad.send(update(hostile.nested_types(400_001)))
        assert b"shared types" in (await bad.until(DENIED)).payload

    await two_good_clients(shared_server, room, nest)


async def test_types_in_one_another_that_are_deleted(
    shared_server: PlaitProcess, room: str
) -> None:
    async def nest(bad: Peer) -> None:
        await bad.send(update(hostile.nested_types(40_000, deleted=True)))
        assert await bad.expect(UPDATE)

    await two_good_clients(shared_server, room, nest)


async def test_a_flood_of_presence(shared_server: PlaitProcess, room: str) -> None:
    async def flood(bad: Peer) -> None:
        await bad.send(awareness(*((number, 1, "{}") for number in range(1, 101))))
        assert b"presence is not shown" in (await bad.until(DENIED)).payload

    await two_good_clients(shared_server, room, flood)


async def test_half_of_a_deleted_emoji(plait_server: PlaitProcess) -> None:
    async with Driver("converge.mjs") as clients:
        place = {"url": plait_server.ws_url + "/ws", "room": ROOM}
        assert (await clients.ask("open", versions=["v3", "v1"], **place))["synced"]
        steps = [[0, 0, "a😀b👍c"], [2, 1, ""], [5, 0, "typed on"], [3, 1, "👩‍👧"], [4, 2, "x"]]
        typed = await clients.ask("type", steps=steps)
        assert (await clients.ask("settle"))["settled"]
        assert (await clients.ask("late", version="v3"))["settled"]
        content = (await clients.ask("settle"))["contents"]
    for end in (plait_server.stop, plait_server.kill):
        await end()
        await plait_server.start()
        async with Driver("converge.mjs") as fresh:
            assert (await fresh.ask("open", versions=["v1"], **place))["synced"]
            assert (await fresh.ask("type", steps=[]))["text"] == typed["text"]
            assert (await fresh.ask("settle"))["contents"] == content
