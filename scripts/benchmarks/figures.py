"""Which figures there are, and what is to be reached."""

from dataclasses import dataclass
from statistics import median

from scripts.benchmarks.servers import PLAIT

Figures = dict[str, float]
"""Figures of one server in one scenario, by their keys in `COLUMNS`."""


@dataclass(frozen=True, slots=True)
class Column:
    """How a figure is shown."""

    title: str
    digits: int


COLUMNS = {
    "cpu_us": Column("CPU µs/delivery", 1),
    "redis_us": Column("Redis µs/delivery", 1),
    "postgres_us": Column("PostgreSQL µs/delivery", 1),
    "p50": Column("p50 ms", 2),
    "p99": Column("p99 ms", 2),
    "deliveries": Column("deliveries/s", 0),
    "ack_p50": Column("ack p50 ms", 1),
    "ack_p99": Column("ack p99 ms", 1),
    "kb_connection": Column("KB/connection", 1),
    "kb_room": Column("KB/room", 1),
    "ms_connect": Column("CPU ms/connect", 2),
    "storm_cpu": Column("storm CPU s", 2),
    "storm_p99": Column("last 1 % waited ms", 0),
    "open_ms": Column("document ms", 1),
    "empty_ms": Column("empty room ms", 1),
    "restart_cpu": Column("reconnect CPU s", 2),
    "restart_seconds": Column("all back after s", 1),
    "polling_cpu": Column("polling CPU s", 2),
    "editing_cpu": Column("editors CPU s", 2),
    "share": Column("editors/polling", 2),
    "lost": Column("lost", 0),
    "failed": Column("failed", 0),
}


@dataclass(frozen=True, slots=True)
class Goal:
    """What Plait is to reach.

    Args:
        scenario: in which one.
        figure: of Plait.
        limit: it may be this at most: as a share of the same figure of others, or absolutely.
        peer: whose figure; `BEST` for the lowest of all, None for an absolute limit.
    """

    scenario: str
    figure: str
    limit: float
    peer: str | None


BEST = "the best peer"
_BARE, _LEVELDB, _HOCUSPOCUS = "@y/websocket-server", "y-websocket+LevelDB", "Hocuspocus"

GOALS = (
    Goal("typing", "cpu_us", 0.85, _BARE),
    Goal("typing", "cpu_us", 0.5, _LEVELDB),
    Goal("typing", "cpu_us", 0.65, _HOCUSPOCUS),
    Goal("typing", "p99", 1.0, BEST),
    Goal("typing", "p99", 10.0, None),
    Goal("crowd", "cpu_us", 0.8, _BARE),
    Goal("flood", "cpu_us", 0.45, _BARE),
    Goal("flood", "cpu_us", 0.9, _HOCUSPOCUS),
    Goal("tenk", "cpu_us", 0.85, _BARE),
    Goal("tenk", "cpu_us", 0.2, _LEVELDB),
    Goal("tenk", "cpu_us", 0.6, _HOCUSPOCUS),
    Goal("tenk", "p99", 1.0, BEST),
    Goal("tenk", "p99", 10.0, None),
    Goal("tenk", "kb_connection", 14.0, None),
    Goal("tenk", "kb_connection", 0.9, _BARE),
    Goal("storm", "storm_cpu", 0.2, BEST),
    Goal("acks", "ack_p99", 50.0, None),
    Goal("open", "open_ms", 30.0, None),
    Goal("restart", "restart_cpu", 1.3, _BARE),
    Goal("polling", "share", 0.3, None),
    Goal("cluster", "cpu_us", 0.35, _HOCUSPOCUS),
    Goal("cluster", "p99", 0.2, _HOCUSPOCUS),
)


@dataclass(slots=True)
class Outcome:
    """What became of one server in one scenario: figures of each repeat, and what went wrong."""

    repeats: list[Figures]
    notes: list[str]

    @property
    def figures(self) -> Figures:
        """The median of each figure over the repeats that have it."""
        keys = [key for key in COLUMNS if any(key in each for each in self.repeats)]
        return {key: median(each[key] for each in self.repeats if key in each) for key in keys}


Outcomes = dict[str, Outcome]
"""By server."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How Plait stands to a goal."""

    goal: Goal
    value: float
    peer: str | None
    """Who the best peer was, or whom the goal names."""

    @property
    def reached(self) -> bool:
        """Whether the goal is reached."""
        return self.value <= self.goal.limit


def verdicts(scenario: str, outcomes: Outcomes) -> list[Verdict]:
    """Return how Plait stands to the goals of a scenario whose figures were measured."""
    figures = {name: outcome.figures for name, outcome in outcomes.items()}
    own = figures.pop(PLAIT, {})
    found = []
    for goal in GOALS:
        if goal.scenario != scenario or goal.figure not in own:
            continue
        value, peer = own[goal.figure], goal.peer
        if peer == BEST:
            # Who lost edits has not done the same work.
            able = {
                name: each[goal.figure]
                for name, each in figures.items()
                if each.get(goal.figure) and not each.get("failed") and not each.get("lost")
            }
            peer = min(able, key=able.__getitem__, default=None)
            if peer is None:
                continue
        if peer is not None:
            other = figures.get(peer, {}).get(goal.figure)
            if not other:
                continue
            value /= other
        found.append(Verdict(goal, value, peer))
    return found
