"""Serve Yjs rooms: the wire, documents, rooms, sockets, REST and the command line."""

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

__version__ = "0.1.0"

COMPILED = any(Path(__file__).with_name(f"fanout{end}").exists() for end in EXTENSION_SUFFIXES)
"""Whether the hot path runs as C, not as Python: see `setup.py` of the repository."""
