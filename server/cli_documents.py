"""What `plait docs` does: each function is a command and returns its exit code."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from plait.persistence import DocumentInfo, Store
from plait.persistence.files import disk_errors, force_to_disk, put_in_place, temporary_beside
from plait.server.apart import run_apart
from plait.server.command import Command
from plait.server.content import roots_as_json
from plait.server.errors import (
    BadRoomName,
    DocumentInTheWay,
    DocumentUnknown,
    PlaitError,
    UpdateRefused,
)
from plait.server.facts import Facts, facts
from plait.server.interruption import at_once, standard_input
from plait.server.recovery import append, documents, stored_or_deleted
from plait.server.state import APART_SECONDS, Import, rows_for, run_on, whole_state
from plait.server.terminal import (
    Misused,
    counted,
    json_text,
    printable,
    size_text,
    time_json,
    time_text,
)
from plait.server.update_report import report
from plait.server.updates import EMPTY_UPDATE
from plait.server.wire.readiness import in_words

PREVIEW_CHARACTERS = 300
"""Of each root's content."""
TO_REPLACE = "replace it with --force, or choose another name"
NOTICE_SECONDS = 5.0
"""In which a server on the store has noticed a deletion: it looks once a second."""


async def list_documents(command: Command, *, prefix: str = "", deleted: bool = False) -> int:
    """List documents: all whose name begins with a prefix, or those deleted and not purged."""
    when = "DELETED" if deleted else "MODIFIED"
    async with command.store() as store:
        rows = documents(store, prefix=prefix, deleted=deleted)
        if command.terminal.as_json:
            listed = [document_json(info) async for info in rows]
            command.terminal.lines([json_text(listed, indent=2)])
            return 0
        head = f"{'SIZE':>10}  {'UPDATES':>9}  {'CREATED (UTC)':<19}  {when + ' (UTC)':<19}  NAME"
        command.terminal.lines([] if command.terminal.quiet else [head])
        async for info in rows:
            at = info.modified_ms if info.deleted_ms is None else info.deleted_ms
            command.terminal.lines(
                [
                    f"{size_text(_stored_bytes(info)):>10}  {info.updates:>9,}  "
                    f"{time_text(info.created_ms)}  {time_text(at)}  {printable(info.name)}"
                ]
            )
    return 0


async def show_document(command: Command, name: str) -> int:
    """Show what is known of one document, deleted or not."""
    async with command.store() as store:
        info = await known(store, name)
        stored = await stored_or_deleted(store, info)
        found = await run_on(facts, stored, command.limits)
    value = document_json(info) | {
        "state_bytes": found.state_bytes,
        "state_vector": {
            "clients": found.clients,
            "clocks": found.clocks,
            "most_active": [
                {"client": client, "clock": clock} for client, clock in found.most_active
            ],
        },
        "structs": found.structs,
        "types": found.types,
        "deleted_clocks": found.deleted,
        "rows_waiting": found.waiting,
        "content": found.content,
        "content_problem": found.content_problem,
    }
    command.terminal.result(value, *_description(info, found))
    return 0


async def export_document(
    command: Command,
    name: str,
    target: str | None,
    *,
    as_json: bool = False,
    force: bool = False,
) -> int:
    """Write a document's whole state to a file, or to standard output (None or `-`).

    Args:
        force: replace a file that is there.
    """
    to_pipe = target in (None, "-")
    if to_pipe and not as_json and sys.stdout.isatty():
        raise Misused("an update is not text: name a file with -o FILE, or ask for --format json")
    if to_pipe and command.terminal.as_json:
        raise Misused("standard output can't take both the document and --json: add -o FILE")
    if target is not None and target != "-":
        _may_write(Path(target), force)
    async with command.store() as store:
        stored = await stored_or_deleted(store, await known(store, name))
    content, waiting = await run_on(whole_state, stored, command.limits)
    if waiting:
        command.terminal.warn(
            f"{counted(waiting, 'update')} of {name!r} build upon others that are missing, "
            "and are left out"
        )
    if as_json:
        content = await run_apart(roots_as_json, APART_SECONDS, content) + b"\n"
    if target is None or target == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return 0
    _write(Path(target), content, force)
    command.terminal.result(
        {"name": name, "file": target, "bytes": len(content)},
        f"Wrote {size_text(len(content))} to {target}.",
    )
    return 0


