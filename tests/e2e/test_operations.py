"""What an operator does to a store reaches the clients of a server that runs on it, and what was
destroyed comes back.
"""

import asyncio
import fcntl
import json
import os
import random
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from httpx_ws import aconnect_ws
from pycrdt import Array, Doc, Map, Provider, Text
from pycrdt.websocket.websocket import HttpxWebsocket

from plait.server.auth.setup import issue
from plait.server.settings import Settings
from tests.support.deadlines import DEADLINE_SECONDS, eventually
from tests.support.server import PLAIT, PlaitProcess, environment

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


class Operator:
    """Runs commands and scripts on the store of a server, whether it runs or not."""

    def __init__(self, server: PlaitProcess, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.snapshots = folder / "snapshots"

    async def plait(self, *arguments: str) -> Ended:
        """Run a command of Plait's."""
        return await self._run([*PLAIT, *arguments, "--store", self.server.store_url])

    async def done(self, *arguments: str) -> Any:
        """Run a command that has to go well; return what it tells in JSON."""
        ended = await self.plait(*arguments, "--json")
        assert ended.code == 0, ended
        return json.loads(ended.out)

    async def script(self, name: str, *arguments: str, **variables: str) -> Ended:
        """Run a script of those for operators."""
        plait = self.folder / "plait"
        if not plait.exists():
            plait.write_text(f'#!/bin/sh\nexec {sys.executable} -m plait.server "$@"\n')
            plait.chmod(0o755)
        places = {"PLAIT": str(plait), "SNAPSHOT_FOLDER": str(self.snapshots)}
        variables = places | {"PLAIT_STORE": self.server.store_url} | variables
        return await self._run([str(SCRIPTS / name), *arguments], variables)

    async def restore_room(self, *arguments: str, **variables: str) -> Ended:
        """Run the script that needs no access to the store."""
        command = [sys.executable, str(SCRIPTS / "restore-room"), *arguments]
        return await self._run(command, variables)

    async def _run(self, command: list[str], variables: dict[str, str] | None = None) -> Ended:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment(**(variables or {})),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(2 * DEADLINE_SECONDS):
            out, err = await process.communicate()
        assert process.returncode is not None
        ended = Ended(process.returncode, out.decode(), err.decode())
        assert "Traceback" not in ended.err, ended.err
        return ended


class Editor:
    """A document that is open in a live editor: pycrdt's own provider."""

    def __init__(self) -> None:
        self.doc: Doc[Any] = Doc()
        self.text = self.doc.get("text", type=Text)
        self.map = self.doc.get("map", type=Map)
        self.left = asyncio.Event()
        """Set once the server has closed the connection."""

    async def shows(self, text: str) -> None:
        """Wait until this text is seen."""
        await eventually(lambda: str(self.text) == text, f"{text!r}, not {str(self.text)!r}")


class _Socket(HttpxWebsocket):
    def __init__(self, websocket: object, editor: Editor) -> None:
        super().__init__(websocket, "")
        self._editor = editor

    async def recv(self) -> bytes:
        try:
            return await super().recv()
        except Exception:
            self._editor.left.set()
            raise


@asynccontextmanager
async def editing(server: PlaitProcess, name: str) -> AsyncIterator[Editor]:
    """Open a room in an editor."""
    editor = Editor()
    url = f"{server.url}/ws/{quote(name, safe='')}"
    websocket: Any
    async with aconnect_ws(url) as websocket:
        async with Provider(editor.doc, _Socket(websocket, editor)) as provider:
            await provider.synced.wait()
            yield editor


@pytest.fixture
def operator(plait_server: PlaitProcess, tmp_path: Path) -> Operator:
    return Operator(plait_server, tmp_path)


def update_of(text: str, client: int = 77) -> bytes:
    """Return a document with a text."""
    doc: Doc[Text] = Doc(client_id=client)
    doc["text"] = Text(text)
    return doc.get_update()


def shown(update: bytes) -> str:
    """Return the text in a document."""
    doc: Doc[Any] = Doc()
    doc.apply_update(update)
    return str(doc.get("text", type=Text))


async def exported(operator: Operator, name: str) -> bytes:
    """Return a document as the command exports it."""
    target = operator.folder / "exported"
    await operator.done("docs", "export", name, "-o", str(target), "--force")
    return target.read_bytes()


def file(operator: Operator, content: bytes) -> str:
    """Return the path of a file with this content."""
    path = operator.folder / "content"
    path.write_bytes(content)
    return str(path)


async def saved(operator: Operator, name: str, text: str) -> None:
    """Wait until a text is in the store."""

    async def is_there() -> bool:
        ended = await operator.plait("docs", "show", name, "--json")
        if ended.code:
            return False
        content = json.loads(ended.out)["content"]
        return bool(content.get("text", {}).get("value") == text)

    await eventually(is_there, f"{text!r} in the store")


# While a server runs


async def test_an_import_reaches_an_open_editor(operator: Operator) -> None:
    await operator.done("docs", "import", "notes", file(operator, update_of("one ")))
    async with editing(operator.server, "notes") as editor:
        await editor.shows("one ")
        editor.text += "two "
        await saved(operator, "notes", "one two ")
        added = file(operator, update_of("three", client=2**32 - 1))
        told = await operator.done("docs", "import", "notes", added, "--merge")
        assert told["changed"]
        await eventually(lambda: "three" in str(editor.text), "the import")
        assert shown(await exported(operator, "notes")) == str(editor.text)


async def test_a_deletion_sends_editors_away_and_is_taken_back(operator: Operator) -> None:
    async with editing(operator.server, "notes") as editor:
        editor.text += "kept"
        await saved(operator, "notes", "kept")
        await operator.done("docs", "delete", "notes", "--yes")
        await asyncio.wait_for(editor.left.wait(), DEADLINE_SECONDS)
    await operator.done("docs", "undelete", "notes")

    async def opened_again() -> bool:
        async with editing(operator.server, "notes") as editor:
            return str(editor.text) == "kept"

    await eventually(opened_again, "the document, undeleted")


async def test_a_purge_of_an_open_document_leaves_nothing_of_it(operator: Operator) -> None:
    async with editing(operator.server, "notes") as editor:
        editor.text += "gone"
        await saved(operator, "notes", "gone")
        await operator.done("docs", "delete", "notes", "--purge", "--yes")
        await asyncio.wait_for(editor.left.wait(), DEADLINE_SECONDS)
    async with editing(operator.server, "notes") as editor:
        assert str(editor.text) == ""
        editor.text += "anew"
        await saved(operator, "notes", "anew")
    await operator.done("store", "check")


async def test_documents_are_restored_under_open_editors(operator: Operator) -> None:
    backup = str(operator.folder / "backup.db")
    async with (
        editing(operator.server, "notes") as ann,
        editing(operator.server, "notes") as bob,
    ):
        ann.text += "the good old text 😀"
        ann.map["cell"] = Array([1, Text("inner"), {"a": [None, True]}])
        await saved(operator, "notes", "the good old text 😀")
        await operator.done("store", "backup", backup)
        await bob.shows("the good old text 😀")
        del bob.text[4:9]
        del bob.map["cell"]
        bob.text += " and bad things"
        await ann.shows("the old text 😀 and bad things")
        await operator.done("docs", "import", "later", file(operator, update_of("later")))

        ended = await operator.plait("store", "restore", backup)
        assert ended.code == 2, ended
        assert "--document" in ended.err and "stop the server" in ended.err

        told = await operator.done("store", "restore", backup, "--document", "notes", "--yes")
        assert told["documents"] == [{"name": "notes", "outcome": "reverted", "problem": None}]
        for editor in (ann, bob):
            await editor.shows("the good old text 😀")
            assert json.loads(str(editor.map))["cell"] == [1, "inner", {"a": [None, True]}]
        ann.text += "!"
        await bob.shows("the good old text 😀!")

        told = await operator.done("store", "restore", backup, "--yes")
        assert [each["outcome"] for each in told["documents"]] == ["reverted"]
        await ann.shows("the good old text 😀")
    assert shown(await exported(operator, "later")) == "later"
    await operator.done("store", "check")


async def test_a_backup_made_while_a_client_types_is_good(operator: Operator) -> None:
    async with editing(operator.server, "notes") as editor:
        stop = asyncio.Event()

        async def type_on() -> None:
            while not stop.is_set():
                editor.text += random.choice("abc ")
                await asyncio.sleep(0)

        typing = asyncio.create_task(type_on())
        await eventually(lambda: len(str(editor.text)) > 200, "some text")
        for number in range(3):
            backup = operator.folder / f"backup{number}.db"
            await operator.done("store", "backup", str(backup))
            checked = await operator.done("store", "check", str(backup))
            assert checked["documents"] == 1
        stop.set()
        await typing
        written = str(editor.text)
        await saved(operator, "notes", written)
    copy = await operator.plait("docs", "list", "--json")
    assert [each["name"] for each in json.loads(copy.out)] == ["notes"]


@pytest.mark.parametrize("running", [True, False])
async def test_compacting_keeps_the_content(operator: Operator, running: bool) -> None:
    async with editing(operator.server, "notes") as editor:
        for number in range(300):
            editor.text += f"{number} "
        del editor.text[10:200]
        await saved(operator, "notes", str(editor.text))
    if not running:
        await operator.server.stop()
    before = await exported(operator, "notes")
    told = await operator.done("store", "compact", "--document", "notes")
    assert told["compacted"] == 1
    assert await exported(operator, "notes") == before
    assert (await operator.done("docs", "show", "notes"))["snapshot_bytes"]
    await operator.done("store", "check")
    if not running:
        await operator.server.start()
    async with editing(operator.server, "notes") as editor:
        await editor.shows(shown(before))


async def test_a_room_is_restored_through_the_server(operator: Operator) -> None:
    wanted = file(operator, update_of("from the file 😀"))
    ended = await operator.restore_room(operator.server.url, "a room/ä", wanted)
    assert ended.code == 0, ended
    assert shown(await exported(operator, "a room/ä")) == "from the file 😀", "it is stored"
    async with editing(operator.server, "a room/ä") as editor:
        await editor.shows("from the file 😀")
        del editor.text[0:5]
        editor.text += " spoilt"
        await saved(operator, "a room/ä", "the file 😀 spoilt")
        ended = await operator.restore_room(operator.server.url, "a room/ä", wanted)
        assert ended.code == 0, ended
        await editor.shows("from the file 😀")
        again = await operator.restore_room(operator.server.url, "a room/ä", wanted)
        assert again.code == 0 and "already" in again.out
    merged = file(operator, update_of("more ", client=5))
    ended = await operator.restore_room("--merge", operator.server.url, "a room/ä", merged)
    assert ended.code == 0, ended
    both = shown(await exported(operator, "a room/ä"))
    assert "more " in both and "from the file 😀" in both


async def test_restoring_a_room_fails_in_one_line(operator: Operator) -> None:
    garbage = file(operator, b"garbage")
    ended = await operator.restore_room(operator.server.url, "x", garbage)
    assert ended.code == 1 and ended.err.count("\n") == 1, ended
    good = file(operator, update_of("x"))
    await operator.server.stop()
    ended = await operator.restore_room(operator.server.url, "x", good)
    assert ended.code == 1 and ended.err.count("\n") == 1, ended


async def test_a_room_is_restored_through_a_server_that_asks_for_tokens(tmp_path: Path) -> None:
    secret = "0123456789abcdef" * 2

    def token(docs: str, access: str) -> str:
        grants = [{"docs": docs, "access": access}]
        claims = {"sub": "op", "grants": grants, "exp": time.time() + 3600}
        return issue(Settings(token_secret=(secret,)), claims)

    async with PlaitProcess(tmp_path, "--token-secret", secret) as server:
        operator, url, good = Operator(server, tmp_path), server.url, token("*", "write")
        wanted = file(operator, update_of("from the file"))
        kept = tmp_path / "token"
        kept.write_text(good + "\n")
        ended = await operator.restore_room(url, "0", wanted, "--token-file", str(kept))
        assert ended.code == 0, ended
        assert shown(await exported(operator, "0")) == "from the file"
        ended = await operator.restore_room(url, "0", wanted, RESTORE_ROOM_TOKEN=good)
        assert ended.code == 0 and "already" in ended.out, ended
        ended = await operator.restore_room(url, "x", wanted)
        assert ended.code == 1 and ended.err.count("\n") == 1 and "--token-file" in ended.err
        for bad in (token("other", "write"), token("*", "read")):
            ended = await operator.restore_room(url, "x", wanted, RESTORE_ROOM_TOKEN=bad)
            assert ended.code == 1 and ended.err.count("\n") == 1, ended
            assert bad not in ended.err and "refused" in ended.err
        ended = await operator.restore_room(f"{url}/?token={good}", "x", wanted)
        assert ended.code == 2 and "--token-file" in ended.err and good not in ended.err


# With the scripts, up to the loss of everything


async def test_a_destroyed_store_comes_back_from_the_nightly_snapshot(operator: Operator) -> None:
    async with editing(operator.server, "notes") as editor:
        editor.text += "precious"
        await saved(operator, "notes", "precious")
    ended = await operator.script("nightly-snapshot")
    assert ended.code == 0, ended
    assert os.stat(ended.out.strip()).st_mode & 0o077 == 0, "others may not read it"

    await operator.server.kill()
    for path in operator.server.store_path.parent.glob("plait.db*"):
        path.unlink()
    listed = await operator.script("restore-from-snapshot", "--list")
    assert listed.out == ended.out
    restored = await operator.script("restore-from-snapshot", "--all")
    assert restored.code == 0, restored
    await operator.server.start()
    async with editing(operator.server, "notes") as editor:
        await editor.shows("precious")

        editor.text += " and spoilt"
        await saved(operator, "notes", "precious and spoilt")
        refused = await operator.script("restore-from-snapshot", "notes")
        assert refused.code == 2, refused
        restored = await operator.script("restore-from-snapshot", "--yes", "notes")
        assert restored.code == 0, restored
        await editor.shows("precious")


async def test_nightly_snapshots_are_kept_in_number(operator: Operator) -> None:
    await operator.done("docs", "import", "notes", file(operator, update_of("x")))
    operator.snapshots.mkdir()
    old = [operator.snapshots / f"plait-2025010{day}T000000Z.db" for day in range(1, 6)]
    for path in old:
        path.write_bytes(b"an old one")
    other = operator.snapshots / "other.db"
    other.write_bytes(b"not ours")
    ended = await operator.script("nightly-snapshot", SNAPSHOT_KEEP="3")
    assert ended.code == 0, ended
    kept = sorted(operator.snapshots.glob("plait-*.db"))
    assert kept == [*old[3:], Path(ended.out.strip())]
    assert other.exists()
    for empty in ("SNAPSHOT_KEEP", "SNAPSHOT_FOLDER", "PLAIT"):
        ended = await operator.script("nightly-snapshot", **{empty: ""})
        assert ended.code == 2 and empty in ended.err
    assert await operator.script("nightly-snapshot", SNAPSHOT_KEEP="0") == Ended(
        2,
        "",
        "nightly-snapshot: SNAPSHOT_KEEP is '0'; a number of snapshots is expected, 1 or more\n",
    )


async def test_a_snapshot_that_is_not_good_costs_no_old_one(operator: Operator) -> None:
    await operator.done("docs", "import", "notes", file(operator, update_of("x")))
    good = await operator.script("nightly-snapshot")
    with closing(sqlite3.connect(operator.server.store_path)) as connection, connection:
        connection.execute("UPDATE updates SET bytes = x'ff'")
    ended = await operator.script("nightly-snapshot", SNAPSHOT_KEEP="1")
    assert ended.code == 1, ended
    assert "not good" in ended.err and "notes" in ended.err
    missing = await operator.script(
        "nightly-snapshot", SNAPSHOT_KEEP="1", PLAIT_STORE="sqlite:///missing.db"
    )
    assert missing.code == 1, missing
    left = [path.name for path in operator.snapshots.iterdir() if path.name != ".lock"]
    assert left == [Path(good.out.strip()).name]


async def test_two_nightly_snapshots_do_not_meet(operator: Operator) -> None:
    operator.snapshots.mkdir()
    descriptor = os.open(operator.snapshots / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    ended = await operator.script("nightly-snapshot")
    os.close(descriptor)
    assert ended.code == 1
    assert "another one is at work" in ended.err
