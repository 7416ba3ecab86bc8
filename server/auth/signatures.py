"""Keys that verify signatures, each bound to the algorithms that it may be used with.

What a token says of its algorithm only chooses among the keys that are of that kind. So a public
key is never taken for a secret, and nothing is never taken for a signature.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import Algorithm, get_default_algorithms

RSA_BITS_MIN = 2048
SECRET_ALGORITHM = "HS256"

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

_CODE: Mapping[str, Algorithm] = {
    name: get_default_algorithms()[name]
    for name in (SECRET_ALGORITHM, "RS256", "PS256", "ES256", "ES384", "EdDSA")
}
ALGORITHMS = frozenset(_CODE)

_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


class BadKey(Exception):
    """Raised when something is not a key that can verify tokens; says why."""


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key, and what it may be used with."""

    algorithms: frozenset[str]
    key: Any = field(repr=False)
    kid: str = ""
    """What tokens name it by; empty if it has no name."""

    def fits(self, algorithm: str, kid: str) -> bool:
        """Whether a token may be signed with it, by what its header says."""
        return algorithm in self.algorithms and (not kid or not self.kid or kid == self.kid)

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether a signature was made with it, or with the private key that belongs to it."""
        return algorithm in self.algorithms and _CODE[algorithm].verify(signed, self.key, signature)


def secret_key(secret: str) -> VerifyingKey:
    """Return the key that a shared secret is."""
    return VerifyingKey(frozenset((SECRET_ALGORITHM,)), secret.encode())


def pem_keys(text: str) -> tuple[VerifyingKey, ...]:
    """Return the public keys of a PEM file, those of certificates too.

    Raises:
        BadKey: there are none, or one can't be used.
    """
    blocks = [(block[1], block[0]) for block in _PEM.finditer(text)]
    if any("PRIVATE" in kind for kind, _ in blocks):
        raise BadKey("it holds a private key; it is to have public keys only: openssl pkey -pubout")
    keys = [_read_pem(kind, block) for kind, block in blocks]
    if not keys:
        raise BadKey("there is no key in it: it has to begin with -----BEGIN PUBLIC KEY-----")
    return tuple(VerifyingKey(algorithms_of(key), key) for key in keys)


def jwks_keys(members: Iterable[Any]) -> tuple[VerifyingKey, ...]:
    """Return those keys of a JWKS that can verify tokens here; others are nobody's fault."""
    found = []
    for member in members:
        try:
            found.append(_read_jwk(member))
        except BadKey:
            continue
    return tuple(found)


def algorithms_of(key: object) -> frozenset[str]:
    """Return what a public key may be used with.

    Raises:
        BadKey: nothing.
    """
    match key:
        case RSAPublicKey():
            if key.key_size < RSA_BITS_MIN:
                raise BadKey(f"an RSA key has to have {RSA_BITS_MIN} bits, not {key.key_size}")
            return frozenset(("RS256", "PS256"))
        case EllipticCurvePublicKey(curve=SECP256R1()):
            return frozenset(("ES256",))
        case EllipticCurvePublicKey(curve=SECP384R1()):
            return frozenset(("ES384",))
        case Ed25519PublicKey():
            return frozenset(("EdDSA",))
    raise BadKey("a key has to be RSA, P-256, P-384 or Ed25519")


def _read_pem(kind: str, block: str) -> object:
    try:
        if kind == "CERTIFICATE":
            return x509.load_pem_x509_certificate(block.encode()).public_key()
        return load_pem_public_key(block.encode())
    except Exception as error:
        # What cryptography raises for bytes from outside is not said in full.
        raise BadKey(f"a block of it ({kind}) is not a public key: {error}") from None


def _read_jwk(member: Any) -> VerifyingKey:
    if not isinstance(member, Mapping):
        raise BadKey("a key has to be an object")
    if member.get("kty") not in ("RSA", "EC", "OKP") or "d" in member:
        raise BadKey("a key has to be public")
    if member.get("use", "sig") != "sig" or "verify" not in member.get("key_ops", ["verify"]):
        raise BadKey("the key is for something else")
    named = member.get("alg")
    try:
        key = jwt.PyJWK(dict(member), algorithm=_algorithm_of(member)).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
        raise BadKey(str(error)) from None
    algorithms = algorithms_of(key)
    if named is not None:
        algorithms &= {str(named)}
    kid = member.get("kid", "")
    if not algorithms or not isinstance(kid, str):
        raise BadKey("its algorithm is not known here")
    return VerifyingKey(algorithms, key, kid)


def _algorithm_of(member: Mapping[str, Any]) -> str:
    """Return an algorithm by which a key is read; which ones it is used with is told by the key."""
    return {"RSA": "RS256", "OKP": "EdDSA"}.get(
        str(member["kty"]), "ES384" if member.get("crv") == "P-384" else "ES256"
    )
