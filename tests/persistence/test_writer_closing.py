"""A writer that is flushed, closed or cancelled. Time is virtual, so nothing waits for real."""

import asyncio

import pytest

from plait.persistence import DocumentDeleted, StoreUnavailable, Writer
from tests.support.writing import FaultyStore, Room, now, run, running, until


def test_flush_waits_for_what_came_before_and_for_nothing_else() -> None:
    async def scenario() -> None:
        store = FaultyStore()
        store.commit_seconds = 1.0
        writer = Writer(store)
        room = Room(writer)
        await writer.flush()
        async with running(writer):
            room.append("1")
            flushing = asyncio.create_task(writer.flush())
            await until(lambda: len(store.attempts) == 1)
            room.append("2")
            await flushing
            assert room.seqs == [1]
            assert room.pending() == [b"2"]

    run(scenario())


def test_flush_gives_up_with_the_reason() -> None:
    async def scenario() -> None:
        store = FaultyStore()
        store.error = StoreUnavailable("disk full")
        writer = Writer(store)
        room = Room(writer)
        async with running(writer):
            room.append("1", "2")
            with pytest.raises(StoreUnavailable, match="2 updates.*disk full"):
                await writer.flush(timeout_seconds=7)
            assert now() == pytest.approx(7)
            assert room.pending() == [b"1", b"2"]
            store.error = None
            await writer.flush()
        assert room.seqs == [1, 2]

    run(scenario())


def test_flush_cuts_a_back_off_short() -> None:
    async def scenario() -> None:
        store = FaultyStore()
        store.error = StoreUnavailable("away")
        writer = Writer(store)
        room = Room(writer)
        async with running(writer):
            room.append("1")
            await until(lambda: len(store.attempts) == 8)
            store.error = None
            before = now()
            await writer.flush()
            assert now() == before
        assert room.seqs == [1]

    run(scenario())


def test_a_deletion_after_the_flush_began_does_not_end_it_early() -> None:
    async def scenario() -> None:
        store = FaultyStore()
        writer = Writer(store)
        early, late = Room(writer, "early"), Room(writer, "late")
        async with running(writer):
            store.error = StoreUnavailable("away")
            early.append("1")
            flushing = asyncio.create_task(writer.flush())
            await until(lambda: len(store.attempts) == 2)
            late.append("2")
            store.error = DocumentDeleted.of("late")
            await until(lambda: len(late.errors) == 1)
            assert not flushing.done()
            store.error = None
            await flushing
            assert early.seqs == [1]

    run(scenario())


def test_close_commits_and_ends_the_loop() -> None:
    async def scenario() -> None:
        writer = Writer(FaultyStore())
        room = Room(writer)
        async with running(writer) as task:
            room.append("1")
            await writer.close(timeout_seconds=5)
            await task
        assert room.seqs == [1]
        with pytest.raises(StoreUnavailable, match="closed"):
            room.append("2")

    run(scenario())


def test_close_says_how_much_it_could_not_save(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        store = FaultyStore()
        store.error = StoreUnavailable("disk full")
        writer = Writer(store)
        room = Room(writer)
        async with running(writer) as task:
            room.append("1", "2", "3")
            with pytest.raises(StoreUnavailable, match="3 updates.*disk full"):
                await writer.close(timeout_seconds=2)
            await task
        assert room.pending() == [b"1", b"2", b"3"]

    run(scenario())
    assert "3 updates were not saved" in caplog.text


def test_close_works_after_the_loop_was_cancelled() -> None:
    async def scenario() -> None:
        store = FaultyStore()
        store.gate = asyncio.Event()
        writer = Writer(store)
        room = Room(writer)
        async with running(writer):
            room.append("1")
            await until(lambda: len(store.attempts) == 1)
            room.append("2")
        store.gate.set()
        await writer.close(timeout_seconds=5)
        assert room.seqs == [1, 2]
        assert store.commits == [[b"1"], [b"2"]]

    run(scenario())


def test_cancelling_the_loop_forgets_no_commit_under_way() -> None:
    async def scenario() -> None:
        store = FaultyStore()
        store.gate = asyncio.Event()
        writer = Writer(store)
        room = Room(writer)
        async with running(writer) as task:
            room.append("1")
            await until(lambda: len(store.attempts) == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert room.pending() == [b"1"]
            store.gate.set()
            await until(lambda: room.seqs == [1])
            assert room.pending() == []
            assert writer.unsaved_updates == 0

    run(scenario())


def test_a_second_loop_does_not_commit_twice_what_is_under_way() -> None:
    async def scenario() -> None:
        store = FaultyStore()
        store.gate = asyncio.Event()
        writer = Writer(store)
        room = Room(writer)
        async with running(writer):
            room.append("1")
            await until(lambda: len(store.attempts) == 1)
        async with running(writer):
            await asyncio.sleep(1)
            room.append("2")
            store.gate.set()
            await writer.flush()
        assert store.commits == [[b"1"], [b"2"]]
        assert room.seqs == [1, 2]

    run(scenario())
