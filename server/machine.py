"""What a load generator asks of the machine that it runs on."""

import contextlib
import gc
import resource
from collections.abc import Iterator
from pathlib import Path

from plait.server.target import LoadFailed

FILES_SPARE = 64
"""Descriptors that this process needs besides one for each connection."""
_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


@contextlib.contextmanager
def quiet_collector() -> Iterator[None]:
    """Keep Python's cycle collector away: with ten thousand editors a pass takes so long that it
    would be taken for latency of the server.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def require_descriptors(connections: int) -> None:
    """Raise the limit of open files to what is needed.

    Raises:
        LoadFailed: it may not be raised so far.
    """
    needed = connections + FILES_SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    with contextlib.suppress(OSError, ValueError):
        # Up to the hard limit anybody may; beyond it only root, and not in every container.
        most = hard if hard == resource.RLIM_INFINITY else max(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    raise LoadFailed(
        f"{connections:,} connections need {needed:,} file descriptors, and this process may have"
        f" {hard:,}: raise the limit (ulimit -Hn), or take fewer editors"
    )


def require_ports(connections: int) -> None:
    """Check that there are enough ports to connect from.

    Raises:
        LoadFailed: there are not.
    """
    try:
        low, high = map(int, _PORT_RANGE.read_text().split())
    except (OSError, ValueError):
        return
    if connections > high - low:
        raise LoadFailed(
            f"{connections:,} connections need as many source ports, and this machine has"
            f" {high - low:,} for one server: widen net.ipv4.ip_local_port_range, or run from"
            " several machines"
        )
