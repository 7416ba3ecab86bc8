"""Real clients that hold structs which build on lost ones: they go on as if nothing was the matter.

Yjs keeps such structs, sends them in each answer to a SyncStep1, and shows them nowhere.
"""

import asyncio
import json
from pathlib import Path

from tests.support.node import run_node
from tests.support.server import PlaitProcess

SCRIPT = Path(__file__).parents[1] / "node" / "gaps.mjs"


async def test_what_was_lost_costs_nobody_anything_else(shared_server: PlaitProcess) -> None:
    url = f"{shared_server.ws_url}/ws"
    told = json.loads(await asyncio.to_thread(run_node, SCRIPT, url, "gaps"))
    assert len(told) == 6
    for case in told:
        assert case["seen"] and case["more"] and case["joined"] and case["same"], case
        assert case["refused"] == [], case
        # Typing, and a few answers, each with what is pending; not megabytes of them.
        assert case["messages"] < case["size"] + 40, case
        assert case["bytes"] < 60 * case["size"] + 5000, case
