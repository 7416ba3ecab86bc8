"""What `plait key` does: each function is a command and returns its exit code."""

import time
from collections.abc import AsyncIterator, Sequence
from math import inf

from plait.persistence import Store
from plait.server.auth.keys import KIND, ApiKey, make_key, read_key
from plait.server.cli_auth import TOGETHER, note
from plait.server.cli_auth_words import as_text, at_text, described, grants_text, principal_json
from plait.server.command import Command
from plait.server.errors import BadRequest, PlaitError
from plait.server.terminal import printable


async def create_key(
    command: Command,
    subject: str,
    given: Sequence[tuple[str, str]],
    *,
    name: str,
    seconds: float | None,
) -> int:
    """Make an API key, and show it."""
    now = time.time()
    until = inf if seconds is None else now + seconds
    told = described(subject, given, name=name, color="", issued=now, until=until)
    key, record = make_key(subject, name, told.grants, now, until)
    async with command.store() as store:
        await store.put_record(record, new=True)
    note(command, "key.created", of=subject, id=record.id)
    if command.terminal.as_json:
        command.terminal.result({"key": key} | principal_json(told) | {"id": record.id})
    else:
        command.terminal.lines([key])
        if not command.terminal.quiet:
            command.terminal.warn("this is shown once; the store has a digest of it")
    return 0


async def list_keys(command: Command) -> int:
    """List API keys."""
    now = time.time()
    async with command.store() as store:
        found = [each async for each in _all(command, store)]
    if command.terminal.as_json:
        told = [principal_json(key.principal) | {"id": key.id} for key in found]
        command.terminal.lines([as_text(told)])
        return 0
    command.terminal.lines([] if command.terminal.quiet else [f"{'ID':<12}  WHOSE"])
    for key in found:
        subject, name = printable(key.principal.subject), printable(key.principal.name)
        who = f"{subject} ({name})" if name else subject
        until = key.principal.until
        end = f"; {'expires' if until > now else 'expired'} {at_text(until, now, '')}"
        command.terminal.lines(
            [
                f"{key.id:<12}  {who}: {grants_text(key.principal.grants)}"
                + ("" if until == inf else end)
            ]
        )
    return 0


async def delete_key(command: Command, id: str) -> int:
    """Delete an API key."""
    async with command.store() as store:
        if not await store.remove_record(KIND, id):
            raise PlaitError(f"there is no API key {id!r}; `plait key list` lists them")
    note(command, "key.deleted", id=id)
    command.terminal.result({"id": id, "deleted": True}, f"Deleted the API key {printable(id)}.")
    return 0


async def _all(command: Command, store: Store) -> AsyncIterator[ApiKey]:
    after = ""
    while records := await store.records(KIND, after=after, limit=TOGETHER):
        after = records[-1].id
        for record in records:
            try:
                yield read_key(record)
            except BadRequest as error:
                command.terminal.warn(f"API key {printable(record.id)}: {error}")
