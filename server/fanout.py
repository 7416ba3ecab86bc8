"""Hand a turn's updates to many members: the innermost loop of the server.

What it does for each member is a hundred times cheaper than what the kernel does, so it is written
for speed, and looks at nothing but what nearly all have in common: they read what they are sent.
The others are left to the room.
"""

from collections.abc import Sequence

from plait.server.member import Member
from plait.server.outbox import FAST_BYTES_MAX
from plait.server.wire.frames import framed
from plait.server.wire.messages import Codec


def fan_out(
    members: dict[Member, None],
    author: Member | None,
    authors: dict[Member | None, None] | None,
    updates: Sequence[bytes],
    now: float,
    frames: dict[Codec, list[bytes]],
) -> tuple[int, list[tuple[Member, list[bytes]]]]:
    """Send updates to members, encoded once for each dialect.

    Args:
        author, authors: members to leave out.
        frames: what is encoded already, by dialect; completed here.

    Returns:
        How many were sent their one frame, and the others with the frames that they should get.
    """
    encoded: list[bytes] = []
    frame = b""
    codec, short, sent = None, False, 0
    others: list[tuple[Member, list[bytes]]] = []
    for member in members:
        if member is author or (authors is not None and member in authors):
            continue
        if member.codec is not codec:
            codec = member.codec
            if codec not in frames:
                frames[codec] = [codec.sync_update(update) for update in updates]
            encoded = frames[codec]
            short = len(encoded) == 1 and len(encoded[0]) <= FAST_BYTES_MAX
            frame = framed(encoded[0]) if short else b""
        if short and not member.waits_for_state and (fast := member.outbox.fast) is not None:
            fast(frame)
            member.sent_at = now
            sent += 1
        else:
            others.append((member, encoded))
    return sent, others
