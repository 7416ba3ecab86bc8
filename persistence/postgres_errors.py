"""Translate what asyncpg raises into the errors of the contract; the one place that does.

The server's own messages name tables and users, never passwords. Those of asyncpg about a URL may
repeat a part of it, and a password that was not percent-encoded is such a part: they are not told.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from plait.persistence.store import StoreCorrupt, StoreError, StoreUnavailable

_AWAY_HINT = "Check that PostgreSQL runs there and can be reached; nothing here needs a restart."
_DAMAGE_HINT = "Run `plait store check`, and restore a backup with `plait store restore`."

_READ_ONLY = "25006"

_BY_STATE: dict[str, tuple[type[StoreError], str, str]] = {
    "28000": (
        StoreUnavailable,
        "refuses this user",
        "Check the user in the URL, sslmode, and the server's pg_hba.conf.",
    ),
    "28P01": (StoreUnavailable, "refuses this user or password", "Check those in the URL."),
    "3D000": (
        StoreUnavailable,
        "lacks the database",
        "Make it with `createdb`, or name another one in the URL.",
    ),
    "42501": (
        StoreUnavailable,
        "does not allow this user to do that",
        "Grant CREATE on the database, or make the schema with this user as its owner.",
    ),
    "42704": (
        StoreError,
        "does not know a setting of the URL",
        "Plait knows schema, pool and statement_cache; all others go to PostgreSQL.",
    ),
    "42P01": (StoreCorrupt, "lacks a table", _DAMAGE_HINT),
    "42703": (StoreCorrupt, "lacks a column", _DAMAGE_HINT),
    "3F000": (StoreCorrupt, "lacks the schema", _DAMAGE_HINT),
    "53100": (
        StoreUnavailable,
        "has no room left on its disk",
        "Free some space on its volume; nothing here needs a restart.",
    ),
    "53300": (
        StoreUnavailable,
        "has no connection left",
        "Raise its max_connections, or lower ?pool= in the URL of every node.",
    ),
    _READ_ONLY: (
        StoreUnavailable,
        "can't be written",
        "If it is a replica, name the primary, or all hosts with ?target_session_attrs=read-write.",
    ),
    "26000": (
        StoreUnavailable,
        "forgot a prepared statement",
        "Behind PgBouncer add ?statement_cache=0 to the URL.",
    ),
    "42P05": (
        StoreUnavailable,
        "has a prepared statement of somebody else",
        "Behind PgBouncer add ?statement_cache=0 to the URL.",
    ),
    "XX001": (StoreCorrupt, "is damaged", _DAMAGE_HINT),
    "XX002": (StoreCorrupt, "has a damaged index", "Run REINDEX on its schema."),
}

_PASSING_CLASSES = frozenset({"08", "25", "40", "53", "55", "57", "58"})
"""Connection, state of the transaction, conflict, resources, locks, operators, disk."""

_CONFLICTS = ("40001", "40P01")
"""Serialization failure, deadlock: the same transaction goes well when it is run again."""

_CONNECTION_ERRORS = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)


def is_conflict(error: BaseException) -> bool:
    """Return whether a transaction failed only because of what others did at the same time."""
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return True  # a newer node has brought the schema forward; asyncpg prepares it anew
    return isinstance(error, asyncpg.PostgresError) and error.sqlstate in _CONFLICTS


def is_lost(error: BaseException) -> bool:
    """Return whether the connection was lost, so that another one may do better."""
    if isinstance(error, asyncpg.DataError | TimeoutError):
        return False
    if isinstance(error, asyncpg.PostgresError):
        # The server ended it, or goes down, as at a fail-over.
        return (error.sqlstate or "").startswith(("08", "57P"))
    return isinstance(error, _CONNECTION_ERRORS)


def is_of_replica(error: BaseException) -> bool:
    """Return whether the server can't be written, as a primary after others took its place."""
    return isinstance(error, asyncpg.PostgresError) and error.sqlstate == _READ_ONLY


def translate(error: BaseException, url: str) -> StoreError:
    """Return the error of the contract that tells what an error means."""
    if isinstance(error, asyncpg.PostgresError):
        return _of_server(error, url)
    if isinstance(error, asyncpg.exceptions.ClientConfigurationError):
        return StoreError(
            f"the URL of the store {url} can't be used",
            hint="Percent-encode what is special in user and password, and check what follows "
            "the question mark.",
        )
    if isinstance(error, TimeoutError):
        return StoreUnavailable(f"the store {url} did not answer in time", hint=_AWAY_HINT)
    if isinstance(error, ConnectionRefusedError):
        return StoreUnavailable(f"there is no PostgreSQL at {url}", hint=_AWAY_HINT)
    if isinstance(error, _CONNECTION_ERRORS):
        return StoreUnavailable(
            f"the store {url} can't be reached ({type(error).__name__}: {error})", hint=_AWAY_HINT
        )
    return StoreError(f"the store {url} failed ({type(error).__name__}: {error})")


def _of_server(error: asyncpg.PostgresError, url: str) -> StoreError:
    state = error.sqlstate or ""
    if state in _BY_STATE:
        kind, what, hint = _BY_STATE[state]
        return kind(f"the store {url} {what} ({error})", hint=hint)
    if state[:2] in _PASSING_CLASSES:
        return StoreUnavailable(f"the store {url} is not available ({error})", hint=_AWAY_HINT)
    return StoreError(f"the store {url} failed ({state}: {error})")


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Raise only errors of the contract within the block."""
    try:
        yield
    except asyncpg.DataError as error:
        raise StoreError(f"a value does not fit into the store {url} ({error})") from error
    except asyncpg.exceptions.ClientConfigurationError as error:
        # Not even as a cause: what it says may hold a password.
        raise translate(error, url) from None
    except (asyncpg.PostgresError, *_CONNECTION_ERRORS) as error:
        raise translate(error, url) from error
    except UnicodeEncodeError as error:
        raise StoreError(
            "a document's name or author is not Unicode text",
            document=error.object,
            hint="Names must not contain lone surrogates.",
        ) from error
