"""Do heavy or dangerous work on a document in a process of its own, so that it stops nobody and can
be stopped.

pycrdt never lets go of the interpreter: a thread would not help. A process costs about 0.15 s, can
be killed after a time, and takes nothing with it if it crashes. It reads one pickled call from
standard input and writes one pickled outcome.
"""

import asyncio
import pickle
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from plait.server.errors import DocumentBroken, PlaitError
from plait.server.memory import raise_stack_limit

P = ParamSpec("P")
T = TypeVar("T")


async def run_apart(
    function: Callable[P, T], timeout_seconds: float, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call a module's function in a process of its own and return its result.

    Raises:
        PlaitError: what the function raised.
        DocumentBroken: the process crashed, or did not finish in time and was killed.
    """
    call = pickle.dumps((function, args, kwargs))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # Ctrl-C is for the server, which then decides what becomes of this.
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout_seconds):
            output, _ = await process.communicate(call)
    except TimeoutError:
        raise DocumentBroken(f"no result within {timeout_seconds:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise DocumentBroken(f"the process for it ended with {process.returncode}")
    result, error = pickle.loads(output)
    if error is not None:
        raise error
    value: T = result
    return value


def main() -> None:
    """Carry out the call on standard input."""
    raise_stack_limit()
    function, args, kwargs = pickle.loads(sys.stdin.buffer.read())
    result = error = None
    try:
        result = function(*args, **kwargs)
    except PlaitError as raised:
        error = raised
    sys.stdout.buffer.write(pickle.dumps((result, error)))


if __name__ == "__main__":
    main()
