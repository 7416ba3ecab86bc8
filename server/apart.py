"""Do heavy or dangerous work on a document in a process of its own, so that it stops nobody and can
be stopped.

pycrdt never lets go of the interpreter: a thread would not help. A helper process can be killed
after a time, takes nothing with it if it crashes, and has a lower priority than the server. Rules:

1. A helper does one call at a time, and stays for `IDLE_SECONDS` after it: starting one takes
   0.15 s. It goes by itself when nothing comes, and when the server is gone.
2. Whatever goes wrong with a helper is an error to the call that it had, and ends it; the next call
   gets another one.
3. There are some for what somebody waits for and others for what can wait, so that a compaction
   that takes minutes keeps nobody from joining. More calls than helpers wait in line.
4. The event loop never touches the bytes, which may be many: a thread of each helper writes, reads
   and pickles them. Large ones travel beside the pickled call, not in it, which saves a copy.

A message is a number of lengths, the lengths, and so many byte strings, the first of them pickled.
"""

import asyncio
import atexit
import io
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from plait.server.errors import DocumentBroken, PlaitError
from plait.server.memory import give_back, raise_stack_limit

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bytes, int)

IDLE_SECONDS = 60.0
"""How long a helper stays without work."""
URGENT, PATIENT = 2, 2
"""Helpers for what somebody waits for, and for what can wait."""
BESIDE_BYTES = 4096
"""Byte strings from here on travel beside the pickled call."""
GROUP_BYTES = 1 << 20
"""Smaller ones are sent together, up to about this much."""
SERVERS_SIGNALS = frozenset((signal.SIGHUP, signal.SIGINT, signal.SIGTERM))
"""They are for the server, also if all processes of a terminal or a service get them: it has to
store what is in helpers, and then ends them. A helper never sees them.
"""
NICENESS = 10
"""Editors come first: the server runs at 0."""

_LENGTH = struct.Struct("!Q")


class _Retired(Exception):
    """Raised when an idle helper was gone before it read the call."""


