"""The message that nodes exchange over the relay.

    byte version, 8 bytes node, byte kind, 8 bytes seq (big endian), var_uint unsaved,
    var_string room, payload

`seq` counts what a node has said in a room (UPDATE, PRESENCE, LOOK; the others only tell the
count), so that whoever lost something notices. `saved` is the last of these whose updates, and
those of all before it, are in the store; told is how many came after it. Payloads:

    UPDATE    var_uint count, then for each: var_string author, var_bytes update
    PRESENCE  an awareness update (y-protocols `awareness.js`)
    LOOK      nothing: what is new is in the store
    SAVED     nothing: said for the sake of `saved`
    HELLO     byte (1: wants, 2: fresh), var_bytes state vector, var_bytes awareness update
    DIFF      byte stored, var_bytes update, var_bytes awareness update
    CORRECT   an awareness update with removals that the node does not know of
    LEAVE     nothing: the node has closed the room
    DELETED   nothing: the document was deleted
    BEAT      nothing; `seq` is the number of rooms
    BYE       nothing
    NOTICE    nothing: there is something new about keys or rights in the store

What is sent is *sealed*: 16 bytes of BLAKE2b over the message, keyed with what the nodes of one
store have from there. Whoever can publish on the relay and has not got the store can't make up a
message. (What was once said can be said again, to no other effect than in the beginning.)
"""

from collections.abc import Sequence
from enum import IntEnum
from hashlib import blake2b
from hmac import compare_digest
from typing import Final, NamedTuple

from plait.server.errors import DecodeError
from plait.server.wire.lib0 import (
    Reader,
    UintTooLong,
    read_var_uint,
    var_bytes,
    var_string,
    write_var_uint,
)

VERSION: Final = 2
NODE_BYTES: Final = 8
SEAL_BYTES: Final = 16
_SEQ: Final = 2 + NODE_BYTES
_UNSAVED: Final = _SEQ + 8
_VERSION = bytes((VERSION,))
UPDATES_MAX: Final = 100_000
"""Updates in one message; more are a mistake."""


class Kind(IntEnum):
    """What a message is about."""

    UPDATE = 1
    PRESENCE = 2
    LOOK = 3
    SAVED = 4
    HELLO = 5
    DIFF = 6
    CORRECT = 7
    DELETED = 8
    BEAT = 9
    BYE = 10
    LEAVE = 11
    NOTICE = 12


_KINDS = {int(kind): kind for kind in Kind}
_KIND_BYTES = {kind: bytes((kind,)) for kind in Kind}


class Envelope(NamedTuple):
    """A message of a node."""

    node: bytes
    """The node that sent it: 8 random bytes of each process."""
    kind: Kind
    room: str = ""
    seq: int = 0
    saved: int = 0
    payload: bytes = b""


class Hello(NamedTuple):
    """What a node has of a room, and whether it wants to be answered though it has everything: a
    state vector does not tell of deletions.
    """

    state_vector: bytes
    presence: bytes
    wants: bool
    fresh: bool = False
    """Whether the node has said nothing in the room before."""


class Diff(NamedTuple):
    """What the asker lacked, and everybody who is present at the node that answers."""

    update: bytes
    presence: bytes
    stored: bool = False
    """Whether it is not told here, being large, but to be looked for in the store."""


class NotSealed(DecodeError):
    """Raised when a message is not from a node of this store."""


class OldVersion(DecodeError):
    """Raised when a message is of another version of the protocol, as during an upgrade."""


def encode_envelope(envelope: Envelope) -> bytes:
    """Return the bytes of a message."""
    node, kind, room, seq, saved, payload = envelope
    return b"".join(
        (
            _VERSION,
            node,
            _KIND_BYTES[kind],
            seq.to_bytes(8, "big"),
            write_var_uint(seq - saved),
            var_string(room),
            payload,
        )
    )


def seal(message: bytes, key: bytes) -> bytes:
    """Return a message with the seal of the nodes that have a key, of up to 64 bytes."""
    return message + blake2b(message, key=key, digest_size=SEAL_BYTES).digest()


