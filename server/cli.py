"""The command line: `plait serve` and the commands that look after documents and stores. Parsing
only.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from plait.persistence import StoreError
from plait.server import __version__, logs, settings
from plait.server.errors import ConfigError, PlaitError

FAILED = 1
MISUSED = 2


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(MISUSED)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 if it failed, 2 if it was not understood."""
    parsed = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = parsed.run
    try:
        return run(parsed)
    except ConfigError as error:
        print(f"plait: {error}", file=sys.stderr)
        return MISUSED
    except (PlaitError, StoreError) as error:
        print(f"plait: {error}", file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="plait", description="A collaboration server for Yjs documents.")
    parser.add_argument("--version", action="version", version=f"plait {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_serve(commands)
    return parser


def _add_serve(commands: "argparse._SubParsersAction[Any]") -> None:
    parser = commands.add_parser("serve", help="serve rooms", description="Serve rooms.")
    parser.set_defaults(run=_serve)
    parser.add_argument("--config", metavar="FILE", help="a TOML file with settings")
    for name in settings.NAMES:
        flag, text = "--" + name.replace("_", "-"), settings.flag_help(name)
        if settings.is_switch(name):
            parser.add_argument(flag, dest=name, action="store_const", const="true", help=text)
        else:
            parser.add_argument(flag, dest=name, metavar="VALUE", help=text.replace("%", "%%"))


def _serve(parsed: argparse.Namespace) -> int:
    from plait.server.serving import serve

    flags = {name: getattr(parsed, name) for name in settings.NAMES}
    chosen = settings.from_process(flags, parsed.config)
    logs.configure(chosen.log_level, chosen.log_format)
    return serve(chosen)
