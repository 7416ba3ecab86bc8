"""Updates that no Yjs client writes, each of which harms pycrdt if it gets there (PYCRDT study)."""

from tests.support.frames import var_bytes, var_uint

CLIENT = 7
"""Who claims to have written them."""

ANY, TYPE = 8, 7
"""Kinds of content, as yjs `src/structs/Item.js` numbers them."""

CLOCK_OVERFLOW = bytes.fromhex("010107ffffffff0f2801016d016b017d0100")
"""Poisons a document: whoever encodes it from then on panics."""

NO_STRUCTS = bytes.fromhex("0100c9cd081b00")
"""A client with nothing from it: panics at once."""


def nested_values(depth: int) -> bytes:
    """Return an update with arrays in arrays; 26,000 of them overflow an ordinary stack."""
    value = b"\x75\x01" * depth + b"\x7e"
    return _update(1, bytes((ANY, 1)) + var_bytes(b"list") + b"\x01" + value)


def nested_types(depth: int, deleted: bool = False) -> bytes:
    """Return an update with shared types in one another; deleting the outermost takes stack too."""
    client = var_uint(CLIENT)
    structs = [bytes((TYPE, 1)) + var_bytes(b"list") + b"\x00"]
    structs += [bytes((TYPE, 0)) + client + var_uint(outer) + b"\x00" for outer in range(depth - 1)]
    deletes = b"\x01" + client + b"\x01\x00\x01" if deleted else b"\x00"
    return _update(depth, b"".join(structs), deletes)


def _update(count: int, structs: bytes, deletes: bytes = b"\x00") -> bytes:
    return b"\x01" + var_uint(count) + var_uint(CLIENT) + b"\x00" + structs + deletes
