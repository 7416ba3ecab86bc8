"""Make the verifiers that the settings ask for, and find what can't work before anybody comes."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from plait.persistence import Store
from plait.server.auth.anonymous import anonymous_principal
from plait.server.auth.asking import check_url
from plait.server.auth.callback import Callback, signing_key
from plait.server.auth.chain import Verifiers
from plait.server.auth.jwks import Jwks
from plait.server.auth.jwt import Expected, Jwt, sign
from plait.server.auth.keys import ApiKeys
from plait.server.auth.principal import BadGrant, check_pattern
from plait.server.auth.signatures import BadKey, VerifyingKey, pem_keys, secret_key
from plait.server.auth.verifier import Verifier
from plait.server.errors import ConfigError
from plait.server.settings import Settings

SECRET_CHARACTERS_MIN = 32
_COOKIE_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")


def configured(settings: Settings) -> bool:
    """Whether the settings say who may come. Without that only this machine is served."""
    return verifies_tokens(settings) or settings.allow_anonymous


def verifies_tokens(settings: Settings) -> bool:
    """Whether the settings say how tokens are verified. API keys need no setting."""
    return bool(_knows_tokens(settings) or settings.auth_url)


def build(settings: Settings, store: Store, wall: Callable[[], float]) -> Verifiers:
    """Return the verifiers that the settings ask for; API keys are always possible.

    Args:
        settings: read for all that begins with token, jwt, auth and anonymous.
        store: has the API keys.
        wall: seconds since 1970.

    Raises:
        ConfigError: a setting can't be used; says what to do.
    """
    check(settings)
    verifiers: list[Verifier] = [ApiKeys(store, wall)]
    if _knows_tokens(settings):
        keys = [secret_key(secret) for secret in settings.token_secret]
        if settings.jwt_keys:
            keys += _read_keys(settings.jwt_keys)
        jwks = None
        if settings.jwt_jwks:
            jwks = Jwks(settings.jwt_jwks, settings.auth_timeout_seconds)
        verifiers.append(Jwt(keys, jwks, _expected(settings), wall))
    # Last, since it is asked about whatever nobody else knows.
    if settings.auth_url:
        verifiers.append(
            Callback(
                settings.auth_url,
                settings.auth_secret,
                settings.auth_timeout_seconds,
                settings.auth_cache_seconds,
                wall,
            )
        )
    return Verifiers(verifiers, anonymous_principal(settings), wall)


def issue(settings: Settings, claims: Mapping[str, Any]) -> str:
    """Return a token that this server accepts.

    Args:
        claims: with `exp`, and the grants as `grants`, whatever the settings call them.

    Raises:
        ConfigError: there is no secret to sign it with.
    """
    if not settings.token_secret:
        raise ConfigError("tokens are issued with token_secret, which is not set")
    said = {name: value for name, value in claims.items() if name != "grants"}
    if "grants" in claims:
        said[settings.jwt_grants] = claims["grants"]
    if settings.jwt_issuer:
        said["iss"] = settings.jwt_issuer
    if settings.jwt_audience:
        said["aud"] = settings.jwt_audience
    return sign(settings.token_secret[0], said)


def check(settings: Settings) -> None:
    """Check the settings, but for whether others answer.

    Raises:
        ConfigError: one can't be used; says what to do.
    """
    if any(len(secret) < SECRET_CHARACTERS_MIN for secret in settings.token_secret):
        raise ConfigError(
            f"token_secret: each has to have {SECRET_CHARACTERS_MIN} characters or more, without"
            " spaces; openssl rand -base64 32 makes one"
        )
    if settings.jwt_keys:
        _read_keys(settings.jwt_keys)
    if settings.jwt_jwks:
        check_url(settings.jwt_jwks, "jwt_jwks")
    for name in ("jwt_issuer", "jwt_audience"):
        if getattr(settings, name) and not _knows_tokens(settings):
            raise ConfigError(
                f"{name} is compared with what tokens say, but none is verified here: set"
                " token_secret, jwt_keys or jwt_jwks"
            )
    if settings.auth_url:
        check_url(settings.auth_url, "auth_url")
    if settings.auth_secret:
        if not settings.auth_url:
            raise ConfigError("auth_secret signs questions to auth_url, which is not set")
        signing_key(settings.auth_secret, "auth_secret")
    if settings.auth_cookie and not _COOKIE_NAME.match(settings.auth_cookie):
        raise ConfigError(f"auth_cookie: {settings.auth_cookie!r} can't be the name of a cookie")
    for docs in settings.anonymous_docs:
        try:
            check_pattern(docs)
        except BadGrant as error:
            raise ConfigError(f"anonymous_docs: {docs!r} can't be used: {error}") from None


def _knows_tokens(settings: Settings) -> bool:
    return bool(settings.token_secret or settings.jwt_keys or settings.jwt_jwks)


def _expected(settings: Settings) -> Expected:
    return Expected(
        settings.jwt_issuer,
        settings.jwt_audience,
        settings.jwt_grants,
        settings.jwt_leeway_seconds,
    )


def _read_keys(path: str) -> tuple[VerifyingKey, ...]:
    try:
        return pem_keys(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"jwt_keys: {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"jwt_keys: {path} is not PEM; openssl can convert it") from None
    except BadKey as error:
        raise ConfigError(f"jwt_keys: {path} can't be used: {error}") from None
