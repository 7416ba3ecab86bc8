"""Random histories: SQLite tells the same as the reference store after every step."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from plait.persistence import LoggedUpdate, Segment, Snapshot, Store, StoreError, Update
from plait.persistence.memory import MemoryStore
from plait.persistence.sqlite import SqliteStore

T = TypeVar("T")

NAMES = st.sampled_from(["a", "b", "ab", "🦊"])
UPDATES = st.lists(
    st.builds(
        Update,
        document=NAMES,
        update=st.binary(max_size=8),
        who=st.sampled_from(["", "alice", "bob"]),
        at_ms=st.integers(0, 100),
    ),
    max_size=6,
)
SEQS = st.integers(0, 40)


class Comparison(RuleBasedStateMachine):
    """Two handles on the content of each kind, so that each also sees another's writes."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        memory = MemoryStore()
        path = self.folder / "store.db"
        self.pairs: list[tuple[Store, Store]] = [
            (memory, SqliteStore(path)),
            (memory.sibling(), SqliteStore(path)),
        ]
        for _, sqlite in self.pairs:
            self.run(sqlite.open())
        self.writers: dict[int, set[int]] = {}
        """By row, the handles whose updates it holds."""
        self.cursors: list[dict[Store, dict[str, int]]] = [
            {store: {} for store in pair} for pair in self.pairs
        ]

    def teardown(self) -> None:
        problems = self.run(self.pairs[0][1].check())
        for _, sqlite in self.pairs:
            self.run(sqlite.close())
        self.runner.close()
        shutil.rmtree(self.folder)
        assert list(problems) == []

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def compare(self, handle: int, act: Callable[[Store], Coroutine[Any, Any, object]]) -> object:
        expected, found = (self.outcome(store, act) for store in self.pairs[handle])
        assert found == expected
        return expected

    def outcome(self, store: Store, act: Callable[[Store], Coroutine[Any, Any, object]]) -> object:
        try:
            result = self.run(act(store))
        except StoreError as error:
            return type(error), error.document
        return list(result) if isinstance(result, (list, tuple, range)) else result

    @rule(handle=st.integers(0, 1), updates=UPDATES)
    def append(self, handle: int, updates: list[Update]) -> None:
        seqs = self.compare(handle, lambda store: store.append(updates))
        if isinstance(seqs, list):
            self.writers.update((seq, {handle}) for seq in seqs)

    @rule(
        handle=st.integers(0, 1),
        name=NAMES,
        upto=SEQS,
        slices=st.lists(st.binary(max_size=4), min_size=1, max_size=3),
        run=st.none() | st.tuples(SEQS, SEQS),
    )
    def compact(
        self,
        handle: int,
        name: str,
        upto: int,
        slices: list[bytes],
        run: tuple[int, int] | None,
    ) -> None:
        segment = Segment(*run, b"segment") if run else None
        self.fold(handle, name, Snapshot(upto, tuple(slices), upto), segment)

    @rule(handle=st.integers(0, 1), name=NAMES, data=st.data())
    def compact_rows_that_are_there(self, handle: int, name: str, data: st.DataObject) -> None:
        seqs = [row.seq for row in self.run(self.pairs[0][0].log(name))]
        if seqs:
            first, last, upto = sorted(data.draw(st.sampled_from(seqs)) for _ in range(3))
            snapshot, segment = Snapshot(upto, (b"s",)), Segment(first, last, b"folded")
            self.fold(handle, name, snapshot, segment)

    def fold(self, handle: int, name: str, snapshot: Snapshot, segment: Segment | None) -> None:
        rows = self.run(self.pairs[0][0].log(name))
        done = self.compare(handle, lambda store: store.compact(name, snapshot, segment))
        if done and segment is not None:
            run = [row.seq for row in rows if segment.first <= row.seq <= segment.last]
            self.writers[run[-1]] = set().union(*(self.writers[seq] for seq in run))

    @rule(handle=st.integers(0, 1), name=NAMES, at_ms=st.integers(0, 100))
    def delete(self, handle: int, name: str, at_ms: int) -> None:
        self.compare(handle, lambda store: store.delete(name, at_ms))

    @rule(handle=st.integers(0, 1), name=NAMES)
    def undelete(self, handle: int, name: str) -> None:
        self.compare(handle, lambda store: store.undelete(name))

    @rule(handle=st.integers(0, 1), name=NAMES)
    def purge_one(self, handle: int, name: str) -> None:
        self.compare(handle, lambda store: store.purge(document=name))

    @rule(handle=st.integers(0, 1), before_ms=st.integers(0, 100))
    def purge_old(self, handle: int, before_ms: int) -> None:
        self.compare(handle, lambda store: store.purge(before_ms=before_ms))

    @rule(handle=st.integers(0, 1), after=st.dictionaries(NAMES, SEQS))
    def changes(self, handle: int, after: dict[str, int]) -> None:
        expected, found = (
            self.followed(handle, store, dict(after)) for store in self.pairs[handle]
        )
        assert found == expected

    @rule(handle=st.integers(0, 1), names=st.sets(NAMES))
    def follow(self, handle: int, names: set[str]) -> None:
        """Go on from where each store itself said, and that need not be the same number."""
        results = []
        for store, cursors in self.cursors[handle].items():
            asked = {name: cursors.get(name, 0) for name in names}
            results.append(self.followed(handle, store, asked))
            cursors |= asked
        assert results[0] == results[1]

    def followed(
        self, handle: int, store: Store, cursors: dict[str, int]
    ) -> tuple[list[LoggedUpdate], set[str]]:
        """Ask a store, and move the cursors on; return what it has to tell."""
        changes = self.run(store.changes(cursors))
        assert not changes.more
        cursors |= changes.seqs
        assert all(row.seq <= cursors[row.document] for row in changes.updates)
        # A row that holds nothing but what this handle wrote may be told, or not.
        rows = [row for row in changes.updates if self.writers[row.seq] != {handle}]
        return sorted(rows, key=lambda row: row.seq), set(changes.deleted)

    @invariant()
    def contents_are_equal(self) -> None:
        for name in ("a", "b", "ab", "🦊"):
            self.compare(0, lambda store, name=name: store.load(name))  # type: ignore[misc]
            self.compare(1, lambda store, name=name: store.log(name))  # type: ignore[misc]
        self.compare(0, lambda store: store.documents(prefix="a"))
        self.compare(1, lambda store: store.documents(deleted=True))


Comparison.TestCase.settings = settings(max_examples=30, stateful_step_count=20)
TestSqliteAgainstMemory = Comparison.TestCase
