"""Read the URL of a PostgreSQL store, and never show its password."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from plait.persistence.store import StoreError

SCHEMA = "plait"
POOL = 10
STATEMENT_CACHE = 100

_HOSTS = re.compile(r"(?:(?:\[[0-9a-fA-F:.%]+\]|[^:\[\]@,]*)(?::\d+)?(?:,|$))*")
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")


@dataclass(frozen=True)
class Address:
    """Where a store is, and how it is reached."""

    dsn: str
    """What asyncpg connects with; holds the password."""
    url: str
    """What may be shown."""
    schema: str
    pool: int
    """Connections at most."""
    statement_cache: int
    """Prepared statements that a connection keeps; 0 behind PgBouncer in transaction mode."""

    def __repr__(self) -> str:
        return f"Address({self.url!r})"


def parse(url: str) -> Address:
    """Take a URL apart.

    Raises:
        StoreError: it can't be one; says nothing of what is in it, which may be a password.
    """
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise _unreadable() from None
    query = dict(pairs)
    user_and_password, at, hosts = parts.netloc.rpartition("@")
    # A password with `/`, `@`, `?` or `#` in it, as it is, ends up in one of these places.
    strayed = "@" in user_and_password or "@" in parts.path or parts.fragment
    if strayed or not _HOSTS.fullmatch(hosts):
        raise _unreadable()
    schema = query.pop("schema", SCHEMA)
    if not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
        raise StoreError(
            "the schema in the URL of the store can't be used",
            hint="A schema is named by lower-case letters, digits and underscores, and not pg_….",
        )
    pool = _number(query, "pool", POOL, 2)
    statement_cache = _number(query, "statement_cache", STATEMENT_CACHE, 0)
    user = unquote(user_and_password.partition(":")[0])
    shown = f"postgresql://{user}{at}{hosts}{parts.path}"
    return Address(
        dsn=parts._replace(query=urlencode(query)).geturl(),
        url=shown if schema == SCHEMA else f"{shown}?schema={schema}",
        schema=schema,
        pool=pool,
        statement_cache=statement_cache,
    )


def _number(query: dict[str, str], name: str, default: int, least: int) -> int:
    text = query.pop(name, str(default))
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise StoreError(
            f"{name} in the URL of the store can't be used",
            hint=f"It is a whole number, at least {least}.",
        )
    return int(text)


def _unreadable() -> StoreError:
    return StoreError(
        "the URL of the store can't be read",
        hint="It is postgresql://user:password@host:port/database; in user and password, "
        "percent-encode what is neither a letter nor a digit.",
    )
