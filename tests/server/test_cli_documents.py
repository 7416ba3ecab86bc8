"""`plait docs` on a store that nobody serves."""

import json
import sqlite3
from contextlib import closing
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from pycrdt import Array, Doc, Map, Text

from plait.server import cli
from plait.server.updates import merge
from tests.support.authors import Author, text_of


class Plait:
    """Runs commands on a store in the test's folder, and remembers what the last one said."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.store = folder / "plait.db"
        self.folder = folder
        self.out = self.err = ""
        self._capsys = capsys

    def __call__(self, *arguments: str) -> int:
        code = cli.main([*arguments, "--store", f"sqlite:///{self.store}"])
        self.out, self.err = self._capsys.readouterr()
        return code

    def json(self, *arguments: str) -> object:
        """Run a command that has to go well; return what it tells in JSON."""
        assert self(*arguments, "--json") == 0, self.err
        return json.loads(self.out)

    def file(self, content: bytes, name: str = "an.update") -> str:
        """Return the path of a new file."""
        path = self.folder / name
        path.write_bytes(content)
        return str(path)

    def exported(self, name: str) -> bytes:
        """Return a document's whole state."""
        path = self.folder / "exported"
        assert self("docs", "export", name, "-o", str(path), "--force") == 0, self.err
        return path.read_bytes()


