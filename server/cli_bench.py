"""What `plait bench` does: it plays editors against a server, and shows what they saw."""

import argparse
import asyncio
import sys
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from plait.server.scenarios import PRESETS, Result, Scenario
from plait.server.terminal import Misused, Terminal, counted, size_text

if TYPE_CHECKING:
    from plait.server.target import Target

EDITS_OF_A_LONG_DOCUMENT = 260_000
"""What a storm is about, if no document is given: about as many as a paper takes to write."""
BUSY = 0.9
"""The share of a core from which on this process may be what is slow, and not the server."""

_MS = 1e6

T = TypeVar("T")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--url",
        action="append",
        required=True,
        help="the server: ws://HOST:PORT or wss://…; once for each node of a cluster, and the"
        " editors of every room are spread over them",
    )
    parser.add_argument(
        "--together",
        action="store_true",
        help="with several --url: spread rooms, all editors of a room meet on one node",
    )
    parser.add_argument(
        "--scenario",
        choices=sorted(PRESETS),
        help="numbers to begin with; the options below change single ones",
    )
    whole, number = _at_least(int, 1), _at_least(float, 0)
    numbers = parser.add_argument_group("what editors do")
    for flag, kind, text in (
        ("rooms", whole, "documents"),
        ("clients", whole, "editors in each"),
        ("writers", _at_least(int, 0), "of them, those who type"),
        ("rate", number, "edits a second of each writer; 0 for as fast as it goes"),
        ("window", whole, "with --rate 0: edits that a writer sends at a time"),
        ("seconds", number, "how long they type"),
        ("dial", whole, "connections that are opened at the same time"),
        ("presence", number, "presence messages for each edit, 0 to 1"),
    ):
        default = getattr(Scenario(), flag)
        numbers.add_argument(
            f"--{flag}", type=kind, metavar="N", help=f"{text} (default: {default:g})"
        )
    numbers.add_argument(
        "--document", metavar="FILE", help="a Yjs update that is put into each room first"
    )
    server = parser.add_argument_group("the server")
    server.add_argument(
        "--dialect",
        choices=("y-websocket", "hocuspocus"),
        default="y-websocket",
        help="its protocol",
    )
    server.add_argument("--token", type=_something, help="what lets editors in")
    server.add_argument("--query", default="", help="further parameters of the URL: a=1&b=2")
    server.add_argument("--prefix", help="of the names of rooms (default: bench- and a number)")
    server.add_argument(
        "--timeout",
        type=_at_least(float, 0.001),
        metavar="SECONDS",
        default=60.0,
        help="until an editor has to have the document (default: 60)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="print no progress")


def bench(parsed: argparse.Namespace) -> int:
    """Run a scenario, and show the result.

    Returns:
        1 if somebody could not connect or was sent away, or if an edit did not arrive once; else 0.

    Raises:
        Misused: the options can't be used together.
        LoadFailed: there is nothing to measure; says why.
    """
    from plait.server.load import Load

    scenario, targets = _scenario(parsed), [_target(parsed, url) for url in parsed.url]
    terminal = Terminal(as_json=parsed.json, quiet=parsed.quiet)
    load = Load(
        targets,
        scenario,
        together=parsed.together,
        prefix=parsed.prefix,
        progress=terminal.progress,
    )
    try:
        result = run_fast(load.run())
    finally:
        terminal.clear()
    if parsed.json:
        terminal.result({"url": ", ".join(parsed.url), **result.summary()})
    else:
        terminal.lines(report(result, _ink()))
    if result.busy > BUSY:
        terminal.warn(
            f"this process took {result.busy:.0%} of a core: the server may be faster than that"
        )
    return 0 if result.flawless else 1


def run_fast(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on uvloop where there is one."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)


def report(result: Result, ink: str = "#") -> list[str]:
    """Return a result as lines to read."""
    scenario = result.scenario
    lines = [
        f"{counted(scenario.editors, 'editor')} in {counted(scenario.rooms, 'room')}",
        "",
        _row("connected", f"{result.connected:,} in {result.connect_seconds:.2f} s"),
        _row("document, p50 / p99", _pair(result.sync)),
        _row("received", f"{size_text(result.bytes)} in {counted(result.frames, 'message')}"),
    ]
    if result.presence:
        lines.append(_row("presence", f"{counted(result.presence, 'message')} received"))
    if result.edits:
        delivered = f"{result.delivered:,} of {result.expected:,}"
        lines += [
            _row("edits", f"{result.edits:,}, {result.edits / max(result.seconds, 1e-9):,.0f}/s"),
            _row("deliveries", f"{delivered}, {result.deliveries_per_second:,.0f}/s"),
            _row("acknowledged", f"{result.acknowledgement.count:,} of {result.edits:,}"),
        ]
    for title, latency in (
        ("latency of deliveries", result.latency),
        ("latency of acknowledgements", result.acknowledgement),
    ):
        if latency.count:
            values = ("p50", 50), ("p90", 90), ("p99", 99), ("p99.9", 99.9)
            told = [f"{name} {_ms(latency.percentile(share))}" for name, share in values]
            told.append(f"max {_ms(latency.max)}")
            lines += ["", f"{title}: {', '.join(told)}", *latency.bars(ink=ink)]
    return [*lines, *_problems(result)]


def _problems(result: Result) -> list[str]:
    """Return what went wrong, with reasons."""
    lines = [f"{count:,} could not connect: {why}" for why, count in result.failures.most_common()]
    lines += [f"{count:,} were cut off: {why}" for why, count in result.closed.most_common()]
    if result.lost:
        lines.append(f"{counted(result.lost, 'delivery', 'deliveries')} did not happen")
    if result.repeated:
        lines.append(f"{counted(result.repeated, 'delivery', 'deliveries')} too many")
    return ["", *lines] if lines else []


def _scenario(parsed: argparse.Namespace) -> Scenario:
    """Return the scenario that is meant.

    Raises:
        Misused: its numbers contradict each other, or the document can't be read.
    """
    changes = {
        name: value
        for name in ("rooms", "clients", "writers", "rate", "window", "seconds", "dial", "presence")
        if (value := getattr(parsed, name)) is not None
    }
    scenario = replace(PRESETS.get(parsed.scenario, Scenario()), **changes)
    if scenario.writers > scenario.clients:
        raise Misused(f"{scenario.writers} writers are more than {scenario.clients} clients")
    if scenario.presence > 1:
        raise Misused("--presence is a share: from 0 to 1")
    if parsed.document:
        return replace(scenario, document=_document(Path(parsed.document)))
    if parsed.scenario == "storm":
        from plait.server.typist import long_document

        return replace(scenario, document=long_document(EDITS_OF_A_LONG_DOCUMENT))
    return scenario


def _document(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Misused(f"{path} can't be read: {error.strerror}") from None


def _target(parsed: argparse.Namespace, url: str) -> "Target":
    from plait.server.target import Dialect, Target

    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0
    except ValueError:  # Its port is none.
        usable = False
    if not usable or parts.query or parts.fragment:
        raise Misused(
            f"--url {url}: ws://HOST:PORT or wss://HOST:PORT is expected, parameters belong"
            " into --query"
        )
    return Target(
        url=url,
        dialect=Dialect(parsed.dialect),
        token=parsed.token or "",
        query=parsed.query,
        timeout=parsed.timeout,
    )


def _something(text: str) -> str:
    """Return an option's value, which a variable that is not set would leave empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty: give it a value, or leave the option out")
    return text


def _at_least(kind: type, low: float) -> Any:
    def parse(text: str) -> Any:
        value = kind(text)
        if not low <= value < 1e9:
            raise argparse.ArgumentTypeError(f"{text} can't be used: at least {low:g} is expected")
        return value

    parse.__name__ = "whole number" if kind is int else "number"
    return parse


def _row(name: str, value: str) -> str:
    return f"{name:<22}{value}"


def _pair(latency: Any) -> str:
    return f"{_ms(latency.percentile(50))} / {_ms(latency.percentile(99))}"


def _ms(nanoseconds: float) -> str:
    """Return a time for reading, with three digits: `0.21 ms`, `12.3 ms`."""
    value = nanoseconds / _MS
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f} ms"


def _ink() -> str:
    """Return what bars are made of: blocks, if the terminal can show them."""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    return "█" if encoding == "utf8" else "#"
