"""The composition root: settings become a store, a hub and a Starlette application, started and
stopped in order.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from plait.persistence import CompactionPolicy, StoreError, Writer, WriterState, open_store
from plait.server import webhooks
from plait.server.admission import Admission, source_of
from plait.server.api import Api
from plait.server.audit import Audit
from plait.server.auth import setup
from plait.server.auth.guard import Guard
from plait.server.changes import Clock
from plait.server.clock import SystemClock
from plait.server.cluster import Cluster
from plait.server.compaction import Compactor
from plait.server.counters import Counters
from plait.server.direct import Sockets
from plait.server.endpoint import Endpoint
from plait.server.errors import ConfigError, PlaitError
from plait.server.hub import Hub
from plait.server.limits import Limits
from plait.server.metrics import CONTENT_TYPE, Metrics
from plait.server.origins import Origins
from plait.server.records import Records
from plait.server.rest import Bodies
from plait.server.rights import Rights
from plait.server.settings import Settings
from plait.server.wire.envelope import NODE_BYTES
from plait.web.pages import routes as page_routes

PROXY_HEADERS = ("forwarded", "via", "x-forwarded-for", "x-real-ip")
READY_SECONDS = 5.0
"""How long `/readyz` waits for the store before it says that it is away."""


class Plait:
    """One node: its store, its rooms, and the application that serves them.

    Nothing is opened before `running` is entered.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.limits = _limits(settings)
        self.counters = Counters()
        clock = SystemClock()
        self._target = webhooks.chosen(settings)
        self.store = open_store(
            settings.store, serving=True, announce=webhooks.announced(self._target)
        )
        self.webhooks = webhooks.build(settings, self.store, self.counters, clock.wall_ms)
        self.writer = Writer(
            self.store,
            interval_seconds=settings.commit_ms / 1000,
            unsaved_bytes_max=self.limits.unsaved_bytes_max,
            on_state=self._count_full,
            on_commit=self._committed,
        )
        self._full = False
        self.cluster = _cluster(settings, self.limits, clock, self.counters)
        self.compactor = Compactor(
            self.store,
            CompactionPolicy(history_days=settings.history_days),
            self.limits,
            clock.wall_ms,
        )
        self.hub = Hub(
            self.store,
            self.writer,
            self.compactor,
            self.limits,
            idle_seconds=settings.idle_seconds,
            memory_bytes_max=settings.memory_mb << 20,
            clock=clock,
            counters=self.counters,
            cluster=self.cluster,
        )

        def wall() -> float:
            return clock.wall_ms() / 1000

        self.audit = Audit(wall, settings.audit_log)
        self.guard = Guard(
            setup.build(settings, self.store, wall),
            self.audit,
            wall,
            open_to_this_machine=not setup.configured(settings),
            only_keys=not setup.verifies_tokens(settings),
            cookie=settings.auth_cookie,
        )
        self.records = Records(self.store, self.guard.learn)
        self.hub.on_notice = self.records.look
        if self.cluster is not None:
            self.records.on_change = self.cluster.tell_notice
        self.hub.ticked.append(self.guard.tick)
        self.admission = Admission(self.limits)
        self.sockets = Sockets()
        self.hub.ticked.append(self.sockets.tick)
        self.metrics = Metrics(self.hub, self.admission, self.compactor, self.webhooks)
        self.asgi = self._application()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open the store and the hub; at the end store what is unsaved, and close both.

        Raises:
            StoreError: the store can't be opened; or, at the end, not everything could be stored.
        """
        async with AsyncExitStack() as stack:
            stack.callback(self.audit.close)
            stack.push_async_callback(self.guard.verifiers.close)
            await self.store.open()
            stack.push_async_callback(self.store.close)
            await self.records.catch_up()
            if self.webhooks is not None:
                await stack.enter_async_context(self.webhooks.running())
            await stack.enter_async_context(self.hub)
            stack.push_async_callback(self.drain)
            for work in (self.metrics.watch_delay(), self.records.run()):
                stack.callback(asyncio.create_task(work).cancel)
            yield

    async def drain(self) -> None:
        """Send everybody away and store what is unsaved. The second time there is nothing to do.

        Raises:
            StoreError: not everything could be stored within `drain_seconds`.
        """
        await self.hub.drain(self.settings.drain_seconds)

    def _application(self) -> Starlette:
        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            async with self.running():
                yield

        origins = Origins(self.settings.allow_origin)
        visits = self.webhooks.visits if self.webhooks is not None else None
        endpoint = Endpoint(self.hub, self.guard, origins, self.admission, self.sockets, visits)
        self.patience = endpoint.patience
        bodies = Bodies(self.limits)
        issue = partial(setup.issue, self.settings) if self.settings.token_secret else None
        rights = Rights(self.guard, self.records, bodies, self.guard.wall, issue)
        return _Application(
            routes=[
                WebSocketRoute("/ws/{name:path}", endpoint.under("/ws/")),
                WebSocketRoute("/{name:path}", endpoint.under("/")),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._metrics),
                *Api(self.hub, self.guard, origins, bodies, rights).routes(),
                *page_routes(),
            ],
            lifespan=lifespan,
        )

    async def _healthz(self, request: Request) -> JSONResponse:
        """The process is alive: its event loop answers."""
        return JSONResponse({"status": "alive"})

    async def _readyz(self, request: Request) -> JSONResponse:
        """Whether this node should be sent clients: the store can be written, and it is not
        stopping.
        """
        reason = None
        if self.hub.stopping:
            reason = "the server is stopping"
        elif self.writer.full:
            reason = f"too much is unsaved: {self.writer.last_error}"
        else:
            try:
                async with asyncio.timeout(READY_SECONDS):
                    await self.store.ping()
            except StoreError as error:
                reason = f"the store is away: {error}"
            except TimeoutError:
                reason = f"the store did not answer within {READY_SECONDS:.0f} s"
        body = {
            "status": "ready" if reason is None else "not ready",
            "reason": reason,
            "rooms": self.hub.open_count,
            "unsaved_updates": self.writer.unsaved_updates,
        }
        if self.cluster is not None:  # Without it nodes still meet in the store, a second later.
            body["relay"] = "connected" if self.cluster.relay.connected else "away"
            body["nodes"] = self.cluster.nodes
        return JSONResponse(body, 200 if reason is None else 503)

    async def _metrics(self, request: Request) -> Response:
        """Numbers for Prometheus. What comes through a proxy comes from elsewhere."""
        host = request.client.host if request.client else None
        proxied = any(header in request.headers for header in PROXY_HEADERS)
        elsewhere = proxied or source_of(host) is not None
        if elsewhere and not (self.settings.metrics_public or await self._is_operator(request)):
            return PlainTextResponse(
                "metrics are told to this machine, and to who brings a token of an admin of all "
                "documents; set metrics_public (--metrics-public) to tell others",
                403,
            )
        return Response(await self.metrics.text(), media_type=CONTENT_TYPE)

    async def _is_operator(self, request: Request) -> bool:
        try:
            return self.guard.is_operator(await self.guard.identify(request, None))
        except PlaitError:
            return False

    def _committed(self, seconds: float) -> None:
        self.counters.commit_seconds.observe(seconds)
        if self.webhooks is not None:
            self.webhooks.wake()

    def _count_full(self, state: WriterState) -> None:
        if state.full and not self._full:
            self.counters.limits["unsaved_mb"] += 1
        self._full = state.full


class _Application(Starlette):
    """Starlette, which takes sockets straight to their routes: what it would wrap each of them in
    answers for errors of requests, is of no use to a socket, and a tenth of a handshake.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and not self.user_middleware:
            scope["app"] = self
            await self.router(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _cluster(
    settings: Settings, limits: Limits, clock: Clock, counters: Counters
) -> Cluster | None:
    """Return what makes this node one of several, if it is to be.

    Raises:
        ConfigError: the relay or the store can't serve several nodes.
    """
    if not settings.relay:
        return None
    if settings.store.startswith("memory:"):
        raise ConfigError(
            "nodes that share a relay have to share a store: with memory:// each has its own"
        )
    from plait.server.redis_relay import RedisRelay, prefix_of

    relay = RedisRelay(settings.relay)
    prefix = prefix_of(settings.relay)
    return Cluster(relay, os.urandom(NODE_BYTES), limits, clock, counters, prefix=prefix)


def _limits(settings: Settings) -> Limits:
    message_bytes_max = settings.message_mb << 20
    return Limits(
        message_bytes_max=message_bytes_max,
        awareness_bytes_max=min(Limits().awareness_bytes_max, message_bytes_max),
        unsaved_bytes_max=settings.unsaved_mb << 20,
        document_bytes_max=settings.document_mb << 20,
        frames_per_second=settings.frames_per_second,
        bytes_per_second=settings.mb_per_second << 20,
        connections_max=settings.connections_max,
        connections_per_address=settings.connections_per_address,
        rooms_max=settings.rooms_max,
        connections_per_subject=settings.connections_per_subject,
        handshakes_per_second=settings.handshakes_per_second,
        subject_frames_per_second=settings.subject_frames_per_second,
        subject_bytes_per_second=settings.subject_mb_per_second << 20,
        address_frames_per_second=settings.address_frames_per_second,
        address_bytes_per_second=settings.address_mb_per_second << 20,
    )
