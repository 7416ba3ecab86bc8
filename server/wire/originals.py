"""Keep the bytes of values that pycrdt writes differently than it reads them.

pycrdt turns a BigInt into a number (which makes a JavaScript client's `1n` a `1`, of another type),
a negative zero into zero, and the options of a subdocument into all of its own. What it encodes, a
state for a client that joins or a snapshot, gets the original bytes put back in here. Which updates
need it, `Shape.lossless` tells.
"""

from collections.abc import Mapping

from plait.server.wire.lib0 import read_var_uint
from plait.server.wire.structs import read_structs, replace_parts
from plait.server.wire.update import ANY, DOC, Id
from plait.server.wire.values import value_end

Originals = dict[Id, bytes]
"""Bytes of values, by the client and the clock that each has for itself in every encoding."""


def collect(update: bytes) -> Originals:
    """Return the bytes of all values in an update that pycrdt would write differently.

    For a subdocument these are its guid and its options.
    """
    originals: Originals = {}
    for struct in read_structs(update):
        if struct.kind == ANY:
            count, position = read_var_uint(update, struct.content)
            for clock in range(struct.clock, struct.clock + count):
                start = position
                position, lossless = value_end(update, start)
                if not lossless:
                    originals[struct.client, clock] = update[start:position]
        elif struct.kind == DOC:
            originals[struct.client, struct.clock] = update[struct.content : struct.end]
    return originals


def put_back(encoded: bytes, originals: Mapping[Id, bytes]) -> bytes:
    """Return an update that pycrdt has encoded, with the original bytes of the values in it.

    Values that it has not, since they were deleted or since it is a diff, are passed over.
    """
    parts = []
    for struct in read_structs(encoded):
        if struct.kind == ANY:
            # pycrdt joins neighbours into one struct of several values; each keeps its clock.
            count, position = read_var_uint(encoded, struct.content)
            for clock in range(struct.clock, struct.clock + count):
                start = position
                position, _ = value_end(encoded, start)
                original = originals.get((struct.client, clock))
                if original is not None:
                    parts.append((start, position, original))
        elif struct.kind == DOC:
            original = originals.get((struct.client, struct.clock))
            if original is not None:
                parts.append((struct.content, struct.end, original))
    return replace_parts(encoded, parts)
