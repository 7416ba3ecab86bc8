"""Drive JavaScript clients from a test: a process that is given commands and answers them."""

import asyncio
import json
from types import TracebackType
from typing import Any, Self

from tests.support.node import FOLDER, NODE

DEADLINE_SECONDS = 150.0
"""Above what the scripts give themselves, so that they tell what is wrong."""


class Driver:
    """A script of tests/node that reads commands; ends with the `async with`."""

    def __init__(self, script: str) -> None:
        self._script = script
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            NODE,
            self._script,
            cwd=FOLDER,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=64 << 20,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        if error is not None:
            self._process.kill()
        self._process.stdin.close()
        await self._process.wait()
        assert error is not None or self._process.returncode == 0, f"{self._script} failed"

    async def tell(self, command: str, **options: Any) -> "asyncio.Task[Any]":
        """Give a command; the task returns the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"command": command, **options}).encode() + b"\n")
        await self._process.stdin.drain()
        return asyncio.create_task(self._answer(command))

    async def ask(self, command: str, **options: Any) -> Any:
        """Give a command and return the answer."""
        return await (await self.tell(command, **options))

    async def _answer(self, command: str) -> Any:
        assert self._process.stdout is not None
        async with asyncio.timeout(DEADLINE_SECONDS):
            line = await self._process.stdout.readline()
        assert line, f"{self._script} ended instead of answering {command!r}"
        return json.loads(line)
