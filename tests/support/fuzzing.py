"""Send nonsense to a server from all sides while two good clients type (`scripts/fuzz`)."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pycrdt import Doc, Text
from websockets.exceptions import ConnectionClosed

from tests.support.deadlines import eventually
from tests.support.frames import (
    AWARENESS,
    QUERY_AWARENESS,
    STEP1,
    STEP2,
    UPDATE,
    parse,
    step1,
    step2,
    update,
)
from tests.support.peer import Peer, peer
from tests.support.server import PlaitProcess
from tests.wire import fuzz_updates
from tests.wire.recorded import vectors

Nonsense = Callable[[random.Random], Iterator[bytes]]

REFUSALS = {4400, 4422, 4429}
"""Codes with which nonsense may be answered."""

GROWTH_BYTES_MAX = 48 << 20
"""What may remain of an attack in the server's memory, most of it fragmentation."""

ATTACKERS = 8
WARM_UP = 400
"""Frames and updates, of each, before the memory is looked at for the first time."""

ROOM = "good"
OTHER_ROOMS = 50
IN_GOOD_ROOM = 0.3
"""The share of attackers' connections that go to the room of the good clients."""

FRAMES_PER_WORD = 50
SECONDS_PER_PROGRESS = 5.0


def mutated_frames(rng: random.Random) -> Iterator[bytes]:
    """Genuine frames of every kind with bytes changed, and bytes that mean nothing."""
    genuine = [bytes.fromhex(each["hex"]) for each in vectors("ywebsocket")]
    genuine += [wrap(each) for each in fuzz_updates.corpus()[0] for wrap in (update, step2)]
    genuine += [step1(b"\x01\x07\x05"), b'\x01\x0a\x01\x07\x05\x06{"a":1}']
    while True:
        if rng.random() < 0.1:
            yield rng.randbytes(rng.randrange(60))
        else:
            yield fuzz_updates.change_bytes(rng, rng.choice(genuine))


def mutated_updates(rng: random.Random) -> Iterator[bytes]:
    """Whole frames with updates that may or may not be valid."""
    while True:
        for _, changed in fuzz_updates.cases(rng.randrange(1 << 30), 1000):
            yield rng.choice((update, step2))(changed)


async def answer(attacker: Peer, frame: bytes) -> int:
    """Send a frame and a question; return 0 if the question is answered, or the close code."""
    try:
        await attacker.send(frame, QUERY_AWARENESS)
        await attacker.until(AWARENESS)
    except ConnectionClosed as closed:
        assert closed.rcvd is not None, f"no close frame after {frame.hex()}"
        return closed.rcvd.code
    return 0


@dataclass
class Tally:
    """What became of the nonsense so far."""

    ends: Counter[int] = field(default_factory=Counter)
    """How many frames were answered (0) or refused, by close code."""
    odd: dict[int, str] = field(default_factory=dict)
    """A frame for each code that is not among the refusals."""

    @property
    def sent(self) -> int:
        """How many frames were sent."""
        return self.ends.total()

    def add(self, code: int, frame: bytes) -> None:
        """Count how a frame ended."""
        self.ends[code] += 1
        if code and code not in REFUSALS:
            self.odd.setdefault(code, frame.hex())


class Typist:
    """A good client: it types words into a text, and has all that the server says of it."""

    def __init__(self, peer: Peer, client: int) -> None:
        self._peer = peer
        self.doc: Doc[Any] = Doc(client_id=client)
        self.text: Text = self.doc.get("typed by the good", type=Text)
        self.typed = 0
        self.closed: int | None = None
        """With which code, if the server closed it."""

    async def listen(self) -> None:
        """Take what comes, until the socket ends."""
        try:
            while True:
                kind, payload = parse(await self._peer.receive())
                if kind == STEP1:
                    await self._peer.send(step2(self.doc.get_update(payload)))
                elif kind in (STEP2, UPDATE):
                    self.doc.apply_update(payload)
        except ConnectionClosed as closed:
            self.closed = closed.rcvd.code if closed.rcvd else 1006

    async def type(self, word: str) -> None:
        """Append a word."""
        known = self.doc.get_state()
        self.text += word
        self.typed += 1
        try:
            await self._peer.send(update(self.doc.get_update(known)))
        except ConnectionClosed as closed:
            self.closed = closed.rcvd.code if closed.rcvd else 1006


@dataclass
class Report:
    """How a run ended."""

    frames: int
    updates: int
    ends: Counter[int]
    rss_before: int
    rss_after: int
    words: int
    violations: list[str]

    def __str__(self) -> str:
        codes = ", ".join(
            f"{number} {code or 'answered'}" for code, number in self.ends.most_common()
        )
        state = "; ".join(self.violations) or f"good clients typed {self.words} words, are the same"
        return (
            f"{self.frames} frames and {self.updates} updates; {codes}; RSS"
            f" {self.rss_before / 1e6:.1f} MB, then {self.rss_after / 1e6:.1f} MB; {state}"
        )


