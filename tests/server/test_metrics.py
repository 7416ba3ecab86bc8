"""What Prometheus is told, and who is told."""

import asyncio

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from plait.server import metrics
from plait.server.app import Plait
from plait.server.settings import Settings
from plait.server.wire.ywebsocket import YWEBSOCKET
from tests.support.authors import Author
from tests.support.deadlines import eventually
from tests.support.rest import connect, serving


def values(text: str) -> dict[str, float]:
    """Return the samples without their labels' names."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_what_happens_is_told() -> None:
    async with serving() as (plait, _), plait.hub.room("a") as room:
        ann, _ = connect(plait, room), connect(plait, room)
        first = YWEBSOCKET.sync_update(Author(1).type("hello"))
        for frame in (first, first, YWEBSOCKET.awareness(b"\x01\x01\x01\x02{}")):
            ann.receive(frame)
        await eventually(lambda: not room.busy)
        told = values((await plait.metrics.text()).decode())
        assert told["plait_rooms"] == 1
        assert told["plait_members"] == 2
        assert told["plait_updates_total applied"] == 1
        assert told["plait_updates_total duplicate"] == 1
        assert told["plait_presence_messages_total"] == 1
        assert told["plait_deliveries_total"] == 1
        assert told["plait_commit_seconds_count"] >= 1
        assert told["plait_load_seconds_count"] == 1
        assert told["plait_unsaved_updates"] == 0
        assert told["plait_store_failing"] == 0
        assert told["plait_limit_hits_total rooms_max"] == 0
        assert told["process_resident_memory_bytes"] > 0
        assert told["python_gc_collections_total 0"] >= 0


async def test_a_late_event_loop_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "DELAY_SECONDS", 0.0)
    plait = Plait(Settings(store="memory://"))
    watching = asyncio.create_task(plait.metrics.watch_delay())
    await eventually(lambda: sum(plait.counters.loop_delay_seconds.counts) > 1)
    watching.cancel()
    told = values((await plait.metrics.text()).decode())
    assert told["plait_loop_delay_seconds_count"] > 1
    assert told["plait_loop_delay_max_seconds"] > 0
    assert values((await plait.metrics.text()).decode())["plait_loop_delay_max_seconds"] == 0


async def status(plait: Plait, host: str, **headers: str) -> int:
    transport = httpx.ASGITransport(app=plait.asgi, client=(host, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://plait.test") as client:
        return (await client.get("/metrics", headers=headers)).status_code


async def test_only_this_machine_is_told() -> None:
    plait = Plait(Settings(store="memory://"))
    for host in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert await status(plait, host) == 200
    assert await status(plait, "192.0.2.1") == 403
    assert await status(plait, "127.0.0.1", **{"X-Forwarded-For": "192.0.2.1"}) == 403
    public = Plait(Settings(store="memory://", metrics_public=True))
    assert await status(public, "192.0.2.1") == 200


async def test_a_writer_that_is_full_is_a_limit_reached() -> None:
    plait = Plait(Settings(store="memory://", unsaved_mb=4))
    for full in (True, True, False, True):
        plait.writer.unsaved.full = full
        plait._count_full(plait.writer.state)
    assert plait.counters.limits["unsaved_mb"] == 2
