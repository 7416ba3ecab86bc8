"""Settings: what an operator may choose, from flags, the environment and a TOML file, in this order
of precedence.

What is set and empty is an error, wherever it is: a secret that a failed command left empty would
otherwise be no secret, and everybody let in without a word.

Every setting is a field of `Settings`; its name is the flag (`--idle-seconds`), the variable
(`PLAIT_IDLE_SECONDS`) and the key (`idle_seconds`). An unknown one is an error that names it.
docs/configuration.md describes each; a test compares.
"""

import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from plait.server.errors import ConfigError

PREFIX = "PLAIT_"

_KUBERNETES = re.compile(r"PLAIT_(SERVICE_(HOST|PORT).*|PORT_\d+_(TCP|UDP).*|PORT)")
"""Variables that Kubernetes sets in every pod beside a service named `plait`."""


def _whole(text: str) -> int:
    return int(text.replace("_", ""))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[,\s]+", text) if word)


def _words_or_none(text: str) -> tuple[str, ...]:
    return () if text.strip() == "none" else _words(text)


def _truth(text: str) -> bool:
    try:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
            text.lower()
        ]
    except KeyError:
        raise ValueError("true or false is expected") from None


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)} is expected")
        return text

    return parse


def _setting(
    default: Any,
    help: str,
    parse: Callable[[str], Any] = str,
    low: float | None = None,
    high: float | None = None,
    secret: bool = False,
) -> Any:
    metadata = {"help": help, "parse": parse, "low": low, "high": high, "secret": secret}
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `plait serve` runs with."""

    host: str = _setting("127.0.0.1", "address to listen on; 0.0.0.0 for all")
    port: int = _setting(8000, "port to listen on; 0 picks a free one", _whole, 0, 65535)
    store: str = _setting(
        "sqlite:///plait.db",
        "where documents are kept: sqlite:///PATH, postgresql://USER:PASSWORD@HOST/DB or memory://",
    )
    relay: str = _setting(
        "", "Redis that connects several nodes: redis://, rediss:// or redis+sentinel://"
    )
    tls_cert: str = _setting("", "certificate chain in PEM; with tls_key, https:// and wss://")
    tls_key: str = _setting("", "private key in PEM of tls_cert")
    token_secret: tuple[str, ...] = _setting(
        (),
        "secrets of 32 characters or more that sign and verify tokens (HS256); the first signs",
        _words,
        secret=True,
    )
    jwt_keys: str = _setting(
        "", "file with public keys in PEM that verify tokens (RS256, PS256, ES256, EdDSA)"
    )
    jwt_jwks: str = _setting("", "https:// URL of the keys (JWKS) that verify tokens")
    jwt_issuer: str = _setting("", "issuer (iss) that tokens have to name")
    jwt_audience: str = _setting("", "audience (aud) that tokens have to name")
    jwt_grants: str = _setting("grants", "name of the claim that holds a token's grants")
    jwt_leeway_seconds: float = _setting(
        10.0, "how far clocks of who issues tokens may be off", float, 0, 600
    )
    auth_url: str = _setting("", "https:// URL of the application that is asked about tokens")
    auth_secret: str = _setting("", "secret that signs these questions", secret=True)
    auth_timeout_seconds: float = _setting(
        5.0, "how long the application may take to answer", float, 0.1, 60
    )
    auth_cache_seconds: float = _setting(
        60.0, "how long an answer of the application counts; 0: ask each time", float, 0, 86_400
    )
    auth_cookie: str = _setting(
        "", "name of a cookie that holds the token, for pages of this origin; none without"
    )
    allow_anonymous: bool = _setting(
        False, "let in whoever has no token, with the right of anonymous_access", _truth
    )
    anonymous_access: str = _setting(
        "write", "what those without a token may: read or write", _one_of("read", "write")
    )
    anonymous_docs: tuple[str, ...] = _setting(
        ("*",), "which documents those without a token may open, as patterns", _words
    )
    allow_origin: tuple[str, ...] = _setting(
        (),
        "web pages that may connect, besides those of this server: https://app.example.org, or *",
        _words,
    )
    trusted_proxies: tuple[str, ...] = _setting(
        ("127.0.0.1", "::1"),
        "addresses or networks of proxies whose X-Forwarded-For and -Proto count; or *, or none",
        _words_or_none,
    )
    idle_seconds: float = _setting(
        30.0, "how long a room stays in memory after its last client left", float, 0
    )
    memory_mb: int = _setting(
        1024, "memory for documents; above it idle rooms are unloaded at once", _whole, 1
    )
    message_mb: int = _setting(64, "largest message or upload in MiB", _whole, 1, 1024)
    document_mb: int = _setting(
        64, "size of a document in MiB above which only deletions are accepted; 0: any", _whole, 0
    )
    frames_per_second: int = _setting(
        5000, "messages that a client may send a second, in the long run; 0: any", _whole, 0
    )
    mb_per_second: int = _setting(
        16, "MiB that a client may send a second, in the long run; 0: any", _whole, 0
    )
    connections_max: int = _setting(
        50_000, "connections in all, above which clients are sent away; 0: any", _whole, 0
    )
    connections_per_address: int = _setting(
        1000, "connections from one address, but for this machine's own; 0: any", _whole, 0
    )
    connections_per_subject: int = _setting(
        200, "connections of one subject, as its tokens name it; 0: any", _whole, 0
    )
    subject_frames_per_second: int = _setting(
        20_000, "messages of all connections of one subject a second; 0: any", _whole, 0
    )
    subject_mb_per_second: int = _setting(
        64, "MiB of all connections of one subject a second; 0: any", _whole, 0
    )
    address_frames_per_second: int = _setting(
        100_000, "messages of all connections from one address a second; 0: any", _whole, 0
    )
    address_mb_per_second: int = _setting(
        256, "MiB of all connections from one address a second; 0: any", _whole, 0
    )
    handshakes_per_second: int = _setting(
        100, "handshakes from one address a second, in the long run; 0: any", _whole, 0
    )
    rooms_max: int = _setting(
        100_000, "rooms in memory; idle ones make way for new ones; 0: any", _whole, 0
    )
    commit_ms: float = _setting(
        40.0, "time between commits under load; an acknowledgement waits for one", float, 0, 1000
    )
    unsaved_mb: int = _setting(
        64, "edits kept in memory while the store is away; above it clients have to wait", _whole, 4
    )
    history_days: float = _setting(
        30.0, "days for which every single edit is kept; older ones are folded together", float, 0
    )
    drain_seconds: float = _setting(
        10.0, "how long a stopping server tries to store what is unsaved", float, 0
    )
    webhook_url: str = _setting("", "URL that is told of events of documents")
    webhook_secret: str = _setting("", "secret that signs what it is told", secret=True)
    webhook_events: tuple[str, ...] = _setting(
        ("created", "changed", "deleted", "undeleted"),
        "which events: created, changed, deleted, undeleted, connected, disconnected",
        _words,
    )
    webhook_quiet_seconds: float = _setting(
        2.0, "how long a document is left alone before its change is told", float, 0, 3600
    )
    webhook_delay_seconds: float = _setting(
        30.0, "how long telling of a change is put off at most while it goes on", float, 0, 86_400
    )
    audit_log: str = _setting(
        "", "file to which security events are appended as JSON; without it they are in the log"
    )
    metrics_public: bool = _setting(
        False, "answer /metrics to other machines, not to this one alone", _truth
    )
    sockets: str = _setting(
        "direct",
        "direct: the fast way; asgi: every message through the ASGI interface",
        _one_of("direct", "asgi"),
    )
    log_level: str = _setting(
        "info", "debug, info, warning or error", _one_of("debug", "info", "warning", "error")
    )
    log_format: str = _setting(
        "text", "text, or json for a line of JSON an event", _one_of("text", "json")
    )


NAMES = tuple(each.name for each in fields(Settings))


def load(
    flags: Mapping[str, str | None], environment: Mapping[str, str], file: str | None = None
) -> Settings:
    """Return the settings.

    Args:
        flags: by setting's name; None where a flag was not given.
        file: a TOML file; without one, `PLAIT_CONFIG` of the environment.

    Raises:
        ConfigError: a setting is unknown or has a value that it can't have; names where.
    """
    given = {"--config": file, PREFIX + "CONFIG": environment.get(PREFIX + "CONFIG")}
    for origin, path in given.items():
        if path is not None:
            _refuse_empty("config", path, origin)
    path = next((path for path in given.values() if path is not None), None)
    values = {} if path is None else _from_file(Path(path))
    values |= _from_environment(environment)
    values |= {
        name: _parse(name, text, _flag(name)) for name, text in flags.items() if text is not None
    }
    return Settings(**values)


def early_log_format(arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return what `log_format` is meant to be, before it is known whether the settings can be used:
    what is wrong with them is to be told in that format as well.
    """
    chosen = _given("--log-format", arguments) or environment.get(PREFIX + "LOG_FORMAT")
    path = _given("--config", arguments) or environment.get(PREFIX + "CONFIG")
    if not chosen and path:
        try:
            chosen = tomllib.loads(Path(path).read_text()).get("log_format")
        except (OSError, ValueError):
            pass  # `load` will tell.
    return "json" if chosen == "json" else "text"


