"""Real y-websocket clients that write what Yjs lets them write: what can't be done is not done, its
author is told, and the connection stays.
"""

import pytest

from tests.support.drivers import Driver
from tests.support.server import PlaitProcess

VERSIONS = ["v1", "v3"]
KEPT = {"opened": 1, "closed": []}


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_presence_that_is_too_large_or_too_deep_costs_nobody_the_document(
    shared_server: PlaitProcess, room: str, version: str
) -> None:
    async with Driver("genuine.mjs") as driver:
        url = shared_server.ws_url + "/ws"
        # Nothing verifies tokens here, so one that an app sends is as good as none.
        made = [
            await driver.ask("open", version=version, url=url, room=room, token=token)
            for token in ("x", "")
        ]
        assert [each["synced"] for each in made] == [True, True]
        await driver.ask("show", number=1, name="ben", picture=0, depth=0)
        assert await driver.ask("names", number=0, names=["ben"]) == {"names": ["ben"]}
        for picture, depth, reason in ((100_000, 0, "65536 bytes"), (0, 80, "64 levels")):
            await driver.ask("show", number=0, name="ann", picture=picture, depth=depth)
            await driver.ask("type", number=0, times=1, size=10)
            told = await driver.ask("warned", reason="your presence is not shown")
            assert told["warned"], reason
        assert await driver.ask("length", number=1, length=20) == {"length": 20}
        assert await driver.ask("names", number=1, names=["ben"]) == {"names": ["ben"]}
        await driver.ask("show", number=0, name="ann", picture=0, depth=0)
        assert await driver.ask("names", number=1, names=["ann", "ben"]) == {
            "names": ["ann", "ben"]
        }
        for number in range(2):
            assert await driver.ask("report", number=number) == KEPT
