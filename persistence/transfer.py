"""Copy documents from one store into another of any kind, through the contract alone."""

import os
from dataclasses import replace
from pathlib import Path

from plait.persistence.files import disk_errors, force_to_disk, refuse_existing, temporary_beside
from plait.persistence.sqlite import SqliteStore
from plait.persistence.store import Progress, Snapshot, Store, Update

DOCUMENTS_A_PAGE = 100
ROWS_A_PAGE = 500


async def copy_store(source: Store, target: Store, progress: Progress | None = None) -> int:
    """Copy all documents with their history, snapshots and deletions; return how many.

    The target gives out sequence numbers of its own. Documents that it has already are appended to.
    The source should not be written meanwhile.
    """
    count = 0
    for deleted in (False, True):
        after = ""
        while page := await source.documents(after=after, limit=DOCUMENTS_A_PAGE, deleted=deleted):
            for info in page:
                # The snapshot of a deleted document can't be asked for; its log has all of it.
                snapshot = None if deleted else (await source.load(info.name)).snapshot
                await _copy_document(source, target, info.name, snapshot)
                if info.deleted_ms is not None:
                    await target.delete(info.name, info.deleted_ms)
                count += 1
                if progress is not None:
                    progress("copy", count, count)
            after = page[-1].name
    return count


async def _copy_document(
    source: Store, target: Store, document: str, snapshot: Snapshot | None
) -> None:
    after = 0
    upto = 0
    while rows := await source.log(document, after, ROWS_A_PAGE):
        seqs = await target.append(
            [Update(row.document, row.update, row.who, row.at_ms) for row in rows]
        )
        if snapshot is not None:
            covered = [s for row, s in zip(rows, seqs, strict=True) if row.seq <= snapshot.upto]
            upto = covered[-1] if covered else upto
        after = rows[-1].seq
    if snapshot is not None and upto:
        await target.compact(document, replace(snapshot, upto=upto))


async def back_up_by_copying(source: Store, target: Path, progress: Progress | None) -> None:
    """Write the content of a store into a new SQLite file, which is there as a whole or not."""
    refuse_existing(target)
    with disk_errors(target), temporary_beside(target) as temporary:
        copy = SqliteStore(temporary)
        await copy.open()
        try:
            await copy_store(source, copy, progress)
        finally:
            await copy.close()
        force_to_disk(temporary)
        os.rename(temporary, target)
        force_to_disk(target.parent)
