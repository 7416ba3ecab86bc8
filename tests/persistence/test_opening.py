"""URLs of stores, and what the package exports."""

import subprocess
import sys
from pathlib import Path

import pytest

import plait.persistence
from plait.persistence import StoreError, open_store
from plait.persistence.memory import MemoryStore
from plait.persistence.sqlite import SqliteStore


def test_memory() -> None:
    store = open_store("memory://")
    assert isinstance(store, MemoryStore)
    assert store.url == "memory://"


@pytest.mark.parametrize(
    ("url", "path"),
    [("sqlite:///plait.db", "plait.db"), ("sqlite:////var/lib/plait.db", "/var/lib/plait.db")],
)
def test_sqlite_paths_are_relative_with_three_slashes_and_absolute_with_four(
    url: str, path: str
) -> None:
    store = open_store(url)
    assert isinstance(store, SqliteStore)
    assert store.path == Path(path)
    assert store.url == url


@pytest.mark.parametrize(
    "url", ["mysql://u:secret@host/db", "plait.db", "sqlite://", "sqlite:///", ""]
)
def test_other_urls_are_refused_with_the_supported_ones_and_without_secrets(url: str) -> None:
    with pytest.raises(StoreError, match="sqlite:////absolute/path.db") as refused:
        open_store(url)
    assert "secret" not in str(refused.value)


def test_a_back_end_is_imported_only_when_asked_for() -> None:
    program = (
        "import sys, plait.persistence as p; p.open_store('memory://')\n"
        "assert 'aiosqlite' not in sys.modules and 'sqlite3' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_everything_exported_is_there() -> None:
    names = plait.persistence.__all__
    constants_first = sorted(set(names), key=lambda name: (not name.isupper(), name))
    assert list(names) == constants_first
    for name in names:
        assert getattr(plait.persistence, name) is not None
