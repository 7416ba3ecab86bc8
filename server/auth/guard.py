"""The one place that decides: who somebody is, what they may do, and for how long.

Sockets and REST ask the same guard. What it lets in on a socket is a `Pass`, which it keeps true
for as long as the socket is open: when a right ends, or is taken away on any node, whoever holds
the pass is told at once.
"""

import heapq
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from math import floor, inf
from typing import Protocol, TypeVar

from starlette.requests import HTTPConnection

from plait.persistence import Record, RecordChanges
from plait.server.audit import Audit
from plait.server.auth.anonymous import local_principal
from plait.server.auth.chain import Verifiers
from plait.server.auth.credentials import Credential, find_credential
from plait.server.auth.keys import FORMAT as KEY_FORMAT
from plait.server.auth.keys import ID as KEY_ID
from plait.server.auth.keys import KIND as KEY
from plait.server.auth.principal import Access, BadGrant, Grant, Principal
from plait.server.auth.revocations import KIND as REVOCATION
from plait.server.auth.revocations import (
    REVOCATIONS_MAX,
    Revocation,
    Revocations,
    parse_revocation,
)
from plait.server.errors import NotAllowed, PlaitError, Unauthorized
from plait.server.pace import Pace

log = logging.getLogger(__name__)

SECONDS_KEPT = 1000
"""Seconds in which nothing ends any more, and which are not cleared away yet."""

K = TypeVar("K", int, str)


class Holder(Protocol):
    """What a pass is for: a connection."""

    def permit(self, may_write: bool) -> None:
        """Let it write from now on, or no more."""

    def close(self, error: PlaitError) -> None:
        """Close it, and say why."""


class Pass:
    """One socket's right on one document. Released when the socket is gone."""

    __slots__ = ("_guard", "access", "changes_at", "document", "holder", "open", "principal")

    def __init__(
        self, guard: "Guard", principal: Principal, document: str, access: Access, now: float
    ) -> None:
        self._guard = guard
        self.principal = principal
        self.document = document
        self.access = access
        self.changes_at = principal.changes_at(document, now)
        self.holder: Holder | None = None
        """Who is told of changes; None as long as the socket is being opened."""
        self.open = True

    @property
    def may_write(self) -> bool:
        """Whether edits are accepted."""
        return self.access >= Access.WRITE

    @property
    def who(self) -> str:
        """What the log has beside updates; empty for those whom no credential names."""
        return self.principal.subject if self.principal.token_id else ""

    async def renew(self, token: str) -> None:
        """Go by another token from now on.

        Raises:
            Unauthorized, NotAllowed, AuthUnavailable: it is no use here; nothing changes.
        """
        await self._guard.renew(self, token)

    def release(self) -> None:
        """Give it back; a second time there is nothing to do."""
        self._guard.forget(self)
        self.holder = None
        self.open = False


