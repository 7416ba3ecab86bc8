"""One socket's visit: its place among the node's connections, its right on a document, and how a
new token takes the place of the old one.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from plait.server.admission import Ticket
from plait.server.auth.guard import Pass
from plait.server.connection import Connection
from plait.server.errors import PlaitError, Unauthorized
from plait.server.patience import is_offence
from plait.server.quota import Bucket
from plait.server.visits import Visits

log = logging.getLogger(__name__)

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]

BUSY = "the token before this one is still being verified; send it again"


class Visit:
    """What a socket holds from its handshake to its end; implements `pump.Visit`.

    Args:
        spawn: runs a coroutine as a task that somebody owns.
        visits: told who comes and goes, if anybody wants to know.
        on_offence: called if the socket is closed for what the client sent.
    """

    __slots__ = ("_on_offence", "_pass", "_renewal", "_spawn", "_ticket", "_visits")

    def __init__(
        self,
        ticket: Ticket,
        held: Pass,
        spawn: Spawn,
        visits: Visits | None = None,
        on_offence: Callable[[], None] = lambda: None,
    ) -> None:
        self._ticket = ticket
        self._pass = held
        self._on_offence = on_offence
        self._spawn = spawn
        self._renewal: asyncio.Task[None] | None = None
        self._visits = visits

    @property
    def who(self) -> str:
        """The subject that the log has beside updates."""
        return self._pass.who

    @property
    def may_write(self) -> bool:
        """Whether edits are accepted."""
        return self._pass.may_write

    @property
    def source(self) -> str:
        """With whom it takes turns when it sends much: those of its subject, or of its address."""
        return self._pass.who or self._ticket.source or ""

    @property
    def shared(self) -> tuple[Bucket, ...]:
        """What connections of the same subject or address have left together."""
        return self._ticket.shared

    def attach(self, connection: Connection) -> None:
        """Tell the connection from now on what becomes of its right."""
        self._pass.holder = connection
        if self._visits is not None:
            self._visits.connected(self._pass.document, self.who)
        if not self._pass.access:  # It ended while the room was opened.
            connection.close(Unauthorized("the right to read this document has ended"))

    def closed(self, error: PlaitError) -> None:
        """Remember it if the socket is closed for what the client sent."""
        if is_offence(error):
            self._on_offence()

    def renew(self, connection: Connection, token: str) -> None:
        """Verify another token, one at a time, and tell the connection what came of it."""
        if self._renewal is not None:
            connection.deny(BUSY)
            return
        self._renewal = self._spawn(self._renew(connection, token))

    async def _renew(self, connection: Connection, token: str) -> None:
        try:
            await self._pass.renew(token)
        except PlaitError as error:
            connection.deny(str(error))
        except Exception:
            log.exception("a token could not be verified")
            connection.deny("the server failed to verify the token; try again")
        else:
            connection.renewed(self._pass.may_write)
        finally:
            self._renewal = None

    def release(self) -> None:
        """Give back place and right; a second time there is nothing to do."""
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            renewal.cancel()
        if self._visits is not None and self._pass.holder is not None:
            self._visits.disconnected(self._pass.document, self.who)
        self._pass.release()
        self._ticket.release()
