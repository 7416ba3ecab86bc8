"""Whether the servers of these tests run what they are meant to: the source as Python, or, if
`PYTHONPATH` says so, what `scripts/compile` has made of it, as in `scripts/test`; and whether both
are the same program.
"""

import asyncio
import os
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.server import PlaitProcess

ROOT = Path(__file__).resolve().parent.parent.parent
COMPILED = "build/compiled" in os.environ.get("PYTHONPATH", "")


async def verdicts(path: str) -> list[str]:
    """Return what the readers of the wire say of mutated bytes, of the Plait on a path."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.verdicts", "2000", "7"),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode().splitlines()


async def test_servers_run_what_they_are_meant_to(plait_server: PlaitProcess) -> None:
    async with httpx.AsyncClient() as client:
        told = (await client.get(f"{plait_server.url}/metrics")).text
    assert f'compiled="{"yes" if COMPILED else "no"}"' in told


@pytest.mark.skipif(not COMPILED, reason="there is no C compiler")
async def test_both_say_the_same_of_what_strangers_send() -> None:
    (python, *expected), (compiled, *found) = await asyncio.gather(
        verdicts(""), verdicts(os.environ["PYTHONPATH"])
    )
    assert (python, compiled) == ("Python", "compiled")
    assert len(found) == 6000
    assert found == expected
