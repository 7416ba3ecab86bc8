"""Find the store that a URL names; its back end is imported only if it is asked for."""

from collections.abc import Collection
from pathlib import Path
from urllib.parse import urlsplit

from plait.persistence.store import Store, StoreError

_SQLITE_PREFIX = "sqlite:///"

_POSTGRES_PREFIXES = ("postgresql://", "postgres://")

SUPPORTED = (
    "sqlite:///relative/path.db",
    "sqlite:////absolute/path.db",
    "postgresql://user:password@host:port/database",
    "memory://",
)


def open_store(
    url: str, *, serving: bool = False, create: bool = True, announce: Collection[str] = ()
) -> Store:
    """Return the store that a URL names, not opened yet; `await store.open()` connects.

    Args:
        serving: whether this process keeps documents in memory for long, so that the store must
            not be replaced meanwhile, and loads many at once.
        create: whether opening makes the store in a database that has none. A file is made either
            way.
        announce: kinds of events that the store is to put into its outbox by itself, of
            `plait.persistence.ANNOUNCED` (`Store.announces`).

    Raises:
        ValueError: a kind that no store announces.
        StoreError: no store can be at such a URL.
    """
    if url in ("memory:", "memory://"):
        from plait.persistence.memory import MemoryStore

        return MemoryStore(announce=announce)
    if url.startswith(_SQLITE_PREFIX) and len(url) > len(_SQLITE_PREFIX):
        from plait.persistence.sqlite import SqliteStore

        path = Path(url.removeprefix(_SQLITE_PREFIX))
        return SqliteStore(path, serving=serving, announce=announce)
    if url.startswith(_POSTGRES_PREFIXES):
        from plait.persistence.postgres import PostgresStore

        return PostgresStore(url, serving=serving, create=create, announce=announce)
    # Only the scheme is repeated: what follows may hold a password.
    scheme = urlsplit(url).scheme or "no scheme"
    raise StoreError(
        f"there is no store for a URL like this one ({scheme})",
        hint=f"Supported are: {', '.join(SUPPORTED)}.",
    )
