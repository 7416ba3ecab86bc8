"""What all commands on a store have in common: how they open it, and what they work with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from plait.persistence import Store, StoreUnavailable, open_store
from plait.persistence.lock import StoreLock
from plait.persistence.memory import MemoryStore
from plait.persistence.sqlite import SqliteStore
from plait.server.limits import Limits
from plait.server.settings import Settings
from plait.server.terminal import Misused, Terminal


@dataclass(frozen=True)
class Command:
    """What a command works with."""

    settings: Settings
    terminal: Terminal
    limits: Limits = field(default_factory=Limits)

    @property
    def file(self) -> Path | None:
        """The file of the store; None if it is in a database server.

        Raises:
            Misused: it is in neither.
        """
        store = self._lasting(create=False)
        return store.path if isinstance(store, SqliteStore) else None

    @property
    def where(self) -> str:
        """Where the store is, to be shown."""
        return str(self.file or self._lasting(create=False).url)

    def on(self, url: str) -> "Command":
        """Return the same command on another store."""
        return replace(self, settings=replace(self.settings, store=url))

    @asynccontextmanager
    async def store(self, *, create: bool = False) -> AsyncIterator[Store]:
        """Open the store for the length of a `with`.

        Args:
            create: make an empty one if there is none; else that is an error, since a mistyped
                path would look like a store that has lost everything.

        Raises:
            Misused: it is in the memory of a process.
            StoreError: it can't be used.
        """
        store = self._lasting(create=create)
        if isinstance(store, SqliteStore) and not create and not store.path.exists():
            raise StoreUnavailable(
                f"there is no store {store.path}", hint="Name it with --store or PLAIT_STORE."
            )
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    def in_use(self) -> bool:
        """Return whether a server runs on the store at this moment, or may, if nobody can tell."""
        if self.file is None:
            return True
        lock = StoreLock(self.file)
        # Asking would make the file, perhaps for a user who is not the server's.
        if not lock.path.exists():
            return False
        if not lock.acquire_exclusive():
            return True
        lock.release()
        return False

    def _lasting(self, *, create: bool) -> Store:
        store = open_store(self.settings.store, create=create)
        if isinstance(store, MemoryStore):
            raise Misused(
                f"{store.url} is gone with the process that has it: name a store with --store"
            )
        return store
