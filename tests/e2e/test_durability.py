"""An acknowledged edit is on disk: killing the server under load loses none.

`PLAIT_TEST_ROUNDS` sets how often that is tried; `scripts/torture` does so more often.
"""

import os
import random
from typing import Any

import pytest
from pycrdt import Array, Doc

from tests.support.deadlines import eventually
from tests.support.drivers import Driver
from tests.support.peer import peer
from tests.support.server import PlaitProcess

ROUNDS = int(os.environ.get("PLAIT_TEST_ROUNDS", "3"))
ROOMS = ["one", "two", "three"]
VERSIONS = ["v3", "v1"]


@pytest.mark.parametrize("round", range(ROUNDS))
async def test_a_kill_under_load_loses_nothing_acknowledged(
    plait_server: PlaitProcess, round: int
) -> None:
    async with Driver("durable.mjs") as writers:
        place = {"url": plait_server.ws_url + "/ws", "rooms": ROOMS, "versions": VERSIONS}
        assert (await writers.ask("write", **place))["synced"]
        edits = random.randrange(20, 3000)
        assert (await writers.ask("acknowledged", edits=edits))["reached"]
        await plait_server.kill()
        outcome = await writers.ask("stop")
    assert sum(each["acknowledged"] for each in outcome) >= edits

    await plait_server.start()
    stored = {room: await stored_edits(plait_server, room) for room in ROOMS}
    for each in outcome:
        numbers = stored[each["room"]].get(each["writer"], [])
        assert numbers == list(range(len(numbers))), "an edit is missing or twice"
        assert each["acknowledged"] <= len(numbers) <= each["written"]
    await plait_server.stop()


async def stored_edits(server: PlaitProcess, room: str) -> dict[int, list[int]]:
    """Return the numbers of the edits in a room by writer, in the document's order."""
    async with peer(server.ws_url, room) as reader:
        state = await reader.state()
    doc: Doc[Any] = Doc()
    doc.apply_update(state)
    numbers: dict[int, list[int]] = {}
    for writer, number in doc.get("edits", type=Array):
        numbers.setdefault(int(writer), []).append(int(number))
    return numbers


async def test_what_was_not_acknowledged_is_sent_again(plait_server: PlaitProcess) -> None:
    async with Driver("durable.mjs") as writers:
        place = {"url": plait_server.ws_url + "/ws", "rooms": ROOMS, "versions": VERSIONS}
        assert (await writers.ask("write", **place))["synced"]
        assert (await writers.ask("acknowledged", edits=300))["reached"]
        await plait_server.kill()
        await plait_server.start()
        written = await writers.ask("pause")

        async def all_stored() -> bool:
            stored = {room: await stored_edits(plait_server, room) for room in ROOMS}
            return all(
                stored[each["room"]].get(each["writer"]) == list(range(each["written"]))
                for each in written
            )

        await eventually(all_stored, "the arrival of everything that was written")
    await plait_server.stop()
