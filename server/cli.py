"""The command line: `plait serve` and the commands that look after documents and stores. Parsing
only.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from plait.persistence import StoreError
from plait.server import COMPILED, __version__, logs, settings
from plait.server.cli_auth_options import add_keys, add_tokens
from plait.server.cli_options import (
    MISUSED as MISUSED,
)
from plait.server.cli_options import (
    Commands,
    Parser,
    Run,
    Work,
    add_output,
    add_yes,
    on_store,
    run_on_store,
)
from plait.server.errors import ConfigError, PlaitError

if TYPE_CHECKING:
    from plait.server.command import Command

FAILED = 1
INTERRUPTED = 130
PIPE_CLOSED = 141
"""128 and the number of a signal, as a shell reports it: SIGINT, SIGPIPE."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 if it failed or found problems, 2 if it was not
    understood, 130 if it was interrupted (143 by SIGTERM, 129 as its terminal was closed).
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the terminal's encoding lacks must not end a listing.
        sys.stdout.reconfigure(errors="backslashreplace")
    if arguments is None and sys.argv[1:2] == ["serve"]:
        # First, since what is wrong with the rest is told in the log's format, too.
        logs.begin(settings.early_log_format(sys.argv[1:], os.environ))
    try:
        parsed = _parser().parse_args(arguments)
        run: Run = parsed.run
        code = run(parsed)
        sys.stdout.flush()
        return code
    except ConfigError as error:
        print(f"plait: {error}", file=sys.stderr)
        return MISUSED
    except (PlaitError, StoreError) as error:
        print(f"plait: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt as interruption:
        print("plait: interrupted", file=sys.stderr)
        return getattr(interruption, "exit_code", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output has enough. Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="plait",
        usage="plait [--version] COMMAND ...",
        description="A collaboration server for Yjs documents.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"plait {__version__}{', compiled' * COMPILED}"
    )
    commands = Commands(
        parser.add_subparsers(
            prog="plait", metavar="COMMAND", required=True, help=argparse.SUPPRESS
        )
    )
    commands.begin("serving")
    _add_serve(commands)
    _add_health(commands)
    commands.begin("who may come in")
    add_tokens(commands)
    add_keys(commands)
    commands.begin("documents, in a store that a server may be running on")
    _add_docs(commands)
    commands.begin("stores")
    _add_store(commands)
    commands.begin("measuring")
    _add_bench(commands)
    parser.epilog = commands.overview()
    return parser


# plait serve


def _add_serve(commands: Commands) -> None:
    parser = commands.add("serve", "serve rooms", "Serve rooms.")
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
    logs.begin(chosen.log_format)
    logs.configure(chosen.log_level, chosen.log_format)
    return serve(chosen)


def _add_health(commands: Commands) -> None:
    parser = commands.add(
        "health",
        "ask the server of this machine whether it is ready",
        "Ask the server that runs on this machine with these settings whether it takes clients, "
        "and exit with 0 or 1: a health check for containers.",
    )
    parser.set_defaults(run=_health)
    parser.add_argument("--config", metavar="FILE", help="a TOML file with settings")
    for name in ("host", "port", "tls_cert"):
        flag, text = "--" + name.replace("_", "-"), settings.flag_help(name)
        parser.add_argument(flag, dest=name, metavar="VALUE", help=text)


def _health(parsed: argparse.Namespace) -> int:
    from plait.server.cli_health import check_health

    flags = {name: getattr(parsed, name) for name in ("host", "port", "tls_cert")}
    return check_health(settings.from_process(flags, parsed.config))


# plait docs


def _add_docs(commands: Commands) -> None:
    family = commands.family(
        "docs",
        "Look after documents. A server that runs on the store notices changes within a second.",
    )

    def add(name: str, summary: str, description: str, work: Work) -> argparse.ArgumentParser:
        parser = commands.add(name, summary, description, family, "docs ")
        on_store(parser, work)
        return parser

    parser = add("list", "list documents", "List documents in the order of their names.", _list)
    parser.add_argument("--prefix", metavar="P", default="", help="those whose name begins so")
    parser.add_argument(
        "--deleted", action="store_true", help="those that were deleted and can be undeleted"
    )
    parser = add(
        "show", "show a document's facts", "Show size, history and content of a document.", _show
    )
    parser.add_argument("name", metavar="NAME")
    _add_export_and_import(add)
    parser = add(
        "delete",
        "delete a document",
        "Delete a document: its clients are sent away, and it is kept until it is purged.",
        _delete,
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--purge", action="store_true", help="forget it for good, at once")
    add_yes(parser)
    parser = add(
        "undelete", "bring a deleted document back", "Bring a deleted document back.", _undelete
    )
    parser.add_argument("name", metavar="NAME")


def _add_export_and_import(add: Callable[..., argparse.ArgumentParser]) -> None:
    parser = add(
        "export",
        "write a document to a file",
        "Write a document's whole state to a file, as a Yjs update of version 1 or as JSON.",
        _export,
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "-o", dest="target", metavar="FILE", help="where to; - or nothing: standard output"
    )
    parser.add_argument(
        "--format",
        choices=("update", "json"),
        default="update",
        help="update: everything, for `docs import` or Y.applyUpdate; json: the content, to read",
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there")
    parser = add(
        "import",
        "make a document of a file",
        "Make a document of a Yjs update of version 1, as `docs export` and "
        "Y.encodeStateAsUpdate write it. Makes the store if there is none.",
        _import,
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("source", metavar="FILE", help="where from; - is standard input")
    parser.add_argument(
        "--merge", action="store_true", help="into a document that exists, as one more edit"
    )


async def _list(command: "Command", parsed: argparse.Namespace) -> int:
    from plait.server.cli_documents import list_documents

    return await list_documents(command, prefix=parsed.prefix, deleted=parsed.deleted)


async def _show(command: "Command", parsed: argparse.Namespace) -> int:
    from plait.server.cli_documents import show_document

    return await show_document(command, parsed.name)


async def _export(command: "Command", parsed: argparse.Namespace) -> int:
    from plait.server.cli_documents import export_document

    return await export_document(
        command,
        parsed.name,
        parsed.target,
        as_json=parsed.format == "json",
        force=parsed.force,
    )


async def _import(command: "Command", parsed: argparse.Namespace) -> int:
    from plait.server.cli_documents import import_document

    return await import_document(command, parsed.name, parsed.source, merge=parsed.merge)


async def _delete(command: "Command", parsed: argparse.Namespace) -> int:
    from plait.server.cli_documents import delete_document

    return await delete_document(command, parsed.name, purge=parsed.purge)


async def _undelete(command: "Command", parsed: argparse.Namespace) -> int:
    from plait.server.cli_documents import undelete_document

    return await undelete_document(command, parsed.name)


# plait store


def _add_store(commands: Commands) -> None:
    family = commands.family("store", "Look after the store that documents are kept in.")

    def add(name: str, summary: str, description: str, work: Work) -> argparse.ArgumentParser:
        parser = commands.add(name, summary, description, family, "store ")
        on_store(parser, work)
        return parser

    parser = add(
        "check",
        "look for damage",
        "Check the store's structure, and that every document can be loaded and is what its "
        "history says. Exits with 1 if there is a problem.",
        _check,
    )
    parser.add_argument(
        "backup", metavar="BACKUP", nargs="?", help="a backup to check instead; it is only read"
    )
    parser = add(
        "compact",
        "make loading fast again",
        "Give documents a fresh snapshot and fold their history that is older than history_days. "
        "A server does this by itself, when it pays.",
        _compact,
    )
    _add_names(parser, "only this one; may be given several times")
    parser.add_argument(
        "--purge-after-days",
        type=_days,
        metavar="DAYS",
        help="also forget for good what was deleted longer ago than this (default: never)",
    )
    parser = add(
        "backup",
        "copy the store to a file",
        "Write a copy of the whole store, as of one moment, while it may be in use. "
        "Never overwrites.",
        _backup,
    )
    parser.add_argument("target", metavar="TARGET", help="a file that does not exist yet")
    parser = add(
        "restore",
        "bring back what a backup has",
        "Replace a store that nobody serves by a backup, and keep the old one beside it; or fill "
        "one in PostgreSQL that has no documents. While a server runs, or PostgreSQL has "
        "documents, or with --document: bring documents back by new edits, to which live "
        "editors converge; documents that the backup does not have are left alone.",
        _restore,
    )
    parser.add_argument("backup", metavar="BACKUP")
    _add_names(parser, "only this one, by a new edit; may be given several times")
    add_yes(parser)
    add(
        "migrate",
        "bring the store forward",
        "Bring the store's schema forward to what this program needs, and tell from where to "
        "where. Every command and every server does that as it opens a store.",
        _migrate,
    )
    _add_copy(commands, family)


def _add_copy(commands: Commands, family: "argparse._SubParsersAction[Any]") -> None:
    parser = commands.add(
        "copy",
        "copy the store into another",
        "Copy all documents of a store into one that has none, of another kind or of the same, "
        "with history, snapshots and deletions, and compare. No server may run on a file that is "
        "copied; PostgreSQL is copied as of one moment.",
        family,
        "store ",
    )
    parser.add_argument("source", metavar="FROM", help="the URL of a store")
    parser.add_argument("to", metavar="TO", help="the URL of one that is not there, or empty")
    add_output(parser)
    parser.set_defaults(store=None, config=None, run=lambda parsed: run_on_store(_copy, parsed))


def _add_names(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--document", dest="names", metavar="NAME", action="append", default=[], help=text
    )


def _days(text: str) -> float:
    days = float(text)
    if not 0 <= days < 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} can't be used: a number of days is expected")
    return days


async def _check(command: "Command", parsed: argparse.Namespace) -> int:
    from plait.server.cli_store import check_store

    return await check_store(command, parsed.backup)


async def _compact(command: "Command", parsed: argparse.Namespace) -> int:
    from plait.server.cli_store import compact_store

    return await compact_store(command, parsed.names, parsed.purge_after_days)


async def _backup(command: "Command", parsed: argparse.Namespace) -> int:
    from plait.server.cli_store import back_up_store

    return await back_up_store(command, parsed.target)


async def _restore(command: "Command", parsed: argparse.Namespace) -> int:
    from plait.server.cli_store import restore_store

    return await restore_store(command, parsed.backup, parsed.names)


async def _migrate(command: "Command", parsed: argparse.Namespace) -> int:
    from plait.server.cli_transfer import migrate_store

    return await migrate_store(command)


async def _copy(command: "Command", parsed: argparse.Namespace) -> int:
    from plait.server.cli_transfer import copy_stores

    return await copy_stores(command, parsed.source, parsed.to)


# plait bench


def _add_bench(commands: Commands) -> None:
    from plait.server.cli_bench import add_options

    parser = commands.add(
        "bench",
        "play many editors against a server",
        "Play many editors against a server, and show how fast edits arrive and are acknowledged. "
        "Writes into rooms that nobody else uses, and leaves them behind. "
        "Exits with 1 if an edit or an editor was lost.",
    )
    add_options(parser)
    parser.set_defaults(run=_bench)


def _bench(parsed: argparse.Namespace) -> int:
    from plait.server.cli_bench import bench

    return bench(parsed)