class Guard:
    """Decides about every request and socket of a node.

    Args:
        open_to_this_machine: nothing is configured, so that only this machine is served, and
            whoever sits at it may do everything.
        only_keys: nothing verifies tokens but API keys. Anything else that is presented as one
            counts as none: an application may send its own to servers that do not look at it.
        cookie: name of the cookie in which a token may be.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        verifiers: Verifiers,
        audit: Audit,
        wall: Callable[[], float],
        *,
        open_to_this_machine: bool = False,
        only_keys: bool = False,
        cookie: str = "",
    ) -> None:
        self.verifiers = verifiers
        self.audit = audit
        self.revocations = Revocations()
        self.wall = wall
        self._open_to_this_machine = open_to_this_machine
        self._only_keys = only_keys
        self._cookie = cookie
        self._passes: dict[str, dict[Pass, None]] = {}
        """By document."""
        self._by_subject: dict[str, dict[Pass, None]] = {}
        self._ending: dict[int, dict[Pass, None]] = {}
        """Passes by the second in which their right may change."""
        self._seconds: list[int] = []
        """A heap of these seconds."""
        self._deletions = 0
        """How often API keys were deleted."""

    # Who, and what they may

    async def identify(self, connection: HTTPConnection, document: str | None) -> Principal:
        """Return who makes a request or opens a socket.

        Raises:
            BadRequest: it carries a token that can't be one.
            Unauthorized: it carries none where one is needed, or one that is not valid.
            AuthUnavailable: that can't be told now.
        """
        credential = find_credential(connection, self._cookie)
        if self._only_keys and credential is not None and not KEY_FORMAT.match(credential.token):
            credential = None
        if credential is None and self._open_to_this_machine:
            return local_principal(_peer(connection), connection.scope)
        return await self._verified(credential, document)

    async def _verified(self, credential: Credential | None, document: str | None) -> Principal:
        while True:
            deletions = self._deletions
            principal = await self.verifiers.principal(credential, document)
            if deletions == self._deletions:
                break  # Otherwise a key that was looked up may have been deleted meanwhile.
        now = self.wall()
        if now >= principal.until:
            raise Unauthorized("the token has expired; get a new one")
        if self.revocations.ended(principal, now):
            raise Unauthorized("the rights of this token were taken away")
        return principal

    def access(self, principal: Principal, document: str) -> Access:
        """Return what somebody may do with a document now."""
        now = self.wall()
        access = principal.access_to(document, now)
        return min(access, self.revocations.left(principal, document, now))

    def require(self, principal: Principal, document: str, needed: Access) -> Access:
        """Return what somebody may do with a document, which is at least what is needed.

        Raises:
            Unauthorized: it is less, and a token might help.
            NotAllowed: it is less.
        """
        access = self.access(principal, document)
        if access < needed:
            if not principal.token_id:
                raise Unauthorized(
                    f"a token with the right to {_DOING[needed]} this document is needed"
                )
            raise NotAllowed(f"you are not allowed to {_DOING[needed]} this document")
        return access

    def may_grant(self, principal: Principal, grant: Grant, now: float) -> bool:
        """Whether somebody may give a right to others: they have to be admin of all documents in
        question for as long, and nothing of that may have been taken away.
        """
        taken = self.revocations.concern(principal, now, grant.docs)
        return principal.may_grant(grant, now) and not taken

    def administers(self, principal: Principal, docs: str) -> bool:
        """Whether somebody is admin of all documents that match a pattern. What was taken from
        everybody does not matter: it has to be possible to give it back.
        """
        now = self.wall()
        return principal.may_grant(
            Grant(docs, Access.ADMIN, 0), now
        ) and not self.revocations.concern(principal, now, None)

    def is_operator(self, principal: Principal) -> bool:
        """Whether somebody is admin of all documents."""
        return self.administers(principal, "*")

    # Sockets

    def let_in(self, principal: Principal, document: str) -> Pass:
        """Return a pass to a document that somebody may at least read.

        Raises:
            Unauthorized, NotAllowed: they may not.
        """
        access = self.require(principal, document, Access.READ)
        found = Pass(self, principal, document, access, self.wall())
        self._remember(found)
        return found

    async def renew(self, held: Pass, token: str) -> None:
        """Let a pass go by another token; raises like `let_in` and `identify`."""
        principal = await self._verified(Credential(token, "message"), held.document)
        if not held.open:
            return
        if held.principal.subject != principal.subject:
            raise NotAllowed("the token is another subject's; connect again with it")
        self.require(principal, held.document, Access.READ)
        self.audit.note("auth.renewed", subject=principal.subject, document=held.document)
        self._forget_subject(held)
        held.principal = principal
        self._by_subject.setdefault(principal.subject, {})[held] = None
        self._look_at(held)

    def forget(self, held: Pass) -> None:
        """Keep a pass true no more."""
        if _take_out(self._passes, held.document, held):
            self._forget_subject(held)
            self._expect_no_end(held)

    def _forget_subject(self, held: Pass) -> None:
        _take_out(self._by_subject, held.principal.subject, held)

    def _remember(self, held: Pass) -> None:
        self._passes.setdefault(held.document, {})[held] = None
        self._by_subject.setdefault(held.principal.subject, {})[held] = None
        self._expect_end(held)

    def _expect_end(self, held: Pass) -> None:
        if held.changes_at < inf:
            second = floor(held.changes_at)
            if second not in self._ending:
                self._ending[second] = {}
                heapq.heappush(self._seconds, second)
            self._ending[second][held] = None

    def _expect_no_end(self, held: Pass) -> None:
        if held.changes_at < inf and _take_out(self._ending, floor(held.changes_at), held):
            if len(self._seconds) > 2 * len(self._ending) + SECONDS_KEPT:
                self._seconds = list(self._ending)
                heapq.heapify(self._seconds)

    async def tick(self) -> None:
        """Look at passes whose right ends, or comes back, about now. Called once a second."""
        now, pace = self.wall(), Pace()
        for revocation in self.revocations.take_ended(now):
            await self._obey(revocation, pace)
        later: list[Pass] = []
        while self._seconds and self._seconds[0] <= now:
            second = heapq.heappop(self._seconds)
            # After a restart everybody's token may end at once.
            for held in self._ending.pop(second, ()):
                await pace.rest()
                if not held.open or not second <= held.changes_at < second + 1:
                    continue
                if held.changes_at <= now:
                    self._look_at(held, expired=True)
                else:
                    later.append(held)
        for held in later:
            if held.open:
                self._expect_end(held)

    def _look_at(self, held: Pass, *, expired: bool = False) -> None:
        """Tell who holds a pass if the right is another than before."""
        now = self.wall()
        access = self.access(held.principal, held.document)
        if (changes_at := held.principal.changes_at(held.document, now)) != held.changes_at:
            if not expired:
                self._expect_no_end(held)
            held.changes_at = changes_at
            self._expect_end(held)
        before, held.access = held.access, access
        holder = held.holder
        if holder is None or access == before:
            return
        if access is Access.NONE:
            facts = {"subject": held.principal.subject, "document": held.document}
            self.audit.note("auth.expired" if expired else "auth.revoked", **facts)
            holder.close(
                Unauthorized("the token has expired; connect with a new one")
                if expired
                else Unauthorized("the right to read this document was taken away")
            )
        elif (access >= Access.WRITE) != (before >= Access.WRITE):
            holder.permit(access >= Access.WRITE)

    # What the store tells

    async def learn(self, changes: RecordChanges) -> None:
        """Obey what was put into the store, by this node or another, or taken out of it."""
        pace = Pace()
        removed = list(changes.removed)
        if changes.whole:
            self.verifiers.forget()
            removed += await self._missing(changes, pace)
        for kind, id in removed:
            await pace.rest()
            if kind == KEY:
                await self._delete_key(id, pace)
            elif kind == REVOCATION and (revocation := self.revocations.remove(id)):
                await self._obey(revocation, pace)
        for record in changes.records:
            await pace.rest()
            if record.kind == REVOCATION and (new := parsed(record)) is not None:
                if len(self.revocations) >= REVOCATIONS_MAX:
                    log.error("more than %d revocations; take some back", REVOCATIONS_MAX)
                self.revocations.add(new)
                await self._obey(new, pace)
            elif record.kind == KEY:
                self.verifiers.forget(record.id)

    async def _missing(self, changes: RecordChanges, pace: Pace) -> Iterable[tuple[str, str]]:
        """Return what is known here and not in the store any more, of which it has told all."""
        there = {(record.kind, record.id) for record in changes.records}
        known = [(REVOCATION, id) for id in self.revocations.ids()]
        tokens = {held.principal.token_id async for held in self._all(pace)}
        known += [(KEY, id) for id in sorted(tokens) if KEY_ID.match(id)]
        return [each for each in known if each not in there]

    async def _delete_key(self, id: str, pace: Pace) -> None:
        self._deletions += 1
        self.verifiers.forget(id)
        async for held in self._all(pace):
            if held.principal.token_id == id:
                held.principal = Principal(held.principal.subject, token_id=id)
                self._look_at(held)

    async def _obey(self, revocation: Revocation, pace: Pace) -> None:
        """Look at the passes again that a revocation may concern."""
        if revocation.subject is not None:
            for held in list(self._by_subject.get(revocation.subject, ())):
                await pace.rest()
                if held.open:
                    self._look_at(held)
        else:
            async for held in self._all(pace, revocation.covers):
                self._look_at(held)

    async def _all(
        self, pace: Pace, covers: Callable[[str], bool] = lambda document: True
    ) -> AsyncIterator[Pass]:
        """Yield the passes that are open, to documents that are covered. There may be very many, so
        others have their turns in between.
        """
        for document in list(self._passes):
            await pace.rest()
            if covers(document):
                for held in list(self._passes.get(document, ())):
                    await pace.rest()
                    if held.open:
                        yield held


_DOING = {Access.READ: "read", Access.WRITE: "edit", Access.ADMIN: "administer"}


def parsed(record: Record) -> Revocation | None:
    """Return the revocation of a record; None, and a line in the log, if it can't be read."""
    try:
        return parse_revocation(record)
    except BadGrant as error:
        log.error("%s", error)
        return None


def _take_out(table: dict[K, dict[Pass, None]], key: K, held: Pass) -> bool:
    there = table.get(key, {})
    if held not in there:
        return False
    del there[held]
    if not there:
        del table[key]
    return True


def _peer(connection: HTTPConnection) -> str | None:
    return connection.client.host if connection.client else None
