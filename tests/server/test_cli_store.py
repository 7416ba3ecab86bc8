"""`plait store` on a store that nobody serves: nothing damaged is called good, and what is brought
back is what was backed up.
"""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from plait.persistence import LoggedUpdate
from plait.server import cli
from plait.server.limits import Limits
from plait.server.verification import Evidence, problems
from tests.server.test_cli_documents import Plait
from tests.support.authors import Author, text_of

NAMES = ("notes", "plans", "älter")


@pytest.fixture
def plait(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Plait:
    """Three documents of three rows each; the first one has a snapshot, and a row after it."""
    plait = Plait(tmp_path, capsys)
    for client, name in enumerate(NAMES, start=1):
        author = Author(client)
        for word in ("one ", "two ", "three "):
            author.type(word)
            assert plait("docs", "import", name, plait.file(author.state()), "--merge") == 0
            if word == "two " and name == "notes":
                assert plait("store", "compact", "--document", "notes") == 0
    return plait


def change(store: Path, statement: str, *values: object) -> None:
    """Do to a store's file what nobody should."""
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        cursor = connection.execute(statement, values)
        assert cursor.rowcount


def problems_of(plait: Plait) -> list[dict[str, str]]:
    """Return what a check finds, which has to be something."""
    assert plait("store", "check", "--json") == cli.FAILED
    told = json.loads(plait.out)
    assert told["ok"] is False and told["problems"]
    found: list[dict[str, str]] = told["problems"]
    return found


# check


def test_a_good_store_has_no_problems(plait: Plait) -> None:
    told = plait.json("store", "check")
    assert told == {"store": str(plait.store), "ok": True, "documents": 3, "problems": []}
    assert plait("docs", "delete", "plans", "--yes") == 0
    assert plait("store", "check") == 0
    assert "3 documents checked, 0 problems" in plait.out


def test_flipped_bytes_of_a_row_are_found(plait: Plait) -> None:
    change(
        plait.store,
        "UPDATE updates SET bytes = CAST(x'ff' || substr(bytes, 2) AS BLOB) WHERE seq = "
        "(SELECT max(seq) FROM updates JOIN documents ON id = document WHERE name = 'plans')",
    )
    (problem,) = problems_of(plait)
    assert problem["document"] == "plans"
    assert problem["problem"].startswith("Row ")


def test_text_that_was_changed_under_a_snapshot_is_found(plait: Plait) -> None:
    change(
        plait.store,
        "UPDATE slices SET bytes = CAST(replace(CAST(bytes AS TEXT), 'one', 'One') AS BLOB)",
    )
    assert problems_of(plait) == [
        {"document": "notes", "problem": "Its snapshot is not what its log says."}
    ]


def test_a_flipped_byte_of_a_slice_is_found(plait: Plait) -> None:
    change(plait.store, "UPDATE slices SET bytes = CAST(x'7f' || substr(bytes, 2) AS BLOB)")
    (problem,) = problems_of(plait)
    assert problem["problem"].startswith("Slice 0 of its snapshot is damaged: ")


def test_bytes_that_became_text_are_found(plait: Plait) -> None:
    change(plait.store, "UPDATE slices SET bytes = CAST(bytes AS TEXT)")
    assert any("expected" in problem["problem"] for problem in problems_of(plait))


def test_a_dropped_slice_is_found(plait: Plait) -> None:
    change(plait.store, "DELETE FROM slices")
    assert any("0 of 1 slices" in problem["problem"] for problem in problems_of(plait))


def test_a_dropped_row_is_found(plait: Plait) -> None:
    change(plait.store, "DELETE FROM updates WHERE seq = (SELECT min(seq) FROM updates)")
    assert any("notes" in str(problem) for problem in problems_of(plait))


def test_rows_that_build_upon_missing_ones_are_found() -> None:
    author = Author(1)
    author.type("one ")
    rows = tuple(
        LoggedUpdate(seq, "x", update, "", 0)
        for seq, update in enumerate((author.type("two "), author.type("three ")), start=5)
    )
    (problem,) = problems([Evidence("x", rows, None)], Limits())
    assert problem.text.startswith("2 rows of its log, the first is 5, build upon others")


def test_a_damaged_page_is_a_problem_and_no_crash(plait: Plait) -> None:
    assert plait("store", "compact") == 0
    content = bytearray(plait.store.read_bytes())
    content[4096 : 4096 + 200] = b"\xa5" * 200
    plait.store.write_bytes(content)
    assert plait("store", "check", "--json") == cli.FAILED
    assert json.loads(plait.out)["problems"]


def test_a_backup_is_checked_and_left_as_it_is(plait: Plait) -> None:
    backup = plait.folder / "backup.db"
    assert plait("store", "backup", str(backup)) == 0
    before = backup.read_bytes(), sorted(plait.folder.iterdir())
    backup.chmod(0o400)
    assert plait("store", "check", str(backup)) == 0
    assert (backup.read_bytes(), sorted(plait.folder.iterdir())) == before
    backup.chmod(0o600)
    change(backup, "UPDATE updates SET bytes = x'00' WHERE seq = 1")
    assert plait("store", "check", str(backup)) == cli.FAILED


# compact


def test_compacting_keeps_the_content(plait: Plait) -> None:
    before = {name: plait.exported(name) for name in NAMES}
    told = plait.json("store", "compact")
    assert told == {"documents": 3, "compacted": 3, "failed": 0, "purged": 0}
    assert {name: plait.exported(name) for name in NAMES} == before
    shown = plait.json("docs", "show", "notes")
    assert isinstance(shown, dict)
    assert shown["tail_updates"] == 0 and shown["updates"] == 3
    assert plait("store", "check") == 0


def test_compacting_purges_only_what_was_deleted_long_ago(plait: Plait) -> None:
    assert plait("docs", "delete", "plans", "--yes") == 0
    assert plait("store", "compact") == 0
    assert plait("store", "compact", "--purge-after-days", "1") == 0
    assert plait("docs", "show", "plans") == 0
    change(plait.store, "UPDATE documents SET deleted_ms = 1 WHERE name = 'plans'")
    told = plait.json("store", "compact", "--purge-after-days", "1")
    assert isinstance(told, dict) and told["purged"] == 1
    assert plait("docs", "show", "plans") == cli.FAILED


def test_a_document_that_can_not_be_compacted_stays_and_is_told(plait: Plait) -> None:
    change(
        plait.store, "UPDATE updates SET bytes = x'ff' WHERE seq = (SELECT max(seq) FROM updates)"
    )
    change(plait.store, "UPDATE documents SET log_bytes = 0, tail_bytes = 0")
    assert plait("store", "compact") == cli.FAILED
    assert "älter was not compacted" in plait.err
    assert "Compacted 2 of 3 documents" in plait.out


# backup and restore


def test_a_backup_never_overwrites(plait: Plait) -> None:
    backup = plait.file(b"precious", "backup.db")
    assert plait("store", "backup", backup) == cli.FAILED
    assert Path(backup).read_bytes() == b"precious"


def test_the_whole_store_is_restored(plait: Plait) -> None:
    before = plait.exported("notes")
    backup = plait.folder / "backup.db"
    assert plait("store", "backup", str(backup)) == 0
    assert plait("docs", "delete", "notes", "--purge", "--yes") == 0
    assert plait("store", "restore", str(backup)) == cli.MISUSED, "nobody can be asked"
    told = plait.json("store", "restore", str(backup), "--yes")
    assert isinstance(told, dict)
    assert plait.exported("notes") == before
    aside = Path(told["aside"])
    assert cli.main(["docs", "show", "notes", "--store", f"sqlite:///{aside}"]) == cli.FAILED


def test_a_store_that_is_gone_is_restored_without_a_question(plait: Plait) -> None:
    backup = plait.folder / "backup.db"
    assert plait("store", "backup", str(backup)) == 0
    plait.store.unlink()
    assert plait("store", "restore", str(backup)) == 0
    assert plait("store", "check") == 0


def test_documents_are_brought_back_by_a_new_edit(plait: Plait) -> None:
    backup = plait.folder / "backup.db"
    assert plait("store", "backup", str(backup)) == 0
    late = Author(9)
    late.type("late ")
    for name in ("notes", "new"):
        assert plait("docs", "import", name, plait.file(late.state()), "--merge") == 0
    assert plait("docs", "delete", "plans", "--yes") == 0
    assert plait("docs", "delete", "älter", "--purge", "--yes") == 0
    documents = [f"--document={name}" for name in NAMES]
    assert plait("store", "restore", str(backup), *documents) == cli.MISUSED
    told = plait.json("store", "restore", str(backup), *documents, "--yes")
    assert isinstance(told, dict)
    assert [(each["name"], each["outcome"]) for each in told["documents"]] == [
        ("notes", "reverted"),
        ("plans", "undeleted"),
        ("älter", "added"),
    ]
    for name in NAMES:
        assert text_of(plait.exported(name)) == "one two three "
    assert text_of(plait.exported("new")) == "late "
    history = plait.json("docs", "show", "älter")
    assert isinstance(history, dict) and history["updates"] == 3
    assert plait("store", "restore", str(backup), *documents, "--yes") == 0
    assert plait.out.count("is as it was in the backup") == 3
    assert plait("store", "check") == 0


def test_a_document_that_the_backup_lacks_is_told_and_the_others_come_back(plait: Plait) -> None:
    backup = plait.folder / "backup.db"
    assert plait("store", "backup", str(backup)) == 0
    late = Author(9)
    late.type("late ")
    assert plait("docs", "import", "notes", plait.file(late.state()), "--merge") == 0
    chosen = ["--document", "nobody", "--document", "notes"]
    assert plait("store", "restore", str(backup), *chosen, "--yes") == cli.FAILED
    assert "the backup has no document 'nobody'" in plait.err
    assert text_of(plait.exported("notes")) == "one two three "


@pytest.mark.parametrize("content", [None, b"", b"not a database, though it is long enough" * 50])
@pytest.mark.parametrize("chosen", [[], ["--document", "notes"]])
def test_what_is_no_backup_changes_nothing(
    plait: Plait, content: bytes | None, chosen: list[str]
) -> None:
    before = plait.exported("notes")
    backup = plait.folder / "backup.db"
    if content is not None:
        backup.write_bytes(content)
    assert plait("store", "restore", str(backup), *chosen, "--yes") == cli.FAILED
    assert plait.err.count("\n") == 1 and "backup.db" in plait.err
    assert plait.exported("notes") == before
