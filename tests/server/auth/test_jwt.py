"""JSON Web Tokens: which are accepted, which are not, and what is said of those."""

import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from plait.server.auth.jwt import inspect, parse, sign, token_id
from plait.server.auth.principal import Access, Grant
from plait.server.auth.signatures import BadKey, jwks_keys, pem_keys, secret_key
from plait.server.errors import BadRequest, Unauthorized
from tests.server.auth.parts import (
    NOW,
    PUBLIC_KEY_ALGORITHMS,
    SECRET,
    jwk,
    private_key,
    private_pem,
    public,
    public_pem,
    token,
    verifier,
)


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def with_header(header: dict[str, Any], payload: Any = None, secret: bytes = b"") -> str:
    """Return a token as nobody's library would make it, signed with HMAC and SHA-256."""
    payload = {"sub": "ann", "exp": NOW + 60} if payload is None else payload
    signed = f"{part(header)}.{part(payload)}"
    mac = HMAC(secret or SECRET.encode(), hashes.SHA256())
    mac.update(signed.encode())
    return f"{signed}.{part(mac.finalize())}"


# Which keys


@pytest.mark.parametrize("algorithm", PUBLIC_KEY_ALGORITHMS)
async def test_a_token_is_accepted_with_each_algorithm(algorithm: str) -> None:
    said = token(algorithm, private_key(algorithm), jti="t1")
    principal = await verifier(public(algorithm)).verify(said, None)
    assert principal is not None
    assert (principal.subject, principal.name, principal.token_id) == ("ann", "Ann", "t1")
    assert principal.grants == (Grant("notes/*", Access.WRITE),)
    assert (principal.issued, principal.until) == (NOW, NOW + 3600 + 10)


@pytest.mark.parametrize("algorithm", PUBLIC_KEY_ALGORITHMS)
async def test_a_key_that_somebody_else_has_counts_for_nothing(algorithm: str) -> None:
    said = token(algorithm, private_key(algorithm, 1))
    assert await verifier(public(algorithm)).verify(said, None) is None


async def test_the_secrets_are_accepted_one_like_the_other() -> None:
    both = verifier(secret_key("n" * 32), secret_key(SECRET))
    assert await both.verify(token(), None)
    assert await both.verify(token(key="n" * 32), None)
    assert await both.verify(token(key="o" * 32), None) is None


async def test_a_file_may_hold_keys_of_several_kinds() -> None:
    text = "\n".join(public_pem(private_key(each)) for each in PUBLIC_KEY_ALGORITHMS)
    several = verifier(*pem_keys("# the keys of 2026\n" + text))
    for algorithm in PUBLIC_KEY_ALGORITHMS:
        assert await several.verify(token(algorithm, private_key(algorithm)), None)


async def test_a_certificate_is_as_good_as_its_key() -> None:
    key = private_key("ES256")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    day = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, day, day + timedelta(days=1))
    ).sign(key, hashes.SHA256())
    keys = pem_keys(certificate.public_bytes(Encoding.PEM).decode())
    assert await verifier(*keys).verify(token("ES256", key), None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no key in it"),
        (private_pem(private_key("ES256")), "private key.*openssl pkey -pubout"),
        (public_pem(rsa.generate_private_key(65537, 1024)), "2048 bits, not 1024"),
        (public_pem(ec.generate_private_key(ec.SECP521R1())), "P-256, P-384"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "not a public key"),
    ],
    ids=["none", "private", "small", "curve", "garbage"],
)
def test_a_file_is_refused_if_its_keys_can_t_be_used(text: str, why: str) -> None:
    with pytest.raises(BadKey, match=why) as caught:
        pem_keys(text)
    assert "MII" not in str(caught.value)


@pytest.mark.parametrize(
    "members",
    [
        {"use": "enc"},
        {"key_ops": ["encrypt"]},
        {"alg": "RS512"},
        {"alg": "HS256"},
        {"kid": 7},
        {"kty": "oct", "k": "AAAA"},
        {"n": "!"},
        {"d": "AAAA"},
    ],
)
def test_a_key_of_a_jwks_that_is_for_something_else_is_left_out(members: dict[str, Any]) -> None:
    keys = jwks_keys([jwk("RS256", **members), jwk("ES384"), "x", {}])
    assert [key.kid for key in keys] == ["ES384-0"]