class _Helper:
    """A process that carries out calls, one after another. Its methods block.

    Args:
        stays: whether it lives until it is ended, however long nothing comes.
    """

    def __init__(self, *, stays: bool = False) -> None:
        self._channel, its_end = socket.socketpair()
        with its_end, _held_back(SERVERS_SIGNALS):
            self._process = subprocess.Popen(
                (sys.executable, "-m", __name__, *(["--stay"] if stays else [])),
                stdin=its_end.fileno(),
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._used = False

    def call(self, message: Sequence[bytes]) -> tuple[Any, PlaitError | None]:
        """Send a call and return the result and the error of it.

        Raises:
            _Retired: it was idle for so long that it had ended.
            DocumentBroken: it crashed, or was killed.
        """
        try:
            _send(self._channel, message)
            answer = _receive(self._channel)
        except (OSError, EOFError):
            code = self._process.wait()
            if code == 0 and self._used:
                raise _Retired from None
            raise DocumentBroken(f"the process for it ended with {code}") from None
        self._used = True
        outcome: tuple[Any, PlaitError | None] = _loads(answer)
        return outcome

    def kill(self) -> None:
        """End it, whatever it does; a call that waits for it is told so."""
        self._process.kill()

    def close(self) -> None:
        """End it and let go of it."""
        self._process.kill()
        self._process.wait()
        self._channel.close()


class _Job:
    """A call on its way through a lane."""

    def __init__(self, begun: Callable[[], None]) -> None:
        self.begun = begun
        self.helper: _Helper | None = None
        self.cancelled = False
        self.lock = threading.Lock()

    def cancel(self) -> None:
        """Have it ended, whether it has begun or not."""
        with self.lock:
            self.cancelled = True
            if self.helper is not None:
                self.helper.kill()


class Helpers:
    """Some helpers that share the work that comes.

    Args:
        number: how many there may be.
    """

    def __init__(self, number: int) -> None:
        self._threads = ThreadPoolExecutor(number, thread_name_prefix="plait-apart")
        self._idle: list[_Helper] = []
        atexit.register(self.close)

    async def run(
        self, function: Callable[P, T], timeout_seconds: float, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call a module's function in another process and return its result.

        Waiting for a free helper does not count towards the time-out.

        Raises:
            PlaitError: what the function raised.
            DocumentBroken: the process crashed, or did not finish in time and was killed.
        """
        loop = asyncio.get_running_loop()
        begun = asyncio.Event()
        job = _Job(lambda: _tell(loop, begun.set))
        work = loop.run_in_executor(self._threads, self._carry_out, job, function, args, kwargs)
        try:
            started = asyncio.ensure_future(begun.wait())
            try:
                await asyncio.wait((started, work), return_when=asyncio.FIRST_COMPLETED)
            finally:
                started.cancel()
            async with asyncio.timeout(timeout_seconds):
                result, error = await asyncio.shield(work)
        except TimeoutError:
            raise DocumentBroken(f"no result within {timeout_seconds:.0f} s") from None
        finally:
            if not work.done():
                job.cancel()
                # Its outcome interests nobody any more.
                work.add_done_callback(lambda done: done.cancelled() or done.exception())
        if error is not None:
            raise error
        value: T = result
        return value

    def close(self) -> None:
        """End the helpers that are idle."""
        while self._idle:
            self._idle.pop().close()

    def _carry_out(self, job: _Job, *call: Any) -> Any:
        """Carry out a call, in a thread of the lane's."""
        job.begun()
        message = _dumps(call)
        while True:
            helper = self._idle.pop() if self._idle else _Helper()
            with job.lock:
                job.helper = helper
                if job.cancelled:
                    helper.kill()
            try:
                outcome = helper.call(message)
            except _Retired:
                helper.close()
                continue
            except BaseException:
                helper.close()
                raise
            finally:
                with job.lock:
                    job.helper = None
            if job.cancelled:  # It may have been killed after it had answered.
                helper.close()
            else:
                self._idle.append(helper)
            return outcome


class Companion:
    """A helper that belongs to somebody, whose functions may remember things in their module."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="plait-companion")
        self._helper: _Helper | None = None
        self._closed = False

    async def call(
        self, function: Callable[P, T], timeout_seconds: float, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call a module's function there, after what was called before; return its result.

        Raises:
            PlaitError: what the function raised.
            DocumentBroken: the process crashed, did not finish in time, or was ended.
        """
        if self._closed:
            raise DocumentBroken("the process for it was ended")
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._threads, self._carry_out, function, args, kwargs)
        try:
            async with asyncio.timeout(timeout_seconds):
                result, error = await asyncio.shield(work)
        except TimeoutError:
            self.close()
            raise DocumentBroken(f"no result within {timeout_seconds:.0f} s") from None
        finally:
            work.add_done_callback(lambda done: done.cancelled() or done.exception())
        if error is not None:
            raise error
        value: T = result
        return value

    def close(self) -> None:
        """End the process; a call that waits for it is told so."""
        if self._closed:
            return
        self._closed = True
        if self._helper is not None:
            self._helper.kill()
        self._threads.submit(self._clear_away)
        self._threads.shutdown(wait=False)

    def _carry_out(self, *call: Any) -> Any:
        message = _dumps(call)
        if self._helper is None:
            self._helper = _Helper(stays=True)
            if self._closed:
                self._helper.kill()
        try:
            return self._helper.call(message)
        except _Retired:
            raise DocumentBroken("the process for it has ended") from None

    def _clear_away(self) -> None:
        if self._helper is not None:
            self._helper.close()


@contextmanager
def _held_back(signals: Iterable[signal.Signals]) -> Iterator[None]:
    """Keep signals from this thread, and from processes that it starts: for as long as they live,
    since that is inherited.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        pass  # The loop was closed: nobody waits.


_urgent = Helpers(URGENT)
_patient = Helpers(PATIENT)


async def run_apart(
    function: Callable[P, T], timeout_seconds: float, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call a module's function in another process, when its turn has come; see `Helpers.run`."""
    return await _patient.run(function, timeout_seconds, *args, **kwargs)


async def run_apart_now(
    function: Callable[P, T], timeout_seconds: float, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call a module's function in another process, for somebody who waits; see `Helpers.run`."""
    return await _urgent.run(function, timeout_seconds, *args, **kwargs)


# Messages


class _Pickler(pickle.Pickler):
    """Leaves large byte strings out."""

    def __init__(self, file: io.BytesIO, beside: list[bytes]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._beside = beside

    def persistent_id(self, obj: Any) -> int | None:
        if type(obj) is bytes and len(obj) >= BESIDE_BYTES:
            self._beside.append(obj)
            return len(self._beside) - 1
        return None


class _Unpickler(pickle.Unpickler):
    """Puts them back in."""

    def __init__(self, file: io.BytesIO, beside: Sequence[bytes]) -> None:
        super().__init__(file)
        self._beside = beside

    def persistent_load(self, pid: int) -> bytes:
        return self._beside[pid]


def _dumps(value: Any) -> list[bytes]:
    beside: list[bytes] = []
    file = io.BytesIO()
    _Pickler(file, beside).dump(value)
    return [file.getvalue(), *beside]


def _loads(message: Sequence[bytes]) -> Any:
    return _Unpickler(io.BytesIO(message[0]), message[1:]).load()


def _send(channel: socket.socket, message: Sequence[bytes]) -> None:
    header = b"".join(map(_LENGTH.pack, (len(message), *map(len, message))))
    channel.sendall(header)
    # In few calls: each lets go of the interpreter, and a thread that does so all the time, for
    # moments, keeps the event loop's thread from getting hold of it.
    for parts in _grouped(message):
        channel.sendall(parts[0] if len(parts) == 1 else b"".join(parts))


def _receive(channel: socket.socket) -> list[bytes]:
    (count,) = _LENGTH.unpack(_receive_exactly(channel, _LENGTH.size))
    lengths = _receive_exactly(channel, count * _LENGTH.size)
    message: list[bytes] = []
    for group in _grouped([length for (length,) in _LENGTH.iter_unpack(lengths)]):
        received = _receive_exactly(channel, sum(group))
        if len(group) == 1:
            message.append(received)
            continue
        position = 0
        for length in group:
            message.append(received[position : position + length])
            position += length
    return message


def _receive_exactly(channel: socket.socket, length: int) -> bytes:
    parts = []
    while length:
        part = channel.recv(length, socket.MSG_WAITALL)
        if not part:
            raise EOFError
        parts.append(part)
        length -= len(part)
    return b"".join(parts) if len(parts) != 1 else parts[0]


def _grouped(items: Sequence[S]) -> Iterator[list[S]]:
    """Return byte strings, or lengths of some, in groups of at least `GROUP_BYTES`."""
    group: list[S] = []
    size = 0
    for item in items:
        group.append(item)
        size += item if isinstance(item, int) else len(item)
        if size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


# The helper


def main() -> None:
    """Carry out the calls on standard input until none comes for a while."""
    raise_stack_limit()
    os.nice(NICENESS)
    channel = socket.socket(fileno=sys.stdin.fileno())
    stays = "--stay" in sys.argv
    while select.select((channel,), (), (), None if stays else IDLE_SECONDS)[0]:
        try:
            function, args, kwargs = _loads(_receive(channel))
        except (EOFError, ConnectionError):
            return
        result = error = None
        try:
            result = function(*args, **kwargs)
        except PlaitError as raised:
            error = raised
        try:
            _send(channel, _dumps((result, error)))
        except ConnectionError:
            return  # Whoever asked is gone.
        del function, args, kwargs, result, error
        if not stays:
            give_back()


if __name__ == "__main__":
    main()
