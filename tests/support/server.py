"""Run `plait serve` as what it is in production: a process that gets signals and has a log."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.support.deadlines import DEADLINE_SECONDS, eventually

PLAIT = (sys.executable, "-W", "default", "-m", "plait.server")
"""The command, with warnings that Python keeps silent about otherwise."""

ALARMING = re.compile(
    r' (ERROR|CRITICAL) |"level": "(error|critical)"|Traceback \(most recent call last\)'
    r"|\w+(Error|Exception|Warning)\b"
)
"""What a server that is well never writes to standard error."""

_RANDOM = random.SystemRandom()
"""Not seeded by anybody: several processes that test at the same time take different ports."""
PORTS = range(20_000, 32_000)
"""Below those that the kernel gives to clients: while a server is down, one of its own clients that
tries to come back could be given the server's port.
"""


class PlaitProcess:
    """One `plait serve` on a store in a folder. May be started again after it stopped, on the same
    port and store.

    Args:
        folder: where the store and the log are.
        options: further ones of `plait serve`, which may override those set here.
        store: of another process, to share it: its file, or its URL.
        secure: whether it speaks TLS, as the options have to say.
    """

    def __init__(
        self, folder: Path, *options: str, store: Path | str | None = None, secure: bool = False
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        at = f"{'s' if secure else ''}://127.0.0.1:{self.port}"
        self.url, self.ws_url = "http" + at, "ws" + at
        self.store_path = store if isinstance(store, Path) else folder / "plait.db"
        self.store_url = store if isinstance(store, str) else f"sqlite:///{self.store_path}"
        self._options = options
        self._out = folder / "stdout"
        self._err = folder / "stderr"
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.running:
            await self.kill()

    @property
    def running(self) -> bool:
        """Whether it was started, and neither stopped nor killed since."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The process's id, while it runs."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def stderr(self) -> str:
        """What all its runs wrote to standard error."""
        return self._err.read_text() if self._err.exists() else ""

    @property
    def stdout(self) -> str:
        """What its last run wrote to standard output."""
        return self._out.read_text()

    @property
    def alarming(self) -> list[str]:
        """The lines of standard error that a server that is well does not write."""
        return [line for line in self.stderr.splitlines() if ALARMING.search(line)]

    async def start(self) -> None:
        """Start it, and wait until it says that it serves."""
        assert self._process is None, "the server runs already"
        self._process = self._launch()
        await eventually(self._announced, f"the start of {self.url}")

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to stop; it has to end well and without an alarming word in its log."""
        code = await self.end(number)
        assert code == 0, f"the server ended with {code}:\n{self.stderr}"
        assert not self.alarming, "\n".join(self.alarming)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; return its exit code."""
        assert self._process is not None, "the server is not running"
        self._process.send_signal(number)
        return await self._ended()

    async def kill(self) -> None:
        """Kill it with SIGKILL."""
        assert self._process is not None, "the server is not running"
        self._process.kill()
        await self._ended()

    def rss_bytes(self) -> int:
        """Return the memory that it takes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    def _launch(self) -> subprocess.Popen[bytes]:
        options = ["--port", str(self.port), "--store", self.store_url, *self._options]
        with self._out.open("wb") as out, self._err.open("ab") as err:
            return subprocess.Popen(
                [*PLAIT, "serve", *options],
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def _announced(self) -> bool:
        assert self._process is not None
        code = self._process.poll()
        if code is not None:
            self._process = None
            raise AssertionError(f"the server ended with {code} at its start:\n{self.stderr}")
        said = self.stdout
        if said.startswith("{") and said.endswith("\n"):  # --log-format json
            said = json.loads(said)["message"] + "\n"
        return said == f"Plait serves {self.url}\n"

    async def _ended(self) -> int:
        process, self._process = self._process, None
        assert process is not None
        await eventually(lambda: process.poll() is not None, f"the end of {self.url}")
        return process.returncode


def environment(**changes: str) -> dict[str, str]:
    """Return this process's environment without settings of Plait, and with changes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PLAIT_")}
    return kept | changes


def free_port() -> int:
    """Return a port on which nothing listens."""
    while True:
        port = _RANDOM.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def refused(*options: str, **variables: str) -> str:
    """Run `plait serve` with options that can't be used; return the line that says why."""
    done = subprocess.run(
        [*PLAIT, "serve", "--port", "0", *options],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line