@pytest.fixture
def plait(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Plait:
    return Plait(tmp_path, capsys)


@pytest.fixture
def ann(plait: Plait) -> Author:
    """An author, whose first words are the document `notes`."""
    author = Author(1)
    author.type("one two 😀")
    assert plait("docs", "import", "notes", plait.file(author.state())) == 0
    return author


def test_no_name_steers_the_terminal_in_json_either(plait: Plait) -> None:
    """U+009B begins a command of many terminals, as ESC [ does; JSON has no objection to it."""
    name, author = "a\x9b2J\u2028ü", Author(1)
    author.type("x")
    assert plait("docs", "import", name, plait.file(author.state())) == 0
    listed = plait.json("docs", "list")
    assert isinstance(listed, list) and [each["name"] for each in listed] == [name]
    assert all(line.isprintable() for line in plait.out.split("\n")) and "ü" in plait.out
    assert plait.json("docs", "show", name) and "\x9b" not in plait.out


# import and export


def test_what_is_imported_is_exported(plait: Plait, ann: Author) -> None:
    assert plait.exported("notes") == ann.state()


def test_a_file_in_the_way_of_an_export_is_replaced_by_force_alone(
    plait: Plait, ann: Author
) -> None:
    mine = plait.file(b"mine", "mine")
    (plait.folder / "link").symlink_to(mine)
    (plait.folder / "nowhere").symlink_to("gone")
    for way in ("mine", "link", "nowhere"):
        assert plait("docs", "export", "notes", "-o", str(plait.folder / way)) == cli.MISUSED
        assert f"{way} is there already" in plait.err and "--force" in plait.err
    assert Path(mine).read_bytes() == b"mine"
    assert plait("docs", "export", "notes", "-o", str(plait.folder), "--force") == cli.MISUSED
    assert plait("docs", "delete", "notes", "--yes") == 0
    assert plait("docs", "export", "notes", "-o", str(plait.folder / "link"), "--force") == 0
    assert Path(mine).read_bytes() == ann.state(), "a deleted document can be exported"
    assert (plait.folder / "link").is_symlink()
    assert [each.name for each in plait.folder.iterdir() if "tmp" in each.name] == []


def test_a_file_that_comes_while_it_is_exported_stays(
    plait: Plait, ann: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the end a large document takes its time."""
    mine = plait.file(b"mine", "mine")
    monkeypatch.setattr("plait.server.cli_documents._may_write", lambda *_: None)
    assert plait("docs", "export", "notes", "-o", mine) == cli.FAILED
    assert "mine is there already" in plait.err and "--force" in plait.err
    assert Path(mine).read_bytes() == b"mine"


def test_an_export_goes_into_what_is_no_file(plait: Plait, ann: Author) -> None:
    assert plait("docs", "export", "notes", "-o", "/dev/null") == 0
    assert Path("/dev/null").is_char_device()


def test_an_export_goes_to_standard_output(
    plait: Plait, ann: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = TextIOWrapper(BytesIO())
    monkeypatch.setattr("sys.stdout", out)
    assert plait("docs", "export", "notes") == 0
    assert out.buffer.getvalue() == ann.state()


def test_an_update_is_not_poured_into_a_terminal(
    plait: Plait, ann: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert plait("docs", "export", "notes") == cli.MISUSED
    assert "-o FILE" in plait.err


def test_content_is_exported_as_json(plait: Plait) -> None:
    doc: Doc[Map[object]] = Doc()
    doc["m"] = Map({"title": "Ä", "cells": Array([1, Text("x")])})
    assert plait("docs", "import", "book", plait.file(doc.get_update())) == 0
    target = plait.folder / "book.json"
    assert plait("docs", "export", "book", "--format", "json", "-o", str(target)) == 0
    content = json.loads(target.read_bytes())
    assert content["m"]["value"] == {"title": "Ä", "cells": [1, "x"]}


def test_an_import_comes_from_standard_input(plait: Plait, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = Author(1)
    ann.type("from a pipe")
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(ann.state())))
    assert plait("docs", "import", "piped", "-") == 0
    assert text_of(plait.exported("piped")) == "from a pipe"


def test_an_import_does_not_touch_a_document_that_is_there(plait: Plait, ann: Author) -> None:
    ann.type("!")
    assert plait("docs", "import", "notes", plait.file(ann.state())) == cli.FAILED
    assert "--merge" in plait.err
    assert text_of(plait.exported("notes")) == "one two 😀"


def test_an_import_merges(plait: Plait, ann: Author) -> None:
    bob = Author(2)
    bob.type("bob ")
    told = plait.json("docs", "import", "notes", plait.file(bob.state()), "--merge")
    assert told == {"name": "notes", "bytes": len(bob.state()), "rows": 1, "changed": True}
    merged = text_of(plait.exported("notes"))
    assert "bob " in merged and "one two 😀" in merged
    again = plait.json("docs", "import", "notes", plait.file(bob.state()), "--merge")
    assert isinstance(again, dict) and not again["changed"]


@pytest.mark.parametrize("content", [b"", b"{}", b"not an update", b"\x00"])
def test_what_is_no_update_is_refused(plait: Plait, content: bytes) -> None:
    assert plait("docs", "import", "x", plait.file(content)) == cli.FAILED
    assert "version 1" in plait.err
    assert plait.json("docs", "list") == []


def test_a_part_of_a_state_is_refused(plait: Plait) -> None:
    ann = Author(1)
    ann.type("one ")
    second = ann.type("two")
    assert plait("docs", "import", "x", plait.file(second)) == cli.FAILED
    assert "whole state" in plait.err
    assert plait.json("docs", "list") == []


def test_a_state_with_gaps_is_imported_without_what_builds_on_them(plait: Plait) -> None:
    ann = Author(1)
    ann.type("lost ")
    behind = ann.type("behind")
    state = merge([Author(2).type("own"), behind])
    told = plait.json("docs", "import", "x", plait.file(state))
    assert isinstance(told, dict) and told["changed"]
    assert told["left"] == {
        "bytes": len(behind),
        "missing": [{"client": 1, "first": 0, "end": 5}],
    }
    assert text_of(plait.exported("x")) == "own"
    assert plait("docs", "import", "x", plait.file(state), "--merge") == 0
    assert "all of it already" in plait.out and "client 1, clocks 0 to 4" in plait.out
    assert plait("docs", "import", "x", plait.file(ann.state()), "--merge") == 0
    assert "Left out" not in plait.out
    assert "lost behind" in text_of(plait.exported("x"))


def test_an_import_tells_what_another_author_shadows(plait: Plait, ann: Author) -> None:
    other = Author(1)
    other.type("other")
    told = plait.json("docs", "import", "notes", plait.file(other.state()), "--merge")
    assert isinstance(told, dict) and not told["changed"]
    assert told["shadowed"] == [{"client": 1, "first": 0, "end": 5}]


def test_an_empty_update_makes_no_document(plait: Plait) -> None:
    assert plait("docs", "import", "x", plait.file(b"\0\0")) == cli.FAILED
    assert plait.json("docs", "list") == []


@pytest.mark.parametrize("name", ["", " ", "a\0b", "a\x1b[2J", "x" * 1025])
def test_a_name_that_no_room_can_have_is_refused(plait: Plait, name: str) -> None:
    ann = Author(1)
    ann.type("x")
    assert plait("docs", "import", name, plait.file(ann.state())) == cli.FAILED
    assert not plait.store.exists()


def test_a_large_update_becomes_rows_that_can_be_loaded_one_by_one(plait: Plait) -> None:
    doc: Doc[Map[object]] = Doc()
    doc["m"] = Map({f"key {each}": "value " * 20 for each in range(8000)})
    state = doc.get_update()
    told = plait.json("docs", "import", "large", plait.file(state))
    assert isinstance(told, dict) and told["rows"] > 3
    with closing(sqlite3.connect(plait.store)) as connection:
        rows = connection.execute("SELECT length(bytes), who FROM updates").fetchall()
    assert len(rows) == told["rows"]
    assert max(size for size, _ in rows) < 300_000
    assert {who for _, who in rows} == {"operator"}
    assert len(plait.exported("large")) == len(state)


def test_a_file_that_can_not_be_read_is_one_line(plait: Plait) -> None:
    assert plait("docs", "import", "x", str(plait.folder / "missing")) == cli.FAILED
    assert plait.err.count("\n") == 1


# list and show


def test_documents_are_listed(plait: Plait, ann: Author) -> None:
    for name in ("a/1", "a/2", "b"):
        assert plait("docs", "import", name, plait.file(ann.state())) == 0
    assert plait("docs", "list") == 0
    head, *lines = plait.out.splitlines()
    assert head.split()[0] == "SIZE"
    assert [line.split()[-1] for line in lines] == ["a/1", "a/2", "b", "notes"]
    assert plait("docs", "list", "--prefix", "a/", "--quiet") == 0
    assert [line.split()[-1] for line in plait.out.splitlines()] == ["a/1", "a/2"]
    listed = plait.json("docs", "list", "--prefix", "b")
    assert isinstance(listed, list)
    assert [each["name"] for each in listed] == ["b"]
    assert listed[0]["updates"] == 1 and listed[0]["created"].endswith("Z")


def test_all_pages_are_listed(plait: Plait, ann: Author, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait.server.recovery.PAGE_DOCUMENTS", 2)
    names = [f"n{each}" for each in range(5)]
    for name in names:
        assert plait("docs", "import", name, plait.file(ann.state())) == 0
    listed = plait.json("docs", "list")
    assert isinstance(listed, list)
    assert [each["name"] for each in listed] == [*names, "notes"]


def test_a_name_can_not_steer_the_terminal(plait: Plait, ann: Author) -> None:
    evil = "\x1b[2J\u202edeen\r\n"
    with closing(sqlite3.connect(plait.store)) as connection, connection:
        connection.execute("UPDATE documents SET name = ?", [evil])
    said = ""
    for command in (["list"], ["show", evil], ["delete", evil], ["delete", evil, "--yes"]):
        plait("docs", *command)
        said += plait.out + plait.err
    assert said.count("deen") == 4
    assert not {"\x1b", "\u202e", "\r"} & set(said)
    listed = plait.json("docs", "list", "--deleted", "--prefix", "\x1b")
    assert isinstance(listed, list) and listed[0]["name"] == evil


def test_a_document_is_shown(plait: Plait, ann: Author) -> None:
    ann.delete(0, 4)
    assert plait("docs", "import", "notes", plait.file(ann.state()), "--merge") == 0
    assert plait("docs", "show", "notes") == 0
    assert "two 😀" in plait.out and "2 updates" in plait.out
    shown = plait.json("docs", "show", "notes")
    assert isinstance(shown, dict)
    assert shown["state_vector"]["clients"] == 1
    assert shown["state_vector"]["most_active"] == [{"client": 1, "clock": 10}]
    assert shown["deleted_clocks"] == 4
    assert shown["content"]["text"] == {"type": "text", "value": "two 😀"}


def test_a_document_that_is_not_there_is_unknown(plait: Plait, ann: Author) -> None:
    for command in ("show", "export", "delete", "undelete"):
        options = ["--yes"] if command == "delete" else []
        assert plait("docs", command, "nobody", *options) == cli.FAILED
        assert "there is no document 'nobody'" in plait.err


# delete and undelete


def test_a_deleted_document_is_brought_back(plait: Plait, ann: Author) -> None:
    assert plait("docs", "delete", "notes", "--yes") == 0
    assert plait.json("docs", "list") == []
    assert plait("docs", "list", "--deleted") == 0
    assert plait.out.splitlines()[1].endswith("notes")
    assert plait("docs", "show", "notes") == 0
    assert "\nDeleted " in plait.out
    assert plait("docs", "import", "notes", plait.file(ann.state()), "--merge") == cli.FAILED
    assert "undelete" in plait.err
    assert plait("docs", "delete", "notes", "--yes") == cli.FAILED
    assert plait("docs", "undelete", "notes") == 0
    assert plait("docs", "undelete", "notes") == cli.FAILED
    assert plait.exported("notes") == ann.state()


def test_a_purged_document_is_gone(plait: Plait, ann: Author) -> None:
    assert plait("docs", "delete", "notes", "--purge", "--yes") == 0
    assert plait("docs", "undelete", "notes") == cli.FAILED
    assert plait.json("docs", "list", "--deleted") == []


def test_a_deleted_document_is_purged_later(plait: Plait, ann: Author) -> None:
    assert plait("docs", "delete", "notes", "--yes") == 0
    assert plait("docs", "delete", "notes", "--purge", "--yes") == 0
    assert plait.json("docs", "list", "--deleted") == []


def test_where_nobody_can_be_asked_yes_is_needed(plait: Plait, ann: Author) -> None:
    assert plait("docs", "delete", "notes") == cli.MISUSED
    assert "--yes" in plait.err
    assert plait.exported("notes") == ann.state()


@pytest.mark.parametrize("answer, code", [("y", 0), ("Yes", 0), ("", 1), ("n", 1), ("what", 1)])
def test_an_operator_is_asked(
    plait: Plait, ann: Author, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    class Keyboard:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return answer + "\n"

    monkeypatch.setattr("sys.stdin", Keyboard())
    assert plait("docs", "delete", "notes") == code
    assert "[y/N]" in plait.err
    assert bool(plait.json("docs", "list")) is bool(code)
