"""Nodes, a store, a relay and editors in one virtual time, and what must hold in it.

Everything but networks, disks, time and editors is the product: hub, rooms, sessions, links,
writer, compactor. A seed decides what happens. After a while of faults the world behaves, and must
heal:

1. all editors of a room show the same, and so does what is stored: everything that any of them has
   for which everything is there that it builds upon;
2. whatever was acknowledged was in the store at that moment, as its author wrote it, with all that
   it builds upon;
3. nobody shows presence who is not there; that of a killed node goes within 5 s;
4. no queue is above its limit, at any time, and all are empty at the end;
5. nobody is sent away for what Yjs makes of lost updates and of a client id that two have;
6. nobody is asked again and again for what is lost: a few times for each gap, however long it
   lasts.
"""

import asyncio
import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from pycrdt import Doc

from plait.server import compaction
from plait.server.errors import CloseCode, PlaitError
from plait.server.hub import Hub
from plait.server.link import BORROWED_BYTES_MAX
from plait.server.pump import pump
from plait.server.room import Room
from plait.server.wire.update import inspect
from plait.server.wire.ywebsocket import YWEBSOCKET
from tests.simulation.absent import FIRST_ID, history, parts
from tests.simulation.editors import LETTERS, Editor, apply_ready, clocks_of, shown
from tests.simulation.faults import Chance, Faults, Gaps
from tests.simulation.network import Air, Wire
from tests.simulation.node import LIMITS, Node
from tests.simulation.storage import Vault
from tests.simulation.virtual import run

HEAL_SECONDS = 120.0
"""How long a world that behaves may take until all is equal."""
GHOST_SECONDS = 40.0
"""How long until nobody shows presence who has gone: clients drop it after 30 s themselves."""
LONG_SECONDS = 300.0
"""How long everybody goes on typing while something is missing for good."""
LONG_PAUSE = 6.0
ASKS_MAX = 10
"""How often a client may be asked for the same."""
SENT_AWAY = (CloseCode.MALFORMED, CloseCode.UPDATE_REFUSED, CloseCode.LIMIT_REACHED)


class Violation(AssertionError):
    """Raised when something that must hold does not."""


@dataclass(frozen=True)
class Report:
    """What happened."""

    digest: str
    """Of everything that the editors were sent, with its time: equal for equal runs."""
    edits: int
    acknowledged: int
    gaps: int
    """Of the relay."""
    lost: int
    """Updates that are in no document, since what they build upon is lost."""
    shadowed: int
    """Clocks of which two editors made different things."""
    killed: int
    seconds: float


