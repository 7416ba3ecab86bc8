"""What turns a token into a principal: the contract of all verifiers.

Several may be configured; `plait.server.auth.chain` asks one after the other.
"""

from typing import Protocol

from plait.server.auth.principal import Principal


class Verifier(Protocol):
    """Knows one kind of token."""

    name: str
    """What it is called where an operator looks for the reason of a refusal."""
    counts_seconds: float
    """How long what it said may be used without asking it again. A principal that ends earlier
    ends what was said of it.
    """
    per_document: bool
    """Whether it may say something else of the same token on another document."""

    async def verify(self, token: str, document: str | None) -> Principal | None:
        """Return who a token belongs to; None if it is not of this verifier's kind.

        Args:
            token: what was presented.
            document: the document that it is presented for; None if it is not about one.

        Raises:
            Unauthorized: it is of this kind, and not, or no more, valid.
            AuthUnavailable: that can't be told now.
        """
        ...

    async def close(self) -> None:
        """Let go of what it holds; nothing is verified after."""
        ...