def test_a_key_of_a_jwks_is_bound_to_the_algorithm_that_it_names() -> None:
    ps, both = jwks_keys([jwk("RS256", alg="PS256"), jwk("RS256")])
    assert ps.algorithms == {"PS256"} and both.algorithms == {"RS256", "PS256"}


# Forged


@pytest.mark.parametrize("algorithm", PUBLIC_KEY_ALGORITHMS)
async def test_a_public_key_is_no_secret(algorithm: str) -> None:
    # The classic: what everybody may know is taken for the secret of HS256.
    pem = public_pem(private_key(algorithm)).encode()
    for secret in (pem, pem.strip(), pem + b"\n"):
        forged = with_header({"alg": "HS256", "typ": "JWT"}, secret=secret)
        assert await verifier(public(algorithm)).verify(forged, None) is None
        assert await verifier(public(algorithm), secret_key(SECRET)).verify(forged, None) is None


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None, 7, ["HS256"], "HS512", "hs256"])
async def test_other_algorithms_are_none(alg: Any) -> None:
    for said in (with_header({"alg": alg}), with_header({"alg": alg}).rpartition(".")[0] + "."):
        assert await verifier().verify(said, None) is None


@pytest.mark.parametrize("other", [each for each in PUBLIC_KEY_ALGORITHMS if each != "RS256"])
async def test_a_key_is_used_with_algorithms_of_its_kind(other: str) -> None:
    said = token(other, private_key(other))
    _, payload, signature = said.split(".")
    forged = f"{part({'alg': 'RS256'})}.{payload}.{signature}"
    assert await verifier(public(other)).verify(forged, None) is None


async def test_what_was_changed_is_not_accepted() -> None:
    header, payload, signature = token().split(".")
    more = part({"sub": "ann", "exp": NOW + 60, "grants": [{"docs": "*", "access": "admin"}]})
    assert await verifier().verify(f"{header}.{more}.{signature}", None) is None
    assert await verifier().verify(f"{header}.{payload}.", None) is None
    assert await verifier().verify(f"{header}.{payload}.{'A' * 43}", None) is None


@pytest.mark.parametrize("extra", ["=", " ", "\n", "!", "!!!!", "AAAA", ".", "é"])
async def test_a_token_is_written_in_one_way_only(extra: str) -> None:
    # Otherwise somebody whose token was taken back by its digest would come with another spelling.
    said = token()
    for other in (said + extra, extra + said, said.replace(".", "." + extra, 1)):
        assert await verifier().verify(other, None) is None


async def test_another_signature_that_is_as_good_does_not_make_another_token() -> None:
    key = private_key("ES256")
    said, again = token("ES256", key), token("ES256", key)
    assert said != again
    ids = [await verifier(public("ES256")).verify(each, None) for each in (said, again)]
    assert ids[0] is not None and ids[1] is not None
    assert ids[0].token_id == ids[1].token_id == token_id(said)
    assert ids[0].token_id.startswith("sha256:") and len(ids[0].token_id) == 7 + 32


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"crit": []}, {"b64": False}])
async def test_what_would_have_to_be_understood_is_refused(header: dict[str, Any]) -> None:
    with pytest.raises(Unauthorized, match="crit"):
        await verifier().verify(with_header({"alg": "HS256", **header}), None)


@pytest.mark.parametrize(
    "payload", [b"x", b"[]", b"7", b"[" * 8000, b'{"exp":' + b"9" * 5000, b"\xff"]
)
async def test_a_signed_payload_that_is_no_object_is_refused(payload: bytes) -> None:
    with pytest.raises(Unauthorized, match="not an object"):
        await verifier().verify(with_header({"alg": "HS256"}, payload), None)


@given(st.text(max_size=60) | st.lists(st.text("eyJ0.-_=+/A", max_size=9)).map(".".join))
def test_whatever_is_no_token_is_none(text: str) -> None:
    parsed = parse(text)
    assert parsed is None or isinstance(parsed.header, dict)