def _given(flag: str, arguments: Sequence[str]) -> str:
    """Return the last value of a flag; empty if it is not given."""
    found = ""
    for each, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if each == flag:
            found = following
        elif each.startswith(flag + "="):
            found = each.removeprefix(flag + "=")
    return found


def flag_help(name: str) -> str:
    """Return one line on a setting, with its default."""
    each = _field(name)
    default = ", ".join(each.default) if isinstance(each.default, tuple) else each.default
    shown = f" (default: {str(default).lower() if isinstance(default, bool) else default})"
    return str(each.metadata["help"]) + (shown if default != "" else "")


def is_switch(name: str) -> bool:
    """Whether a setting is true or false, so that its flag needs no value."""
    return isinstance(_field(name).default, bool)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _field(name: str) -> "Field[Any]":
    found = next(each for each in fields(Settings) if each.name == name)
    assert found.default is not MISSING
    return found


def _parse(name: str, text: str, origin: str) -> Any:
    _refuse_empty(name, text, origin)
    metadata = _field(name).metadata
    try:
        value = metadata["parse"](text)
    except ValueError as error:
        said = str(error)
        why = said if said.endswith("expected") else "a number is expected"
        shown = "what is given" if metadata["secret"] else repr(text)
        raise ConfigError(f"{origin}: {shown} can't be used: {why}") from None
    return _within(name, value, origin)


