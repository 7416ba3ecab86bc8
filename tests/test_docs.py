"""Documentation that can't drift: what the code has is described, and what is described exists."""

import re
from pathlib import Path

import pytest

from plait.server import __version__
from plait.server.app import Plait
from plait.server.counters import LIMITS
from plait.server.errors import CloseCode
from plait.server.limits import Limits
from plait.server.settings import NAMES, Settings

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def rows(page: str) -> list[list[str]]:
    """Return the cells of all table rows of a page."""
    return [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in (DOCS / page).read_text().splitlines()
        if line.startswith("| ") and not line.startswith("|---")
    ]


def test_every_setting_is_described_with_its_default() -> None:
    described = {row[0]: row[1] for row in rows("configuration.md") if row[0] != "setting"}
    assert sorted(described) == sorted(NAMES)
    for name, default in described.items():
        value = getattr(Settings(), name)
        value = ", ".join(value) if isinstance(value, tuple) else value
        expected = {"()": "none", "": "none", "False": "false"}.get(
            str(value), f"{value}".removesuffix(".0")
        )
        assert default == expected, name


def test_every_close_code_is_described() -> None:
    described = {(row[0], row[1]) for row in rows("protocol.md") if row[0].isdigit()}
    described = {(code, name) for code, name in described if name.isupper()}
    assert described == {(str(int(code)), code.name) for code in CloseCode}


def test_every_metric_is_described_with_its_type() -> None:
    described = {row[0]: row[1] for row in rows("metrics.md") if row[0].startswith("plait_")}
    metrics = Plait(Settings(relay="redis://127.0.0.1")).metrics
    exported = {
        each.name + ("_total" if each.type == "counter" else ""): each.type
        for each in metrics.collect()
    }
    assert described == exported


def test_every_limit_that_is_counted_is_described() -> None:
    text = (DOCS / "metrics.md").read_text()
    assert [limit for limit in LIMITS if f"`{limit}`" not in text] == []
    assert f"{Limits().document_bytes_max >> 20} MiB" in (DOCS / "protocol.md").read_text()


def test_limits_in_the_protocol_are_those_of_the_code() -> None:
    text = (DOCS / "protocol.md").read_text()
    limits = Limits()
    assert f"{limits.room_name_bytes_max:,} bytes" in text
    assert f"{limits.nested_types_max:,} shared types" in text
    assert f"Up to {limits.pending_bytes_max >> 20} MiB" in text
    assert f"more than {limits.outbox_bytes_high >> 20} MiB unread" in text
    assert f"for {limits.outbox_drain_seconds:.0f} seconds it is closed" in text
    assert f"for {limits.awareness_timeout_seconds:.0f} seconds is removed" in text


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))], ids=str)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_changelog_knows_the_version() -> None:
    assert f"## {__version__} " in (ROOT / "CHANGELOG.md").read_text()
