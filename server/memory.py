"""The process's memory: a stack that hostile documents can't overflow, and a heap that shrinks
again.
"""

import ctypes
import gc
import resource

STACK_BYTES = 120 << 20
"""pycrdt deletes nested types recursively, 258 bytes a level; see `Limits.nested_types_max`.

The kernel keeps at least 128 MB free below the main thread's stack, so it can grow this far without
a new process.
"""

GARBAGE_THRESHOLDS = (20_000, 2, 1_000)
"""Objects made beyond those freed until the youngest are looked at, how often that happens until
the middle ones are, and how often that until all are. Python's own are 700, 10 and 10. The middle
ones are those that came since they were looked at last: 400,000, as came with 10,000 connections,
took about 300 ms, so that 60,000 should take about 45.
"""


def raise_stack_limit() -> None:
    """Let the main thread's stack grow to `STACK_BYTES`. It takes memory only when it is used."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = STACK_BYTES if hard == resource.RLIM_INFINITY else min(STACK_BYTES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))


def settle() -> None:
    """Have the garbage collector look at less: it stops everything while it looks.

    What is there when the server has started stays for good. What comes later is freed by counting
    references, sockets and documents included; the collector is for the rest. With its defaults it
    went through all objects of 10,000 connections again and again, 20 ms each time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


def give_back() -> None:
    """Return freed memory to the system; glibc keeps it (386 MB became 53, in 26 ms)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # musl has none, and needs none
        trim(0)
