"""What `plait store` does with whole stores: copy one into another, bring one forward."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from plait.persistence import Store, StoreCorrupt, StoreUnavailable, schema
from plait.persistence.archive import Archive
from plait.persistence.sqlite_connection import open_file
from plait.persistence.sqlite_errors import translated
from plait.persistence.transfer import (
    Shared,
    Source,
    all_documents,
    copy_store,
    differences,
    new_file,
    refilled_file,
)
from plait.server.command import Command
from plait.server.terminal import counted

BUSY_SECONDS = 5.0


async def copy_stores(command: Command, source_url: str, target_url: str) -> int:
    """Copy all documents of a store into another that has none, of any kind. What is interrupted
    leaves it as it was.

    Raises:
        StoreUnavailable: a server runs on the source, or the target has documents.
        StoreCorrupt: the copy is not what was copied.
    """
    source, target = command.on(source_url), command.on(target_url)
    if source.file is not None and source.in_use():
        raise StoreUnavailable(
            f"a server runs on {source.where}",
            hint="Stop it first, so that nothing is written that the copy would lack; or copy a "
            "backup of it (plait store backup).",
        )
    async with source.store() as store, _standing_still(store) as still, _to_fill(target) as new:
        count = await copy_into(command, still, new)
    command.terminal.result(
        {"from": source.where, "to": target.where, "documents": count},
        f"Copied {counted(count, 'document')} from {source.where} to {target.where}.",
    )
    return 0


async def copy_into(command: Command, source: Source, target: Store) -> int:
    """Copy all documents into a store that has none, and compare; return how many.

    Raises:
        StoreCorrupt: the copy is not what was copied.
    """
    count = await copy_store(source, target, command.terminal.progress)
    if found := await differences(source, target):
        raise StoreCorrupt(
            f"the copy is not what was copied: {found[0]}",
            hint="Make sure that nobody writes to either store, and copy into another one.",
        )
    return count


async def restore_into_empty(command: Command, backup: Path) -> bool:
    """Copy a backup into a store in a database, if that has no documents; return whether it did."""
    async with Archive(backup) as archive, command.store(create=True) as store:
        if not await is_empty(store):
            return False
        async with _at_once(store) as new:
            count = await copy_into(command, archive, new)
    command.terminal.result(
        {"store": command.where, "restored": str(backup), "documents": count},
        f"{command.where} is restored from {backup}, with {counted(count, 'document')}.",
    )
    return True


async def migrate_store(command: Command) -> int:
    """Bring a store's schema forward to this program's version, as opening it does."""
    path = command.file
    first = _version_of_file(path) if path is not None and path.exists() else 0
    last = len(schema.MIGRATIONS)
    async with command.store() as store:
        if isinstance(store, Shared):
            first, last = store.versions
    command.terminal.result(
        {"store": command.where, "from": first, "to": last},
        f"{command.where} was brought forward from schema {first} to {last}."
        if first != last
        else f"{command.where} has schema {last} already.",
    )
    return 0


async def is_empty(store: Store) -> bool:
    """Return whether a store has no documents, not even deleted ones."""
    async for _ in all_documents(store):
        return False
    return True


def _version_of_file(path: Path) -> int:
    with translated(path), closing(open_file(path, busy_seconds=BUSY_SECONDS)) as connection:
        return schema.version_of(connection, path)


@asynccontextmanager
async def _to_fill(target: Command) -> AsyncIterator[Store]:
    """Give what a copy is written to. It is there as a whole when the `with` ends well, or not.

    Raises:
        StoreUnavailable: it has documents already, or a server uses its file.
    """
    path = target.file
    if path is not None and not path.exists():
        async with new_file(path) as store:
            yield store
        return
    async with target.store(create=True) as store:
        if not await is_empty(store):
            raise StoreUnavailable(
                f"{target.where} has documents already",
                hint="Name a file that does not exist, or in PostgreSQL another ?schema=.",
            )
        if path is None:
            async with _at_once(store) as whole:
                yield whole
            return
    async with refilled_file(path) as store:
        yield store


@asynccontextmanager
async def _at_once(store: Store) -> AsyncIterator[Store]:
    assert isinstance(store, Shared), "a store in a file is copied to another one"
    async with store.at_once(alone=True) as whole:
        yield whole


@asynccontextmanager
async def _standing_still(store: Store) -> AsyncIterator[Source]:
    """Give a store as of one moment, if it can be written meanwhile."""
    if isinstance(store, Shared):
        async with store.reading() as view:
            yield view
    else:
        yield store
