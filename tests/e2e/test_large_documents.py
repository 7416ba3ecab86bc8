"""Large updates and documents with real servers and real clients. `scripts/large-documents` shows
how little others notice of them.
"""

import asyncio
import os
import random
import signal
from pathlib import Path
from typing import Any

import httpx
from pycrdt import Doc, Map

from tests.e2e.test_convergence import check
from tests.support.deadlines import DEADLINE_SECONDS
from tests.support.drivers import Driver
from tests.support.frames import ASK_ALL, STEP2, UPDATE, update
from tests.support.peer import peer
from tests.support.server import PlaitProcess

LARGE = 130_000
"""So many entries take five megabytes: the document moves to a process of its own."""
OCTETS = {"content-type": "application/octet-stream"}


def entries(client: int, count: int) -> bytes:
    """Return a document of many small structs, about 50 bytes each."""
    doc: Doc[Any] = Doc(client_id=client)
    rows = doc.get("rows", type=Map)
    with doc.transaction():
        for number in range(count):
            rows[f"row {client}-{number}"] = "v" * 20
    return doc.get_update()


def count_of(state: bytes) -> int:
    """Return how many entries a document has."""
    doc: Doc[Any] = Doc()
    doc.apply_update(state)
    return len(doc.get("rows", type=Map))


async def test_a_kill_in_the_middle_leaves_all_or_nothing(plait_server: PlaitProcess) -> None:
    large = entries(7, 40_000)
    for number in range(4):
        room = f"room {number}"
        acknowledged = False
        async with peer(plait_server.ws_url, room) as author:
            await author.greeted()
            await author.send(update(large))
            try:
                async with asyncio.timeout(random.uniform(0.0, 1.5)):
                    await author.until(UPDATE)
                    acknowledged = True
            except TimeoutError:
                pass
            await plait_server.kill()
        await plait_server.start()
        async with peer(plait_server.ws_url, room) as reader:
            found = count_of(await reader.state())
        assert found in ((40_000,) if acknowledged else (0, 40_000))
    await plait_server.stop()


async def test_many_join_while_it_is_uploaded_and_edited(plait_server: PlaitProcess) -> None:
    large = entries(7, LARGE)
    room = "room"
    async with peer(plait_server.ws_url, room) as author:
        await author.greeted()
        await author.send(update(large))

        async def join() -> bytes:
            async with peer(plait_server.ws_url, room) as reader:
                await reader.send(ASK_ALL)
                parts: list[bytes] = []
                while sum(map(len, parts)) < len(large):
                    parts.append((await reader.until(STEP2, UPDATE)).payload)
                doc: Doc[Any] = Doc()
                for part in parts:
                    doc.apply_update(part)
                return doc.get_update()

        states = await asyncio.gather(*(join() for _ in range(5)))
        assert [count_of(state) for state in states] == [LARGE] * 5
        await author.send(update(entries(9, 3)))
        await author.until_told(UPDATE, entries(9, 3))
    async with peer(plait_server.ws_url, room) as reader:
        assert count_of(await reader.state()) == LARGE + 3
    async with httpx.AsyncClient(timeout=DEADLINE_SECONDS) as http:
        url = f"{plait_server.url}/api/docs/{room}/state"
        assert count_of((await http.get(url)).content) == LARGE + 3
        asked = await http.get(url, params={"format": "json"})
        assert len(asked.json()["roots"]["rows"]["value"]) == LARGE + 3
    await plait_server.stop()


async def test_yjs_clients_edit_a_large_document(plait_server: PlaitProcess) -> None:
    """Their own paste is large, and so is what a program uploads while they edit."""
    place = {"url": plait_server.ws_url + "/ws", "room": "room"}
    async with Driver("converge.mjs") as clients:
        opened = await clients.ask("open", versions=["v3", "v1", "v3"], **place)
        assert opened["synced"]
        await clients.ask("type", steps=[[0, 0, "words, 日本 and 😀 " * 60_000]])
        check(await clients.ask("settle"))
        editing = await clients.tell("edit", edits=200)
        async with httpx.AsyncClient(timeout=DEADLINE_SECONDS) as http:
            answer = await http.post(
                f"{plait_server.url}/api/docs/room/updates",
                content=entries(7, LARGE),
                headers=OCTETS,
            )
        assert answer.json() == {"changed": True}
        await editing
        check(await clients.ask("settle"))
        assert check(await clients.ask("late", version="v3"))
        editing = await clients.tell("edit", edits=200)
        await plait_server.kill()
        await plait_server.start()
        await editing
        content = check(await clients.ask("settle"))
        assert check(await clients.ask("late", version="v1")) == content
    await plait_server.stop()


async def test_its_process_is_killed_while_clients_edit(plait_server: PlaitProcess) -> None:
    place = {"url": plait_server.ws_url + "/ws", "room": "room"}
    async with httpx.AsyncClient(timeout=DEADLINE_SECONDS) as http:
        url = f"{plait_server.url}/api/docs/room"
        created = await http.put(url, content=entries(7, LARGE), headers=OCTETS)
    assert created.status_code == 201
    async with Driver("converge.mjs") as clients:
        assert (await clients.ask("open", versions=["v3", "v1", "v3"], **place))["synced"]
        for _ in range(2):
            editing = await clients.tell("edit", edits=150, drops=False)
            (document,) = (pid for pid, line in children(plait_server) if "--stay" in line)
            os.kill(document, signal.SIGKILL)
            await editing
            content = check(await clients.ask("settle"))
        assert check(await clients.ask("late", version="v3")) == content
    await plait_server.end()


def children(server: PlaitProcess) -> list[tuple[int, str]]:
    """Return the processes that a server has started, with their command lines."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == server.pid:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found.append((int(folder.name), line))
        except (OSError, ValueError):
            pass  # It is gone, or no process.
    return found


async def test_two_programs_create_it_at_once(plait_server: PlaitProcess) -> None:
    async with httpx.AsyncClient(timeout=DEADLINE_SECONDS) as http:
        url = f"{plait_server.url}/api/docs/room"
        answers = await asyncio.gather(
            *(http.put(url, content=entries(n, 5_000), headers=OCTETS) for n in (1, 2))
        )
        assert sorted(answer.status_code for answer in answers) == [201, 409]
        assert count_of((await http.get(f"{url}/state")).content) == 5_000
    await plait_server.stop()
