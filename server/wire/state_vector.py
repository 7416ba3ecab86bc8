"""Read and write state vectors: how much of each client's work a document has.

Defined by yjs `src/utils/encoding.js` (`readStateVector`, `writeStateVector`):

    var_uint entries, then for each: var_uint client, var_uint clock

A clock is the number of the first struct that is not known, so it can be compared with the end of a
run.
"""

from collections.abc import Mapping
from typing import Final

from plait.server.errors import DecodeError
from plait.server.wire.lib0 import Reader, write_var_uint

CLOCK_MAX: Final = (1 << 32) - 1
"""pycrdt counts clocks with 32 bits, and refuses a state vector that goes beyond."""

EMPTY: Final = b"\x00"
"""The state vector of an empty document."""


def decode_state_vector(data: bytes) -> dict[int, int]:
    """Return the clock of each client.

    Raises:
        DecodeError: the bytes are not a state vector.
    """
    reader = Reader(data)
    clocks: dict[int, int] = {}
    for _ in range(reader.var_uint()):
        client, clock = reader.var_uint(), reader.var_uint()
        if clock > CLOCK_MAX:
            raise DecodeError(f"A state vector has the clock {clock}, which no document reaches.")
        clocks[client] = clock
    reader.end()
    return clocks


def encode_state_vector(clocks: Mapping[int, int]) -> bytes:
    """Return the state vector with these clocks, highest client first, as Yjs writes it."""
    parts = [write_var_uint(len(clocks))]
    for client in sorted(clocks, reverse=True):
        parts += write_var_uint(client), write_var_uint(clocks[client])
    return b"".join(parts)
