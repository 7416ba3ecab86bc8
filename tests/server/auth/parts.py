"""What tests of verifiers share: real keys, tokens signed with them, and a site on this machine
that answers as it is told to.

Unrealistic in that the site closes the connection after each answer, and speaks no TLS.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from plait.server.auth.jwt import Expected, Jwt
from plait.server.auth.signatures import VerifyingKey, pem_keys, secret_key

NOW = 1_800_000_000.0
SECRET = "a-secret-of-forty-characters-and-no-less"
GRANTS = [{"docs": "notes/*", "access": "write"}]
PUBLIC_KEY_ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "EdDSA")


class Clock:
    """Both clocks, which stand still until a test moves them."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> float:
        return self.at


def private_key(algorithm: str, number: int = 0) -> Any:
    """Return a key, the same one each time."""
    return _private_key(algorithm, number)


@cache
def _private_key(algorithm: str, number: int) -> Any:
    match algorithm:
        case "RS256" | "PS256":
            return rsa.generate_private_key(65537, 2048)
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "ES384":
            return ec.generate_private_key(ec.SECP384R1())
    return ed25519.Ed25519PrivateKey.generate()


def private_pem(key: Any) -> str:
    """Return a private key in PEM."""
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem.decode()


def public_pem(key: Any) -> str:
    """Return the public key of a private one, in PEM."""
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


def jwk(algorithm: str, number: int = 0, **members: Any) -> dict[str, Any]:
    """Return the public key of a private one, as a member of a JWKS."""
    public = private_key(algorithm, number).public_key()
    code = jwt.get_algorithm_by_name(algorithm)
    return {**json.loads(code.to_jwk(public)), "kid": f"{algorithm}-{number}", **members}


def token(
    algorithm: str = "HS256",
    key: Any = SECRET,
    header: Mapping[str, Any] | None = None,
    **claims: Any,
) -> str:
    """Return a token of Ann's that is good for an hour; claims that are None are left out."""
    said = {"sub": "ann", "name": "Ann", "grants": GRANTS, "iat": NOW, "exp": NOW + 3600, **claims}
    said = {name: value for name, value in said.items() if value is not None}
    return jwt.encode(said, key, algorithm, dict(header or {}))


def verifier(*keys: VerifyingKey, now: float = NOW, **expected: Any) -> Jwt:
    """Return a verifier of these keys, or of the secret."""
    return Jwt(keys or (secret_key(SECRET),), None, Expected(**expected), lambda: now)


def public(algorithm: str, number: int = 0) -> VerifyingKey:
    """Return a public key as it is read from a PEM file."""
    (key,) = pem_keys(public_pem(private_key(algorithm, number)))
    return key


@dataclass
class Asked:
    """A request that the site received."""

    line: str
    headers: dict[str, str]
    body: bytes


def answer(body: Any, status: int = 200, headers: str = "") -> bytes:
    """Return a response in full; what is not bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Whatever\r\nContent-Length: {len(content)}\r\n{headers}"
    return f"{head}Connection: close\r\n\r\n".encode() + content


@dataclass
class Site:
    """A site that answers each request with `says`, once `gate` is open."""

    says: Callable[[Asked], bytes]
    asked: list[Asked] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    present: int = 0
    most: int = 0
    """The most requests that were there at a time."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        self.present += 1
        self.most = max(self.most, self.present)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *fields = head.strip().split("\r\n")
            pairs = (each.partition(":") for each in fields)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            asked = Asked(line, headers, body)
            self.asked.append(asked)
            await self.gate.wait()
            writer.write(self.says(asked))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the client has left
        finally:
            self.present -= 1
            writer.close()


@asynccontextmanager
async def site(says: Callable[[Asked], bytes]) -> AsyncIterator[Site]:
    """Run a site."""
    running = Site(says)
    running.gate.set()
    server = await asyncio.start_server(running.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    running.url = f"http://127.0.0.1:{port}/auth"
    try:
        yield running
    finally:
        server.close()
        running.gate.set()
        await server.wait_closed()
