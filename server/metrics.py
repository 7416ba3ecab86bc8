"""What Prometheus is told of this node, at `/metrics`. docs/metrics.md describes each; a test
compares.

Nothing here is called while clients are served, but for the event loop's delay: what is counted
comes from `plait.server.counters`, and what is the case (how many rooms, how much is unsaved) is
looked up when somebody asks. No label holds a room's name or an address: there are too many, and
whoever reads metrics need not know them.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from plait.server import COMPILED, __version__
from plait.server.admission import Admission
from plait.server.cluster import Cluster
from plait.server.compaction import Compactor
from plait.server.counters import Counters, Histogram
from plait.server.hub import Hub
from plait.server.pace import Pace
from plait.server.webhooks import Webhooks

CONTENT_TYPE = CONTENT_TYPE_LATEST
DELAY_SECONDS = 0.1
"""How often the event loop's delay is measured."""


ROOMS_A_STEP = 64
"""Rooms that are counted between two looks at the clock."""


@dataclass(slots=True)
class _Census:
    """What is counted by walking through all rooms."""

    rooms: int = 0
    members: int = 0
    lagging: int = 0
    memory_bytes: int = 0


class Metrics(Collector):
    """Collects a node's metrics in a registry of its own."""

    def __init__(
        self,
        hub: Hub,
        admission: Admission,
        compactor: Compactor,
        webhooks: Webhooks | None = None,
    ) -> None:
        self._hub = hub
        self._admission = admission
        self._compactor = compactor
        self._webhooks = webhooks
        self._delay_max = 0.0
        self._census = _Census()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    async def text(self) -> bytes:
        """Return all metrics in the text format; the longest delay begins anew."""
        self._census = await self._count()
        text = generate_latest(self._registry)
        self._delay_max = 0.0
        return text

    async def _count(self) -> _Census:
        """Walk through all rooms, giving way in between: there may be a hundred thousand."""
        found, pace = _Census(), Pace()
        for number, room in enumerate(self._hub.each_room()):
            if number % ROOMS_A_STEP == 0:
                await pace.rest()
            found.rooms += 1
            found.members += len(room.members)
            for member in room.members:
                found.lagging += member.outbox.lagging_since is not None
            found.memory_bytes += room.document.memory_bytes
        return found

    async def watch_delay(self) -> None:
        """Measure for ever how late the event loop is."""
        loop = asyncio.get_running_loop()
        delays = self._hub.counters.loop_delay_seconds
        while True:
            due = loop.time() + DELAY_SECONDS
            await asyncio.sleep(DELAY_SECONDS)
            delay = max(0.0, loop.time() - due)
            delays.observe(delay)
            self._delay_max = max(self._delay_max, delay)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; called by the registry."""
        counters = self._hub.counters
        build = GaugeMetricFamily("plait_build_info", "Always 1.", labels=("version", "compiled"))
        build.add_metric((__version__, "yes" if COMPILED else "no"), 1)
        yield build
        yield from self._clients(counters)
        yield from self._rooms(counters)
        yield from _traffic(counters)
        yield from self._storing(counters)
        if (cluster := self._hub.cluster) is not None:
            yield from _relay(cluster, counters)
        yield from self._told(counters)
        yield _histogram(
            "plait_loop_delay_seconds",
            "How late the event loop was, ten times a second.",
            counters.loop_delay_seconds,
        )
        yield GaugeMetricFamily(
            "plait_loop_delay_max_seconds",
            "The longest delay of the event loop since the last scrape.",
            self._delay_max,
        )

    def _clients(self, counters: Counters) -> Iterator[Metric]:
        yield GaugeMetricFamily("plait_connections", "Open WebSockets.", self._admission.open)
        yield CounterMetricFamily(
            "plait_connections_opened", "Clients that came into a room.", counters.opened
        )
        yield _by_label(
            "plait_connections_closed", "Clients that left or were closed.", "code", counters.closed
        )
        yield _by_label(
            "plait_connections_refused", "Handshakes refused.", "reason", counters.refused
        )
        yield _by_label("plait_limit_hits", "Limits reached.", "limit", counters.limits)

    def _rooms(self, counters: Counters) -> Iterator[Metric]:
        found = self._census
        yield GaugeMetricFamily("plait_rooms", "Rooms in memory.", found.rooms)
        yield GaugeMetricFamily("plait_members", "Clients in rooms.", found.members)
        yield GaugeMetricFamily(
            "plait_members_lagging", "Clients that read too slowly now.", found.lagging
        )
        yield CounterMetricFamily(
            "plait_members_lagged", "Times that a client read too slowly.", counters.lagged
        )
        yield GaugeMetricFamily(
            "plait_documents_memory_bytes",
            "Memory of all documents, estimated.",
            found.memory_bytes,
        )
        yield _histogram("plait_load_seconds", "Time to load a document.", counters.load_seconds)
        yield CounterMetricFamily(
            "plait_load_failures", "Documents that could not be loaded.", counters.load_failures
        )

    def _storing(self, counters: Counters) -> Iterator[Metric]:
        writer = self._hub.writer.state
        yield GaugeMetricFamily(
            "plait_unsaved_updates", "Updates not committed yet.", writer.unsaved_updates
        )
        yield GaugeMetricFamily(
            "plait_unsaved_bytes", "Memory of updates not committed yet.", writer.unsaved_bytes
        )
        yield GaugeMetricFamily(
            "plait_unsaved_seconds",
            "Age of the oldest update not committed yet.",
            self._hub.writer.unsaved_seconds,
        )
        yield GaugeMetricFamily(
            "plait_store_failing",
            "1 while updates can't be committed.",
            int(writer.failing_since is not None),
        )
        yield _histogram("plait_commit_seconds", "Time of a commit.", counters.commit_seconds)
        yield CounterMetricFamily(
            "plait_compactions", "Documents compacted.", self._compactor.compactions
        )

    def _told(self, counters: Counters) -> Iterator[Metric]:
        webhooks = self._webhooks
        yield _by_label(
            "plait_webhook_deliveries",
            "Attempts to tell of an event, and events given up.",
            "outcome",
            counters.webhooks,
        )
        yield GaugeMetricFamily(
            "plait_webhook_waiting", "Events to be told.", webhooks.waiting if webhooks else 0
        )
        yield GaugeMetricFamily(
            "plait_webhook_oldest_seconds",
            "Age of the oldest event to be told.",
            webhooks.oldest_seconds if webhooks else 0.0,
        )


def _traffic(counters: Counters) -> Iterator[Metric]:
    for name, help, value in (
        ("plait_frames_received", "WebSocket messages from clients.", counters.frames_received),
        ("plait_frames_sent", "WebSocket messages to clients.", counters.frames_sent),
        ("plait_received_bytes", "Bytes of messages from clients.", counters.bytes_received),
        ("plait_sent_bytes", "Bytes of messages to clients.", counters.bytes_sent),
        ("plait_presence_messages", "Presence from clients.", counters.presence_messages),
        ("plait_deliveries", "Updates to clients, one for each.", counters.deliveries),
        ("plait_merges", "Turns whose updates were sent as one.", counters.merges),
        (
            "plait_gap_asks",
            "Times that a client was asked for structs that are missing.",
            counters.gap_asks,
        ),
        (
            "plait_pending_dropped",
            "Updates that build on missing ones and could not be kept.",
            counters.pending_dropped,
        ),
    ):
        yield CounterMetricFamily(name, help, value)
    yield GaugeMetricFamily(
        "plait_pending_bytes",
        "Updates that are kept until the ones that they build on come.",
        counters.pending_bytes,
    )
    outcomes = {
        "applied": counters.updates_applied,
        "duplicate": counters.updates_duplicate,
        "pending": counters.updates_pending,
        "refused": counters.updates_refused,
        "shadowed": counters.updates_shadowed,
    }
    yield _by_label("plait_updates", "Updates from clients.", "outcome", outcomes)


def _relay(cluster: Cluster, counters: Counters) -> Iterator[Metric]:
    relay = cluster.relay
    for name, help, value in (
        ("plait_relay_connected", "1 while the relay can be used.", int(relay.connected)),
        ("plait_relay_nodes", "Nodes heard of, this one included.", cluster.nodes),
        ("plait_relay_queue_bytes", "What waits to be published.", relay.queued_bytes),
    ):
        yield GaugeMetricFamily(name, help, value)
    for name, help, value in (
        ("plait_relay_sent", "Messages to other nodes.", counters.relay_sent),
        ("plait_relay_sent_bytes", "Bytes of messages to other nodes.", counters.relay_sent_bytes),
        ("plait_relay_received", "Messages of other nodes.", counters.relay_received),
        (
            "plait_relay_received_bytes",
            "Bytes of messages of other nodes.",
            counters.relay_received_bytes,
        ),
        ("plait_relay_dropped", "Messages that were not published.", relay.dropped),
        ("plait_relay_gaps", "Messages of others that were lost.", counters.relay_gaps),
        ("plait_relay_refused", "Messages that could not be used.", counters.relay_refused),
    ):
        yield CounterMetricFamily(name, help, value)


def _by_label(name: str, help: str, label: str, values: Mapping[str, int]) -> Metric:
    metric = CounterMetricFamily(name, help, labels=(label,))
    for value, count in sorted(values.items()):
        metric.add_metric((value,), count)
    return metric


def _histogram(name: str, help: str, histogram: Histogram) -> Metric:
    buckets, total = [], 0
    for bound, count in zip((*histogram.bounds, inf), histogram.counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == inf else str(bound), total))
    return HistogramMetricFamily(name, help, buckets=buckets, sum_value=histogram.sum)
