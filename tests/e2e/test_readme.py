"""What the README tells a newcomer to type works, one block after the other. For docs/api.md see
tests/server/test_openapi.py.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from plait.server import settings
from tests.support.deadlines import DEADLINE_SECONDS
from tests.support.server import PlaitProcess, environment

ROOT = Path(__file__).resolve().parent.parent.parent

SERVES = re.compile(r"^plait serve.*\n?", re.MULTILINE)
"""It would not end; the tests start their own server."""
ELSEWHERE = {
    "scripts/serve\n": "installs; what it runs is tried below",
    "scripts/test\n": "runs this",
    "plait serve --store postgresql": "wants a database and a Redis; see test_cluster.py",
}


def blocks(page: str, language: str) -> list[str]:
    """Return what is to be typed or run."""
    text = (ROOT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A clone, as far as these commands look at it: its environment has the command."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "plait").write_text(f'#!/bin/sh\nexec {sys.executable} -m plait.server "$@"\n')
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    for each in programs.iterdir():
        each.chmod(0o755)
    return tmp_path


def typed(folder: Path, server: PlaitProcess | None, *lines: str) -> str:
    """Type lines into one shell; each has to go well. Return what is printed."""
    text = "\n".join(lines)
    if server is not None:
        text = text.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
    done = subprocess.run(
        ["sh", "-euc", text],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=4 * DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def to_type() -> list[str]:
    """Return the blocks of the README that a newcomer types; whoever adds one tries it here."""
    tried = [each for each in blocks("README.md", "sh") if not each.startswith(tuple(ELSEWHERE))]
    assert len(tried) == 3, tried
    return tried


async def test_a_newcomer_follows_the_readme(folder: Path) -> None:
    path, secret, _ = to_type()
    (python,) = blocks("README.md", "python")
    bench = re.search(r"`(plait bench [^`]*)`", (ROOT / "README.md").read_text())
    assert bench is not None
    async with PlaitProcess(folder) as server:
        (folder / "hello.py").write_text(python.replace(":8000", f":{server.port}"))
        typed(folder, server, ".venv/bin/python hello.py")
        assert "welcome" in typed(folder, server, path)
        listed = json.loads(typed(folder, server, "curl -s http://127.0.0.1:8000/api/docs"))
        assert [each["name"] for each in listed["docs"]] == ["welcome"]
        few = "--seconds 1 --rooms 1 --clients 2 --writers 1"
        typed(folder, server, path, f"{bench[1]} {few}", f"plait health --port {server.port}")
    # The shell that made the secret is the one that starts the server.
    assert len(SERVES.findall(secret)) == 1
    printed = typed(folder, None, path, SERVES.sub("", secret), 'echo "$PLAIT_TOKEN_SECRET"')
    *_, token, chosen = printed.splitlines()
    async with PlaitProcess(folder, "--token-secret", chosen) as server:
        asked = "curl -s -o /dev/null -w %{http_code} http://127.0.0.1:8000/api/docs"
        assert typed(folder, server, asked) == "401"
        assert typed(folder, server, f"{asked} -H 'authorization: Bearer {token}'") == "200"


def test_the_server_of_the_readme_takes_its_options(tmp_path: Path) -> None:
    (line,) = SERVES.findall(to_type()[2])
    options = line.split()[2:]
    given = {
        name.removeprefix("--").replace("-", "_"): value
        for name, value in zip(options[::2], options[1::2], strict=True)
    }
    chosen = settings.load(given, {})
    assert chosen.store == "sqlite:////var/lib/plait/plait.db"
    assert chosen.allow_origin == ("https://app.example.org",)