async def import_document(command: Command, name: str, source: str, *, merge: bool = False) -> int:
    """Make a document of a Yjs update in a file or standard input (`-`), or merge it into one.

    Raises:
        UpdateRefused: it is not an update of version 1, or only a part of what it needs.
        DocumentInTheWay: the document exists, and `merge` was not asked for.
    """
    update = _read(source)
    _check_new_name(name, command)
    async with command.store(create=True) as store:
        info = await store.info(name)
        if info is not None and info.deleted_ms is None and not merge:
            raise DocumentInTheWay(
                f"there is a document {name!r} already: add --merge to merge the update into it, "
                "or choose another name"
            )
        stored = await store.load(name)
        try:
            found = await run_on(rows_for, stored, update, command.limits)
        except UpdateRefused as error:
            raise UpdateRefused(
                f"{source} can't be imported: {error} A Yjs update of version 1 is expected, "
                "as `plait docs export` and Y.encodeStateAsUpdate write it."
            ) from None
        rows = found.rows
        if info is None and (not rows or update == EMPTY_UPDATE):
            raise UpdateRefused(f"{source} has nothing in it")
        if rows:
            await append(store, name, rows)
    value = {"name": name, "bytes": len(update), "rows": len(rows), "changed": bool(rows)}
    left = report(found.left_bytes, found.missing, found.shadowed)
    command.terminal.result(value | left, _imported(name, update, found, there=info is not None))
    return 0


def _imported(name: str, update: bytes, found: Import, *, there: bool) -> str:
    size = size_text(len(update) - found.left_bytes)
    if found.rows:
        lines = [f"{'Merged' if there else 'Imported'} {size} into {printable(name)}."]
    else:
        lines = [f"{printable(name)} has all of it already."]
    if found.left_bytes:
        lines.append(
            f"Left out {size_text(found.left_bytes)}: {in_words(found.missing)}, "
            "and it builds on them. A state that has them brings it in."
        )
    if found.shadowed:
        client, first, end = found.shadowed[0]
        lines.append(
            f"Left out what client {client} wrote at clocks {first} to {end - 1}: the document has "
            "something else there, by another author with the same client id."
        )
    return "\n".join(lines)


async def delete_document(command: Command, name: str, *, purge: bool = False) -> int:
    """Delete a document; with `purge`, for good."""
    async with command.store() as store:
        info = await known(store, name)
        if info.deleted_ms is not None and not purge:
            raise DocumentUnknown(f"{name!r} was deleted already; --purge forgets it for good")
        what = f"{printable(name)} ({counted(info.updates, 'update')})"
        command.terminal.confirm(
            f"This forgets {what} and its history for good."
            if purge
            else f"This deletes {what}; `plait docs undelete` brings it back."
        )
        await store.delete(name, _now_ms())
        if purge:
            await _purge(command, store, name)
    left = "it is gone for good" if purge else "`plait docs undelete` brings it back"
    command.terminal.result(
        {"name": name, "deleted": True, "purged": purge}, f"Deleted {printable(name)}; {left}."
    )
    return 0


async def undelete_document(command: Command, name: str) -> int:
    """Bring back a document that was deleted and not purged."""
    async with command.store() as store:
        await known(store, name)
        if not await store.undelete(name):
            raise DocumentUnknown(f"{name!r} is not deleted")
    command.terminal.result({"name": name, "deleted": False}, f"{printable(name)} is back.")
    return 0


async def known(store: Store, name: str) -> DocumentInfo:
    """Return what is known of a document.

    Raises:
        DocumentUnknown: there is none.
    """
    info = await store.info(name)
    if info is None:
        raise DocumentUnknown(f"there is no document {name!r}; `plait docs list` shows all")
    return info


def document_json(info: DocumentInfo) -> dict[str, Any]:
    """Return what a listing tells of a document, for JSON."""
    return {
        "name": info.name,
        "bytes": _stored_bytes(info),
        "updates": info.updates,
        "log_bytes": info.log_bytes,
        "snapshot_bytes": info.snapshot_bytes,
        "tail_updates": info.tail_updates,
        "tail_bytes": info.tail_bytes,
        "created": time_json(info.created_ms),
        "modified": time_json(info.modified_ms),
        "deleted": time_json(info.deleted_ms),
    }


