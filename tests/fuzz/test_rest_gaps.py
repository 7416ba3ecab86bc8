"""Updates that come over REST in any order, some never and some of two authors with one client id:
each answer tells the truth about what was done.
"""

import random
from collections.abc import Callable
from typing import Any

import httpx

from tests.fuzz.gaps import Piece, closure, merged, pieces
from tests.support.rest import UPDATE, path, serving
from tests.support.units import Unit, units_of

DOCUMENTS = 100
CALLS = 12


async def test_answers_tell_what_was_applied_left_and_shadowed(
    rounds: Callable[[int], int],
) -> None:
    told: set[str] = set()
    async with serving() as (_, client):
        for seed in range(rounds(DOCUMENTS)):
            told |= await tell(client, f"document {seed}", random.Random(seed))
    assert told == {"all", "left", "shadowed", "refused", "nothing new"}


async def tell(client: httpx.AsyncClient, name: str, chance: random.Random) -> set[str]:
    """Send a document updates, and compare each answer with what is in the document then."""
    told: set[str] = set()
    clocks: dict[int, int] = {}
    for _ in range(CALLS):
        chosen = chance.sample(pieces(), chance.choice((1, 1, 2, 4)))
        update = merged(chosen)
        before = await units_in(client, name)
        create = not before and chance.random() < 0.3
        response = await (
            client.put(path(name) + "?merge=true", content=update, headers=UPDATE)
            if create
            else client.post(path(name, "/updates"), content=update, headers=UPDATE)
        )
        expected = closure(chosen, clocks)
        left = [each for each in chosen if not is_in(each, expected)]
        after = await units_in(client, name)
        if response.status_code == 422:
            told.add("refused")
            assert len(left) == len(chosen), "what is ready is refused"
            assert after == before
            continue
        assert response.is_success, response.text
        answer: dict[str, Any] = response.json()
        clocks = expected
        assert clocks_in(after) == clocks, "what is ready is not in the document"
        assert ("left" in answer) == bool(left)
        if left:
            told.add("left")
            for gap in answer["left"]["missing"]:
                assert clocks.get(gap["client"], 0) <= gap["first"] < gap["end"]
        # The document keeps what came first.
        assert all(after[place] in (unit, (None,)) for place, unit in before.items())
        ready = {
            place: unit
            for place, unit in units_of(update).items()
            if place in after and unit[0] is not None and after[place][0] is not None
        }
        others = {place for place, unit in ready.items() if after[place] != unit}
        shadowed = {
            (each["client"], clock)
            for each in answer.get("shadowed", ())
            for clock in range(each["first"], each["end"])
        }
        assert others <= shadowed, "nothing tells that something else is there"
        assert all(ready.get(place) != after[place] for place in shadowed & set(ready))
        told.add(
            "shadowed" if shadowed else "all" if answer.get("changed", True) else "nothing new"
        )
        if answer.get("changed") is False:
            assert after == before
    return told


async def units_in(client: httpx.AsyncClient, name: str) -> dict[tuple[int, int], Unit]:
    """Return what is at each clock of a document."""
    response = await client.get(path(name, "/state"))
    return {} if response.status_code == 404 else units_of(response.content)


def clocks_in(units: dict[tuple[int, int], Unit]) -> dict[int, int]:
    """Return the state vector of a document without gaps."""
    clocks: dict[int, int] = {}
    for client, clock in units:
        clocks[client] = max(clock + 1, clocks.get(client, 0))
    return clocks


def is_in(piece: Piece, clocks: dict[int, int]) -> bool:
    """Whether all of an update is ready, given a state vector that it led to."""
    ends = [*((client, end) for client, _, end in piece.runs), *piece.needs.items()]
    return all(end <= clocks.get(client, 0) for client, end in ends)