async def attack(server: PlaitProcess, frames: Iterator[bytes], seed: int, tally: Tally) -> None:
    """Send frames, each from a socket that has not been refused yet."""
    rng = random.Random(f"rooms {seed}")
    frame = next(frames, None)
    while frame is not None:
        room = ROOM if rng.random() < IN_GOOD_ROOM else f"other{rng.randrange(OTHER_ROOMS)}"
        async with peer(server.ws_url, room) as attacker:
            code = 0
            while frame is not None and not code:
                code = await answer(attacker, frame)
                tally.add(code, frame)
                frame = next(frames, None)


async def attack_from_all_sides(
    server: PlaitProcess, count: dict[Nonsense, int], seed: int, tally: Tally
) -> None:
    """Run several attackers at once, each with its share of each kind of nonsense."""

    def share(number: int) -> Iterator[bytes]:
        rng = random.Random(f"nonsense {seed} {number}")
        left = {kind(rng): len(range(number, n, ATTACKERS)) for kind, n in count.items()}
        while any(left.values()):
            kind = rng.choices(list(left), list(left.values()))[0]
            left[kind] -= 1
            yield next(kind)

    async with asyncio.TaskGroup() as tasks:
        for number in range(ATTACKERS):
            tasks.create_task(attack(server, share(number), seed * ATTACKERS + number, tally))


async def type_meanwhile(
    typists: list[Typist], tally: Tally, attacking: "asyncio.Task[None]", show: bool
) -> None:
    """Let the good clients type in turn while nonsense is sent, and tell of the progress."""
    loop = asyncio.get_running_loop()
    shown = loop.time()
    turn = 0
    while not attacking.done():
        typist = typists[turn % len(typists)]
        turn += 1
        if typist.closed is None:
            await typist.type(f"{turn} ")
        goal = tally.sent + FRAMES_PER_WORD
        await eventually(
            lambda goal=goal: attacking.done() or tally.sent >= goal,  # type: ignore[misc]
            "an answer to nonsense",
            120,
        )
        if show and loop.time() - shown >= SECONDS_PER_PROGRESS:
            shown = loop.time()
            print(f"{tally.sent} sent, {typists[0].typed + typists[1].typed} words", flush=True)
    await attacking


async def differing(server: PlaitProcess, typists: list[Typist]) -> list[str]:
    """Return what is wrong with the good clients."""
    found = [f"a good client was closed with {each.closed}" for each in typists if each.closed]
    if found:
        return found
    words = sum(each.typed for each in typists)

    def same() -> bool:
        texts = {str(each.text) for each in typists}
        states = {each.doc.get_state() for each in typists}
        return len(texts) == len(states) == 1 and len(texts.pop().split()) == words

    try:
        await eventually(same, "the good clients' being the same")
    except AssertionError as error:
        return [str(error)]
    async with peer(server.ws_url, ROOM) as late:
        doc: Doc[Any] = Doc()
        doc.apply_update(await late.state())
    if str(doc.get("typed by the good", type=Text)) != str(typists[0].text):
        return ["a late client sees another text"]
    return []


async def fuzz(
    server: PlaitProcess, frames: int, updates: int, seed: int, show: bool = False
) -> Report:
    """Send mutated frames and updates while two good clients type; report what came of it."""
    pid = server.pid
    await attack_from_all_sides(
        server, {mutated_frames: WARM_UP, mutated_updates: WARM_UP}, -1 - seed, Tally()
    )
    before = server.rss_bytes()
    tally = Tally()
    async with peer(server.ws_url, ROOM) as one, peer(server.ws_url, ROOM) as two:
        typists = [Typist(one, 1_900_000_001), Typist(two, 1_900_000_002)]
        async with asyncio.TaskGroup() as tasks:
            listening = [tasks.create_task(each.listen()) for each in typists]
            count: dict[Nonsense, int] = {mutated_frames: frames, mutated_updates: updates}
            attacking = tasks.create_task(attack_from_all_sides(server, count, seed, tally))
            await type_meanwhile(typists, tally, attacking, show)
            violations = await differing(server, typists)
            for task in listening:
                task.cancel()
    after = server.rss_bytes()
    if server.pid != pid:
        violations.append("the server is not the same process")
    if after > before + GROWTH_BYTES_MAX:
        violations.append(f"the server grew by {(after - before) / 1e6:.1f} MB")
    violations += [f"closed with {code} after {frame}" for code, frame in tally.odd.items()]
    words = sum(each.typed for each in typists)
    return Report(frames, updates, tally.ends, before, after, words, violations)
