"""Read and write presence: who is in a room, and what each shows of himself.

Defined by y-protocols `awareness.js` (`encodeAwarenessUpdate`, `applyAwarenessUpdate`):

    var_uint entries, then for each: var_uint client, var_uint clock, var_string JSON of the state,
    `null` when it has left

States are opaque to Plait. They are checked and then handed on byte for byte, never parsed and
written again. y-websocket clients repeat every state that they hear, so a state is checked when it
is to be handed on (`check_state`), and not when a message is read.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from plait.server.errors import DecodeError, LimitReached
from plait.server.wire import strict_json
from plait.server.wire.lib0 import Reader, var_bytes, write_var_uint

STATE_DEPTH_MAX: Final = 64
"""Nesting of a state's JSON. A cursor takes three levels; parsers of peers give up at 100."""

_GONE: Final = b"null"


class Entry(NamedTuple):
    """The presence of one client: its state's JSON as it came, or None when it has left."""

    client: int
    clock: int
    state: bytes | None


def decode_presence(update: bytes, states_max: int) -> list[Entry]:
    """Return the entries of an awareness update, in order; their states are not checked.

    Raises:
        DecodeError: the bytes are not an awareness update.
        LimitReached: it has more than `states_max` entries.
    """
    reader = Reader(update)
    count = reader.var_uint()
    if count > states_max:
        raise LimitReached(
            f"one message may tell of {states_max} clients, not {count}", limit="presence"
        )
    entries = [
        Entry(reader.var_uint(), reader.var_uint(), _state(reader.var_bytes()))
        for _ in range(count)
    ]
    reader.end()
    return entries


def encode_presence(entries: Iterable[Entry]) -> bytes:
    """Return the awareness update that holds these entries."""
    listed = list(entries)
    parts = [write_var_uint(len(listed))]
    for client, clock, state in listed:
        parts += write_var_uint(client), write_var_uint(clock)
        parts.append(var_bytes(_GONE if state is None else state))
    return b"".join(parts)


def check_state(state: bytes, bytes_max: int) -> None:
    """Check that a state can be handed on.

    Raises:
        LimitReached: it is too large, or nested too deeply. A client that means well may show it.
        DecodeError: it is not JSON that JavaScript can parse. No client sends that.
    """
    if len(state) > bytes_max:
        raise LimitReached(
            f"a state may have {bytes_max} bytes, not {len(state)}", limit="presence"
        )
    try:
        text = state.decode()
    except UnicodeDecodeError:
        raise DecodeError("A presence state is not valid UTF-8.") from None
    if strict_json.is_deeper(text, STATE_DEPTH_MAX):
        raise LimitReached(f"a state may be nested {STATE_DEPTH_MAX} levels deep", limit="presence")
    problem = strict_json.javascript_problem(text, STATE_DEPTH_MAX)
    if problem:
        raise DecodeError(f"A presence state can't be used: {problem}.")


def _state(raw: bytes) -> bytes | None:
    # `JSON.parse` of " null " is null as well: a peer would take it for a farewell.
    return None if raw == _GONE or raw.strip() == _GONE else raw
