"""What `setup.py` makes C of, held against the source: what mypyc can't do shows only in a compiled
server otherwise.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("server", "persistence", "web")


def globs() -> list[str]:
    """Return what `setup.py` lists."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "COMPILED":
            listed: tuple[str, ...] = ast.literal_eval(node.value)
            return list(listed)
    raise AssertionError("setup.py has no COMPILED")


def compiled() -> set[Path]:
    """Return the modules that are compiled."""
    found = {path for glob in globs() for path in ROOT.glob(glob)}
    return {path for path in found if path.name != "__init__.py"}


def imported(tree: ast.Module) -> dict[str, Path]:
    """Return the names that a module imports from others of ours, and from which."""
    return {
        alias.asname or alias.name: ROOT.joinpath(*node.module.split(".")[1:]).with_suffix(".py")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("plait.")
        for alias in node.names
        if node.module is not None
    }


@pytest.mark.parametrize("glob", globs())
def test_what_is_compiled_exists(glob: str) -> None:
    assert list(ROOT.glob(glob))


def test_no_class_derives_from_a_compiled_one_without_being_compiled() -> None:
    hot = compiled()
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text())
        origins = imported(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and path not in hot:
                bases = {ast.unparse(base).partition("[")[0] for base in node.bases}
                derived = {base for base in bases if origins.get(base) in hot}
                told = f"compile {path.relative_to(ROOT)}, or {node.name} can't be made"
                assert not derived or "Protocol" in bases, told


def test_a_server_tells_whether_it_is_compiled() -> None:
    place = os.pathsep.join(sys.path)
    told = subprocess.run(
        [sys.executable, "-m", "plait.server", "--version"],
        env=os.environ | {"PYTHONPATH": place},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    asked = "from plait.server import fanout; print(fanout.__file__.endswith('.py'))"
    plain = subprocess.run(
        [sys.executable, "-c", asked],
        env=os.environ | {"PYTHONPATH": place},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert (", compiled" in told) == (plain.strip() == "False")
