"""What `plait store` does: each function is a command and returns its exit code."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from plait.persistence import CompactionPolicy, Store, StoreCorrupt, StoreError, StoreUnavailable
from plait.persistence.archive import Archive
from plait.persistence.restore import restore_file
from plait.server.cli_documents import NOTICE_SECONDS, known
from plait.server.cli_transfer import restore_into_empty
from plait.server.command import Command
from plait.server.compaction import Compactor
from plait.server.errors import PlaitError
from plait.server.interruption import at_once
from plait.server.recovery import Recovered, documents, recover
from plait.server.terminal import counted, printable, size_text
from plait.server.verification import Problem, verify

DAY_MS = 24 * 60 * 60 * 1000

_SAID = {
    Recovered.REVERTED: "brought back by a new edit",
    Recovered.ADDED: "was missing and is there again, with its history",
    Recovered.UNDELETED: "was deleted and is there again",
    Recovered.UNCHANGED: "is as it was in the backup",
}


async def check_store(command: Command, backup: str | None = None) -> int:
    """Check the store, or a backup: its structure, and that every document can be loaded.

    Returns:
        1 if there are problems, else 0.
    """
    where = backup or command.where
    problems: list[Problem] = []
    checked = 0
    try:
        async with _to_check(command, backup) as store:
            if isinstance(store, Archive):
                structure = await store.check()
            else:
                structure = await store.check(command.terminal.progress)
            problems += [Problem("", text) for text in structure]
            infos = [
                info
                for deleted in (False, True)
                async for info in documents(store, deleted=deleted)
            ]
            async for count, found in verify(store, infos, command.limits):
                checked += count
                problems += found
                command.terminal.progress("documents checked", checked, len(infos))
    except StoreCorrupt as error:
        problems.append(Problem("", str(error)))
    command.terminal.result(
        {
            "store": where,
            "ok": not problems,
            "documents": checked,
            "problems": [
                {"document": each.document or None, "problem": each.text} for each in problems
            ],
        },
        *(_sentence(problem) for problem in problems),
        f"{where}: {counted(checked, 'document')} checked, {counted(len(problems), 'problem')}.",
    )
    return 1 if problems else 0


async def compact_store(
    command: Command, names: Sequence[str] = (), purge_after_days: float | None = None
) -> int:
    """Give documents (all, or those named) a fresh snapshot, and fold their old history.

    Args:
        purge_after_days: also forget documents that were deleted longer ago.

    Returns:
        1 if a document could not be compacted; it is stored as before.
    """
    failed = done = purged = 0
    async with command.store() as store:
        compactor = Compactor(
            store,
            CompactionPolicy(history_days=command.settings.history_days),
            command.limits,
            _now_ms,
        )
        chosen = [(await known(store, name)).name for name in names]
        if not names:
            chosen = [info.name async for info in documents(store)]
        for number, name in enumerate(chosen, start=1):
            try:
                done += await compactor.compact(name, force=True)
            except (StoreError, PlaitError) as error:
                failed += 1
                command.terminal.warn(f"{printable(name)} was not compacted: {error}")
            command.terminal.progress("documents compacted", number, len(chosen))
        if purge_after_days is not None:
            # Not what a server may not have noticed yet; see `cli_documents`.
            age_ms = max(purge_after_days * DAY_MS, NOTICE_SECONDS * 1000)
            purged = await store.purge(before_ms=int(_now_ms() - age_ms))
    forgotten = f"; {counted(purged, 'deleted document')} forgotten" if purged else ""
    command.terminal.result(
        {"documents": len(chosen), "compacted": done, "failed": failed, "purged": purged},
        f"Compacted {done:,} of {counted(len(chosen), 'document')}{forgotten}.",
    )
    return 1 if failed else 0


async def back_up_store(command: Command, target: str) -> int:
    """Write a copy of the whole store, as of one moment, while it may be in use."""
    path = Path(target)
    async with command.store() as store:
        await store.backup(path, command.terminal.progress)
    size = _size(path)
    command.terminal.result(
        {"backup": target, "bytes": size}, f"Wrote {size_text(size)} to {target}."
    )
    return 0


async def restore_store(command: Command, backup: str, names: Sequence[str] = ()) -> int:
    """Bring back what a backup has.

    The whole file, if no document is named and no server runs on the store; everything, if the
    store is in a database and has no documents. Otherwise each document, or each of those named,
    by a new edit.
    """
    path = command.file
    if path is not None and not names and not command.in_use():
        return _restore_file(command, Path(backup), path)
    _refuse_missing(Path(backup))
    if path is None and not names and await restore_into_empty(command, Path(backup)):
        return 0
    if names:
        which = ", ".join(printable(name) for name in names)
        command.terminal.confirm(f"This gives {which} the content of {backup}, by a new edit.")
    else:
        why, whole = _by_edits(command)
        command.terminal.confirm(
            f"{why} This gives every document of {backup} its content there, by new edits, and "
            "leaves other documents alone.",
            f"Add --yes if that is meant; or name documents with --document; or, {whole}.",
        )
    return await _recover(command, Path(backup), names)


def _by_edits(command: Command) -> tuple[str, str]:
    """Return why a whole store is not simply replaced, and what to do if it is to be."""
    if command.file is None:
        return (
            f"{command.where} has documents.",
            "to bring back the whole store with its history, name one that is empty (?schema=…)",
        )
    return (
        f"A server runs on {command.where}.",
        "to replace the whole store, stop the server first",
    )


def _restore_file(command: Command, backup: Path, target: Path) -> int:
    if target.exists():
        command.terminal.confirm(
            f"This replaces the store {target} by {backup}, and keeps the old one beside it."
        )
    with at_once():
        aside = restore_file(backup, target)
    kept = f" The old one is {aside}." if aside else ""
    command.terminal.result(
        {"store": str(target), "restored": str(backup), "aside": str(aside) if aside else None},
        f"{target} is restored from {backup}.{kept}",
    )
    return 0


async def _recover(command: Command, backup: Path, names: Sequence[str]) -> int:
    outcomes: dict[str, str] = {}
    problems: dict[str, str] = {}
    async with Archive(backup) as archive, command.store() as store:
        chosen = list(names) or [info.name async for info in documents(archive)]
        for number, name in enumerate(chosen, start=1):
            try:
                outcomes[name] = await recover(store, archive, name, command.limits)
            except (PlaitError, StoreError) as error:
                problems[name] = str(error)
            command.terminal.progress("documents brought back", number, len(chosen))
    shown = [name for name in outcomes if names or outcomes[name] != Recovered.UNCHANGED]
    same = len(outcomes) - len(shown)
    command.terminal.result(
        {
            "backup": str(backup),
            "documents": [
                {"name": name, "outcome": outcomes.get(name), "problem": problems.get(name)}
                for name in chosen
            ],
        },
        *(f"{printable(name)}: {_SAID[Recovered(outcomes[name])]}." for name in shown),
        *([f"{counted(same, 'other document')}: as in the backup."] if same else []),
    )
    for name, problem in problems.items():
        command.terminal.warn(f"{printable(name)} was not brought back: {problem}")
    return 1 if problems else 0


@asynccontextmanager
async def _to_check(command: Command, backup: str | None) -> AsyncIterator[Store | Archive]:
    if backup is not None:
        async with Archive(Path(backup)) as archive:
            yield archive
    else:
        async with command.store() as store:
            yield store


def _sentence(problem: Problem) -> str:
    return f"{printable(problem.document)}: {problem.text}" if problem.document else problem.text


def _refuse_missing(backup: Path) -> None:
    if not backup.is_file():
        raise StoreUnavailable(f"there is no file {backup}", hint="Give the path of a backup.")


def _size(path: Path) -> int:
    return path.stat().st_size


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
