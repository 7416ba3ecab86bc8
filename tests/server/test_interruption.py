"""A command that is interrupted ends at once, whatever it waits for, and does nothing more."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from plait.persistence import open_store
from plait.persistence.lock import StoreLock
from plait.persistence.store import Store, Update
from plait.server.interruption import Interrupted, at_once, run
from tests.support.authors import Author
from tests.support.server import environment
from tests.support.terminal import END_OF_FILE, INTERRUPT, Keyboard

STORE = "sqlite:///plait.db"


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A folder with a store, which has the document `notes`, and a backup of it."""
    author = Author(1)
    author.type("one")
    store = open_store(f"sqlite:///{tmp_path / 'plait.db'}")
    await store.open()
    await store.append([Update("notes", author.state())])
    await store.backup(tmp_path / "backup.db")
    await store.close()
    return tmp_path


def plait(folder: Path, *arguments: str) -> Keyboard:
    """Run a command on a terminal."""
    command = [sys.executable, "-m", "plait.server", *arguments, "--store", STORE]
    return Keyboard(command, folder, environment())


def left_beside(folder: Path) -> list[str]:
    """Return what a command should have taken away."""
    return [each.name for each in folder.iterdir() if "tmp" in each.name or "before" in each.name]


async def untouched(folder: Path) -> bool:
    """Whether the store has its document, and nothing was put beside the files."""
    store: Store = open_store(f"sqlite:///{folder / 'plait.db'}")
    await store.open()
    names = [info.name for info in await store.documents()]
    revoked = (await store.records_since(0)).records
    await store.close()
    return names == ["notes"] and not revoked and not left_beside(folder)


QUESTIONS = {
    "delete": ("docs", "delete", "notes"),
    "restore": ("store", "restore", "backup.db"),
    "standard input": ("docs", "import", "new", "-"),
    "a token": ("token", "revoke", "--token", "-"),
}


@pytest.mark.parametrize("arguments", QUESTIONS.values(), ids=QUESTIONS)
async def test_ctrl_c_ends_what_waits_for_the_terminal(
    arguments: tuple[str, ...], folder: Path
) -> None:
    with plait(folder, *arguments) as keyboard:
        await keyboard.waits()
        keyboard.type(INTERRUPT)
        keyboard.type("y\n")
        assert await keyboard.ended() == 130, keyboard.shown
        assert "plait: interrupted" in keyboard.shown
        assert "Traceback" not in keyboard.shown
    assert await untouched(folder)


async def test_so_do_sigterm_and_the_end_of_input(folder: Path) -> None:
    with plait(folder, "docs", "delete", "notes", "--purge") as keyboard:
        await keyboard.waits()
        keyboard.signal(signal.SIGTERM)
        assert await keyboard.ended() == 143, keyboard.shown
    with plait(folder, "docs", "delete", "notes") as keyboard:
        await keyboard.waits()
        keyboard.type(END_OF_FILE)
        assert await keyboard.ended() == 1
        assert keyboard.shown.splitlines()[-1] == "plait: nothing was done"
    assert await untouched(folder)


async def test_an_answer_is_still_an_answer(folder: Path) -> None:
    lock = StoreLock(folder / "plait.db")
    lock.acquire_shared()
    with plait(folder, "store", "restore", "backup.db") as keyboard:
        await keyboard.waits()
        assert "A server runs on" in keyboard.shown
        keyboard.type("n\n")
        assert await keyboard.ended() == 1
    lock.release()
    with plait(folder, "docs", "delete", "notes") as keyboard:
        await keyboard.waits()
        keyboard.type("y\n")
        assert await keyboard.ended() == 0, keyboard.shown
    assert not await untouched(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_what_runs_and_lets_it_tidy_up(number: signal.Signals) -> None:
    tidied = []

    async def work() -> None:
        os.kill(os.getpid(), number)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            tidied.append(number)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as raised:
        run(work())
    assert raised.value.exit_code == 128 + number
    assert tidied == [number]
    assert signal.getsignal(number) is before


def test_a_second_signal_does_not_wait_for_that() -> None:
    async def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()

    with pytest.raises(Interrupted) as raised:
        run(work())
    assert raised.value.exit_code == 143


def test_what_keeps_the_loop_from_running_is_ended_too() -> None:
    async def work() -> None:
        with at_once():
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("went on")

    with pytest.raises(Interrupted):
        run(work())


def test_a_signal_that_is_ignored_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:

        async def work() -> int:
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0)
            return 7

        assert run(work()) == 7
    finally:
        signal.signal(signal.SIGHUP, before)
