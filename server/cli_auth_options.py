"""The options of `plait token` and `plait key`. Parsing only."""

import argparse
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from plait.server import settings
from plait.server.cli_options import Commands, Work, add_output, on_store

if TYPE_CHECKING:
    from plait.server.command import Command

SECONDS = {"s": 1, "m": 60, "h": 60 * 60, "d": 24 * 60 * 60}
LONGEST_DAYS = 3660
"""For how long something may be issued."""

_DURATION = re.compile(r"(\d{1,9})([smhd])")


def add_tokens(commands: Commands) -> None:
    """Add `plait token` and its commands."""
    family = commands.family("token", "Issue tokens, look at them, and take rights away.")

    def add(name: str, summary: str, description: str) -> argparse.ArgumentParser:
        return commands.add(name, summary, description, family, "token ")

    parser = add(
        "secret",
        "make a secret for token_secret",
        "Print a new random secret, for the setting token_secret.",
    )
    add_output(parser)
    parser.set_defaults(run=_secret)
    _add_create(
        add(
            "create",
            "issue a token",
            "Issue a token, signed with the first of token_secret. Nothing is stored.",
        )
    )
    _add_inspect(add)
    _add_revoke(add)
    parser = add(
        "revocations", "list rights that were taken away", "List rights that were taken away."
    )
    on_store(parser, _revocations)
    parser = add(
        "restore",
        "take a revocation back",
        "Take a revocation back: tokens that it concerned are worth what they say again.",
    )
    on_store(parser, _restore)
    parser.add_argument("id", metavar="ID", help="of the revocation")


def add_keys(commands: Commands) -> None:
    """Add `plait key` and its commands."""
    family = commands.family(
        "key", "Make and delete API keys. Servers on the store notice within a second."
    )

    def add(name: str, summary: str, description: str, work: Work) -> argparse.ArgumentParser:
        parser = commands.add(name, summary, description, family, "key ")
        on_store(parser, work)
        return parser

    parser = add(
        "create",
        "make an API key",
        "Make an API key, and show it, this once: the store has no more than its digest.",
        _create_key,
    )
    _add_grants(parser)
    _add_expires(parser, None, "it ends (default: never)")
    add("list", "list API keys", "List API keys: what they may, not what they are.", _list_keys)
    parser = add("delete", "delete an API key", "Delete an API key.", _delete_key)
    parser.add_argument("id", metavar="ID", help="of the key: what is between the underscores")


def _add_create(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="a TOML file with settings")
    _add_grants(parser)
    parser.add_argument("--color", metavar="C", default="", help="of its cursor: #1b746c")
    _add_expires(parser, "1h", "it ends (default: 1h)")
    add_output(parser)
    parser.set_defaults(run=_create)


def _add_inspect(add: Callable[..., argparse.ArgumentParser]) -> None:
    parser = add(
        "inspect",
        "tell what a token says, and whether it is accepted",
        "Tell what a token or an API key says, and whether it is accepted with these settings and "
        "this store. Exits with 1 if it is not. Asks nobody else unless --online is given.",
    )
    on_store(parser, _inspect)
    parser.add_argument("token", metavar="TOKEN", help="the token; - reads it from standard input")
    parser.add_argument("--document", metavar="NAME", help="also tell the right on this document")
    parser.add_argument(
        "--online", action="store_true", help="fetch keys from jwt_jwks, and ask auth_url"
    )


def _add_revoke(add: Callable[..., argparse.ArgumentParser]) -> None:
    parser = add(
        "revoke",
        "take rights away",
        "Take rights away from what was issued until now: a subject's tokens and keys, one token, "
        "or all on some documents. Servers on the store obey within a second, and close or "
        "restrict who is connected. A token that is issued afterwards is not concerned.",
    )
    on_store(parser, _revoke)
    parser.add_argument("--subject", metavar="S", help="whose tokens and keys")
    parser.add_argument(
        "--token", metavar="TOKEN", help="the token, or its id; - reads it from standard input"
    )
    parser.add_argument("--document", metavar="PATTERN", help="on these documents only")
    parser.add_argument(
        "--access", choices=("none", "read"), default="none", help="what is left (default: none)"
    )
    parser.add_argument("--reason", metavar="WORDS", default="", help="why, for who reads the list")
    _add_expires(parser, None, "it is forgotten (default: never)")


