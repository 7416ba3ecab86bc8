"""Target: genuine updates in any order, some of which never come, and some of two authors with one
client id.

What is ready is in the document, and in the log; whoever is told of a struct is told what the
document has; and nobody is asked for ever.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

from pycrdt import merge_updates

from plait.server.wire.update import Id, inspect
from tests.fuzz.gathering import LIMITS, Gathering, run
from tests.fuzz.target import Target, expect
from tests.support.authors import Author
from tests.support.frames import step2
from tests.support.frames import update as update_frame
from tests.support.units import Unit, units_of

GUESTS = 3
PENDING = replace(LIMITS, pending_bytes_max=1 << 20, document_bytes_max=1 << 20)
"""Nothing is dropped."""
UPDATE, SEVERAL, TURN, COMMIT, READ, TICK = range(6)
"""What a byte stands for, in its low bits; the high ones say who, and which update comes next."""
TICKS, TICK_SECONDS = 100, 4
ASKS_MAX = 10
"""How often somebody may be asked for the same."""


Clocks = dict[int, int]


class Piece(NamedTuple):
    """An update of one edit, and what is in it."""

    update: bytes
    runs: list[tuple[int, int, int]]
    needs: dict[int, int]


@cache
def pieces() -> list[Piece]:
    """Return what four people have written: two build upon each other, two have one client id."""
    ann, ben, one, other = Author(7), Author(8), Author(9), Author(9)
    updates = []
    for place in range(5):
        for author, friend in ((ann, ben), (ben, ann)):
            updates.append(author.type("xyz"[place % 3] * (place + 1)))
            friend.hear(updates[-1])
    updates.append(ann.delete(1, 4))
    ben.hear(updates[-1])
    ben.map["key"] = 1
    updates.append(ben.take())
    ann.hear(updates[-1])
    ann.map["key"] = 2
    updates.append(ann.take())
    for author, letter in ((one, "m"), (other, "n")):
        author.hear(updates[0])
        updates.append(author.type(letter))
        author.map["key"] = letter
        updates.append(author.take())
        updates.append(author.type(letter * 3))
        updates.append(author.delete(2, 3))
    found = []
    for update in updates:
        shape = inspect(update)
        found.append(Piece(update, list(shape.runs), dict(shape.needs)))
    return found


def closure(sent: Sequence[Piece], known: Mapping[int, int] = MappingProxyType({})) -> Clocks:
    """Return the state vector of what is known and everything that is ready then."""
    clocks = dict(known)
    waiting = list(sent)
    while True:
        ready = [each for each in waiting if _is_ready(each, clocks)]
        if not ready:
            return clocks
        waiting = [each for each in waiting if each not in ready]
        for each in ready:
            for client, _, end in each.runs:
                clocks[client] = max(end, clocks.get(client, 0))


def _is_ready(piece: Piece, clocks: dict[int, int]) -> bool:
    ends = {client: end for client, _, end in piece.runs}
    return all(first <= clocks.get(client, 0) for client, first, _ in piece.runs) and all(
        clock <= max(clocks.get(client, 0), ends.get(client, 0))
        for client, clock in piece.needs.items()
    )


def gaps(data: bytes) -> str:
    """Give a room the updates that the input names."""
    return str(run(_gaps(data)))


async def _gaps(data: bytes) -> str:
    gathering = Gathering(GUESTS, PENDING)
    sent: list[list[Piece]] = [[] for _ in range(GUESTS)]
    answered = [0] * GUESTS

    async def read(who: int) -> None:
        guest = gathering.guests[who]
        guest.read()
        if guest.asked > answered[who] and guest.code is None:
            # A client of Yjs answers with what waits for others, too.
            answered[who] = guest.asked
            if sent[who]:
                await gathering.receive(who, step2(merged(sent[who])))

    position = 0
    while position < len(data):
        what, who = data[position] & 7, (data[position] >> 3) % GUESTS
        position += 1
        if what in (UPDATE, SEVERAL):
            count = 1 if what == UPDATE else 3
            chosen = [pieces()[each % len(pieces())] for each in data[position : position + count]]
            position += count
            if chosen:
                sent[who] += chosen
                frame = update_frame if what == UPDATE else step2
                await gathering.receive(who, frame(merged(chosen)))
        elif what == TURN:
            await gathering.turn()
        elif what == COMMIT:
            await gathering.commit()
        elif what == READ:
            await read(who)
        else:
            gathering.rig.clock.now += TICK_SECONDS
            gathering.rig.room.tick()
    before = [guest.asked for guest in gathering.guests]
    for _ in range(TICKS):
        gathering.rig.clock.now += TICK_SECONDS
        gathering.rig.room.tick()
        for who in range(GUESTS):
            await read(who)
        await gathering.commit()
    ready = closure([each for some in sent for each in some])
    clients = {client for piece in pieces() for client, _, _ in piece.runs}
    for guest, asked in zip(gathering.guests, before, strict=True):
        expect(guest.code is None, f"a genuine client is closed with {guest.code}")
        expect(guest.asked - asked <= ASKS_MAX * len(clients), f"asked {guest.asked} times")
    await gathering.end()
    document = gathering.rig.room.document
    expect(document.clocks() == ready, f"the document has {document.clocks()}, not {ready}")
    _check_told(gathering)
    if not any(sent):
        return "nothing"
    return "all" if _all_ready(sent, ready) else "some wait"


def _check_told(gathering: Gathering) -> None:
    """Check that everything that anybody was told is what the document has, or is deleted."""
    here = units_of(gathering.rig.room.document.encode())
    for guest in gathering.guests:
        for update in guest.sent:
            told: dict[Id, Unit] = units_of(update)
            for place, unit in told.items():
                kept = here[place]
                gone = kept[0] is None or unit[0] is None
                expect(gone or kept == unit, f"{place} is told as {unit}, and is {kept}")


def merged(chosen: Sequence[Piece]) -> bytes:
    """Return the updates of edits as one."""
    return (
        chosen[0].update if len(chosen) == 1 else merge_updates(*(each.update for each in chosen))
    )


def _all_ready(sent: list[list[Piece]], clocks: dict[int, int]) -> bool:
    return all(
        end <= clocks.get(client, 0)
        for some in sent
        for piece in some
        for client, _, end in piece.runs
    )


def conversations() -> list[bytes]:
    """Return inputs: all in order, in the other order, with some left out, from several."""
    count = len(pieces())
    in_order = bytes(byte for place in range(count) for byte in (UPDATE, place, TURN))
    backwards = bytes(byte for place in reversed(range(count)) for byte in (UPDATE, place, COMMIT))
    some = bytes(
        byte
        for place in range(1, count, 2)
        for byte in (UPDATE | place % 3 << 3, place, READ | place % 3 << 3, TICK)
    )
    several = bytes(
        byte
        for place in range(0, count, 3)
        for byte in (SEVERAL | place % 2 << 3, place + 2, place, place + 4, TURN, READ)
    )
    return [in_order, backwards, some, several, bytes((UPDATE, 3, COMMIT, READ, TICK, READ))]


TARGETS = {"gaps": Target(gaps, conversations, None, 200)}
