"""What `pyproject.toml` can't say: with `COMPILE_PLAIT=1` the wheel has the hot path as C.

mypyc makes an extension of each module below; the same source, a tenth to a quarter less time for
each edit. Without that, and where there is no compiler, the same modules run as Python. See
ARCHITECTURE.md, "Compiled".
"""

import os
import sys
from pathlib import Path

from setuptools import setup

COMPILED = (
    "persistence/unsaved.py",
    "server/wire/*.py",
    "server/attendance.py",
    "server/awareness.py",
    "server/borrowed.py",
    "server/counters.py",
    "server/answers.py",
    "server/intake.py",
    "server/capacity.py",
    "server/changes.py",
    "server/cluster.py",
    "server/connection.py",
    "server/direct.py",
    "server/document.py",
    "server/endpoint.py",
    "server/fanout.py",
    "server/framed.py",
    "server/handover.py",
    "server/heads.py",
    "server/holding.py",
    "server/leases.py",
    "server/lines.py",
    "server/link.py",
    "server/member.py",
    "server/outbox.py",
    "server/quota.py",
    "server/redis_wire.py",
    "server/refusal.py",
    "server/remote.py",
    "server/room.py",
    "server/saving.py",
    "server/session.py",
    "server/tempo.py",
    "server/turns.py",
)
"""What each edit runs through, and what reads updates. A frozen dataclass that goes to another
process is not among them: compiled ones can't be unpickled.
"""

MYPY = "mypy==2.4.1"
"""It writes the C, so another version is another program."""

extensions = []
wanted = os.environ.get("COMPILE_PLAIT", "") not in ("", "0")
if wanted and "bdist_wheel" in sys.argv:  # pip asks first what that needs.
    from mypyc.build import mypycify

    # The modules are called `plait.…`: show mypy the namespace as folders.
    names = Path("build/names/plait")
    names.mkdir(parents=True, exist_ok=True)
    for folder in ("server", "persistence", "web"):
        link = names / folder
        link.unlink(missing_ok=True)
        link.symlink_to(Path("../../..") / folder)
    os.environ["MYPYPATH"] = str(names.parent)
    sources = [names / path for glob in COMPILED for path in sorted(Path().glob(glob))]
    extensions = mypycify(
        [
            "--config-file=",
            "--cache-dir=build/names/cache",
            "--explicit-package-bases",
            "--ignore-missing-imports",
            *(str(path) for path in sources if path.name != "__init__.py"),
        ],
        opt_level="1",
        debug_level="0",
    )

setup(ext_modules=extensions, setup_requires=[MYPY] if wanted else [])
