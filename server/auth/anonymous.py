"""Those without a credential: whoever may come without, and this machine on its own.

Where nothing is configured, whoever sits at this machine may do everything, so that `plait serve`
just works, and nobody else may do anything. A page that somebody visits is not them: its requests
come from this machine too, under a name that its owner lets stand for 127.0.0.1 (DNS rebinding), so
the name has to be one of this machine. Nor is a proxy, whose clients come from anywhere.
"""

from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import Scope

from plait.server.auth.principal import Access, Grant, Principal
from plait.server.errors import Unauthorized
from plait.server.origins import header, is_loopback
from plait.server.settings import Settings

LOCAL = Principal("local", (Grant("*", Access.ADMIN),))
"""Whoever sits at this machine, where nothing is configured."""

PROXY_HEADERS = frozenset((b"forwarded", b"via", b"x-real-ip"))
PROXY_PREFIX = b"x-forwarded-"

ADVICE = (
    "nobody is let in from elsewhere until authentication is configured (--token-secret,"
    " --jwt-keys, --jwt-jwks or --auth-url), or --allow-anonymous is given"
)


def anonymous_principal(settings: Settings) -> Principal | None:
    """Return who those without a token are; None if they are not let in."""
    if not settings.allow_anonymous:
        return None
    access = Access[settings.anonymous_access.upper()]
    return Principal("", tuple(Grant(docs, access) for docs in settings.anonymous_docs))


def local_principal(peer: str | None, scope: Scope) -> Principal:
    """Return the principal of a request without a token, where nothing is configured.

    Args:
        peer: the address that the connection itself comes from; None for a Unix socket.
        scope: of the request.

    Raises:
        Unauthorized: it does not come from this machine, as far as can be told; says what to do.
    """
    if peer is not None and not _is_this_machine(peer):
        raise Unauthorized(f"only this machine is served: {ADVICE}")
    if proxy := _proxy_header(scope):
        raise Unauthorized(f"this came through a proxy ({proxy}): {ADVICE}")
    if not _names_this_machine(header(scope, b"host") or ""):
        raise Unauthorized(
            f"only localhost and 127.0.0.1 are served, not the host that was asked for: {ADVICE}"
        )
    return LOCAL


@lru_cache(maxsize=256)
def _is_this_machine(peer: str) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _proxy_header(scope: Scope) -> str:
    for name, _ in scope["headers"]:
        if name in PROXY_HEADERS or name.startswith(PROXY_PREFIX):
            found: str = name.decode("latin-1")
            return found
    return ""


@lru_cache(maxsize=256)
def _names_this_machine(host: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host}").hostname)
    except ValueError:
        return False
