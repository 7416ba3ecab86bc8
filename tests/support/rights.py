"""What tests of rights share: the makers of all kinds of credentials, and the identity provider and
the application that a server asks about some of them.

Unrealistic in that both are asked without TLS, on this machine.
"""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.server.auth.parts import PUBLIC_KEY_ALGORITHMS, SECRET, jwk, private_key, public_pem
from tests.server.auth.parts import token as signed

AUDIENCE = "plait.test"
COOKIE = "session"

Grants = list[dict[str, Any]]


class Askable:
    """An HTTP server in a thread: `/jwks` tells public keys, `/auth` who a token belongs to."""

    def __init__(self) -> None:
        self.known: dict[str, Mapping[str, Any]] = {}
        """What is said of a token."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._say(200, {"keys": [jwk("ES256", 7)]})

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                claims = outer.known.get(asked["token"])
                self._say(*((200, claims) if claims else (401, {})))

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def _say(self, status: int, body: Mapping[str, Any]) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def askable() -> Iterator[Askable]:
    """Run such a server."""
    found = Askable()
    thread = threading.Thread(target=found.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.server.shutdown()
        found.server.server_close()
        thread.join()


def public_keys() -> str:
    """Return the public keys that a server is given in a file."""
    return "".join(public_pem(private_key(each)) for each in PUBLIC_KEY_ALGORITHMS)


def token(
    grants: Grants,
    *,
    algorithm: str = "HS256",
    number: int = 0,
    subject: str = "ann",
    **claims: Any,
) -> str:
    """Return a token that is good for an hour, unless claims say something else."""
    key = SECRET if algorithm == "HS256" else private_key(algorithm, number)
    now = time.time()
    said = {"iat": now - 1, "exp": now + 3600, "aud": AUDIENCE, "sub": subject, "grants": grants}
    kid = {"kid": f"{algorithm}-{number}"} if number else {}
    return signed(algorithm, key, kid, **{**said, **claims})


def admin(**claims: Any) -> str:
    """Return a token of an admin of everything."""
    return token([{"docs": "*", "access": "admin"}], subject="root", **claims)


def bearer(given: str) -> dict[str, str]:
    """Return the header with a token."""
    return {"authorization": f"Bearer {given}"}


def tampered(given: str) -> str:
    """Return a token of which somebody has changed what it says, and not the signature."""
    head, _, mark = given.split(".")
    other = token([{"docs": "*", "access": "admin"}], subject="mallory")
    return ".".join((head, other.split(".")[1], mark))
