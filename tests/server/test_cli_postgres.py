"""The commands on a store in PostgreSQL, and copies from one kind of store to another."""

import asyncio
import json
import uuid
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from plait.persistence import Snapshot, Store, Update, open_store
from plait.persistence.lock import StoreLock
from plait.persistence.postgres_address import parse
from plait.persistence.postgres_schema import MIGRATIONS
from plait.server import cli, terminal
from tests.support.authors import Author, text_of
from tests.support.postgres import PASSWORD, PostgresServer

T = TypeVar("T")


class Plait:
    """Runs commands, on a store in PostgreSQL unless they name another; keeps what was said."""

    def __init__(self, url: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.url = url
        self.folder = folder
        self.out = self.err = ""
        self._capsys = capsys

    def __call__(self, *arguments: str) -> int:
        store = () if "--store" in arguments or "copy" in arguments else ("--store", self.url)
        code = cli.main([*arguments, *store])
        self.out, self.err = self._capsys.readouterr()
        assert PASSWORD not in self.out + self.err and "s3cret" not in self.out + self.err
        return code

    def json(self, *arguments: str) -> Any:
        """Run a command that has to go well; return what it tells in JSON."""
        assert self(*arguments, "--json") == 0, self.err
        return json.loads(self.out)

    def type(self, name: str, author: Author) -> None:
        """Let a document have what an author has."""
        path = self.folder / "typed"
        path.write_bytes(author.state())
        assert self("docs", "import", name, str(path), "--merge") == 0, self.err

    def text(self, name: str) -> str:
        """Return a document's text."""
        path = self.folder / "exported"
        assert self("docs", "export", name, "-o", str(path), "--force") == 0, self.err
        return text_of(path.read_bytes())

    def on_store(self, work: Callable[[Store], Coroutine[Any, Any, T]], url: str = "") -> T:
        """Do something to the store itself."""

        async def run() -> T:
            store = open_store(url or self.url)
            await store.open()
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(run())


@pytest.fixture
def plait(postgres_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Plait:
    return Plait(postgres_url, tmp_path, capsys)


@pytest.fixture
def ann(plait: Plait) -> Author:
    """An author, whose first words are the document `notes`."""
    author = Author(1)
    author.type("one ")
    plait.type("notes", author)
    return author


async def everything(store: Store) -> dict[str, object]:
    """Return all that a store promises to keep, without the numbers that are its own."""
    found: dict[str, object] = {}
    for deleted in (False, True):
        for info in await store.documents(limit=10_000, deleted=deleted):
            log = await store.log(info.name, limit=100_000)
            stored = None if deleted else await store.load(info.name)
            snapshot = stored.snapshot if stored else None
            found[info.name] = (
                [(row.update, row.who, row.at_ms) for row in log],
                snapshot and (snapshot.slices, snapshot.at_ms, snapshot.types, snapshot.lossy),
                stored and [row.update for row in stored.updates],
                info.created_ms,
                info.modified_ms,
                info.deleted_ms,
            )
    return found


async def fill(store: Store) -> None:
    """Make documents of every sort."""
    await store.append([Update(f"small/{n:04}", b"%d" % n, "ann", n) for n in range(1200)])
    seqs = await store.append(
        [Update("large", bytes([n % 251]) * 50, f"who{n % 3}\0", n) for n in range(1234)]
    )
    await store.compact("large", Snapshot(seqs[700], (b"s" * 100, b"t"), 9, types=3, lossy=True))
    seqs = await store.append([Update("heavy", b"x" * (1 << 20), "bob", n) for n in range(20)])
    await store.compact("heavy", Snapshot(seqs[19], (b"all",), 9, astral=True))
    await store.append([Update("日本/🦊", b"", "", 5), Update("gone", b"g", "ann", 6)])
    await store.delete("gone", 77)


# Documents


def test_documents_are_looked_after_as_in_a_file(plait: Plait, ann: Author) -> None:
    ann.type("two")
    plait.type("notes", ann)
    assert plait.text("notes") == "one two"
    assert [each["name"] for each in plait.json("docs", "list")] == ["notes"]
    assert plait.json("docs", "show", "notes")["updates"] == 2
    assert plait("docs", "delete", "notes", "--yes") == 0
    assert [each["name"] for each in plait.json("docs", "list", "--deleted")] == ["notes"]
    assert plait("docs", "undelete", "notes") == 0
    assert plait("docs", "show", "nobody") == cli.FAILED


def test_servers_get_time_to_notice_before_a_document_is_forgotten(
    plait: Plait, ann: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plait.server.cli_documents.NOTICE_SECONDS", 2.0)
    assert plait("docs", "delete", "notes", "--purge", "--yes") == 0
    assert "notice the deletion" in plait.err
    assert plait.json("docs", "list", "--deleted") == []


def test_a_mistyped_url_makes_no_store(plait: Plait, postgres_server: PostgresServer) -> None:
    for command in (("docs", "list"), ("store", "check"), ("store", "migrate")):
        assert plait(*command) == cli.FAILED
        assert "there is no store" in plait.err and "--store" in plait.err
    schema = parse(plait.url).schema
    found = asyncio.run(
        postgres_server.fetch("SELECT 1 FROM pg_namespace WHERE nspname = $1", schema)
    )
    assert found == []


# Stores


def test_check_tells_of_damage(plait: Plait, ann: Author, postgres_server: PostgresServer) -> None:
    assert plait.json("store", "check")["ok"] is True
    assert plait("store", "check") == 0
    assert "1 document checked, 0 problems" in plait.out
    schema = parse(plait.url).schema
    asyncio.run(postgres_server.execute(f"UPDATE {schema}.updates SET bytes = '\\xffff'"))
    assert plait("store", "check", "--json") == cli.FAILED
    told = json.loads(plait.out)
    assert told["store"] == parse(plait.url).url
    assert {each["document"] for each in told["problems"]} == {None, "notes"}


def test_compacting_makes_a_snapshot(plait: Plait, ann: Author) -> None:
    for word in ("two ", "three"):
        ann.type(word)
        plait.type("notes", ann)
    assert plait("store", "compact") == 0
    assert plait.json("docs", "show", "notes")["tail_updates"] == 0
    assert plait("store", "check") == 0
    assert plait.text("notes") == "one two three"


def test_migrate_tells_from_where_to_where(plait: Plait, ann: Author) -> None:
    newest = len(MIGRATIONS)
    told = plait.json("store", "migrate")
    assert told == {"store": parse(plait.url).url, "from": newest, "to": newest}
    assert plait("store", "migrate") == 0
    assert f"has schema {newest} already" in plait.out


def test_migrate_brings_a_file_forward(plait: Plait, monkeypatch: pytest.MonkeyPatch) -> None:
    from plait.persistence import schema

    url = f"sqlite:///{plait.folder / 'plait.db'}"
    plait.on_store(lambda store: store.append([Update("a", b"x")]), url)
    later = (*schema.MIGRATIONS, ("ALTER TABLE documents ADD COLUMN new INTEGER",))
    monkeypatch.setattr(schema, "MIGRATIONS", later)
    monkeypatch.setattr(schema.version_of, "__defaults__", (len(later),))
    monkeypatch.setattr(schema.migrate, "__defaults__", (later,))
    assert plait("store", "migrate", "--store", url) == 0
    assert f"from schema {len(later) - 1} to {len(later)}" in plait.out
    assert plait("store", "migrate", "--store", url) == 0
    assert f"has schema {len(later)} already" in plait.out


def test_a_backup_fills_an_empty_store(plait: Plait, ann: Author, tmp_path: Path) -> None:
    ann.type("two")
    plait.type("notes", ann)
    assert plait("store", "compact") == 0
    backup = str(tmp_path / "backup.db")
    assert plait("store", "backup", backup) == 0
    assert plait("store", "check", backup) == 0
    before = plait.on_store(everything)
    plait.url = plait.url.replace("schema=", "schema=again_")
    assert plait("store", "restore", backup) == 0
    assert "is restored from" in plait.out and "1 document" in plait.out
    assert plait.on_store(everything) == before


def test_a_backup_comes_into_a_store_with_documents_by_new_edits(
    plait: Plait, ann: Author, tmp_path: Path
) -> None:
    backup = str(tmp_path / "backup.db")
    assert plait("store", "backup", backup) == 0
    ann.type("two")
    plait.type("notes", ann)
    bob = Author(2)
    bob.type("since")
    plait.type("new", bob)
    assert plait("store", "restore", backup) == cli.MISUSED
    assert "has documents" in plait.err and "schema=" in plait.err
    assert plait("store", "restore", backup, "--yes") == 0
    assert plait.text("notes") == "one "
    assert plait.text("new") == "since"
    ann.type("three")
    plait.type("notes", ann)
    assert plait("store", "restore", backup, "--document", "notes", "--yes") == 0
    assert plait.text("notes") == "one "
    assert plait("store", "restore", str(tmp_path / "missing.db")) == cli.FAILED


def test_a_document_that_is_missing_comes_back_with_its_history(
    plait: Plait, ann: Author, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plait.server.recovery.PAGE_ROWS", 2)
    monkeypatch.setattr("plait.server.cli_documents.NOTICE_SECONDS", 0)
    for word in ("two ", "three ", "four"):
        ann.type(word)
        plait.type("notes", ann)
    backup = str(tmp_path / "backup.db")
    assert plait("store", "backup", backup) == 0
    before = plait.on_store(everything)
    assert plait("docs", "delete", "notes", "--purge", "--yes") == 0
    assert plait("store", "restore", backup, "--document", "notes", "--yes") == 0
    assert "is there again, with its history" in plait.out
    assert plait.on_store(everything) == before


# Copies


def test_a_copy_to_postgres_and_back_has_everything(
    plait: Plait, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "LINE_SECONDS", 0)
    first, last = (f"sqlite:///{tmp_path / name}" for name in ("first.db", "last.db"))
    plait.on_store(fill, first)
    before = plait.on_store(everything, first)
    assert plait("store", "copy", first, plait.url) == 0
    assert "documents copied: 1,204 of 1,204 (100 %)" in plait.err
    assert plait.on_store(everything) == before
    told = plait.json("store", "copy", plait.url, last)
    assert told == {
        "from": parse(plait.url).url,
        "to": str(tmp_path / "last.db"),
        "documents": 1204,
    }
    assert plait.on_store(everything, last) == before
    for url in (plait.url, last):
        assert list(plait.on_store(lambda store: store.check(), url)) == []


def test_a_copy_never_mixes_with_what_is_there(plait: Plait, ann: Author, tmp_path: Path) -> None:
    source = f"sqlite:///{tmp_path / 'source.db'}"
    plait.on_store(lambda store: store.append([Update("a", b"x")]), source)
    assert plait("store", "copy", source, plait.url) == cli.FAILED
    assert "has documents already" in plait.err and "schema=" in plait.err
    assert [each["name"] for each in plait.json("docs", "list")] == ["notes"]
    assert plait("docs", "delete", "notes", "--yes") == 0
    assert plait("store", "copy", source, plait.url) == cli.FAILED


def test_what_can_not_be_copied_leaves_no_target(
    plait: Plait, tmp_path: Path, postgres_server: PostgresServer
) -> None:
    missing, source = (f"sqlite:///{tmp_path / name}" for name in ("missing.db", "source.db"))
    assert plait("store", "copy", missing, plait.url) == cli.FAILED
    assert "there is no store" in plait.err
    assert plait("store", "copy", "memory://", plait.url) == cli.MISUSED
    plait.on_store(lambda store: store.append([Update("a", b"x")]), source)
    lock = StoreLock(tmp_path / "source.db")
    lock.acquire_shared()
    assert plait("store", "copy", source, plait.url) == cli.FAILED
    assert "a server runs on" in plait.err and "backup" in plait.err
    lock.release()
    assert plait("docs", "list") == cli.FAILED, "no store was made"
    assert plait("store", "copy", source, "postgresql://u:p/w@host/db") == cli.FAILED


def test_postgres_is_copied_as_of_one_moment(
    plait: Plait, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    plait.on_store(fill)
    target = postgres_server.url(f"test_{uuid.uuid4().hex}")
    before = plait.on_store(everything)

    async def write_and_copy() -> None:
        store = open_store(plait.url)
        await store.open()
        copying = asyncio.ensure_future(
            asyncio.to_thread(cli.main, ["store", "copy", plait.url, target])
        )
        number = 0
        while not copying.done():
            number += 1
            await store.append([Update("large", b"late"), Update(f"late{number}", b"late")])
        await store.close()
        assert await copying == 0

    asyncio.run(write_and_copy())
    copied = plait.on_store(everything, target)
    # Whatever was written before its first look came along, as a whole.
    late = [name for name in copied if name.startswith("late")]
    for name in late:
        del copied[name]
    assert copied.keys() == before.keys()
    assert {name for name in before if before[name] != copied[name]} <= {"large"}
    large: Any = copied["large"]
    assert len(large[0]) == 1234 + len(late)
