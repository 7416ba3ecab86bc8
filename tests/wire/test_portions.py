"""States in portions, given to real Yjs: the same document as in one update, formats included."""

from itertools import pairwise
from typing import Any

import pycrdt
import pytest

from plait.server.wire.portions import opening, portions
from plait.server.wire.state_vector import decode_state_vector
from tests.support.drivers import Driver

SIZES = (40, 300, 4000)


async def applied(driver: Driver, updates: list[bytes], has: str = "") -> dict[str, Any]:
    """Return what real Yjs makes of updates."""
    found: dict[str, Any] = await driver.ask(
        "apply", updates=[each.hex() for each in updates], has=has
    )
    return found


async def test_rich_documents_come_whole_and_at_once() -> None:
    async with Driver("portions.mjs") as driver:
        for seed in range(12):
            made = await driver.ask("write", seed=seed, authors=3, edits=120, plain=False)
            state = bytes.fromhex(made["state"])
            expected = await applied(driver, [state])
            for size in SIZES:
                cut = portions(state, size, {}, whole=True)
                found = await applied(driver, [opening(state, size), *cut])
                assert {**found, "vectors": []} == {**expected, "vectors": []}, (seed, size)
                assert set(found["vectors"][:-1]) == {"00"}, "nothing is seen of a part"
                assert max(map(len, cut[:-1]), default=0) < size + 2000


async def test_who_has_a_part_gets_the_rest_at_once() -> None:
    async with Driver("portions.mjs") as driver:
        for seed in range(12):
            made = await driver.ask("write", seed=seed, authors=3, edits=120, plain=False)
            state = bytes.fromhex(made["state"])
            lacks = await driver.ask("lacks", author=seed % 3, state=made["state"])
            known = decode_state_vector(bytes.fromhex(lacks["vector"]))
            missing = bytes.fromhex(lacks["missing"])
            expected = await applied(driver, [missing], lacks["has"])
            for size in SIZES:
                for cut in (
                    portions(missing, size, known, whole=False),
                    portions(state, size, known, whole=True),
                ):
                    found = await applied(driver, cut, lacks["has"])
                    assert {**found, "vectors": []} == {**expected, "vectors": []}, (seed, size)
                    assert set(found["vectors"][:-1]) <= {lacks["vector"]}


async def test_of_plain_text_what_has_arrived_counts() -> None:
    async with Driver("portions.mjs") as driver:
        for seed in range(6):
            made = await driver.ask("write", seed=seed, authors=3, edits=120, plain=True)
            state = bytes.fromhex(made["state"])
            cut = portions(state, 300, {}, whole=True)
            found = await applied(driver, cut)
            assert (found["state"], found["pending"]) == (made["state"], False)
            sums = [sum(decode_state_vector(bytes.fromhex(v)).values()) for v in found["vectors"]]
            assert all(before <= after for before, after in pairwise(sums))
            half = len(cut) // 2
            has = await applied(driver, cut[:half])
            known = decode_state_vector(bytes.fromhex(has["vectors"][-1]))
            rest = portions(state, 300, known, whole=True)
            assert sum(map(len, rest)) < sum(map(len, cut[half:])) + 400
            again = await applied(driver, rest, has["state"])
            assert (again["state"], again["pending"]) == (made["state"], False)


@pytest.mark.parametrize("text", ["x" * 50_000, "é😀" * 9_000, "a" + "😀" * 9_000])
@pytest.mark.parametrize("formats", [False, True])
async def test_a_long_text_is_cut_between_characters(text: str, formats: bool) -> None:
    doc = pycrdt.Doc[Any](client_id=9)
    found = doc.get("text", type=pycrdt.Text)
    found.insert(0, text, {"bold": True} if formats else None)
    state = doc.get_update()
    cut = portions(state, 1000, {}, whole=True)
    assert max(map(len, cut)) < 1100
    async with Driver("portions.mjs") as driver:
        assert (await applied(driver, cut))["state"] == (await applied(driver, [state]))["state"]
    other = pycrdt.Doc[Any]()
    for each in cut:
        other.apply_update(each)
    assert other.get_update() == state


def test_what_can_not_be_cut_is_told() -> None:
    skip = bytes.fromhex("010207000a05" + "8407000161" + "00")
    with pytest.raises(ValueError, match="missing"):
        portions(skip, 1, {}, whole=False)


def test_what_yjs_would_change_while_it_waits_is_not_cut() -> None:
    """It keeps updates in another encoding, in which half of a surrogate pair can't be written."""
    doc = pycrdt.Doc[Any](client_id=9)
    doc.get("text", type=pycrdt.Text).insert(0, "x", {"link": "HALF"})
    state = doc.get_update()
    assert portions(state, 1, {}, whole=True)
    with pytest.raises(ValueError, match="half"):
        portions(
            state.replace(b'"HALF"', b'"\\ud83d"').replace(b'\x06"', b'\x08"'), 1, {}, whole=True
        )
