"""Encrypted connections: https:// and wss:// on the one port, without a proxy in front."""

import asyncio
import os
import signal
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
import trustme

from tests.e2e.conftest import OpenServer
from tests.support.authors import Author, text_of
from tests.support.deadlines import DEADLINE_SECONDS, eventually
from tests.support.frames import STEP2, UPDATE, update
from tests.support.peer import peer
from tests.support.server import PLAIT, PlaitProcess, refused

pytestmark = pytest.mark.both_ways

EDITS = 40
"""More than all buffers between the server and a client take, if each is half a megabyte."""


class Certificate:
    """A certificate for 127.0.0.1 and localhost, and what trusts it."""

    def __init__(self, folder: Path, kind: trustme.KeyType = trustme.KeyType.ECDSA) -> None:
        authority = trustme.CA(key_type=kind)
        issued = authority.issue_cert("127.0.0.1", "localhost", key_type=kind)
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
            await ben.hear(typed)
            await ann.hear(typed)
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
        edits = [author.type("x" * 500_000) for _ in range(EDITS)]
        for edit in edits:
            await other.send(update(edit))
            await other.hear(update(edit))
        told = 0
        while reader.doc.get_state() != author.doc.get_state():
            payload = (await slow.next(STEP2, UPDATE)).payload
            reader.hear(payload)
            told += payload in edits
        assert told < EDITS, "it is told of every single edit; a diff may come in portions"
        assert str(reader.text) == text_of(await other.state()) == str(author.text)


async def test_plain_text_is_not_spoken_there(
    open_server: OpenServer, certificate: Certificate
) -> None:
    server = await open_server(*certificate.options, secure=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert b"HTTP" not in await reader.read()
    writer.close()
    async with peer(server.ws_url, "room", ssl=certificate.context) as client:
        await client.greeted()


async def shown(server: PlaitProcess, trusts: Certificate) -> bool:
    """Whether a server shows a certificate that is trusted, to who names it and to who does not."""
    verdicts = set()
    for name in ("localhost", "127.0.0.1"):  # An address is not named.
        try:
            _, writer = await asyncio.open_connection(
                "127.0.0.1", server.port, ssl=trusts.context, server_hostname=name
            )
        except ssl.SSLCertVerificationError:
            verdicts.add(False)
        else:
            verdicts.add(True)
            writer.close()
            await writer.wait_closed()
    (verdict,) = verdicts
    return verdict


@pytest.mark.parametrize("kind", [trustme.KeyType.ECDSA, trustme.KeyType.RSA])
async def test_sighup_reads_certificate_and_key_again(
    open_server: OpenServer, certificate: Certificate, tmp_path: Path, kind: trustme.KeyType
) -> None:
    """Of another kind of key as well, which a context would have beside the old one. Who is
    connected stays, and if the files can't be used the certificate before does.
    """
    server = await open_server(*certificate.options, secure=True)
    author = Author(1)

    async def hang_up(times: int) -> None:
        os.kill(server.pid, signal.SIGHUP)
        await eventually(lambda: server.stderr.count("SIGHUP: ") == times, "the signal")

    async with peer(server.ws_url, "room", ssl=certificate.context) as client:
        await client.greeted()
        renewed = Certificate(tmp_path, kind)  # in the same files
        assert await shown(server, certificate) and not await shown(server, renewed)
        await hang_up(1)
        assert await shown(server, renewed) and not await shown(server, certificate)
        certificate.key.write_text("no key")
        await hang_up(2)
        assert await shown(server, renewed)
        typed = update(author.type("x"))
        await client.send(typed)
        await client.hear(typed)
    assert await server.end() == 0
    (line,) = server.alarming
    assert "can't be used, the certificate before stays" in line


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
