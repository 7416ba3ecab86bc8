"""Run nodes that share a store and a relay, and real Yjs clients that type on all of them."""

import asyncio
import base64
import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx

from plait.persistence import open_store
from plait.server.limits import Limits
from plait.server.state import whole_state
from tests.support.deadlines import DEADLINE_SECONDS, eventually
from tests.support.drivers import Driver
from tests.support.server import PlaitProcess

RELAY_AWAY = re.compile(r" the relay \S+ is away, connecting again: ")
STORE_AWAY = re.compile(
    r" updates can't be saved, retrying: | the store \S+ |can't be followed now: "
)


class Cluster:
    """Nodes on one store and one relay; all are ended with the `async with`.

    Args:
        folder: for what each of them logs.
        store: the file or the URL of the store that they share.
        relays: for each node the URL by which it reaches the relay.
        stores: the same for the store, where nodes reach it in different ways.
        options: further ones of `plait serve`.
        expected: what they may log though it is alarming.
    """

    def __init__(
        self,
        folder: Path,
        store: Path | str,
        relays: Sequence[str],
        *options: str,
        stores: Sequence[str] = (),
        expected: Sequence[re.Pattern[str]] = (),
    ) -> None:
        self._store = store
        self._expected = expected
        self.nodes = [
            PlaitProcess(
                folder / f"node{number}",
                *("--relay", relay, *options),
                store=stores[number] if stores else store,
            )
            for number, relay in enumerate(relays)
        ]
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        for node in self.nodes:
            self._stack.push_async_exit(node)
        await asyncio.gather(*(node.start() for node in self.nodes))
        return self

    async def __aexit__(self, *exception: Any) -> None:
        for node in self.nodes:
            print(f"--- what {node.url} logged\n{node.stderr}")  # pytest shows it if a test failed
        await self._stack.__aexit__(*exception)

    async def met(self) -> None:
        """Wait until each node hears all others that run."""
        running = [node for node in self.nodes if node.running]
        await eventually(
            lambda: self.say(relay="connected", nodes=len(running)), "the nodes' meeting"
        )

    async def say(self, *nodes: int, **expected: object) -> bool:
        """Return whether some nodes, or all that run, say something on /readyz; all are ready."""
        for number, node in enumerate(self.nodes):
            if node.running and (not nodes or number in nodes):
                said = await ready(node)
                if any(said[name] != value for name, value in expected.items()):
                    return False
        return True

    async def counted(self, node: int, name: str) -> float:
        """Return a number of a node's /metrics."""
        async with client(self.nodes[node]) as http:
            text = (await http.get("/metrics")).text
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        assert found is not None, f"there is no {name}"
        return float(found[1])

    async def stored(self, room: str) -> bytes:
        """Return what the store has of a document."""
        url = self._store if isinstance(self._store, str) else f"sqlite:///{self._store}"
        store = open_store(url)
        await store.open()
        try:
            state, waiting = whole_state(await store.load(room), Limits())
        finally:
            await store.close()
        assert waiting == 0, "rows of the log build upon what is not there"
        return state

    async def stop(self) -> None:
        """Stop all nodes; each has to end well, and to have logged nothing but what is expected."""
        running = [node for node in self.nodes if node.running]
        codes = await asyncio.gather(*(node.end() for node in running))
        assert set(codes) == {0}, f"they ended with {codes}"
        unexpected = [line for node in self.nodes for line in self.alarming(node)]
        assert not unexpected, "\n".join(unexpected)

    def alarming(self, node: PlaitProcess) -> list[str]:
        """Return the alarming lines of a node's log that are not expected."""
        return [
            line
            for line in node.alarming
            if not any(expected.search(line) for expected in self._expected)
        ]


def client(node: PlaitProcess) -> httpx.AsyncClient:
    """Return an HTTP client of a node."""
    return httpx.AsyncClient(base_url=node.url, timeout=DEADLINE_SECONDS)


async def ready(node: PlaitProcess) -> Any:
    """Return what a node says of itself; it has to be ready."""
    async with client(node) as http:
        answer = await http.get("/readyz")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def state_on(node: PlaitProcess, room: str) -> bytes:
    """Return a document's state, as a node tells it over REST."""
    async with client(node) as http:
        answer = await http.get(
            f"/api/docs/{quote(room, safe='')}/state",
            headers={"accept": "application/octet-stream"},
        )
    assert answer.status_code == 200, answer.text
    return answer.content


class Clients:
    """Yjs clients of one room, by their numbers: those on the first node, and so on."""

    def __init__(self, driver: Driver, room: str) -> None:
        self._driver = driver
        self.room = room

    async def open(
        self, cluster: Cluster, *versions: str, node: int = 0, roam: bool = True
    ) -> list[int]:
        """Open a client for each version that is named, on a node; return their numbers.

        Args:
            roam: whether they try another node when their connection ends.
        """
        urls = [each.ws_url + "/ws" for each in cluster.nodes]
        urls = urls[node:] + urls[:node] if roam else [urls[node]]
        wanted = [{"version": version, "urls": urls} for version in versions]
        opened = await self.ask("open", room=self.room, clients=wanted)
        assert opened["synced"]
        return list(range(opened["first"], opened["first"] + len(versions)))

    async def ask(self, command: str, **options: Any) -> Any:
        """Give a command of `tests/node/cluster.mjs`."""
        return await self._driver.ask(command, **options)

    async def type(self) -> None:
        """Begin to type, all of them."""
        await self.ask("type")

    async def acknowledged(self, of: Sequence[int], edits: int = 5) -> None:
        """Wait until each of some has had edits acknowledged that it makes from now on."""
        answer = await self.ask("acknowledged", of=list(of), edits=edits)
        assert answer["reached"], await self.report()

    async def heard(self, by: Sequence[int], of: Sequence[int]) -> None:
        """Wait until some have heard what others type from now on."""
        answer = await self.ask("heard", by=list(by), **{"from": list(of)})
        assert answer["heard"], await self.report()

    async def present(self, among: Sequence[int], of: Sequence[int]) -> None:
        """Wait until each of some sees just those."""
        answer = await self.ask("presence", among=list(among), of=list(of))
        assert answer["right"], f"{among} do not see just {of}"

    async def report(self) -> Any:
        """Return how it goes, for each."""
        return await self.ask("report")

    async def settle(self, cluster: Cluster) -> int:
        """Stop typing. In the end all clients, all nodes and the store have the same, and nothing
        that was acknowledged is missing. Return how many edits there are.
        """
        settled = await self.ask("settle", room=self.room)
        detail = f"{settled}\n{await self.report()}"
        assert settled["contents"] == 1 and settled["settled"], detail
        assert not settled["problems"], detail
        assert settled["present"], f"they do not see each other: {detail}"
        for number, node in enumerate(cluster.nodes):
            if node.running:
                await self.same(await state_on(node, self.room), f"node {number}")

        async def is_stored() -> bool:
            return bool((await self._compare(await cluster.stored(self.room)))["equal"])

        await eventually(is_stored, "the arrival of everything in the store")
        await self.same(await cluster.stored(self.room), "the store")
        return int(settled["edits"])

    async def same(self, state: bytes, where: str) -> None:
        """Check that a state is what the clients have."""
        found = await self._compare(state)
        assert not found["problems"], f"{where}: {found['problems']}"
        assert found["equal"], f"{where} has something else"

    async def _compare(self, state: bytes) -> Any:
        return await self.ask("compare", room=self.room, state=base64.b64encode(state).decode())