def _refuse_empty(name: str, text: str, origin: str) -> None:
    """Refuse a value that says nothing: spaces, or commas and no word between them."""
    if text.strip(" \t\r\n,"):
        return
    leave = {"--": "leave the option out", PREFIX: "unset the variable"}
    without = next(
        (said for prefix, said in leave.items() if origin.startswith(prefix)), "take the line out"
    )
    makes = " (`plait token secret` makes one)" if name == "token_secret" else ""
    raise ConfigError(f"{origin} is set, and empty: give it a value{makes}, or {without}")


def _within(name: str, value: Any, origin: str) -> Any:
    metadata = _field(name).metadata
    low, high = metadata["low"], metadata["high"]
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        bounds = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ConfigError(f"{origin}: {value} can't be used: it has to be {bounds}")
    return value


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values = {}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or variable == PREFIX + "CONFIG":
            continue
        if _KUBERNETES.fullmatch(variable) and (variable != "PLAIT_PORT" or "://" in text):
            continue
        name = variable.removeprefix(PREFIX).lower()
        _known(name, variable, lambda each: PREFIX + each.upper())
        values[name] = _parse(name, text, variable)
    return values


def _from_file(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes().decode()
        table = tomllib.loads(content)
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    if not content.strip():
        raise ConfigError(f"{path} is empty: write settings into it, or do without it")
    values = {}
    for name, value in table.items():
        origin = f"{name} in {path}"
        _known(name, origin, str)
        values[name] = _typed(name, value, origin)
    return values


def _typed(name: str, value: Any, origin: str) -> Any:
    """Return a value of the file as the setting's type."""
    default = _field(name).default
    if isinstance(default, tuple) and isinstance(value, list):
        words = [str(each) for each in value]
        # A list of nothing says that it is meant to be empty; where that is a secret, it is not.
        if _field(name).metadata["secret"] or words:
            for word in words or [""]:
                _refuse_empty(name, word, origin)
        return tuple(words)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return _within(name, float(value), origin)
    if isinstance(value, str):
        return _parse(name, value, origin)
    if type(value) is not type(default):
        kind = {bool: "true or false", int: "a whole number", float: "a number"}.get(
            type(default), "text"
        )
        shown = "what is given" if _field(name).metadata["secret"] else repr(value)
        raise ConfigError(f"{origin}: {shown} can't be used: {kind} is expected")
    return _within(name, value, origin)


def _known(name: str, origin: str, spell: Callable[[str], str]) -> None:
    if name in NAMES:
        return
    close = get_close_matches(name, NAMES, 1)
    hint = f"; did you mean {spell(close[0])}?" if close else ""
    raise ConfigError(f"{origin}: there is no such setting{hint}")


def from_process(flags: Mapping[str, str | None], file: str | None) -> Settings:
    """Return the settings of this process: `load` with its environment."""
    return load(flags, os.environ, file)
