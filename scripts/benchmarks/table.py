"""Shows outcomes: on a terminal, as Markdown for docs/benchmarks.md, and as JSON."""

from collections.abc import Iterable, Sequence
from typing import Any

from scripts.benchmarks.figures import COLUMNS, Figures, Outcomes, Verdict, verdicts

TITLES = {
    "typing": "typing: 1,000 editors in 100 rooms, 9,000 deliveries/s",
    "crowd": "crowd: 500 editors in one room, 10,000 deliveries/s",
    "flood": "flood: 200 editors in 20 rooms, as fast as it goes",
    "tenk": "tenk: 10,000 editors in 1,000 rooms, 4,500 deliveries/s",
    "storm": "storm: 300 editors open a large document at once",
    "idle": "idle: 2,000 connections in one room and in 1,000 rooms, nobody types",
    "acks": "acks: 1,000 edits/s until their echo; Plait alone sends it after it has stored them",
    "open": "open: a large stored document in a fresh process",
    "restart": "restart: 10,000 editors come back to a server that was started again",
    "polling": "polling: 900 readers over HTTP once a second, or connected",
    "cluster": "cluster: typing, with the editors of each room on both of two nodes, with Redis",
    "cluster-slow": "cluster-slow: the same with a fifth of the edits, 1,800 deliveries/s",
    "nodes": "nodes: typing, on more and more nodes of Plait that share one processor",
}


def text(scenario: str, outcomes: Outcomes) -> list[str]:
    """Return a scenario's outcomes as lines for a terminal."""
    head, rows = _cells(outcomes)
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["", TITLES[scenario]]
    for row in (head, *rows) if head else ():
        cells = [
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    lines += [f"  {name}: {note}" for name, note in _notes(outcomes)]
    return lines + [
        f"  {sentence}: {'reached' if verdict.reached else 'MISSED'}"
        for verdict, sentence in _told(scenario, outcomes)
    ]


def markdown(all_outcomes: dict[str, Outcomes], circumstances: str) -> list[str]:
    """Return everything as Markdown.

    Args:
        all_outcomes: by scenario.
        circumstances: when and how it was measured, in a sentence.
    """
    lines = [circumstances]
    for scenario, outcomes in all_outcomes.items():
        head, rows = _cells(outcomes)
        lines += ["", f"**{TITLES[scenario]}**"]
        if head:
            lines += ["", _row(head), _row(["---"] * len(head)), *map(_row, rows)]
        notes = [f"- {name}: {note}" for name, note in _notes(outcomes)]
        notes += [
            f"- {sentence}: {'reached' if verdict.reached else '**missed**'}"
            for verdict, sentence in _told(scenario, outcomes)
        ]
        lines += ["", *notes] if notes else []
    return lines


def json_of(all_outcomes: dict[str, Outcomes]) -> dict[str, Any]:
    """Return everything for JSON: medians, single repeats, notes and goals."""
    return {
        scenario: {
            "servers": {
                name: {
                    "median": _rounded(outcome.figures),
                    "repeats": [_rounded(each) for each in outcome.repeats],
                    "notes": outcome.notes,
                }
                for name, outcome in outcomes.items()
            },
            "goals": [
                {
                    "figure": verdict.goal.figure,
                    "against": verdict.peer,
                    "value": round(verdict.value, 4),
                    "limit": verdict.goal.limit,
                    "reached": verdict.reached,
                }
                for verdict in verdicts(scenario, outcomes)
            ],
        }
        for scenario, outcomes in all_outcomes.items()
    }


def _rounded(figures: Figures) -> Figures:
    return {key: round(value, 4) for key, value in figures.items()}


def _cells(outcomes: Outcomes) -> tuple[list[str], list[list[str]]]:
    """Return the titles, and a row for each server; columns without any figure are left out, and
    everything if there are no others.
    """
    figures = {name: outcome.figures for name, outcome in outcomes.items()}
    keys = [key for key in COLUMNS if any(key in each for each in figures.values())]
    if not keys:
        return [], []
    rows = [
        [name, *(_number(each[key], COLUMNS[key].digits) if key in each else "–" for key in keys)]
        for name, each in figures.items()
    ]
    return ["", *(COLUMNS[key].title for key in keys)], rows


def _notes(outcomes: Outcomes) -> Iterable[tuple[str, str]]:
    for name, outcome in outcomes.items():
        for note in dict.fromkeys(outcome.notes):
            yield name, note


def _told(scenario: str, outcomes: Outcomes) -> Iterable[tuple[Verdict, str]]:
    """Yield how Plait stands to each goal, as words."""
    for verdict in verdicts(scenario, outcomes):
        goal = verdict.goal
        column = COLUMNS[goal.figure]
        if verdict.peer is None:
            told = f"{column.title}: {_number(verdict.value, column.digits)}"
        else:
            told = f"{column.title}, Plait / {verdict.peer}: {verdict.value:.2f}"
        yield verdict, f"{told}, goal {goal.limit:g}"


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
