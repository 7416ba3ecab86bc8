"""The frames of y-websocket, written down once more: a test that used the server's own codec would
not notice what that gets wrong.
"""

from typing import NamedTuple

STEP1, STEP2, UPDATE, AWARENESS, QUERY = "step 1", "step 2", "update", "awareness", "query"
DENIED, PERMISSION = "denied", "permission"

_SYNC = (STEP1, STEP2, UPDATE)
_AUTH = {0: DENIED, 2: PERMISSION}

ASK_ALL = b"\x00\x00\x01\x00"
"""SyncStep1 of one who has nothing."""
NOTHING = b"\x00\x00"
"""The update without content."""
QUERY_AWARENESS = b"\x03"
NOBODY = b"\x00"
"""What awareness of nobody tells."""
KEEPALIVE = b"\x01\x01" + NOBODY
"""Awareness of nobody: a sign of life, and the answer to a question in a room without presence."""

Presence = list[tuple[int, int, str]]
"""(client, clock, JSON of the state), `null` for one who has left."""


class Frame(NamedTuple):
    """A frame that is exactly one message."""

    kind: str
    payload: bytes = b""


def parse(frame: bytes) -> Frame:
    """Return the message of a frame; fails if there is anything behind it."""
    kind, rest = read_uint(frame)
    if kind == 0:
        step, rest = read_uint(rest)
        payload, rest = read_bytes(rest)
        parsed = Frame(_SYNC[step], payload)
    elif kind == 1:
        payload, rest = read_bytes(rest)
        parsed = Frame(AWARENESS, payload)
    elif kind == 2:
        about, rest = read_uint(rest)
        payload, rest = read_bytes(rest)
        parsed = Frame(_AUTH[about], payload)
    else:
        assert kind == 3, f"a message of type {kind}"
        parsed = Frame(QUERY)
    assert not rest, f"{rest!r} follows a whole message in {frame!r}"
    return parsed


def step1(state_vector: bytes) -> bytes:
    """Ask for what is missing beyond a state vector."""
    return b"\x00\x00" + var_bytes(state_vector)


def step2(update: bytes) -> bytes:
    """Answer such a question."""
    return b"\x00\x01" + var_bytes(update)


def update(content: bytes) -> bytes:
    """Tell of a change."""
    return b"\x00\x02" + var_bytes(content)


def authenticate(token: str) -> bytes:
    """Send another token."""
    return b"\x02\x00" + var_bytes(token.encode())


def awareness(*entries: tuple[int, int, str]) -> bytes:
    """Tell of who is here."""
    told = b"".join(
        var_uint(client) + var_uint(clock) + var_bytes(state.encode())
        for client, clock, state in entries
    )
    return b"\x01" + var_bytes(var_uint(len(entries)) + told)


def presence(payload: bytes) -> Presence:
    """Return what an awareness message tells."""
    count, rest = read_uint(payload)
    told = []
    for _ in range(count):
        client, rest = read_uint(rest)
        clock, rest = read_uint(rest)
        state, rest = read_bytes(rest)
        told.append((client, clock, state.decode()))
    assert not rest
    return told


# lib0


def var_uint(number: int) -> bytes:
    """lib0 `writeVarUint`."""
    written = bytearray()
    while number > 127:
        written.append(128 | number & 127)
        number >>= 7
    written.append(number)
    return bytes(written)


def var_bytes(content: bytes) -> bytes:
    """lib0 `writeVarUint8Array`."""
    return var_uint(len(content)) + content


def read_uint(data: bytes) -> tuple[int, bytes]:
    """lib0 `readVarUint`; returns what follows as well."""
    number = shift = 0
    for place, byte in enumerate(data):
        number |= (byte & 127) << shift
        if byte < 128:
            return number, data[place + 1 :]
        shift += 7
    raise AssertionError(f"{data!r} ends in the middle of a number")


def read_bytes(data: bytes) -> tuple[bytes, bytes]:
    """lib0 `readVarUint8Array`; returns what follows as well."""
    length, rest = read_uint(data)
    assert length <= len(rest), f"{data!r} is cut off"
    return rest[:length], rest[length:]
