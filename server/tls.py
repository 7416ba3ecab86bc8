"""The certificate that the server shows, which may be renewed while it runs.

A TLS context has one certificate of each kind of key, and one of another kind is added to it, not
put in its place. So a renewed certificate gets a context of its own, made and checked beforehand,
and each handshake is moved to the newest one as it begins. Connections that are open keep theirs.
"""

import logging
import ssl
from typing import Any

log = logging.getLogger(__name__)


class Certificate:
    """The certificate of a server, with its key.

    Args:
        context: what the server was started with; None if it speaks no TLS.
        chain: the file of the certificate, with those between it and its authority.
        key: the file of its key.
    """

    def __init__(self, context: ssl.SSLContext | None, chain: str, key: str) -> None:
        self._chain = chain
        self._key = key
        self._newest = self._first = context
        if context is not None:
            context.sni_callback = self._choose

    def reload(self) -> None:
        """Read the files again, for those who connect from now on. If they can't be used, the
        certificate stays that was shown before.
        """
        first = self._first
        if first is None:
            log.info("SIGHUP: there is nothing to read again")
            return
        fresh = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            fresh.load_cert_chain(self._chain, self._key)
        except OSError as error:  # ssl.SSLError is one
            log.error(
                "SIGHUP: tls_cert %s with tls_key %s can't be used, the certificate before stays: "
                "%s",
                *(self._chain, self._key, error.strerror or error),
            )
            return
        self._newest = fresh
        log.info("SIGHUP: who connects from now on is shown the certificate in %s", self._chain)

    def _choose(self, connection: Any, name: str | None, context: ssl.SSLContext) -> None:
        """Move a handshake to the newest context; called at its beginning, with a name or none."""
        newest = self._newest
        if newest is not None and newest is not context:
            connection.context = newest
