"""The command line understands what it is told, and says so when it does not."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from plait.server import cli

COMMANDS = (
    "serve",
    "health",
    "docs list",
    "docs show",
    "docs export",
    "docs import",
    "docs delete",
    "docs undelete",
    "store check",
    "store compact",
    "store backup",
    "store restore",
    "store copy",
    "store migrate",
)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings but those of the test, in a folder without a store."""
    for name in list(os.environ):
        if name.startswith("PLAIT_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_help_shows_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        cli.main(["--help"])
    assert exit.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: plait [--version] COMMAND ...")
    for command in COMMANDS:
        assert f"\n  {command} " in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        cli.main([*command.split(), "--help"])
    assert exit.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: plait {command} ")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["docs"],
        ["store"],
        ["dock"],
        ["docs", "show"],
        ["docs", "list", "--unknown"],
        ["docs", "export", "x", "--format", "xml"],
        ["store", "compact", "--purge-after-days", "soon"],
        ["store", "compact", "--purge-after-days", "-1"],
    ],
)
def test_what_is_not_understood_is_one_line_and_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        cli.main(arguments)
    assert exit.value.code == cli.MISUSED
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1 and "--help)" in said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["docs", "list"],
        ["docs", "show", "x"],
        ["docs", "export", "x", "-o", "x.update"],
        ["docs", "delete", "x", "--yes"],
        ["docs", "undelete", "x"],
        ["store", "check"],
        ["store", "compact"],
        ["store", "backup", "b.db"],
        ["store", "restore", "b.db", "--document", "x", "--yes"],
    ],
)
def test_a_store_that_is_not_there_is_an_error_and_is_not_made(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(arguments) == cli.FAILED
    assert "there is no " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_store_is_found_as_serve_finds_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def where(*options: str) -> str:
        assert cli.main(["docs", "list", *options]) == cli.FAILED
        return capsys.readouterr().err.split()[5].rstrip(".")

    assert where() == "plait.db"
    config = tmp_path / "plait.toml"
    config.write_text('store = "sqlite:///from-file.db"\nport = 9000\n')
    assert where("--config", str(config)) == "from-file.db"
    monkeypatch.setenv("PLAIT_STORE", "sqlite:///from-environment.db")
    assert where("--config", str(config)) == "from-environment.db"
    assert where("--config", str(config), "--store", "sqlite:///from-flag.db") == "from-flag.db"


def test_settings_that_can_not_be_used_are_misuse(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["docs", "list", "--store", "memory://"]) == cli.MISUSED
    assert "--store" in capsys.readouterr().err
    monkeypatch.setenv("PLAIT_STOR", "sqlite:///a.db")
    assert cli.main(["docs", "list"]) == cli.MISUSED
    assert "PLAIT_STORE" in capsys.readouterr().err


def test_an_unknown_kind_of_store_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["docs", "list", "--store", "mysql://root:secret@host/db"]) == cli.FAILED
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "secret" not in said


def test_an_interruption_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_list", interrupted)
    assert cli.main(["docs", "list"]) == cli.INTERRUPTED
    assert capsys.readouterr().err == "plait: interrupted\n"


def test_a_pipe_that_is_closed_is_quiet(tmp_path: Path) -> None:
    async def make_documents() -> None:
        from plait.persistence import Update, open_store

        store = open_store(f"sqlite:///{tmp_path / 'many.db'}")
        await store.open()
        await store.append([Update(f"document {each:06}", b"\0\0") for each in range(20_000)])
        await store.close()

    asyncio.run(make_documents())
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "plait.server", "docs", "list", "--store", "sqlite:///many.db"],
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    os.close(writing)
    os.read(reading, 100)
    os.close(reading)
    _, said = process.communicate(timeout=60)
    assert said == b""
    assert process.returncode == cli.PIPE_CLOSED
