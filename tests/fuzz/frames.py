"""Target: frames of several members of one room."""

import random

from plait.server.wire.lib0 import var_bytes
from plait.server.wire.messages import SyncUpdate
from plait.server.wire.ywebsocket import YWEBSOCKET
from tests.fuzz.bytes_of import change_update, in_parts, join, split
from tests.fuzz.gathering import Gathering, run
from tests.fuzz.target import Target, expect
from tests.support.frames import step1, step2
from tests.support.frames import update as update_frame
from tests.wire import fuzz_updates
from tests.wire.recorded import vectors

GUESTS = 3
TURN, COMMIT, READ, TICK = 0x10, 0x20, 0x40, 0x80
"""What happens after a frame, in the byte before it; the low bits say who has sent it."""


def frames(data: bytes) -> str:
    """Give frames of several members to a room."""
    return str(run(_frames(data)))


async def _frames(data: bytes) -> str:
    gathering = Gathering(GUESTS)
    for part in split(data):
        if not part:
            continue
        what, frame = part[0], part[1:]
        plain = YWEBSOCKET.plain_update(frame)
        if plain is not None:
            expect(YWEBSOCKET.decode(frame) == SyncUpdate(plain), "the short cut reads it wrongly")
        await gathering.receive(what % GUESTS, frame)
        if what & TURN:
            await gathering.turn()
        if what & COMMIT:
            await gathering.commit()
        if what & READ:
            gathering.guests[what % GUESTS].read()
            gathering.listener.read()
        if what & TICK:
            gathering.rig.clock.now += 4
            gathering.rig.room.tick()
    await gathering.end()
    closed = sum(guest.code is not None for guest in gathering.guests)
    applied = "changed" if gathering.rig.log.rows else "unchanged"
    return f"{applied}, {closed} closed" + ", broken" * gathering.broken


def change_frame(rng: random.Random, part: bytes) -> bytes:
    """Change who sends a frame and what happens then, or the update in it, or any byte."""
    what = rng.random()
    if what < 0.25 or len(part) < 3:
        return bytes((rng.randrange(256),)) + part[1:]
    if part[1] == 0 and part[2] in (1, 2) and what < 0.85:
        inner = (*split(part[3:]), b"")[0]
        return part[:3] + var_bytes(change_update(rng, inner))
    return part[:1] + fuzz_updates.change_bytes(rng, part[1:] or b"\x00")


def conversations() -> list[bytes]:
    """Return what genuine members say: each kind of frame, and whole histories."""
    said = [bytes.fromhex(each["hex"]) for each in vectors("ywebsocket")]
    found = [join(*(bytes((place % 4,)) + each for place, each in enumerate(said)))]
    found += [join(b"\x70" + each, b"\x31\x03") for each in said]
    updates, states = fuzz_updates.corpus()
    begin = 0
    for place, each in enumerate(updates):
        if each in states:
            told = [update_frame(one) for one in updates[begin:place]]
            told += [step2(each), step1(b"\x00")]
            marks = [rng % 3 | (TURN, COMMIT, READ, TICK)[rng % 4] for rng in range(len(told))]
            found.append(
                join(*(bytes((mark,)) + one for mark, one in zip(marks, told, strict=True)))
            )
            begin = place + 1
    return found


TARGETS = {"frames": Target(frames, conversations, in_parts(change_frame), 4096)}
