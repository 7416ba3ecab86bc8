"""Fail fast when an editable install points at another checkout."""

from pathlib import Path

import plait.server

ROOT = Path(__file__).resolve().parent.parent
if Path(plait.server.__file__).resolve().parent != ROOT / "server":
    raise RuntimeError(f"plait is imported from {plait.server.__file__}; run pip install -e {ROOT}")
