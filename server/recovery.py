"""Bring documents back from a backup, each as a new edit, while the store may be in use.

A server that runs on the store notices the rows within about a second and sends them to its
clients, who converge to the old content and keep what they type meanwhile.
"""

import time
from collections.abc import AsyncIterator
from enum import StrEnum

from plait.persistence import DocumentInfo, LoggedUpdate, Store, Stored, Update
from plait.persistence.archive import Archive
from plait.persistence.transfer import Shared
from plait.server.errors import DocumentUnknown
from plait.server.limits import Limits
from plait.server.revert import reverting_update
from plait.server.state import rows_for, run_on, whole_state
from plait.server.updates import EMPTY_UPDATE

OPERATOR = "operator"
"""The author of what the command line appends."""
PAGE_DOCUMENTS = 500
PAGE_ROWS = 1000


class Recovered(StrEnum):
    """What became of a document that was to be brought back."""

    REVERTED = "reverted"
    """It has the content of the backup again, by a new edit."""
    ADDED = "added"
    """It was missing, and was taken from the backup with its history."""
    UNDELETED = "undeleted"
    """It was deleted, and had the content of the backup."""
    UNCHANGED = "unchanged"
    """It had the content of the backup."""


async def recover(store: Store, archive: Archive, name: str, limits: Limits) -> Recovered:
    """Give a document the content that it has in a backup.

    Raises:
        DocumentUnknown: the backup does not have it.
        PlaitError: it can't be brought back; it is left as it was.
        StoreError: either file can't be read or written.
    """
    old = await archive.load(name)
    if not old.exists:
        raise DocumentUnknown(f"the backup has no document {name!r}")
    info = await store.info(name)
    if info is None:
        await _add(store, archive, name)
        return Recovered.ADDED
    present = await stored_or_deleted(store, info)
    rows = await run_on(_reverting_rows, present, old, limits)
    undeleted = info.deleted_ms is not None and await store.undelete(name)
    if rows:
        await append(store, name, rows)
        return Recovered.REVERTED
    return Recovered.UNDELETED if undeleted else Recovered.UNCHANGED


async def append(store: Store, name: str, rows: list[bytes]) -> None:
    """Append rows to a document in the operator's name, all or none."""
    now = time.time_ns() // 1_000_000
    await store.append([Update(name, row, OPERATOR, now) for row in rows])


async def stored_or_deleted(store: Store | Archive, info: DocumentInfo) -> Stored:
    """Return a document, even one that is deleted and not purged."""
    if info.deleted_ms is None:
        return await store.load(info.name)
    rows = [row async for page in log_pages(store, info.name) for row in page]
    return Stored(info.name, None, tuple(rows))


async def log_pages(store: Store | Archive, name: str) -> AsyncIterator[list[LoggedUpdate]]:
    """Return a document's whole log, page by page."""
    after = 0
    while page := list(await store.log(name, after, PAGE_ROWS)):
        yield page
        after = page[-1].seq


async def documents(
    store: Store | Archive, *, prefix: str = "", deleted: bool = False
) -> AsyncIterator[DocumentInfo]:
    """Return all documents of a listing, read page by page."""
    after = ""
    while page := await store.documents(
        prefix=prefix, after=after, limit=PAGE_DOCUMENTS, deleted=deleted
    ):
        for info in page:
            yield info
        after = page[-1].name


def _reverting_rows(present: Stored, old: Stored, limits: Limits) -> list[bytes]:
    """Return the rows that give a document its old content; none if it has it already."""
    now, _ = whole_state(present, limits)
    then, _ = whole_state(old, limits)
    update = reverting_update(now, then, limits)
    return [] if update == EMPTY_UPDATE else rows_for(present, update, limits).rows


async def _add(store: Store, archive: Archive, name: str) -> None:
    """Append a document's log as it is in the backup, with its authors and times; all or none."""
    if isinstance(store, Shared):
        # By the page: a statement takes no more than a few seconds.
        async with store.at_once() as whole:
            async for page in log_pages(archive, name):
                await whole.append(_as_they_were(page))
        return
    await store.append(
        _as_they_were([row async for page in log_pages(archive, name) for row in page])
    )


def _as_they_were(rows: list[LoggedUpdate]) -> list[Update]:
    return [Update(row.document, row.update, row.who, row.at_ms) for row in rows]
