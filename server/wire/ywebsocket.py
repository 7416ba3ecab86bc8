"""The dialect of y-websocket: the plain messages, without an address.

Defined by y-websocket `src/y-websocket.js` and by y-protocols `sync.js`, `awareness.js` and
`auth.js`:

    [0][0][var_bytes state vector]   SyncStep1
    [0][1][var_bytes update]         SyncStep2
    [0][2][var_bytes update]         SyncUpdate
    [1][var_bytes presence]          AwarenessUpdate
    [2][0][var_string reason]        permission denied; from a server
    [3]                              QueryAwareness

Two more are Plait's, laid out like those of Hocuspocus (`packages/common/src/auth.ts`), which adds
an address; a client that does not know them ignores them:

    [2][0][var_string token]         Authenticate; from a client
    [2][2][var_string scope]         "read-write" or "readonly"; from a server

A frame holds exactly one message. y-websocket before version 4 reads the first message of a frame
and silently drops the rest, so a server must never send two in one; one that a client sends so is
refused, since it was not meant for us.
"""

from collections.abc import Callable
from typing import Final

from plait.server.errors import DecodeError
from plait.server.wire.lib0 import Reader, var_string, write_var_uint
from plait.server.wire.messages import (
    Authenticate,
    AwarenessUpdate,
    Message,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    SyncUpdate,
)

SYNC: Final = 0
AWARENESS: Final = 1
AUTH: Final = 2
QUERY_AWARENESS: Final = 3

STEP1: Final = 0
STEP2: Final = 1
UPDATE: Final = 2

TOKEN: Final = 0
SCOPE: Final = 2

EMPTY_AWARENESS: Final = b"\x01\x01\x00"
"""A frame with presence of nobody: no change, but it keeps a client from giving up on us."""

_UPDATE_START: Final = bytes((SYNC, UPDATE))
_LENGTH: Final = [bytes([max(size - 3, 0)]) for size in range(131)]
"""The third byte of a frame with an update, by the length of the frame."""


class YWebsocketCodec:
    """Turn y-websocket frames into messages and back: a stateless `messages.Codec`."""

    __slots__ = ()

    def plain_update(self, frame: bytes) -> bytes | None:
        """Return the update of a frame that tells of nothing else, if it is short: up to 127 bytes
        its length is one byte.
        """
        if len(frame) < 131 and frame[:2] == _UPDATE_START and frame[2:3] == _LENGTH[len(frame)]:
            return frame[3:]
        return None

    def decode(self, frame: bytes) -> Message:
        """Return the message of a whole frame.

        Raises:
            DecodeError: the frame is not exactly one message that a client may send.
        """
        reader = Reader(frame)
        message = self.read(reader.var_uint(), reader)
        reader.end()
        return message

    def opening(self, start: bytes, length: int) -> tuple[Callable[[bytes], Message], int]:
        """Return what makes a message of its payload, and where the payload begins, of a long frame
        that begins with some bytes.

        Raises:
            DecodeError: the frame is not exactly one message with so long a payload.
        """
        reader = Reader(start)
        kind = reader.var_uint()
        step = reader.var_uint() if kind == SYNC else 0
        make = _LONG.get((kind, step))
        if make is None:
            raise DecodeError("There is no long message of this type in the y-websocket protocol.")
        size = reader.var_uint()
        if reader.position + size != length:
            raise DecodeError(f"The message has {length} bytes, and says something else.")
        return make, reader.position

    def read(self, kind: int, reader: Reader) -> Message:
        """Return the message of a kind, whose number has been read already.

        A dialect with more kinds of messages takes its own and leaves the others to this method.

        Raises:
            DecodeError: the kind is unknown, or what follows is not of that kind.
        """
        if kind == SYNC:
            return _read_sync(reader)
        if kind == AWARENESS:
            return AwarenessUpdate(reader.var_bytes())
        if kind == QUERY_AWARENESS:
            return QueryAwareness()
        if kind == AUTH:
            return _read_auth(reader)
        raise DecodeError(f"There is no message of type {kind} in the y-websocket protocol.")

    def sync_step1(self, state_vector: bytes) -> bytes:
        """Return a frame that asks for what is missing beyond a state vector."""
        return b"\x00\x00" + write_var_uint(len(state_vector)) + state_vector

    def sync_step2(self, update: bytes) -> bytes:
        """Return a frame that answers a `SyncStep1`."""
        return b"\x00\x01" + write_var_uint(len(update)) + update

    def sync_update(self, update: bytes) -> bytes:
        """Return a frame that tells of a change."""
        return b"\x00\x02" + write_var_uint(len(update)) + update

    def awareness(self, update: bytes) -> bytes:
        """Return a frame that carries presence."""
        return b"\x01" + write_var_uint(len(update)) + update

    def denied(self, reason: str) -> bytes:
        """Return a frame that says why edits, or a token, are not accepted."""
        return auth_denied(reason)

    def permission(self, *, writes: bool) -> bytes:
        """Return a frame that says whether edits are accepted from now on."""
        return _READ_WRITE if writes else _READ_ONLY


_LONG: dict[tuple[int, int], Callable[[bytes], Message]] = {
    (SYNC, STEP1): SyncStep1,
    (SYNC, STEP2): SyncStep2,
    (SYNC, UPDATE): SyncUpdate,
    (AWARENESS, 0): AwarenessUpdate,
}
"""What makes a message of its payload, by type and step; a long one is none of the others."""


def _read_sync(reader: Reader) -> Message:
    step = reader.var_uint()
    if step == UPDATE:
        return SyncUpdate(reader.var_bytes())
    if step == STEP1:
        return SyncStep1(reader.var_bytes())
    if step == STEP2:
        return SyncStep2(reader.var_bytes())
    raise DecodeError(f"There is no sync message of type {step}: 0, 1 and 2 are known.")


def _read_auth(reader: Reader) -> Message:
    kind = reader.var_uint()
    if kind == TOKEN:
        return Authenticate(reader.var_string())
    raise DecodeError(f"There is no auth message of type {kind} for clients to send: 0 is a token.")


def auth_denied(reason: str) -> bytes:
    """Return a frame that says why a client is not let in; y-websocket prints it to the console.

    Defined by y-protocols `auth.js` (`writePermissionDenied`).
    """
    return b"\x02\x00" + var_string(reason)


_READ_WRITE = bytes((AUTH, SCOPE)) + var_string("read-write")
_READ_ONLY = bytes((AUTH, SCOPE)) + var_string("readonly")

YWEBSOCKET = YWebsocketCodec()
"""The one codec that all members of this dialect share, so that a frame is encoded once for all."""
