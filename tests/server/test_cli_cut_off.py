"""A copy of a store that is cut off, however that happens, is not there; another attempt goes well.

The command is stopped at a document of its choice: it does to itself what would come from outside.
"""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from plait.persistence import Store, Update, open_store
from plait.persistence.postgres import PostgresStore
from plait.server import cli
from plait.server.interruption import run
from tests.support.authors import Author
from tests.support.deadlines import DEADLINE_SECONDS
from tests.support.server import environment

DOCUMENTS = 1200
AT = 1100

DRIVER = f"""
import os, resource, signal, sys
from plait.server import cli
from plait.server.terminal import Terminal

def progress(self, what, done, total):
    if (done, total) == ({AT}, {DOCUMENTS}):
        if sys.argv[1] == "full":
            size = max(each.stat().st_size for each in os.scandir() if ".tmp" in each.name)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        else:
            os.kill(os.getpid(), int(sys.argv[1]))

Terminal.progress = progress
sys.exit(cli.main(sys.argv[2:]))
"""

CUTS = {
    "Ctrl-C": (str(int(signal.SIGINT)), 130),
    "SIGTERM": (str(int(signal.SIGTERM)), 143),
    "kill -9": (str(int(signal.SIGKILL)), -signal.SIGKILL),
    "full disk": ("full", 1),
}


def cut_off(how: str, folder: Path, *arguments: str) -> str:
    """Run a command that is cut off; return what it said."""
    what, code = CUTS[how]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, what, *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=4 * DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr
    return done.stderr


async def names(url: str) -> list[str]:
    """Return the documents of a store, which is made if there is none."""
    store: Store = open_store(url)
    await store.open()
    found = [info.name for info in await store.documents(limit=10_000)]
    await store.close()
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a store with many documents."""
    path = tmp_path_factory.mktemp("source") / "plait.db"

    async def fill() -> None:
        author = Author(1)
        author.type("one")
        store = open_store(f"sqlite:///{path}")
        await store.open()
        state = author.state()
        await store.append([Update(f"{number:04}", state) for number in range(DOCUMENTS)])
        await store.close()

    run(fill())
    return f"sqlite:///{path}"


@pytest.mark.parametrize("how", CUTS)
def test_a_file_is_whole_or_not_there(how: str, source: str, tmp_path: Path) -> None:
    said = cut_off(how, tmp_path, "store", "copy", source, "sqlite:///copy.db")
    left = [each.name for each in tmp_path.iterdir()]
    if how == "kill -9":
        assert left and all(".tmp" in name for name in left)
    else:
        assert left == []
    if how == "full disk":
        assert "copy.db" in said and "free space" in said, said
    copy = f"sqlite:///{tmp_path / 'copy.db'}"
    assert cli.main(["store", "copy", source, copy, "--quiet"]) == 0
    assert len(run(names(copy))) == DOCUMENTS
    assert not [each.name for each in tmp_path.iterdir() if ".tmp" in each.name]


def test_a_store_without_documents_stays_so_until_it_has_all(source: str, tmp_path: Path) -> None:
    copy = f"sqlite:///{tmp_path / 'copy.db'}"
    assert run(names(copy)) == []
    cut_off("Ctrl-C", tmp_path, "store", "copy", source, "sqlite:///copy.db")
    assert run(names(copy)) == []
    assert cli.main(["store", "check", "--store", copy, "--quiet"]) == 0
    assert cli.main(["store", "copy", source, copy, "--quiet"]) == 0
    assert len(run(names(copy))) == DOCUMENTS


@pytest.mark.parametrize("how", ["Ctrl-C", "kill -9"])
def test_so_does_one_in_postgres(how: str, source: str, tmp_path: Path, postgres_url: str) -> None:
    cut_off(how, tmp_path, "store", "copy", source, postgres_url)
    assert run(names(postgres_url)) == []
    if how == "Ctrl-C":
        return
    backup = tmp_path / "backup.db"
    assert cli.main(["store", "backup", str(backup), "--store", source, "--quiet"]) == 0
    restore = ["store", "restore", str(backup), "--store", postgres_url]
    cut_off(how, tmp_path, *restore)
    assert run(names(postgres_url)) == []
    assert cli.main([*restore, "--quiet"]) == 0
    assert len(run(names(postgres_url))) == DOCUMENTS


def test_two_do_not_fill_one_store_in_postgres(
    source: str,
    postgres_url: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("plait.persistence.postgres_schema.COPYING_SECONDS", 0)
    store = PostgresStore(postgres_url)

    async def hold() -> None:
        await store.open()
        async with store.at_once(alone=True):
            code = await asyncio.to_thread(cli.main, ["store", "copy", source, postgres_url])
            assert code == cli.FAILED
        await store.close()

    run(hold())
    assert "at this moment" in capsys.readouterr().err
