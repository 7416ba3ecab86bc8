"""What a server holds after a random session of real clients is what Yjs makes of the same updates:
live, for who joins later, in an export, and after restarts.

`scripts/sessions` runs thousands, and repeats one.
"""

from collections.abc import Callable

from tests.support.server import PlaitProcess
from tests.support.sessions import run_sessions

SEEDS = 40


async def test_documents_are_what_yjs_makes_of_the_same_updates(
    plait_server: PlaitProcess, rounds: Callable[[int], int]
) -> None:
    problems, happened = await run_sessions(plait_server, range(rounds(SEEDS)))
    assert not problems, "\n".join(problems)
    assert all(happened.values()), f"something did not happen: {happened}"
