"""What the parsers of all commands have in common: errors of one line, the overview, and options
of what works on a store.
"""

import argparse
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NoReturn

from plait.server import settings

if TYPE_CHECKING:
    from plait.server.command import Command

MISUSED = 2
"""The exit code of what was not understood."""

Run = Callable[[argparse.Namespace], int]
Work = Callable[["Command", argparse.Namespace], Coroutine[Any, Any, int]]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(MISUSED)


class Commands:
    """Adds commands, and remembers them in groups, for the overview."""

    def __init__(self, subparsers: "argparse._SubParsersAction[Any]") -> None:
        self._subparsers = subparsers
        self._lines: list[str] = []

    def begin(self, title: str) -> None:
        """Begin a group."""
        self._lines += ["", f"{title}:"] if self._lines else [f"{title}:"]

    def family(self, name: str, summary: str) -> "argparse._SubParsersAction[Any]":
        """Add a word that has commands of its own."""
        parser = self._subparsers.add_parser(name, help=summary, description=summary)
        family: argparse._SubParsersAction[Any] = parser.add_subparsers(
            title="commands", metavar="COMMAND", required=True
        )
        return family

    def add(
        self,
        name: str,
        summary: str,
        description: str,
        family: "argparse._SubParsersAction[Any] | None" = None,
        prefix: str = "",
    ) -> argparse.ArgumentParser:
        """Add a command."""
        self._lines.append(f"  {prefix + name:<17}  {summary}")
        parser: argparse.ArgumentParser = (family or self._subparsers).add_parser(
            name, help=summary, description=description
        )
        return parser

    def overview(self) -> str:
        """Return all commands with a line on each."""
        more = "`plait COMMAND --help` tells the options of a command."
        return "\n".join([*self._lines, "", more])


def on_store(parser: argparse.ArgumentParser, work: Work) -> None:
    """Give a command the options that all on a store have, and something to run."""
    parser.add_argument(
        "--store", metavar="URL", help="where documents are kept (default: sqlite:///plait.db)"
    )
    parser.add_argument("--config", metavar="FILE", help="a TOML file with settings")
    add_output(parser)
    parser.set_defaults(run=lambda parsed: run_on_store(work, parsed))


def add_output(parser: argparse.ArgumentParser) -> None:
    """Let a result be JSON, and what is said about it be left out."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--quiet", action="store_true", help="print neither progress nor what was done"
    )


def add_yes(parser: argparse.ArgumentParser) -> None:
    """Let what can't be taken back be confirmed beforehand."""
    parser.add_argument(
        "--yes", action="store_true", help="do not ask; needed where nobody can be asked"
    )


def run_on_store(work: Work, parsed: argparse.Namespace) -> int:
    """Run what works on a store, with the settings of the process; return its exit code."""
    from plait.server.command import Command
    from plait.server.interruption import run
    from plait.server.memory import raise_stack_limit
    from plait.server.terminal import Terminal

    raise_stack_limit()
    chosen = settings.from_process({"store": parsed.store}, parsed.config)
    terminal = Terminal(
        as_json=parsed.json, quiet=parsed.quiet, assume_yes=getattr(parsed, "yes", False)
    )
    try:
        return run(work(Command(chosen, terminal), parsed))
    finally:
        terminal.clear()