def _stored_bytes(info: DocumentInfo) -> int:
    """Return what a document takes in the store, with its history."""
    return info.log_bytes + info.snapshot_bytes


def _description(info: DocumentInfo, found: Facts) -> list[str]:
    deleted = 100 * found.deleted // found.clocks if found.clocks else 0
    loading = f"{counted(info.tail_updates, 'update')} ({size_text(info.tail_bytes)})"
    lines = [
        f"Document   {printable(info.name)}",
        f"Created    {time_text(info.created_ms)} UTC",
        f"Modified   {time_text(info.modified_ms)} UTC",
        f"History    {counted(info.updates, 'update')}, {size_text(info.log_bytes)}",
        f"Snapshot   {size_text(info.snapshot_bytes)}, and {loading} after it"
        if info.snapshot_bytes
        else f"Snapshot   none; loading replays {loading}",
        f"State      {size_text(found.state_bytes)} in {counted(found.structs, 'struct')}; "
        f"{counted(found.types, 'shared type')} ever created",
        f"Clients    {found.clients:,}; they inserted {counted(found.clocks, 'element')}, "
        f"of which {deleted} % are deleted",
    ]
    if info.deleted_ms is not None:
        lines.insert(3, f"Deleted    {time_text(info.deleted_ms)} UTC")
    if found.waiting:
        lines.append(
            f"Waiting    {counted(found.waiting, 'row')} build upon others that are missing"
        )
    if found.content is None:
        lines.append(f"Content    can't be shown: {found.content_problem}")
    for name, root in (found.content or {}).items():
        lines.append(f"Content    {printable(name)!r}, {root['type']}: {_preview(root['value'])}")
    return lines


def _preview(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    shown = printable(text[:PREVIEW_CHARACTERS])
    left = len(text) - PREVIEW_CHARACTERS
    return f"{shown}… and {counted(left, 'more character')}" if left > 0 else shown


async def _purge(command: Command, store: Store, name: str) -> None:
    """Forget a deleted document once no server has it open any more.

    A server that does not know yet would append to a document of that name, which would come into
    being anew, without all that came before.
    """
    info = await store.info(name)
    if info is not None and info.deleted_ms is not None and command.in_use():
        left = NOTICE_SECONDS - (_now_ms() - info.deleted_ms) / 1000
        if left > 0:
            command.terminal.warn(
                "a server runs on the store; it gets 5 s to notice the deletion"
                if command.file is not None
                else "servers that run on the store get 5 s to notice the deletion"
            )
            await asyncio.sleep(left)
    await store.purge(document=name)


def _check_new_name(name: str, command: Command) -> None:
    """Refuse a name that no room can have (`Hub.check_name`)."""
    limit = command.limits.room_name_bytes_max
    controls = any(character < " " or character == "\x7f" for character in name)
    if not name.strip() or controls or len(name.encode(errors="replace")) > limit:
        raise BadRoomName(
            f"{name!r} can't be a document's name: it needs a visible character, no control "
            f"characters, and at most {limit} bytes"
        )


def _read(source: str) -> bytes:
    try:
        if source == "-":
            return standard_input()
        with at_once():  # it may be a pipe
            return Path(source).read_bytes()
    except OSError as error:
        raise PlaitError(f"{source} can't be read: {error.strerror}") from None


def _may_write(target: Path, force: bool) -> None:
    """Raise if a file is in the way; what is no file (a pipe, `/dev/stdout`) takes all it is given.

    Raises:
        Misused: there is one, and nothing says that it may be replaced.
    """
    if target.is_dir():
        raise Misused(f"{target} is a folder: name a file in it")
    if os.path.lexists(target) and not _is_special(target) and not force:
        raise Misused(f"{target} is there already: {TO_REPLACE}")


def _write(target: Path, content: bytes, force: bool) -> None:
    """Write a file as a whole or not at all."""
    with disk_errors(target):
        if _is_special(target):
            target.write_bytes(content)
            return
        target = target.resolve() if force else target  # what a link leads to, not the link
        with temporary_beside(target) as temporary:
            temporary.write_bytes(content)
            force_to_disk(temporary)
            put_in_place(temporary, target, replace=force, hint=f"{TO_REPLACE.capitalize()}.")


def _is_special(target: Path) -> bool:
    return target.exists() and not target.is_file() and not target.is_dir()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