def _add_grants(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--subject", metavar="S", required=True, help="who it is to the application"
    )
    parser.add_argument(
        "--docs",
        dest="grants",
        metavar="PATTERN",
        action=_InOrder,
        required=True,
        help="documents: a name, or a pattern such as notes/*; several with an --access each",
    )
    parser.add_argument(
        "--access",
        dest="grants",
        choices=("read", "write", "admin"),
        action=_InOrder,
        help="what it may do with the --docs before it",
    )
    parser.add_argument("--name", metavar="N", default="", help="what others are shown")


class _InOrder(argparse.Action):
    """Collects options in the order in which they are given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        given = getattr(namespace, self.dest) or []
        setattr(namespace, self.dest, [*given, (option_string, values)])


def _add_expires(parser: argparse.ArgumentParser, default: str | None, what: str) -> None:
    parser.add_argument(
        "--expires",
        type=_seconds,
        metavar="TIME",
        default=default,
        help=f"after how long {what}: 30m, 1h, 7d",
    )


def _seconds(text: str) -> float:
    found = _DURATION.fullmatch(text)
    seconds = int(found[1]) * SECONDS[found[2]] if found else 0
    if not 0 < seconds <= LONGEST_DAYS * SECONDS["d"]:
        raise argparse.ArgumentTypeError(f"{text} can't be used: 30m, 1h or 7d is expected")
    return seconds


# What is run


def _secret(parsed: argparse.Namespace) -> int:
    from plait.server.cli_auth import print_secret
    from plait.server.terminal import Terminal

    return print_secret(Terminal(as_json=parsed.json, quiet=parsed.quiet))


def _create(parsed: argparse.Namespace) -> int:
    from plait.server.cli_auth import create_token
    from plait.server.command import Command
    from plait.server.interruption import run
    from plait.server.terminal import Terminal

    command = Command(
        settings.from_process({}, parsed.config),
        Terminal(as_json=parsed.json, quiet=parsed.quiet),
    )
    return run(
        create_token(
            command,
            parsed.subject,
            parsed.grants,
            name=parsed.name,
            color=parsed.color,
            seconds=parsed.expires,
        )
    )


async def _inspect(command: "Command", parsed: argparse.Namespace) -> int:
    from plait.server.cli_auth import inspect_token

    return await inspect_token(
        command, parsed.token, document=parsed.document, online=parsed.online
    )


async def _revoke(command: "Command", parsed: argparse.Namespace) -> int:
    from plait.server.cli_auth import revoke

    return await revoke(
        command,
        subject=parsed.subject,
        token=parsed.token,
        docs=parsed.document,
        access=parsed.access,
        seconds=parsed.expires,
        reason=parsed.reason,
    )


async def _revocations(command: "Command", parsed: argparse.Namespace) -> int:
    from plait.server.cli_auth import list_revocations

    return await list_revocations(command)


async def _restore(command: "Command", parsed: argparse.Namespace) -> int:
    from plait.server.cli_auth import restore

    return await restore(command, parsed.id)


async def _create_key(command: "Command", parsed: argparse.Namespace) -> int:
    from plait.server.cli_auth_keys import create_key

    return await create_key(
        command,
        parsed.subject,
        parsed.grants,
        name=parsed.name,
        seconds=parsed.expires,
    )


async def _list_keys(command: "Command", parsed: argparse.Namespace) -> int:
    from plait.server.cli_auth_keys import list_keys

    return await list_keys(command)


async def _delete_key(command: "Command", parsed: argparse.Namespace) -> int:
    from plait.server.cli_auth_keys import delete_key

    return await delete_key(command, parsed.id)
