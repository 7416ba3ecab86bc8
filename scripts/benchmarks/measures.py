"""What the kernel says of a server: the processor time and the memory of its processes."""

import os
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

# Fields of /proc/PID/stat behind the command's name, which may hold anything.
_PARENT, _RSS = 1, 21
_CPU = slice(11, 15)
"""In user and kernel mode, then the same of children that have ended."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its children had taken at a moment."""

    cpu: float
    """Seconds of processor time, of children that have ended too."""
    rss: int
    """Bytes of memory that are in use now. What processes share is counted for each."""


def usage(pid: int) -> Usage:
    """Return what a process and its children take.

    Raises:
        ProcessLookupError: it has ended.
    """
    stats = _stats()
    if pid not in stats:
        raise ProcessLookupError(f"process {pid} has ended")
    children: dict[int, list[int]] = {}
    for each, fields in stats.items():
        children.setdefault(int(fields[_PARENT]), []).append(each)
    cpu = pages = 0
    family = [pid]
    while family:
        each = family.pop()
        family += children.get(each, [])
        cpu += sum(map(int, stats[each][_CPU]))
        pages += int(stats[each][_RSS])
    return Usage(cpu / _TICK, pages * _PAGE)


def _stats() -> dict[int, list[str]]:
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                found[int(folder.name)] = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # It has ended meanwhile.
                continue
    return found