class World:
    """One run."""

    def __init__(self, seed: int, faults: Faults | None = None, gaps: Gaps | None = None) -> None:
        self.chance = Chance(seed)
        dice = self.chance.of("world")
        self.faults = faults if faults is not None else Faults.drawn(dice)
        self.vault = Vault()
        self.air = Air()
        self._digest = hashlib.sha256()
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self.nodes = [Node(self, number) for number in range(dice.randint(1, 3))]
        rooms = [f"room {number}" for number in range(dice.randint(1, 2))]
        odds = self.chance.of("gaps")
        self.gaps = gaps if gaps is not None else Gaps.drawn(odds)
        self.absent = {
            room: history(odds, odds.randint(3, 12), FIRST_ID + 10 * number)
            for number, room in enumerate(rooms)
        }
        self.sharing: set[str] = set()
        """Rooms in which two have the same client id."""
        self.editors: list[Editor] = []
        for number in range(dice.randint(2, 5)):
            self.editors.append(self._editor(number, dice.choice(rooms), odds))
        self._seconds = dice.uniform(5, 20)
        self._pause = dice.choice((0.02, 0.1, 0.5))
        self._dice = dice
        self._acknowledgements = 0
        self._killed = 0
        self._healing = False
        self._background: list[asyncio.Task[None]] = []
        self._failure: BaseException | None = None

    async def run(self) -> Report:
        """Let everything happen.

        Raises:
            Violation: something that must hold does not.
        """
        for node in self.nodes:
            node.start()
        until = self._loop.time() + self._seconds
        for editor in self.editors:
            self._spawn(self._be_connected(editor))
            self._spawn(editor.be_present())
        for node in self.nodes:
            self._spawn(self._be_unreliable(node, until))
        self._spawn(self._cut_links(until))
        self._spawn(self._hear_aside(until))
        self._spawn(self._watch())
        await asyncio.gather(*(each.edit(until, self._pause) for each in self.editors))
        self._check_failure()
        await self._heal()
        if any(editor.unready for editor in self.editors):
            await self._go_on()
        if self._returns():
            await self._heal()
        report = Report(
            self._digest.hexdigest(),
            sum(editor.edits for editor in self.editors),
            self._acknowledgements,
            sum(node.gaps + node.counters.relay_gaps for node in self.nodes),
            sum(len(editor.unready) for editor in self.editors),
            sum(self._shadowed(editor) for editor in self.editors),
            self._killed,
            self._loop.time() - self._began,
        )
        for node in self.nodes:
            await node.stop()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._check_failure()
        return report

    # What goes wrong

    async def _be_unreliable(self, node: Node, until: float) -> None:
        chance = self.chance.of(f"fate of {self.nodes.index(node)}")
        rate = self.faults.crashes + self.faults.stops
        while rate and self._loop.time() < until:
            await asyncio.sleep(chance.expovariate(rate))
            if self._loop.time() >= until:
                return
            if chance.random() < self.faults.crashes / rate:
                self._kill(node)
            else:
                await node.stop()
            await asyncio.sleep(chance.expovariate(1))
            node.start()

    def _kill(self, node: Node) -> None:
        self._killed += 1
        node.kill()
        self._loop.call_later(5.0, self._check_no_presence_of, node.node, self._loop.time())

    async def _cut_links(self, until: float) -> None:
        chance = self.chance.of("links")
        rate = self.faults.link_cuts * len(self.editors)
        while rate and self._loop.time() < until:
            await asyncio.sleep(chance.expovariate(rate))
            wire = chance.choice(self.editors).wire
            if wire is not None and self._loop.time() < until:
                wire.cut()

    async def _hear_aside(self, until: float) -> None:
        chance = self.chance.of("hearsay")
        while self.gaps.hearsay and self._loop.time() < until:
            await asyncio.sleep(chance.expovariate(self.gaps.hearsay))
            editor = chance.choice(self.editors)
            if self._loop.time() < until:
                editor.hear_aside(parts(chance, self.absent[editor.room], 0.3))

    def _returns(self) -> bool:
        """Let those come who were not there; return whether they do."""
        chance = self.chance.of("return")
        returns = chance.random() < self.gaps.returning
        for room, updates in self.absent.items():
            there = [editor for editor in self.editors if editor.room == room]
            if returns and there:
                chance.choice(there).hear_aside(updates)
        return returns

    async def _be_connected(self, editor: Editor) -> None:
        chance = self.chance.of(f"paths of {editor.name}")
        number = 0
        while True:
            alive = [node for node in self.nodes if node.alive]
            if not alive:
                await asyncio.sleep(0.2)
                continue
            node = chance.choice(alive)
            number += 1
            wire = Wire(self.faults, self.chance.of(f"wire {editor.name} {number}"))
            node.wires.append(wire)
            serving = node.spawn(_serve(node.hub, editor.room, wire))
            await editor.converse(wire)
            if wire.code in SENT_AWAY:
                self._fail(f"editor {editor.name} was sent away with {wire.code}")
            wire.cut()
            await asyncio.wait([serving], timeout=30)
            await asyncio.sleep(chance.uniform(0.05, 0.5))

    # What must hold

    def _acknowledged(self, editor: Editor, client: int, clocks: list[int]) -> None:
        self._acknowledgements += 1
        stored = self.vault.clocks(editor.room).get(client, 0)
        if stored <= clocks[-1]:
            self._fail(
                f"editor {editor.name} was told that it is stored up to {clocks[-1] + 1}; "
                f"whole is what is stored up to {stored}"
            )
            return
        units = self.vault.units(editor.room, client, clocks[0])
        for clock in clocks:
            unit = units[client, clock]
            if unit[0] is not None and unit != editor.written[client, clock]:
                self._fail(
                    f"editor {editor.name} was told that another's {client, clock} is stored"
                )

    def _check_no_presence_of(self, dead: bytes, since: float) -> None:
        if self.faults.relay_delay > 0.02 or self.faults.relay_cuts or self.faults.lose:
            return
        for node in self.nodes:
            if node.alive and node.started_at < since:
                for name, room in node.hub.rooms().items():
                    if dead in room.awareness._owned:
                        self._fail(f"{name}: presence of a dead node after 5 s")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            for node in self.nodes:
                for room in node.hub.rooms().values() if node.alive else ():
                    self._check_bounds(room)

    def _check_bounds(self, room: Room) -> None:
        link = room.link
        if link is not None and link.borrowed.size > BORROWED_BYTES_MAX:
            self._fail(f"{room.name}: {link.borrowed.size} bytes are borrowed")
        for member in room.members:
            if member.outbox.bytes > 2 * LIMITS.outbox_bytes_high + (64 << 10):
                self._fail(f"{room.name}: {member.outbox.bytes} bytes wait for a reader")

    async def _heal(self) -> None:
        self.faults, self.gaps = self.faults.calm(), self.gaps.calm()
        for node in self.nodes:
            node.store.faults = node.relay.faults = self.faults
            if not node.alive:
                await asyncio.sleep(6)  # It is being stopped, or about to be started.
            if not node.alive:
                node.start()
        for editor in self.editors:
            if editor.secretive and editor.wire is not None:
                editor.wire.cut()  # y-websocket syncs when it connects.
        until = self._loop.time() + HEAL_SECONDS
        while (difference := self._difference()) is not None:
            self._check_failure()
            if self._loop.time() > until:
                raise Violation(difference)
            await asyncio.sleep(0.5)
        await asyncio.sleep(GHOST_SECONDS)
        self._check_failure()
        if (difference := self._difference() or self._ghosts()) is not None:
            raise Violation(difference)

    def _difference(self) -> str | None:
        rooms: dict[str, list[Editor]] = defaultdict(list)
        for editor in self.editors:
            rooms[editor.room].append(editor)
        for name, editors in rooms.items():
            stored, ready = self.vault.doc(name), _whole(editors)
            if clocks_of(stored) != ready:
                return f"{name}: stored is {clocks_of(stored)}, there could be {ready}"
            for editor in editors:
                if editor.clocks != ready:
                    return f"{name}: editor {editor.name} has {editor.clocks}, not {ready}"
            if name in self.sharing:
                continue  # As in Yjs, what they show depends on what came first.
            contents = {editor.content for editor in editors}
            if len(contents) > 1:
                return f"{name}: the editors show {len(contents)} different documents"
            if shown(stored) not in contents:
                return f"{name}: stored is {shown(stored)}, shown is {editors[0].content}"
        if any(editor.wire is None for editor in self.editors):
            return "an editor is not connected"
        if any(node.writer.unsaved_updates for node in self.nodes):
            return "something is unsaved"
        return None

    def _ghosts(self) -> str | None:
        for editor in self.editors:
            here = {each.first_id for each in self.editors if each.room == editor.room}
            seen = set(editor.presences.states)
            if editor.room in self.sharing:  # Each of the two takes the other's away.
                seen |= here
            if seen != here:
                return f"editor {editor.name} sees {sorted(seen)}, here are {sorted(here)}"
        return None

    def _shadowed(self, editor: Editor) -> int:
        """Return how much of what an editor wrote is not what is stored under its id."""
        count = 0
        for client in {client for client, _ in editor.written}:
            units = self.vault.units(editor.room, client, 0)
            written = {at: unit for at, unit in editor.written.items() if at[0] == client}
            count += sum(
                units[at] != unit and units[at][0] is not None for at, unit in written.items()
            )
        return count

    async def _go_on(self) -> None:
        """Let everybody type while something is missing."""
        began, edits = self._loop.time(), {each: each.edits for each in self.editors}
        wires = {editor: editor.wire for editor in self.editors}
        before = {
            editor: (wire.asked, wire.told) for editor, wire in wires.items() if wire is not None
        }
        until = began + LONG_SECONDS
        await asyncio.gather(*(each.edit(until, LONG_PAUSE) for each in self.editors))
        await asyncio.sleep(GHOST_SECONDS)
        self._check_failure()
        if (difference := self._difference()) is not None:
            raise Violation(difference)
        for editor, (asked, told) in before.items():
            wire = wires[editor]
            assert wire is not None
            if wire is not editor.wire:
                raise Violation(f"editor {editor.name} lost its connection")
            here = [each for each in self.editors if each.room == editor.room]
            gaps = {
                client
                for each in here
                for update in each.unready
                for client in _missing(update, each.clocks)
            }
            if wire.asked - asked > ASKS_MAX * len(gaps):
                raise Violation(
                    f"editor {editor.name} was asked {wire.asked - asked} times for {sorted(gaps)}"
                )
            typed = sum(each.edits - edits[each] for each in here)
            if wire.told - told > 2 * typed + 10:
                raise Violation(
                    f"editor {editor.name}: {wire.told - told} updates for {typed} edits"
                )

    # Parts

    def _editor(self, number: int, room: str, odds: random.Random) -> Editor:
        """Make an editor; it may have another's client id, and know of those who are not there."""
        client_id, letters = number + 1, LETTERS
        others = [each for each in self.editors if each.room == room]
        reused, half_known = odds.random() < self.gaps.reused, odds.random() < self.gaps.half_known
        if reused and others and len(self.nodes) == 1 and room not in self.sharing:
            client_id, letters = others[0].client_id, LETTERS.upper()
            self.sharing.add(room)
        sharing = client_id != number + 1
        editor = Editor(
            client_id,
            room,
            self.chance.of(f"editor {number}"),
            self._acknowledged,
            self._trace,
            lambda: self.gaps.losing,
            letters,
            str(number + 1),
        )
        if sharing:
            editor.shares_id = others[0].shares_id = True
        if half_known:
            editor.hear_aside(parts(odds, self.absent[room], odds.uniform(0.3, 0.9)))
        return editor

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                self._failure = self._failure or error

        self._background.append(asyncio.create_task(guarded()))

    def _trace(self, line: str) -> None:
        self._digest.update(f"{self._loop.time():.6f} {line}\n".encode())

    def _fail(self, why: str) -> None:
        at = self._loop.time() - self._began
        self._failure = self._failure or Violation(f"at {at:.3f} s: {why}")

    def _check_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


