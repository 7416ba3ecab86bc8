"""Which web pages may talk to this server.

A browser lets any page open a WebSocket to any address, 127.0.0.1 included, and says in `Origin`
which page it is. Without this check, a page that somebody happens to visit could read and change
the documents on their machine.
"""

from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.types import Scope

from plait.server.errors import NotAllowed

ANY = "*"


class Origins:
    """Decides by a request's `Origin`.

    Programs send none and pass. A page passes that comes from this server, that is listed, or that
    is served from this machine to this machine (a front end under development, on another port).

    Args:
        allowed: origins such as `https://app.example.org`, or `*` for all.
    """

    def __init__(self, allowed: tuple[str, ...] = ()) -> None:
        self._allowed = frozenset(origin.rstrip("/").lower() for origin in allowed)

    def check(self, request: HTTPConnection) -> None:
        """Let a request pass.

        Raises:
            NotAllowed: it comes from a page that has no business here.
        """
        origin = header(request.scope, b"origin")
        if origin is None or ANY in self._allowed or origin.lower() in self._allowed:
            return
        page, host = urlsplit(origin.lower()), (header(request.scope, b"host") or "").lower()
        if page.netloc and page.netloc == host:
            return
        if is_loopback(page.hostname) and is_loopback(urlsplit(f"//{host}").hostname):
            return
        raise NotAllowed(f"pages of {origin} are not allowed here; see --allow-origin")


def header(scope: Scope, name: bytes) -> str | None:
    """Return the first header of a name, without decoding all of them as Starlette does: a twelfth
    of a handshake went into that.
    """
    for each, value in scope["headers"]:
        if each == name:
            found: str = value.decode("latin-1")
            return found
    return None


@lru_cache(maxsize=4096)
def is_loopback(host: str | None) -> bool:
    """Whether a host's name or address stands for this machine, seen from itself."""
    if host is None:
        return False
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
