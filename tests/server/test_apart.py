"""Work in a process of its own: its result, its errors, its crashes and its time-outs."""

import asyncio
import os
import signal
import time

import pytest

from plait.server.apart import Companion, Helpers, run_apart
from plait.server.errors import DocumentBroken
from plait.server.updates import merge
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


async def test_a_helper_is_used_again_and_another_one_after_a_crash() -> None:
    helpers = Helpers(1)
    first = await helpers.run(os.getpid, 30)
    assert await helpers.run(os.getpid, 30) == first
    with pytest.raises(DocumentBroken):
        await helpers.run(signal.raise_signal, 30, signal.SIGKILL)
    assert await helpers.run(os.getpid, 30) != first
    helpers.close()


async def test_signals_that_all_processes_of_a_terminal_or_a_service_get_are_for_the_server() -> (
    None
):
    helpers = Helpers(1)
    mine = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    blocked = await helpers.run(signal.pthread_sigmask, 30, signal.SIG_BLOCK, ())
    assert set(blocked) == {*mine, signal.SIGHUP, signal.SIGINT, signal.SIGTERM}, "from its start"
    first = await helpers.run(os.getpid, 30)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        os.kill(first, number)
    assert await helpers.run(os.getpid, 30) == first
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mine
    helpers.close()


async def test_one_that_went_when_it_was_idle_is_replaced() -> None:
    helpers = Helpers(1)
    first = await helpers.run(os.getpid, 30)
    helpers._idle[0]._channel.shutdown(1)  # as if the server were gone: it ends by itself
    helpers._idle[0]._process.wait()
    assert await helpers.run(os.getpid, 30) != first
    helpers.close()


async def test_more_calls_than_helpers_wait_and_their_time_does_not_run() -> None:
    helpers = Helpers(1)
    await helpers.run(os.getpid, 30)
    calls = [helpers.run(time.monotonic, 5.0) for _ in range(3)]
    busy = asyncio.create_task(helpers.run(signal.pause, 1.0))
    await asyncio.sleep(0)
    assert len(await asyncio.gather(*calls)) == 3
    with pytest.raises(DocumentBroken):
        await busy
    helpers.close()


async def test_large_byte_strings_come_back_as_they_were() -> None:
    parts = [bytes([number]) * size for number, size in enumerate((0, 10, 5000, 3 << 20, 70_000))]
    assert await run_apart(list, 30, parts) == parts


async def test_a_call_that_is_cancelled_ends_its_helper() -> None:
    helpers = Helpers(1)
    first = await helpers.run(os.getpid, 30)
    call = asyncio.create_task(helpers.run(signal.pause, 30))
    await asyncio.sleep(0)
    call.cancel()
    assert await helpers.run(os.getpid, 30) != first
    helpers.close()


async def test_a_companion_remembers_and_can_be_ended() -> None:
    companion = Companion()
    await companion.call(os.putenv, 30, "PLAIT_TEST", "1")
    pid = await companion.call(os.getpid, 30)
    assert await companion.call(os.getpid, 30) == pid
    waiting = asyncio.create_task(companion.call(signal.pause, 30))
    await asyncio.sleep(0)
    companion.close()
    with pytest.raises(DocumentBroken):
        await waiting
    with pytest.raises(DocumentBroken, match="was ended"):
        await companion.call(os.getpid, 30)