# Claims


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": NOW - 11}, "has expired; get a new one"),
        ({"exp": None}, r"no end \(exp\)"),
        ({"exp": "tomorrow"}, "exp has to be seconds"),
        ({"exp": True}, "exp has to be seconds"),
        ({"exp": inf}, "exp has to be seconds"),
        ({"nbf": NOW + 11}, "not valid yet"),
        ({"nbf": "x"}, "seconds since 1970"),
        ({"iat": NOW + 11}, "in the future"),
        ({"grants": "all"}, "grants have to be a list"),
        ({"grants": [{"docs": "x", "access": "own"}]}, "read, write or admin"),
        ({"sub": "a\nb"}, "in one line"),
        ({"sub": "\ud800"}, "sub has to be text"),
        ({"aud": "plait"}, "another audience"),
        ({"aud": ["a", "b"]}, "another audience"),
        ({"aud": []}, "another audience"),
    ],
)
async def test_these_claims_are_refused(claims: dict[str, Any], why: str) -> None:
    said = {"sub": "ann", "iat": NOW, "exp": NOW + 60, **claims}
    payload = {name: value for name, value in said.items() if value is not None}
    with pytest.raises(Unauthorized, match=why) as caught:
        await verifier().verify(with_header({"alg": "HS256"}, payload), None)
    assert caught.value.status == 401


@pytest.mark.parametrize(
    "claims", [{"exp": NOW - 9}, {"nbf": NOW + 9}, {"iat": NOW + 9}, {"iat": None}, {"nbf": NOW}]
)
async def test_clocks_may_be_off_a_little(claims: dict[str, Any]) -> None:
    assert await verifier().verify(token(**claims), None)


async def test_there_may_be_no_leeway() -> None:
    with pytest.raises(Unauthorized, match="expired"):
        await verifier(leeway=0).verify(token(exp=NOW), None)


async def test_the_issuer_has_to_be_the_right_one() -> None:
    strict = verifier(issuer="https://id.example.org")
    assert await strict.verify(token(iss="https://id.example.org"), None)
    for issuer in (None, "https://id.example.org/", "https://evil.example"):
        with pytest.raises(Unauthorized, match="another issuer"):
            await strict.verify(token(iss=issuer), None)


async def test_the_audience_has_to_be_this_one() -> None:
    strict = verifier(audience="plait")
    for audience in ("plait", ["other", "plait"]):
        assert await strict.verify(token(aud=audience), None)
    for other in (None, "plai", "plait2", ["other"], [], {"plait": 1}):
        with pytest.raises(Unauthorized, match="another audience"):
            await strict.verify(with_header({"alg": "HS256"}, _claims(aud=other)), None)


def _claims(**claims: Any) -> dict[str, Any]:
    said = {"sub": "ann", "exp": NOW + 60, **claims}
    return {name: value for name, value in said.items() if value is not None}


async def test_grants_may_be_under_another_name() -> None:
    other = verifier(grants="https://plait.example/grants")
    named: dict[str, Any] = {"https://plait.example/grants": [{"docs": "a", "access": "read"}]}
    said = token(**{"grants": None, **named})
    principal = await other.verify(said, None)
    assert principal is not None and principal.grants == (Grant("a", Access.READ),)


async def test_without_grants_it_may_do_nothing() -> None:
    principal = await verifier().verify(token(grants=None), None)
    assert principal is not None and principal.access_to("notes/a", NOW) is Access.NONE


# Made and looked at here


async def test_what_is_signed_here_is_accepted_here() -> None:
    principal = await verifier().verify(sign(SECRET, {"sub": "ben", "exp": NOW + 1}), None)
    assert principal is not None and principal.subject == "ben"


def test_a_token_tells_what_it_says() -> None:
    parsed = inspect(f" {token(jti='t1')}\n")
    assert parsed.header == {"alg": "HS256", "typ": "JWT"}
    assert parsed.claims is not None and parsed.claims["jti"] == "t1"
    with pytest.raises(BadRequest, match="three parts"):
        inspect("plait_0")


def test_nothing_secret_is_shown() -> None:
    assert SECRET not in repr(secret_key(SECRET))
    said = token()
    assert said.rpartition(".")[2] not in repr(parse(said))
