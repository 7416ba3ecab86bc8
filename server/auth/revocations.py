"""Rights that were taken away: of a subject, of a token, on documents.

A revocation concerns what was issued before it: somebody who is given a new token afterwards has
what that token says. (A token that is named is meant whenever it was issued: the clock of whoever
did that may be ahead.) It is a record in the store, which all nodes follow, and stays until it is
taken back or ends by itself. A credential that does not say when it was issued counts as issued
before any revocation.
"""

import heapq
import json
import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Any

from plait.persistence import Record
from plait.server.auth.principal import (
    WORDS_MAX,
    Access,
    BadGrant,
    Principal,
    check_pattern,
    literal_prefix,
    matches,
)

KIND = "revocation"
REVOCATIONS_MAX = 100_000
"""Revocations that are kept in memory; more are refused."""
DOCUMENTS = "documents"
"""The kind of groups that concern everybody."""
LEFT = {access.word: access for access in (Access.NONE, Access.READ)}
"""What may be left of a right."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """Whose rights, on what, are no more than what is left."""

    id: str
    subject: str | None
    """Of whom; None: of everybody."""
    token: str | None
    """Of which token, by its id; None: of all."""
    docs: str | None
    """On which documents, as a pattern; None: on all."""
    access: Access
    """What is left."""
    before: float
    """What was issued before this is concerned, in seconds since 1970."""
    until: float = inf
    by: str = ""
    reason: str = ""

    def concerns(self, principal: Principal) -> bool:
        """Whether it takes something from a principal, if the documents are right."""
        return (
            (self.subject is None or self.subject == principal.subject)
            and (self.token is None or self.token == principal.token_id)
            and (
                self.token is not None or principal.issued is None or principal.issued < self.before
            )
        )

    @property
    def is_about_somebody(self) -> bool:
        """Whether it takes from a subject or a token, and not from everybody."""
        return self.subject is not None or self.token is not None

    def covers(self, document: str) -> bool:
        """Whether it is about a document."""
        return self.docs is None or matches(self.docs, document)

    def as_json(self) -> dict[str, Any]:
        """Return it as REST tells it."""
        return {
            "id": self.id,
            "subject": self.subject,
            "token": self.token,
            "docs": self.docs,
            "access": self.access.word,
            "before": self.before,
            "until": None if self.until == inf else self.until,
            "by": self.by,
            "reason": self.reason,
        }


def new_revocation(
    *,
    now: float,
    subject: str | None = None,
    token: str | None = None,
    docs: str | None = None,
    access: Access = Access.NONE,
    until: float = inf,
    by: str = "",
    reason: str = "",
) -> Revocation:
    """Return a revocation of what was issued before now.

    Raises:
        BadGrant: it would be about everybody's everything, or something in it can't be.
    """
    if subject is None and token is None and docs is None:
        raise BadGrant("name a subject, a token or documents whose rights are to be taken away")
    for value in (subject, token, by, reason):
        if value is not None and not _is_words(value):
            raise BadGrant(
                f"a subject, a token's id and a reason have up to {WORDS_MAX} characters"
            )
    if subject == "" or token == "":
        raise BadGrant("a subject or a token's id can't be empty")
    if access not in LEFT.values():
        raise BadGrant("what is left is none or read")
    if docs is not None:
        check_pattern(docs)
    return Revocation(
        secrets.token_hex(6), subject, token, docs, access, now, until, by=by, reason=reason
    )


def _is_words(value: str) -> bool:
    return len(value) <= WORDS_MAX and not any(
        ord(c) < 32 or "\ud800" <= c <= "\udfff" for c in value
    )


def to_record(revocation: Revocation, at_ms: int) -> Record:
    """Return what is kept in the store."""
    told = revocation.as_json()
    del told["id"], told["until"]
    until_ms = None if revocation.until == inf else int(revocation.until * 1000)
    return Record(KIND, revocation.id, json.dumps(told), at_ms, until_ms)


def parse_revocation(record: Record) -> Revocation:
    """Return the revocation of a record.

    Raises:
        BadGrant: a newer program, or somebody by hand, wrote what is not one.
    """
    try:
        told = json.loads(record.value)
        return Revocation(
            record.id,
            told["subject"],
            told["token"],
            told["docs"] if told["docs"] is None else check_pattern(told["docs"]),
            LEFT[told["access"]],
            float(told["before"]),
            inf if record.until_ms is None else record.until_ms / 1000,
            told.get("by", ""),
            told.get("reason", ""),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadGrant(f"the record {record.id} is not a revocation") from None


class Revocations:
    """All revocations, found by whom they concern; those that concern everybody by what the names
    of their documents begin with, since there may be very many, and each decision asks for them.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Revocation] = {}
        self._groups: dict[tuple[str, str], dict[str, Revocation]] = {}
        self._lengths: Counter[int] = Counter()
        """How many groups there are of documents that begin with so many certain characters."""
        self._ending: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._by_id)

    def ids(self) -> list[str]:
        """Return the ids of all."""
        return list(self._by_id)

    def add(self, revocation: Revocation) -> None:
        """Obey a revocation; one of the same id takes its place."""
        self.remove(revocation.id)
        self._by_id[revocation.id] = revocation
        key = _group(revocation)
        if key not in self._groups:
            self._groups[key] = {}
            self._lengths[len(key[1])] += key[0] == DOCUMENTS
        self._groups[key][revocation.id] = revocation
        if revocation.until < inf:
            heapq.heappush(self._ending, (revocation.until, revocation.id))

    def remove(self, id: str) -> Revocation | None:
        """Obey a revocation no more; return it if it was known."""
        revocation = self._by_id.pop(id, None)
        if revocation is not None:
            key = _group(revocation)
            group = self._groups[key]
            del group[id]
            if not group:
                del self._groups[key]
                self._lengths[len(key[1])] -= key[0] == DOCUMENTS
                self._lengths += Counter()  # without what is 0 now
        return revocation

    def take_ended(self, now: float) -> list[Revocation]:
        """Let go of those that have ended by themselves, and return them."""
        ended = []
        while self._ending and self._ending[0][0] <= now:
            until, id = heapq.heappop(self._ending)
            revocation = self._by_id.get(id)
            if revocation is not None and revocation.until == until:
                ended.append(revocation)
                self.remove(id)
        return ended

    def left(self, principal: Principal, document: str, now: float) -> Access:
        """Return what revocations leave of a principal's right on a document; `ADMIN` if they take
        nothing.
        """
        if not self._by_id:
            return Access.ADMIN
        left = Access.ADMIN
        for revocation in self._about(principal, document):
            if (
                revocation.access < left
                and now < revocation.until
                and revocation.concerns(principal)
                and revocation.covers(document)
            ):
                left = revocation.access
        return left

    def concern(self, principal: Principal, now: float, docs: str | None) -> bool:
        """Whether anything was taken from a principal.

        Args:
            docs: count also what was taken from everybody on documents that match this pattern.
        """
        if any(
            now < revocation.until and revocation.concerns(principal)
            for revocation in self._about(principal)
        ):
            return True
        return docs is not None and any(
            now < revocation.until and revocation.concerns(principal)
            for (kind, begin), group in self._groups.items()
            if kind == DOCUMENTS and _may_share(begin, literal_prefix(docs))
            for revocation in group.values()
        )

    def ended(self, principal: Principal, now: float) -> bool:
        """Whether nothing is left of a principal's rights on any document."""
        return any(
            revocation.docs is None
            and revocation.access is Access.NONE
            and now < revocation.until
            and revocation.concerns(principal)
            for revocation in self._about(principal, "")
        )

    def _about(self, principal: Principal, document: str | None = None) -> Iterable[Revocation]:
        """Yield those that are about somebody, and those that may be about a document."""
        keys = [("subject", principal.subject), ("token", principal.token_id)]
        if document is not None:
            lengths = [length for length in self._lengths if length <= len(document)]
            keys += [(DOCUMENTS, document[:length]) for length in lengths]
        for key in keys:
            yield from self._groups.get(key, {}).values()


def _may_share(begin: str, start: str) -> bool:
    """Whether a name may begin with both."""
    return begin.startswith(start) or start.startswith(begin)


def _group(revocation: Revocation) -> tuple[str, str]:
    if revocation.token is not None:
        return "token", revocation.token
    if revocation.subject is not None:
        return "subject", revocation.subject
    return DOCUMENTS, "" if revocation.docs is None else literal_prefix(revocation.docs)
