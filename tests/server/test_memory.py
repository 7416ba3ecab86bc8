"""The process's memory."""

import resource
import subprocess
import sys

from plait.server.memory import STACK_BYTES, give_back


def test_the_stack_may_grow_and_is_never_made_smaller() -> None:
    script = (
        "import resource; from plait.server.memory import raise_stack_limit;"
        "raise_stack_limit(); print(resource.getrlimit(resource.RLIMIT_STACK)[0])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    soft = int(out.stdout)
    assert soft == resource.RLIM_INFINITY or soft >= STACK_BYTES


def test_memory_can_be_given_back_at_any_time() -> None:
    give_back()