def unseal(data: bytes, key: bytes) -> bytes:
    """Return the message under a seal.

    Raises:
        OldVersion: another version of the protocol.
        NotSealed: it is not from a node that has the key.
    """
    message, mark = data[:-SEAL_BYTES], data[-SEAL_BYTES:]
    if not compare_digest(blake2b(message, key=key, digest_size=SEAL_BYTES).digest(), mark):
        if data[:1] != _VERSION:
            raise OldVersion(f"A message of version {data[:1].hex()} of the relay's protocol.")
        raise NotSealed("A message that no node of this store has sent.")
    return message


def node_of(data: bytes) -> bytes:
    """Return the node that sent a message, without reading more of it."""
    return data[1 : 1 + NODE_BYTES]


def decode_envelope(data: bytes) -> Envelope:
    """Return the message of these bytes. Busy nodes read thousands a second, so it calls little.

    Raises:
        OldVersion: another version of the protocol.
        DecodeError: not a message.
    """
    try:
        if data[0] != VERSION:
            raise OldVersion(f"A message of version {data[0]} of the relay's protocol.")
        kind = _KINDS.get(data[1 + NODE_BYTES])
        if kind is None:
            raise DecodeError(f"There is no message of kind {data[1 + NODE_BYTES]}.")
        seq = int.from_bytes(data[_SEQ:_UNSAVED], "big")
        unsaved, position = read_var_uint(data, _UNSAVED)
        length, position = read_var_uint(data, position)
        end = position + length
        if end > len(data):
            raise IndexError
        room = data[position:end].decode()
    except (IndexError, UintTooLong, UnicodeDecodeError) as error:
        raise _unreadable(error) from None
    if unsaved > seq:
        raise DecodeError("The message says that less than nothing is saved.")
    return Envelope(data[1 : _SEQ - 1], kind, room, seq, seq - unsaved, data[end:])


def encode_updates(updates: Sequence[tuple[str, bytes]]) -> bytes:
    """Return the payload of UPDATE for authors and their updates."""
    parts = [write_var_uint(len(updates))]
    for who, update in updates:
        parts += var_string(who) if who else b"\x00", write_var_uint(len(update)), update
    return b"".join(parts)


def decode_updates(payload: bytes) -> Sequence[tuple[str, bytes]]:
    """Return authors and their updates.

    Raises:
        DecodeError: not the payload of UPDATE.
    """
    updates = []
    try:
        count, position = read_var_uint(payload, 0)
        if count > UPDATES_MAX:
            raise DecodeError(f"{count} updates in one message; {UPDATES_MAX} are allowed.")
        for _ in range(count):
            length, start = read_var_uint(payload, position)
            position = start + length
            if position > len(payload):
                raise IndexError
            who = payload[start:position].decode() if length else ""
            length, start = read_var_uint(payload, position)
            position = start + length
            updates.append((who, payload[start:position]))
        if position > len(payload):
            raise IndexError
    except (IndexError, UintTooLong, UnicodeDecodeError) as error:
        raise _unreadable(error) from None
    if position < len(payload):
        raise DecodeError(f"The message has {len(payload) - position} bytes too many.")
    return updates


def _unreadable(error: Exception) -> DecodeError:
    match error:
        case IndexError():
            return DecodeError("The message ends too early.")
        case UnicodeDecodeError():
            return DecodeError("A string is not valid UTF-8.")
        case _:
            return DecodeError(str(error))


def encode_hello(hello: Hello) -> bytes:
    """Return the payload of HELLO."""
    return (
        bytes((hello.wants + 2 * hello.fresh,))
        + var_bytes(hello.state_vector)
        + var_bytes(hello.presence)
    )


def decode_hello(payload: bytes) -> Hello:
    """Return what a HELLO says.

    Raises:
        DecodeError: not the payload of HELLO.
    """
    reader = Reader(payload)
    flags = reader.var_uint()
    state_vector, presence = reader.var_bytes(), reader.var_bytes()
    reader.end()
    return Hello(state_vector, presence, bool(flags & 1), bool(flags & 2))


def encode_diff(diff: Diff) -> bytes:
    """Return the payload of DIFF."""
    return bytes((diff.stored,)) + var_bytes(diff.update) + var_bytes(diff.presence)


def decode_diff(payload: bytes) -> Diff:
    """Return what a DIFF brings.

    Raises:
        DecodeError: not the payload of DIFF.
    """
    reader = Reader(payload)
    stored = reader.var_uint()
    diff = Diff(reader.var_bytes(), reader.var_bytes(), bool(stored))
    reader.end()
    return diff
