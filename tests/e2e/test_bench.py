"""`plait bench` measures a real server, and loses nothing on the way."""

import json
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

from plait.server.typist import long_document
from tests.e2e.conftest import OpenServer
from tests.support.deadlines import DEADLINE_SECONDS
from tests.support.redis import RedisServer
from tests.support.server import PLAIT, PlaitProcess, environment

FEW = ("--rooms", "3", "--clients", "4", "--writers", "2", "--seconds", "1", "--dial", "3")


def bench(url: str, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*PLAIT, "bench", "--url", url, *options],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_SECONDS,
    )


def measured(server: PlaitProcess, options: Sequence[str]) -> dict[str, Any]:
    """Run a bench that must find nothing wrong; return its result."""
    done = bench(server.ws_url, *options, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("rate", ["20", "0"], ids=["typing", "flood"])
def test_every_edit_is_delivered_and_acknowledged(shared_server: PlaitProcess, rate: str) -> None:
    result = measured(shared_server, [*FEW, "--rate", rate, "--presence", "0.5"])
    assert result["connected"] == 12
    assert result["edits"] > 20
    assert result["delivered"] == result["expected"] == result["edits"] * 3
    assert result["acknowledged"] == result["edits"]
    assert result["presence"] > 0
    assert result["delivery"]["count"] == result["delivered"]
    assert 0 < result["delivery"]["p50_ms"] <= result["delivery"]["max_ms"]
    assert result["failures"] == result["closed"] == {}


def test_a_document_is_uploaded_before_everybody_comes(
    shared_server: PlaitProcess, tmp_path: Any
) -> None:
    document = tmp_path / "document.yjs"
    document.write_bytes(long_document(5_000))
    options = ["--scenario", "storm", "--clients", "20", "--document", str(document)]
    result = measured(shared_server, options)
    assert result["connected"] == result["sync"]["count"] == 20
    assert result["edits"] == 0
    assert result["bytes"] > 20 * len(document.read_bytes()) * 0.8


@pytest.mark.parametrize("options", [(), ("--together",)], ids=["spread", "together"])
async def test_editors_of_a_cluster_lose_nothing(
    open_server: OpenServer, options: Sequence[str]
) -> None:
    async with RedisServer() as redis:
        first = await open_server("--relay", redis.url)
        second = await open_server("--relay", redis.url, store=first.store_path)
        result = measured(first, ["--url", second.ws_url, *FEW, *options])
    assert result["url"] == f"{first.ws_url}, {second.ws_url}"
    assert result["edits"] > 10
    assert result["delivered"] == result["expected"] == result["edits"] * 3
    assert result["acknowledged"] == result["edits"]


def test_people_get_a_table_and_bars(shared_server: PlaitProcess) -> None:
    done = bench(shared_server.ws_url, *FEW)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("12 editors in 3 rooms\n")
    assert "latency of deliveries: p50 " in done.stdout
    assert "latency of acknowledgements: p50 " in done.stdout


def test_a_refusal_is_one_line_with_its_status(shared_server: PlaitProcess) -> None:
    done = bench(shared_server.ws_url, "--prefix", "%ff", "--json")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.endswith("can't be used: refused with HTTP 400 Bad Request\n")
    assert done.stderr.count("\n") == 1
