from typing import Any

import pytest

from plait.server.wire.structs import (
    read_deletes,
    read_section,
    read_structs,
    replace_parts,
    sections,
    write_deletes,
)
from tests.wire.recorded import vectors

RECORDED = [pytest.param(vector, id=vector["name"]) for vector in vectors("updates")]


@pytest.mark.parametrize("vector", RECORDED)
def test_finds_the_structs_that_yjs_finds(vector: dict[str, Any]) -> None:
    update = bytes.fromhex(vector["hex"])
    found = [
        {
            "client": struct.client,
            "clock": struct.clock,
            "length": struct.length,
            "kind": struct.kind,
            "origin": struct.origin and list(struct.origin),
            "right_origin": struct.right_origin and list(struct.right_origin),
            "parent": struct.parent and list(struct.parent),
            "root": struct.root and struct.root.decode(),
            "key": None if struct.key is None else struct.key.decode(),
        }
        for struct in read_structs(update)
    ]
    assert found == vector["structs"]


@pytest.mark.parametrize("vector", RECORDED)
def test_the_parts_of_an_update_are_all_there_is(vector: dict[str, Any]) -> None:
    update = bytes.fromhex(vector["hex"])
    found, position = sections(update)
    deletes = read_deletes(update, position)
    assert [[client, [list(each) for each in ranges]] for client, ranges in deletes.items()] == (
        vector["deletes"]
    )
    assert write_deletes(deletes) == update[position:]
    by_section = [struct for section in found for struct in read_section(update, section)]
    assert by_section == list(read_structs(update))
    for before, after in zip(by_section, by_section[1:], strict=False):
        assert before.start < before.content < before.end
        assert before.end == after.start or before.client != after.client


def test_parts_are_replaced_in_order() -> None:
    assert replace_parts(b"0123456789", []) == b"0123456789"
    assert (
        replace_parts(b"0123456789", [(0, 1, b"a"), (3, 5, b""), (9, 10, b"xyz")]) == b"a125678xyz"
    )
