"""Run a command on a terminal of its own: a pseudo-terminal, whose keys are typed by a test."""

import fcntl
import os
import pty
import signal
import subprocess
import termios
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.deadlines import DEADLINE_SECONDS, eventually

INTERRUPT = "\x03"
END_OF_FILE = "\x04"

_READ = {"0", "63"}
"""The number of the system call, on x86-64 and on arm64."""


class Keyboard:
    """A command on a terminal, and who sits at it. What it says is in `shown`."""

    def __init__(self, command: Sequence[str], folder: Path, env: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        os.set_blocking(self._ours, False)
        self.shown = ""
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            # The terminal sends Ctrl-C to those whose terminal it is.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(DEADLINE_SECONDS)
        os.close(self._ours)

    async def waits(self) -> None:
        """Wait until the command waits for what is typed."""
        await eventually(self._reads, "a command that reads its terminal")

    def type(self, keys: str) -> None:
        """Type."""
        os.write(self._ours, keys.encode())

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command."""
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait until the command ends; return its exit code."""
        await eventually(lambda: self._look() is not None, "the end of the command")
        assert self._process.returncode is not None
        return self._process.returncode

    def _reads(self) -> bool:
        code = self._look()
        assert code is None, f"it ended with {code}: {self.shown}"
        number, *arguments = Path(f"/proc/{self._process.pid}/syscall").read_text().split()
        return number in _READ and arguments[0] == "0x0"

    def _look(self) -> int | None:
        """Take what is on the terminal; return the exit code if the command has ended."""
        code = self._process.poll()
        try:
            while found := os.read(self._ours, 65536):
                self.shown += found.decode()
        except (BlockingIOError, OSError):
            pass  # nothing more; the latter once nobody has the other end
        return code
