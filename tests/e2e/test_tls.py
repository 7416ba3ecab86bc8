"""Encrypted connections: https:// and wss:// on the one port, without a proxy in front."""

import asyncio
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
import trustme

from tests.e2e.conftest import OpenServer
from tests.support.authors import Author, text_of
from tests.support.frames import parse, update
from tests.support.peer import peer
from tests.support.server import PLAIT, refused


class Certificate:
    """A certificate for 127.0.0.1, and what trusts it."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        self.chain, self.key = folder / "chain.pem", folder / "key.pem"
        self.chain.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.context = ssl.create_default_context()
        authority.configure_trust(self.context)

    @property
    def options(self) -> tuple[str, ...]:
        """Those of `plait serve`."""
        return "--tls-cert", str(self.chain), "--tls-key", str(self.key)


def health(port: int, certificate: Certificate) -> int:
    """Ask as a container's health check does: by another name than the certificate's."""
    asked = ("health", "--host", "0.0.0.0", "--port", str(port), *certificate.options[:2])
    return subprocess.run([*PLAIT, *asked], capture_output=True, check=False).returncode


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate(tmp_path)


async def test_wss_and_https(open_server: OpenServer, certificate: Certificate) -> None:
    server = await open_server(*certificate.options, secure=True)
    author = Author(1)
    async with (
        peer(server.ws_url, "room", ssl=certificate.context) as ann,
        peer(server.ws_url, "room", ssl=certificate.context) as ben,
    ):
        await ann.greeted()
        await ben.greeted()
        for length in (1, 1 << 10, 1 << 20, 1):
            typed = update(author.type("x" * length))
            await ann.send(typed)
            assert await ben.frame() == typed
            assert await ann.frame() == typed
    async with httpx.AsyncClient(verify=certificate.context) as client:
        assert (await client.get(f"{server.url}/readyz")).json()["status"] == "ready"
    assert await asyncio.to_thread(health, server.port, certificate) == 0
    await server.stop()
    assert await asyncio.to_thread(health, server.port, certificate) == 1


async def test_who_does_not_read_gets_one_diff_at_last(
    open_server: OpenServer, certificate: Certificate
) -> None:
    server = await open_server(*certificate.options, secure=True)
    author, reader = Author(1), Author(2)
    async with (
        peer(server.ws_url, "room", ssl=certificate.context, max_queue=1) as slow,
        peer(server.ws_url, "room", ssl=certificate.context) as other,
    ):
        await slow.greeted()
        await other.greeted()
        for _ in range(200):
            typed = update(author.type("x" * 100_000))
            await other.send(typed)
            assert await other.frame() == typed
        frames = 0
        while str(reader.text) != str(author.text):
            reader.hear(parse(await slow.frame()).payload)
            frames += 1
        assert frames < 200
        assert text_of(await other.state()) == str(author.text)


async def test_plain_text_is_not_spoken_there(
    open_server: OpenServer, certificate: Certificate
) -> None:
    server = await open_server(*certificate.options, secure=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    async with asyncio.timeout(30):
        assert b"HTTP" not in await reader.read()
    writer.close()
    async with peer(server.ws_url, "room", ssl=certificate.context) as client:
        await client.greeted()


def test_a_certificate_without_its_key(certificate: Certificate) -> None:
    assert "belong together" in refused("--tls-cert", str(certificate.chain))


def test_a_file_that_is_not_there(certificate: Certificate, tmp_path: Path) -> None:
    line = refused("--tls-cert", str(tmp_path / "none.pem"), "--tls-key", str(certificate.key))
    assert "none.pem" in line and "No such file" in line


def test_a_key_that_belongs_to_another_certificate(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = Certificate(tmp_path / "a"), Certificate(tmp_path / "b")
    line = refused("--tls-cert", str(one.chain), "--tls-key", str(other.key))
    assert str(one.chain) in line and "can't be used" in line
