"""Updates of a few letters, which go into a store and are read from its log."""

from plait.persistence import Store, Update


def update(document: str, text: str, who: str = "", at_ms: int = 0) -> Update:
    """Return an update that is no more than a text."""
    return Update(document, text.encode(), who, at_ms)


async def fill(store: Store, document: str, count: int, who: str = "alice") -> list[int]:
    """Append updates `0`, `1`, … to a document, in one transaction."""
    updates = [update(document, str(i), who, at_ms=i) for i in range(count)]
    return list(await store.append(updates))


async def contents(store: Store, document: str) -> list[bytes]:
    """Return the updates of a document's log."""
    return [row.update for row in await store.log(document)]
