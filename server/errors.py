"""Every error that reaches a client or an operator, in one hierarchy.

    PlaitError
    ├── ClientError                what the other side sent can't be accepted
    │   ├── MalformedFrame         bytes that are not a WebSocket frame
    │   ├── DecodeError            bytes that are not a message of the dialect
    │   ├── UpdateRefused          bytes that are not an update pycrdt may see
    │   ├── MessageTooBig          a message above the size limit
    │   ├── TextRefused            a text frame where the dialects are binary
    │   ├── LimitReached           something of this client's has reached its limit
    │   │   └── DocumentFull       the document has reached its size; only deletions are accepted
    │   ├── BadRoomName            a room name that is empty, too long or not UTF-8
    │   ├── BadRequest             a REST request that can't be understood
    │   ├── Unauthorized           no token where one is needed, or one that is not valid now
    │   └── NotAllowed             a web page of another origin, or something that needs a right
    ├── DocumentUnknown            there is no document of that name
    ├── DocumentInTheWay           there is one already
    ├── DocumentGone               the document was deleted
    ├── DocumentBroken             pycrdt raised what it must not; the document is rebuilt
    ├── RoomUnavailable            the document can't be loaded now
    │   ├── ServerFull             this node has all the connections or rooms that it may have
    │   └── AuthUnavailable        who knows about tokens can't be asked now
    ├── ServerStopping             the server is draining
    └── ConfigError                a setting that can't be used

The store has a family of its own (`plait.persistence.StoreError`), since it knows nothing of
sockets.

Each class carries what a client is told: a WebSocket close code, an HTTP status and whether trying
again can help. Codes from 4400 to 4499 are final; 1011, 1012, 1013 and 4500 to 4599 pass.
"""

from enum import IntEnum
from typing import ClassVar


class CloseCode(IntEnum):
    """Close codes that Plait sends. Documented in docs/protocol.md, which a test compares."""

    NORMAL = 1000
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    RESTART = 1012
    TRY_AGAIN_LATER = 1013
    MALFORMED = 4400
    UNAUTHORIZED = 4401
    NOT_ALLOWED = 4403
    GONE = 4404
    UPDATE_REFUSED = 4422
    LIMIT_REACHED = 4429


class PlaitError(Exception):
    """The base of all errors; what it says is safe to show to the other side."""

    close_code: ClassVar[CloseCode] = CloseCode.INTERNAL_ERROR
    status: ClassVar[int] = 500
    retry: ClassVar[bool] = True

    def __init__(self, message: str = "", *, limit: str = "") -> None:
        super().__init__(message)
        self.limit = limit
        """The limit that was reached, if it was one: one of `plait.server.counters.LIMITS`."""


class ClientError(PlaitError):
    """Raised when what a client sent can't be accepted; only that client is closed."""

    close_code = CloseCode.MALFORMED
    status = 400
    retry = False


class MalformedFrame(ClientError):
    """Raised when bytes are not a WebSocket frame that a client may send (RFC 6455, 5)."""

    close_code = CloseCode.PROTOCOL_ERROR


class DecodeError(ClientError):
    """Raised when bytes are not a message: truncated, trailing, unknown or out of range."""


class UpdateRefused(ClientError):
    """Raised when an update must not reach pycrdt: malformed, or known to crash or hang it.

    Args:
        genuine: whether an unmodified client may have sent it, whose socket then stays open.
        broke: whether it made pycrdt fail, so that a document has to be loaded anew.
    """

    close_code = CloseCode.UPDATE_REFUSED
    status = 422

    def __init__(self, message: str = "", *, genuine: bool = False, broke: bool = False) -> None:
        super().__init__(message)
        self.genuine = genuine
        self.broke = broke


class MessageTooBig(ClientError):
    """Raised when a message is larger than `Limits.message_bytes_max`."""

    close_code = CloseCode.TOO_BIG
    status = 413

    def __init__(self, message: str = "", *, limit: str = "message_mb") -> None:
        super().__init__(message, limit=limit)


class TextRefused(ClientError):
    """Raised when a client sends a text frame; every dialect is binary."""

    close_code = CloseCode.UNSUPPORTED_DATA


class LimitReached(ClientError):
    """Raised when a client or its document has reached a limit."""

    close_code = CloseCode.LIMIT_REACHED
    status = 429


class DocumentFull(LimitReached):
    """Raised when an update would make a document larger than `Limits.document_bytes_max`.

    A socket stays open: it is told, reads on, and may delete. See `plait.server.room`.
    """

    status = 413


class BadRoomName(ClientError):
    """Raised when a room name is empty, too long, or not valid UTF-8."""


class BadRequest(ClientError):
    """Raised when a REST request can't be understood."""


class Unauthorized(ClientError):
    """Raised when a token is missing where one is needed, or is not, or no more, valid."""

    close_code = CloseCode.UNAUTHORIZED
    status = 401


class NotAllowed(ClientError):
    """Raised when a page of another origin, or somebody without the right, asks for something."""

    close_code = CloseCode.NOT_ALLOWED
    status = 403


class DocumentUnknown(PlaitError):
    """Raised when REST asks for a document that does not exist; sockets create theirs."""

    close_code = CloseCode.GONE
    status = 404
    retry = False


class DocumentInTheWay(PlaitError):
    """Raised when a document is to be created under a name that is in use."""

    close_code = CloseCode.NOT_ALLOWED
    status = 409
    retry = False


class DocumentGone(PlaitError):
    """Raised when a deleted document is opened; restoring it is an operator's decision."""

    close_code = CloseCode.GONE
    status = 410
    retry = False


class DocumentBroken(PlaitError):
    """Raised when pycrdt failed in the middle of a change; the document has to be rebuilt."""


class RoomUnavailable(PlaitError):
    """Raised when a document can't be loaded now: the store is away, or there is no room for it."""

    close_code = CloseCode.TRY_AGAIN_LATER
    status = 503


class ServerFull(RoomUnavailable):
    """Raised when this node has as many connections or rooms as it may; others may have places."""


class AuthUnavailable(RoomUnavailable):
    """Raised when a token can't be verified now, since who knows about it does not answer."""


class ServerStopping(PlaitError):
    """Raised when the server is draining; another node, or the next start, will serve."""

    close_code = CloseCode.RESTART
    status = 503


class ConfigError(PlaitError):
    """Raised when a setting can't be used; the command line prints it and exits with 2."""

    retry = False
