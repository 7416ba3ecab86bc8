"""What a caller wants of a document's state: since when, in which form, and whether it has it."""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from urllib.parse import quote

from starlette.requests import Request

from plait.server.errors import BadRequest
from plait.server.openapi import JSON, UPDATE
from plait.server.rest import Call
from plait.server.wire.state_vector import EMPTY as EMPTY_STATE_VECTOR

FILENAME_MAX = 100
"""Characters of a file name that is proposed."""

_NOT_IN_FILENAMES = re.compile(r"[^\w.-]+")


def wanted_state_vector(call: Call) -> bytes:
    """Return the state vector of who asks; that of an empty document if none is given.

    Raises:
        BadRequest: it is not base64. Whether it is a state vector is seen when it is used.
    """
    text = call.query.get("state_vector", "")
    if not text:
        return EMPTY_STATE_VECTOR
    # A + that was not percent-encoded arrives as a space.
    plain = text.replace(" ", "+").replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (Base64Error, ValueError):
        raise BadRequest("state_vector has to be base64 or base64url") from None


def wants_json(call: Call) -> bool:
    """Whether JSON is wanted, by `format` or by `Accept`.

    Raises:
        BadRequest: `format` is something else.
    """
    wanted = call.query.get("format")
    if wanted is not None:
        if wanted not in ("update", "json"):
            raise BadRequest(f"format is update or json, not {wanted!r}")
        return wanted == "json"
    weights = {JSON: 0.0, UPDATE: 0.0}
    for accepted in call.request.headers.get("accept", "").lower().split(","):
        media_type, *parameters = (part.strip() for part in accepted.split(";"))
        weight = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        if media_type in weights and re.fullmatch(r"[01](\.[0-9]*)?", weight):
            weights[media_type] = float(weight)
    return weights[JSON] > weights[UPDATE]


def has(request: Request, etag: str) -> bool:
    """Whether the client has the content that an ETag stands for (RFC 9110, 13.1.2)."""
    given = request.headers.get("if-none-match", "").split(",")
    return any(each.strip().removeprefix("W/") in (etag, "*") for each in given)


def disposition(name: str) -> str:
    """Return the header that proposes a file name; no character of it means anything to a shell or
    a file system.
    """
    cleaned = _NOT_IN_FILENAMES.sub("_", name)[:FILENAME_MAX].strip("._") or "document"
    plain = re.sub(r"[^\x20-\x7e]", "_", cleaned)
    return f"attachment; filename=\"{plain}.yjs\"; filename*=UTF-8''{quote(cleaned)}.yjs"
