"""Run the application in uvicorn: bind, announce, wait for a signal, drain, exit."""

import asyncio
import logging
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import uvicorn

from plait.persistence import StoreError
from plait.server import logs
from plait.server.app import Plait
from plait.server.auth import setup
from plait.server.errors import ConfigError
from plait.server.incoming import http_protocol
from plait.server.memory import raise_stack_limit, settle
from plait.server.origins import is_loopback
from plait.server.proxies import trusted
from plait.server.settings import Settings
from plait.server.tls import Certificate
from plait.server.watch import Watch

log = logging.getLogger(__name__)

DESCRIPTORS = 1 << 20
"""Files and sockets that the process would like to have; it gets what the system allows."""
BACKLOG = 4096
"""Connections that may wait to be accepted: after a restart everybody comes at once."""
PING_SECONDS = 20.0
PONG_SECONDS = 60.0
"""A client with a slow line may be busy with a large document for a while before it answers a ping.
"""
CLOSE_SECONDS = 5
"""How long sockets get to say good-bye."""


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code: 0, or 1 if something could not be
    stored. SIGHUP ends nothing: certificate and key are read again.

    Raises:
        ConfigError: the address or the store can't be used.
    """
    # Until there is something to read again; and who starts a server may be gone soon.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _check_exposure(settings)
    raise_stack_limit()
    _raise_descriptor_limit()
    try:
        plait = Plait(settings)
    except StoreError as error:
        raise ConfigError(f"the store can't be used: {error}") from None
    config = uvicorn.Config(
        plait.asgi,
        ssl_certfile=settings.tls_cert or None,
        ssl_keyfile=settings.tls_key or None,
        lifespan="off",
        log_config=None,
        access_log=False,
        http=http_protocol(settings.sockets, Watch(plait.limits, plait.counters)),
        proxy_headers=True,
        forwarded_allow_ips=trusted(settings.trusted_proxies),
        ws="websockets-sansio",
        ws_max_size=plait.limits.message_bytes_max,
        ws_ping_interval=PING_SECONDS,
        ws_ping_timeout=PONG_SECONDS,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=CLOSE_SECONDS,
        backlog=BACKLOG,
        server_header=False,
    )
    _load(config)
    certificate = Certificate(config.ssl, settings.tls_cert, settings.tls_key)
    listening = _bind(settings)
    server = _Server(config, _url(listening, secure=config.is_ssl), settings.log_format)
    with listening, asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        return runner.run(_run(plait, server, listening, certificate))


class _Server(uvicorn.Server):
    """uvicorn, but telling when it listens, and without its signal handling, which would end the
    process by the signal.
    """

    def __init__(self, config: uvicorn.Config, url: str, log_format: str) -> None:
        super().__init__(config)
        self._url = url
        self._log_format = log_format

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        settle()  # which takes 20 ms: before anybody can be kept waiting by it
        await super().startup(sockets)
        if self.started:
            logs.announce(f"Plait serves {self._url}", self._log_format, url=self._url)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _run(
    plait: Plait, server: _Server, listening: socket.socket, certificate: Certificate
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, certificate.reload)
    try:
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(plait.running())
            except StoreError as error:
                raise ConfigError(f"the store can't be used: {error}") from None
            await _serve_until(stop, plait, server, listening)
    except StoreError as error:
        print(f"plait: not everything could be stored: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve_until(
    stop: asyncio.Event, plait: Plait, server: _Server, listening: socket.socket
) -> None:
    serving = asyncio.create_task(server.serve([listening]))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    try:
        # First, so that clients are told why, and what they typed is stored and acknowledged.
        await plait.drain()
    finally:
        server.should_exit = True
        await serving


def _raise_descriptor_limit() -> None:
    """Let the process have as many connections as the system allows; many begin with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _check_exposure(settings: Settings) -> None:
    """Refuse to let strangers in unless that was asked for."""
    if not setup.configured(settings) and not is_loopback(settings.host):
        raise ConfigError(
            f"whoever reaches {settings.host} could read and write every document: "
            "say who may come in (--token-secret, --jwt-keys, --jwt-jwks or --auth-url; see "
            "docs/auth.md), listen on 127.0.0.1, or add --allow-anonymous"
        )


def _bind(settings: Settings) -> socket.socket:
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"can't listen on {settings.host}, port {settings.port}: {error.strerror or error}"
        ) from None
    return listening


def _load(config: uvicorn.Config) -> None:
    """Read what the configuration names.

    Raises:
        ConfigError: certificate or key can't be used.
    """
    if bool(config.ssl_certfile) != bool(config.ssl_keyfile):
        raise ConfigError("tls_cert and tls_key belong together: set both, or none")
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"tls_cert {config.ssl_certfile} with tls_key {config.ssl_keyfile} can't be used: "
            f"{error.strerror or error}"
        ) from None


def _url(listening: socket.socket, *, secure: bool) -> str:
    scheme = "https" if secure else "http"
    host, port = listening.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
