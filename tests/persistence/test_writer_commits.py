"""What a writer commits, when and in which order, and what it tells. Time is virtual."""

import asyncio
import logging

import pytest

from plait.persistence import StoreUnavailable, Update, Writer
from plait.persistence.unsaved import UPDATE_OVERHEAD_BYTES
from tests.support.writing import FaultyStore, Room, run, running, store_deleted, until


def test_updates_are_committed_in_order_and_told() -> None:
    async def scenario() -> None:
        store = FaultyStore()
        writer = Writer(store)
        a, b = Room(writer, "a"), Room(writer, "b")
        async with running(writer):
            a.append("1", "2")
            b.append("3")
            a.append("4")
            await writer.flush()
        assert a.seqs == [1, 2, 4]
        assert b.seqs == [3]
        assert store.commits == [[b"1", b"2", b"3", b"4"]]
        assert writer.unsaved_updates == writer.unsaved_bytes == 0

    run(scenario())


def test_done_is_called_only_after_the_commit() -> None:
    async def scenario() -> None:
        store = FaultyStore()
        store.gate = asyncio.Event()
        writer = Writer(store)
        room = Room(writer)
        async with running(writer):
            room.append("1")
            await until(lambda: len(store.attempts) == 1)
            assert room.seqs == []
            assert room.pending() == [b"1"]
            store.gate.set()
            await writer.flush()
            assert room.seqs == [1]
            assert room.pending() == []

    run(scenario())


def test_the_first_after_a_silence_is_committed_at_once_and_the_next_an_interval_later() -> None:
    async def scenario() -> None:
        store = FaultyStore()
        writer = Writer(store, interval_seconds=0.02)
        room = Room(writer)
        async with running(writer):
            await asyncio.sleep(10)
            for i in range(100):
                room.append(str(i))
                await asyncio.sleep(0.001)
            await until(lambda: len(room.seqs) == 100)
        assert store.attempts[0] == pytest.approx(10)
        gaps = [b - a for a, b in zip(store.attempts, store.attempts[1:], strict=False)]
        # The first update that comes when a commit is due brings it about; without one, a timer.
        assert gaps[:-1] == pytest.approx([0.021] * (len(gaps) - 1))
        assert gaps[-1] == pytest.approx(0.0225)
        assert [text for commit in store.commits for text in commit] == [
            str(i).encode() for i in range(100)
        ]

    run(scenario())


def test_what_is_appended_during_a_commit_goes_into_the_next_as_one() -> None:
    async def scenario() -> None:
        store = FaultyStore()
        store.commit_seconds = 1.0
        writer = Writer(store)
        rooms = [Room(writer, str(i)) for i in range(50)]
        async with running(writer):
            rooms[0].append("first")
            await until(lambda: len(store.attempts) == 1)
            for room in rooms:
                room.append("x")
            await until(lambda: all(room.seqs for room in rooms))
        assert [len(commit) for commit in store.commits] == [1, 50]

    run(scenario())


def test_a_transaction_is_bounded_in_bytes() -> None:
    async def scenario() -> None:
        store = FaultyStore()
        writer = Writer(store, transaction_bytes_max=3 * (UPDATE_OVERHEAD_BYTES + 1))
        room = Room(writer)
        async with running(writer):
            for text in "1234567":
                room.append(text)
            room.append("8" * 10_000)
            room.append("9")
            await until(lambda: len(room.seqs) == 9)
        assert [len(commit) for commit in store.commits] == [3, 3, 1, 1, 1]
        assert room.seqs == list(range(1, 10))

    run(scenario())


def test_a_callback_that_raises_hurts_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: object) -> None:
        raise ValueError("callback trouble")

    async def scenario() -> None:
        store = FaultyStore()
        await store_deleted(store, "gone")
        writer = Writer(store, unsaved_bytes_max=0, on_state=broken)
        room, gone = Room(writer), Room(writer, "gone")
        async with running(writer) as task:
            writer.append([Update("b", b"1")], broken, broken)
            writer.append([Update("gone", b"1")], broken, broken)
            gone.append("1")
            room.append("2")
            await writer.flush()
            assert not task.done()
        assert room.seqs == [3]
        assert len(gone.errors) == 1

    with caplog.at_level(logging.ERROR):
        run(scenario())
    assert "callback trouble" in caplog.text


def test_a_callback_may_append() -> None:
    async def scenario() -> None:
        writer = Writer(FaultyStore())
        room = Room(writer)
        async with running(writer):
            writer.append([Update("a", b"1")], lambda _: room.append("2"))
            await until(lambda: room.seqs == [2])

    run(scenario())


def test_pending_has_what_is_in_flight_before_what_is_queued() -> None:
    async def scenario() -> None:
        store = FaultyStore()
        store.gate = asyncio.Event()
        writer = Writer(store)
        a, b = Room(writer, "a"), Room(writer, "b")
        async with running(writer):
            a.append("1", "2")
            b.append("other")
            await until(lambda: len(store.attempts) == 1)
            a.append("3")
            assert a.pending() == [b"1", b"2", b"3"]
            assert b.pending() == [b"other"]
            assert Room(writer, "unknown").pending() == []
            # A failed commit goes back to where it was.
            store.error = StoreUnavailable("away")
            store.gate.set()
            await until(lambda: writer.failing_since is not None)
            assert a.pending() == [b"1", b"2", b"3"]

    run(scenario())


@pytest.mark.parametrize(("document", "who"), [("\ud800", ""), ("a", "\udfff")])
def test_a_name_no_store_can_keep_is_refused_before_it_holds_up_others(
    document: str, who: str
) -> None:
    async def scenario() -> None:
        writer = Writer(FaultyStore())
        with pytest.raises(UnicodeEncodeError):
            writer.append([Update(document, b"x", who)], lambda _: None)
        assert writer.unsaved_updates == 0

    run(scenario())
