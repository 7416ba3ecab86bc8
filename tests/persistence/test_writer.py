"""The writer: order, grouping, back-off, limits. Time is virtual, so nothing waits for real."""

import asyncio
import logging
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

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
from plait.persistence.memory import MemoryStore
from plait.persistence.unsaved import UPDATE_OVERHEAD_BYTES


class VirtualSelector(selectors.SelectSelector):
    """Passes the time that a loop would sleep, instead of sleeping."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everything waits for something that never comes"
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Unrealistic in that computing takes no time at all."""

    def __init__(self) -> None:
        self.selector = VirtualSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(coroutine)


def now() -> float:
    return asyncio.get_running_loop().time()


class FaultyStore(MemoryStore):
    """A store that fails on demand and records what it was asked.

    Unrealistic in that a failed commit never took place after all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self.commit_seconds = 0.0
        self.gate: asyncio.Event | None = None
        self.attempts: list[float] = []
        self.commits: list[list[bytes]] = []

    async def append(self, updates: Sequence[Update]) -> Sequence[int]:
        self.attempts.append(now())
        if self.gate is not None:
            await self.gate.wait()
        if self.commit_seconds:
            await asyncio.sleep(self.commit_seconds)
        if self.error is not None:
            raise self.error
        seqs = await super().append(updates)
        self.commits.append([update.update for update in updates])
        return seqs


class Room:
    """Appends numbered updates, and records what it is told."""

    def __init__(self, writer: Writer, name: str = "a") -> None:
        self.writer = writer
        self.name = name
        self.seqs: list[int] = []
        self.errors: list[StoreError] = []

    def append(self, *texts: str) -> None:
        updates = [Update(self.name, text.encode()) for text in texts]
        self.writer.append(updates, self.seqs.extend, self.errors.append)

    def pending(self) -> list[bytes]:
        return [update.update for update in self.writer.pending(self.name)]


async def store_deleted(store: FaultyStore, document: str) -> None:
    """Let there be a deleted document, which is no part of what is recorded."""
    await MemoryStore.append(store, [Update(document, b"0")])
    await store.delete(document, 1)


@asynccontextmanager
async def running(writer: Writer) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(writer.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Let virtual time pass until a condition holds."""
    deadline = now() + seconds
    while not condition():
        assert now() < deadline, "it did not come to be in time"
        await asyncio.sleep(0.001)


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
