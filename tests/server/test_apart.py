"""Work in a process of its own: its result, its errors, its crashes and its time-outs."""

import signal

import pytest

from plait.server.apart import run_apart
from plait.server.document import merge
from plait.server.errors import DocumentBroken
from plait.server.wire.update import inspect
from tests.support.authors import Author, text_of


async def test_a_result_comes_back() -> None:
    author = Author(1)
    updates = [author.type(word) for word in "abc"]
    assert text_of(await run_apart(merge, 30, updates)) == "abc"


async def test_an_error_comes_back_as_itself() -> None:
    from plait.server.errors import UpdateRefused

    with pytest.raises(UpdateRefused, match="ends too early"):
        await run_apart(inspect, 30, b"")


async def test_a_crash_is_an_error_and_takes_nobody_along() -> None:
    with pytest.raises(DocumentBroken, match="ended with -9"):
        await run_apart(signal.raise_signal, 30, signal.SIGKILL)


async def test_what_takes_too_long_is_killed() -> None:
    with pytest.raises(DocumentBroken, match="no result within"):
        await run_apart(signal.pause, 0.5)