async def _serve(hub: Hub, name: str, wire: Wire) -> None:
    """What the endpoint does: open the room, and let the client in."""
    try:
        async with hub.room(name) as room:
            await pump(hub, room, YWEBSOCKET, wire, "-")
    except PlaitError:
        wire.cut()


def _whole(editors: list[Editor]) -> dict[int, int]:
    """Return the state vector of all that editors have and for which everything is there."""
    doc: Doc[Any] = Doc()
    apply_ready(doc, [editor.doc.get_update() for editor in editors])
    apply_ready(doc, [update for editor in editors for update in editor.unready])
    return clocks_of(doc)


def _missing(update: bytes, clocks: dict[int, int]) -> list[int]:
    """Return the clients of which something is missing for an update."""
    shape = inspect(update)
    found = {client for client, first, _ in shape.runs if first > clocks.get(client, 0)}
    found |= {client for client, clock in shape.needs.items() if clock > clocks.get(client, 0)}
    return sorted(found)


def simulate(seed: int, faults: Faults | None = None, gaps: Gaps | None = None) -> Report:
    """Run the world of a seed.

    Raises:
        Violation: something that must hold does not.
    """

    async def work() -> Report:
        world = World(seed, faults, gaps)
        try:
            return await world.run()
        finally:
            for editor in world.editors:
                editor.close()

    # Other processes know no virtual time.
    with patch.object(compaction, "run_apart", _run_here):
        return run(work())


async def _run_here(function: Callable[..., Any], seconds: float, *arguments: Any) -> Any:
    return function(*arguments)
