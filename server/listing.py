"""Which documents somebody is shown: those that they may read, and no trace of others."""

from collections.abc import AsyncGenerator, Iterable
from os.path import commonprefix

from plait.persistence import DocumentInfo
from plait.server.auth.guard import Guard
from plait.server.auth.principal import Access, Principal, literal_prefix
from plait.server.hub import Hub
from plait.server.pace import Pace

BATCH = 500
"""Documents that the store is asked for at once."""
BEGINNINGS_MAX = 20
"""Parts of the store that are looked through one by one; more are looked through as one."""


async def readable(
    hub: Hub, guard: Guard, principal: Principal, prefix: str, after: str, *, deleted: bool
) -> AsyncGenerator[tuple[str, DocumentInfo | None], None]:
    """Yield documents by name, and what the store knows of each: in the store, or open and not
    stored yet.

    Args:
        prefix: only names that begin with this.
        after: only names above this.
        deleted: only those that are deleted; otherwise only others.
    """
    pace = Pace()
    for beginning in _beginnings(prefix, (literal_prefix(each.docs) for each in principal.grants)):
        async for name, info in _documents(hub, beginning, after, deleted):
            await pace.rest()  # Whoever has a thousand grants is looked up for a while.
            if guard.access(principal, name) >= Access.READ:
                yield name, info


def _beginnings(prefix: str, granted: Iterable[str]) -> list[str]:
    """Return what names begin with that begin with a prefix and may be granted, in order and none
    the beginning of another: so that who may read little need not walk through all.
    """
    fitting = {
        max(prefix, each, key=len)
        for each in granted
        if each.startswith(prefix) or prefix.startswith(each)
    }
    found: list[str] = []
    for each in sorted(fitting):
        if not found or not each.startswith(found[-1]):
            found.append(each)
    return found if len(found) <= BEGINNINGS_MAX else [commonprefix(found)]


async def _documents(
    hub: Hub, prefix: str, after: str, deleted: bool
) -> AsyncGenerator[tuple[str, DocumentInfo | None], None]:
    """Yield all documents whose names begin with a prefix, looking at a part of them at a time."""
    while True:
        stored = await hub.store.documents(prefix=prefix, after=after, limit=BATCH, deleted=deleted)
        found: dict[str, DocumentInfo | None] = {each.name: each for each in stored}
        # Beyond the last that the store gave there may be others of its own.
        last = stored[-1].name if len(stored) == BATCH else None
        names = [] if deleted else hub.open_names(prefix, after, BATCH)
        if len(names) == BATCH and (last is None or names[-1] < last):
            last = names[-1]  # And beyond this, other rooms.
        for name in names:
            if name not in found and (room := hub.open_room(name)) is not None and room.members:
                found[name] = None
        for name in sorted(found):
            if last is None or name <= last:
                yield name, found[name]
        if last is None:
            return
        after = last
