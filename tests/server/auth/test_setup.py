"""Verifiers from settings, and settings that can't work."""

from pathlib import Path
from typing import Any

import pytest

from plait.persistence.memory import MemoryStore
from plait.server.auth.credentials import Credential
from plait.server.auth.keys import make_key
from plait.server.auth.setup import build, configured, issue
from plait.server.errors import ConfigError, Unauthorized
from plait.server.settings import Settings
from tests.server.auth.parts import (
    NOW,
    SECRET,
    answer,
    jwk,
    private_key,
    private_pem,
    public_pem,
    site,
    token,
)

OTHER = "another-secret-of-more-than-32-characters"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, False),
        ({"auth_cookie": "session"}, False),
        ({"token_secret": (SECRET,)}, True),
        ({"jwt_keys": "keys.pem"}, True),
        ({"jwt_jwks": "https://id.example.org/keys"}, True),
        ({"auth_url": "https://app.example.org/auth"}, True),
        ({"allow_anonymous": True}, True),
    ],
)
def test_these_are_configured(settings: dict[str, Any], expected: bool) -> None:
    assert configured(Settings(**settings)) is expected


async def test_everything_at_once(tmp_path: Path) -> None:
    keys = tmp_path / "keys.pem"
    keys.write_text(public_pem(private_key("EdDSA")))
    store = MemoryStore()
    key, record = make_key("robot", "", [], NOW)
    await store.put_record(record)
    async with (
        site(lambda asked: answer({"keys": [jwk("RS256")]})) as provider,
        site(lambda asked: answer({"sub": "ben"})) as application,
    ):
        settings = Settings(
            token_secret=(SECRET, OTHER),
            jwt_keys=str(keys),
            jwt_jwks=provider.url,
            auth_url=application.url,
            allow_anonymous=True,
        )
        verifiers = build(settings, store, lambda: NOW)
        tokens = [
            key,
            token(),
            token(key=OTHER),
            token("EdDSA", private_key("EdDSA")),
            token("RS256", private_key("RS256")),
            token(key="the-application's-own-secret-of-its-sessions"),
            "opaque",
        ]
        said = [await verifiers.principal(Credential(each, "header"), None) for each in tokens]
        assert [each.subject for each in said] == ["robot", *["ann"] * 4, "ben", "ben"]
        assert (await verifiers.principal(None, None)).subject == ""
        await verifiers.close()


async def test_keys_count_where_nothing_is_configured() -> None:
    store = MemoryStore()
    key, record = make_key("robot", "", [], NOW)
    await store.put_record(record)
    verifiers = build(Settings(), store, lambda: NOW)
    assert (await verifiers.principal(Credential(key, "header"), None)).subject == "robot"
    for other in (Credential(token(), "header"), None):
        with pytest.raises(Unauthorized):
            await verifiers.principal(other, None)


async def test_what_is_issued_here_is_accepted_here() -> None:
    settings = Settings(
        token_secret=(OTHER, SECRET),
        jwt_issuer="plait",
        jwt_audience="docs",
        jwt_grants="https://plait.example/grants",
    )
    grants = [{"docs": "a", "access": "read"}]
    said = issue(settings, {"sub": "ann", "exp": NOW + 5, "grants": grants})
    somebody = await build(settings, MemoryStore(), lambda: NOW).principal(
        Credential(said, "header"), None
    )
    assert somebody.subject == "ann" and [each.docs for each in somebody.grants] == ["a"]
    with pytest.raises(ConfigError, match="token_secret, which is not set"):
        issue(Settings(), {})


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"token_secret": (SECRET, "x" * 31)}, "token_secret.*32 characters.*openssl rand"),
        ({"jwt_issuer": "x"}, "jwt_issuer.*set token_secret"),
        ({"jwt_audience": "x", "auth_url": "https://a.example"}, "jwt_audience.*set token_secret"),
        ({"jwt_jwks": "http://id.example.org/keys"}, "jwt_jwks has to be https://"),
        ({"jwt_jwks": "id.example.org"}, "jwt_jwks has to be a URL"),
        ({"auth_url": "http://app.example.org"}, "auth_url has to be https://"),
        ({"auth_url": "http://localhost.example.org"}, "auth_url has to be https://"),
        ({"auth_url": "ftp://app.example.org"}, "auth_url has to be a URL"),
        ({"auth_url": "https://"}, "auth_url has to be a URL"),
        ({"auth_url": "https://[x"}, "auth_url has to be a URL"),
        ({"auth_url": "https://a.example:x/"}, "auth_url has to be a URL"),
        ({"auth_url": "https://ann:pw@a.example/"}, "user or a password"),
        ({"auth_url": "https://a.example", "auth_secret": "hush"}, "auth_secret.*openssl rand"),
        ({"auth_secret": "x" * 32}, "auth_url, which is not set"),
        ({"auth_cookie": "a b"}, "auth_cookie.*name of a cookie"),
        ({"anonymous_docs": ("a", "b\\c")}, r"anonymous_docs: 'b\\\\c'.*backslash"),
        ({"jwt_keys": "/nowhere/keys.pem"}, "jwt_keys: /nowhere/keys.pem can't be read: No such"),
    ],
)
def test_what_can_t_work_is_said_before_anybody_comes(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        build(Settings(**settings), MemoryStore(), lambda: NOW)
    said = str(caught.value)
    assert SECRET not in said and "x" * 31 not in said and "pw" not in said and "hush" not in said


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "there is no key in it"),
        (b"\xff\x00", "not PEM"),
        (private_pem(private_key("ES256")).encode(), "private key"),
    ],
)
def test_a_file_without_public_keys_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    keys = tmp_path / "keys.pem"
    keys.write_bytes(content)
    with pytest.raises(ConfigError, match=f"jwt_keys: .*{why}"):
        build(Settings(jwt_keys=str(keys)), MemoryStore(), lambda: NOW)


@pytest.mark.parametrize("host", ["127.0.0.1:3000", "localhost", "[::1]:3000", "app.localhost"])
def test_on_this_machine_http_will_do(host: str) -> None:
    build(Settings(auth_url=f"http://{host}/auth"), MemoryStore(), lambda: NOW)
