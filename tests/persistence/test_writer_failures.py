"""A writer whose store fails or refuses: back-off, deleted documents, limit. Time is virtual."""

import asyncio

import pytest

from plait.persistence import (
    DocumentDeleted,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
    Update,
    Writer,
    WriterState,
)
from plait.persistence.unsaved import UPDATE_OVERHEAD_BYTES
from tests.support.writing import FaultyStore, Room, now, run, running, store_deleted, until


def test_a_failing_store_is_tried_again_ever_later_and_nothing_is_lost() -> None:
    async def scenario() -> None:
        store = FaultyStore()
        states: list[WriterState] = []
        writer = Writer(
            store, clock=lambda: 1000 + now(), jitter=lambda: 0.5, on_state=states.append
        )
        room = Room(writer)
        error = StoreUnavailable("disk full")
        async with running(writer):
            store.error = error
            room.append("1")
            await until(lambda: len(store.attempts) == 2)
            room.append("2", "3")
            await until(lambda: len(store.attempts) == 9)
            assert room.seqs == []
            assert room.pending() == [b"1", b"2", b"3"]
            assert (writer.failing_since, writer.last_error) == (1000, error)
            assert writer.unsaved_updates == 3
            assert writer.unsaved_seconds == now() > 10, "since the first of them"
            store.error = None
            await until(lambda: len(room.seqs) == 3)
            assert writer.unsaved_seconds == 0
            room.append("4")
            assert writer.unsaved_seconds == 0
            await until(lambda: len(room.seqs) == 4)
        gaps = [b - a for a, b in zip(store.attempts, store.attempts[1:], strict=False)]
        assert gaps[:9] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0])
        assert store.commits == [[b"1", b"2", b"3"], [b"4"]]
        assert (writer.failing_since, writer.last_error) == (None, None)
        assert [state.failing_since for state in states] == [1000, None]

    run(scenario())


def test_after_a_recovery_the_back_off_begins_anew() -> None:
    async def scenario() -> None:
        store = FaultyStore()
        writer = Writer(store, jitter=lambda: 0.5)
        room = Room(writer)
        async with running(writer):
            store.error = StoreUnavailable("away")
            room.append("1")
            await until(lambda: len(store.attempts) == 5)
            store.error = None
            await writer.flush()
            store.attempts.clear()
            store.error = StoreUnavailable("away again")
            room.append("2")
            await until(lambda: len(store.attempts) == 2)
        assert store.attempts[1] - store.attempts[0] == pytest.approx(0.1)

    run(scenario())


def test_jitter_spreads_the_retries() -> None:
    async def scenario(jitter: float, expected: float) -> None:
        store = FaultyStore()
        store.error = StoreUnavailable("away")
        writer = Writer(store, jitter=lambda: jitter)
        async with running(writer):
            Room(writer).append("1")
            await until(lambda: len(store.attempts) == 2)
        assert store.attempts[1] - store.attempts[0] == pytest.approx(expected)

    run(scenario(0.0, 0.075))
    run(scenario(1.0, 0.125))


@pytest.mark.parametrize(
    "error", [StoreCorrupt("torn"), StoreError("?"), RuntimeError("a bug"), OSError("io")]
)
def test_any_other_error_is_survived_without_dropping(error: Exception) -> None:
    async def scenario() -> None:
        store = FaultyStore()
        store.error = error
        writer = Writer(store)
        room = Room(writer)
        async with running(writer) as task:
            room.append("1")
            await until(lambda: len(store.attempts) >= 3)
            assert not task.done()
            assert isinstance(writer.last_error, StoreError)
            store.error = None
            await writer.flush()
        assert room.seqs == [1]

    run(scenario())


def test_updates_of_a_deleted_document_are_taken_out_and_the_others_committed() -> None:
    async def scenario() -> None:
        store = FaultyStore()
        await store_deleted(store, "gone")
        writer = Writer(store)
        gone, kept = Room(writer, "gone"), Room(writer, "kept")
        mixed: list[int] = []
        mixed_errors: list[StoreError] = []
        async with running(writer):
            kept.append("1")
            gone.append("lost")
            writer.append(
                [Update("gone", b"lost"), Update("kept", b"2")], mixed.extend, mixed_errors.append
            )
            kept.append("3")
            await writer.flush()
        assert store.commits == [[b"1", b"2", b"3"]]
        assert (kept.seqs, mixed, gone.seqs) == ([2, 4], [3], [])
        assert [type(error) for error in gone.errors + mixed_errors] == [DocumentDeleted] * 2
        assert kept.errors == []
        assert writer.unsaved_updates == writer.unsaved_bytes == 0
        # It is no failure of the store, and nobody had to wait for a back-off.
        assert writer.failing_since is None
        assert store.attempts[1] - store.attempts[0] <= 0.0225 + 1e-9

    run(scenario())


def test_what_was_with_a_deleted_document_stays_before_what_came_later() -> None:
    async def scenario() -> None:
        store = FaultyStore()
        store.gate = asyncio.Event()
        await store_deleted(store, "gone")
        writer = Writer(store)
        gone, kept = Room(writer, "gone"), Room(writer, "kept")
        async with running(writer):
            kept.append("1")
            gone.append("lost")
            kept.append("2")
            await until(lambda: len(store.attempts) == 1)
            kept.append("3")
            store.gate.set()
            await writer.flush()
        assert store.commits == [[b"1", b"2", b"3"]]
        assert len(gone.errors) == 1

    run(scenario())


def test_a_deletion_of_a_document_not_in_the_commit_does_not_spin() -> None:
    async def scenario() -> None:
        store = FaultyStore()
        store.error = DocumentDeleted.of("someone else")
        writer = Writer(store, jitter=lambda: 0.5)
        room = Room(writer)
        async with running(writer):
            room.append("1")
            await until(lambda: len(store.attempts) == 3)
            assert store.attempts[2] - store.attempts[1] == pytest.approx(0.2)
            store.error = None
            await writer.flush()
        assert room.seqs == [1]

    run(scenario())


def test_the_writer_is_full_above_its_limit_and_lets_go_below() -> None:
    async def scenario() -> None:
        store = FaultyStore()
        store.error = StoreUnavailable("away")
        states: list[WriterState] = []
        writer = Writer(store, unsaved_bytes_max=1000, on_state=states.append)
        room = Room(writer)
        async with running(writer):
            room.append("x" * (1000 - UPDATE_OVERHEAD_BYTES))
            assert not writer.full
            await writer.wait_not_full()
            room.append("")
            assert writer.full
            assert writer.unsaved_bytes == 1000 + UPDATE_OVERHEAD_BYTES
            waiting = asyncio.create_task(writer.wait_not_full())
            await until(lambda: len(store.attempts) == 5)
            assert not waiting.done()
            store.error = None
            await waiting
            assert not writer.full
            assert len(room.seqs) == 2
        assert [state.full for state in states] == [True, True, False]
        assert [state.failing_since is None for state in states] == [True, False, True]

    run(scenario())
