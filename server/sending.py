"""Write to the kernel past the transport, where that comes to the same.

A transport looks at much before it writes, and then calls write(2), which looks at more than
send(2) does: together a tenth of what it costs to tell one member of an edit. So short frames for a
client whose transport holds nothing back are sent by a Python socket of the same descriptor.

A descriptor that is closed may be somebody else's a moment later. So that socket never closes it,
and is good for nothing from `detach` on, which is due when the transport tells `connection_lost`:
both loops close the descriptor right after that, and nowhere else while they run.
"""

import asyncio
from socket import SocketType
from typing import Final

_PLAIN: Final = {
    ("uvloop.loop", "TCPTransport"),
    ("asyncio.selector_events", "_SelectorSocketTransport"),
}
"""Transports that write to the kernel what they are given. Not those that encrypt it."""


class BorrowedSocket(SocketType):
    """A socket whose descriptor is another's. Not compiled, since it derives from C."""

    __slots__ = ()

    def __del__(self) -> None:
        self.detach()  # or the descriptor is closed


def borrowed_socket(transport: asyncio.Transport) -> BorrowedSocket | None:
    """Return a socket that sends what a transport would write while that holds nothing back; None
    if there can be none.
    """
    kind = type(transport)
    if (kind.__module__, kind.__qualname__) not in _PLAIN:
        return None
    lender = transport.get_extra_info("socket")
    if lender is None:
        return None
    borrowed = BorrowedSocket(lender.family, lender.type, lender.proto, lender.fileno())
    borrowed.setblocking(False)
    return borrowed
