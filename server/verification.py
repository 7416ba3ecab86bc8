"""Prove that every document of a store can be loaded, and that its snapshot is what its log says.

The store checks its own structure; it does not know what the bytes mean. Here each row is inspected
as if a stranger had sent it, the whole log is replayed, and the outcome is compared with what a
server would load. Damaged bytes may crash pycrdt or make it loop, so this happens in a process of
its own, for many documents at once.
"""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from plait.persistence import DocumentInfo, LoggedUpdate, Snapshot, Store, Stored, StoreError
from plait.persistence.archive import Archive
from plait.server.apart import run_apart
from plait.server.document import Document
from plait.server.errors import DocumentBroken, PlaitError
from plait.server.folding import read, same
from plait.server.limits import Limits
from plait.server.recovery import log_pages
from plait.server.replay import replay
from plait.server.state import settled
from plait.server.wire.update import inspect

BATCH_BYTES = 8 << 20
"""Starting a process takes as long as checking about this much."""
BATCH_DOCUMENTS = 500
BATCH_SECONDS = 300.0
PROBLEMS_MAX = 10
"""Told of one document; where one row is damaged, thousands may be."""


class Evidence(NamedTuple):
    """What a store has of a document."""

    name: str
    log: tuple[LoggedUpdate, ...]
    """The whole log, up to what `stored` holds."""
    stored: Stored | None
    """What a server would load; None of a deleted document."""


class Problem(NamedTuple):
    """What is wrong with a document."""

    document: str
    text: str


async def verify(
    store: Store | Archive, infos: Sequence[DocumentInfo], limits: Limits
) -> AsyncIterator[tuple[int, list[Problem]]]:
    """Check documents; after some at a time, return how many they were, and what is wrong."""
    batch: list[Evidence] = []
    size = 0
    for info in infos:
        try:
            evidence = await _evidence(store, info)
        except StoreError as error:
            yield 1, [Problem(info.name, str(error.args[0]))]
            continue
        if evidence is None:
            yield 1, []  # It was deleted and forgotten since it was listed.
            continue
        batch.append(evidence)
        size += info.log_bytes + info.snapshot_bytes
        if size >= BATCH_BYTES or len(batch) >= BATCH_DOCUMENTS:
            yield len(batch), await _verify_apart(batch, limits)
            batch, size = [], 0
    if batch:
        yield len(batch), await _verify_apart(batch, limits)


async def _evidence(store: Store | Archive, info: DocumentInfo) -> Evidence | None:
    """Read a document as it was at one moment, though it may be written meanwhile."""
    stored = None if info.deleted_ms is not None else await store.load(info.name)
    rows = [row async for page in log_pages(store, info.name) for row in page]
    if stored is not None:
        rows = [row for row in rows if row.seq <= stored.seq]
        if not stored.exists and await store.info(info.name) is None:
            return None
    return Evidence(info.name, tuple(rows), stored)


async def _verify_apart(batch: Sequence[Evidence], limits: Limits) -> list[Problem]:
    try:
        return await run_apart(problems, BATCH_SECONDS, batch, limits)
    except DocumentBroken as error:
        if len(batch) == 1:
            return [Problem(batch[0].name, f"It can't be checked: {error}.")]
    return [each for one in batch for each in await _verify_apart([one], limits)]


def problems(batch: Sequence[Evidence], limits: Limits) -> list[Problem]:
    """Return what is wrong with documents; crashes or never returns if it is bad enough."""
    return [
        Problem(evidence.name, text)
        for evidence in batch
        for text in _problems(evidence, limits)[:PROBLEMS_MAX]
    ]


def _problems(evidence: Evidence, limits: Limits) -> list[str]:
    found = [
        f"Row {row.seq} of its log is damaged: {problem}"
        for row in evidence.log
        if (problem := _damage(row.update, limits))
    ]
    snapshot = evidence.stored.snapshot if evidence.stored else None
    if snapshot is not None:
        found += _damaged_slices(snapshot, limits)
    if found:
        return found
    try:
        return _contradictions(evidence, limits)
    except PlaitError as error:
        return [f"It can't be loaded: {error}."]


def _damaged_slices(snapshot: Snapshot, limits: Limits) -> list[str]:
    return [
        f"Slice {number} of its snapshot is damaged: {problem}"
        for number, part in enumerate(snapshot.slices)
        if (problem := _damage(part, limits))
    ]


def _contradictions(evidence: Evidence, limits: Limits) -> list[str]:
    """Return in what the log and what would be loaded differ."""
    found = []
    replayed = Document(limits)
    waiting: list[LoggedUpdate] = []
    for _ in replay(replayed, evidence.log, waiting):
        pass
    waiting = settled(replayed, waiting)
    if waiting:
        found.append(
            f"{len(waiting)} rows of its log, the first is {waiting[0].seq}, "
            "build upon others that are missing."
        )
    if evidence.stored is not None and evidence.stored.snapshot is not None:
        loaded, _ = read(evidence.stored, limits)
        if not same(loaded, replayed):
            found.append("Its snapshot is not what its log says.")
        loaded.close()
    replayed.close()
    return found


def _damage(update: bytes, limits: Limits) -> str | None:
    if not isinstance(update, bytes):
        return "It is text, where bytes are expected."
    try:
        inspect(update, any_depth_max=limits.any_depth_max)
    except PlaitError as error:
        return str(error)
    return None
