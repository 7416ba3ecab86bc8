"""HAProxy and nginx with the configurations of `deploy/`, before nodes on this machine."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from scripts.benchmarks.servers import LOOPBACK, BenchError, Command, Kind

DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"
FILES = {"haproxy": "haproxy.cfg", "nginx": "nginx.conf"}
"""Programs, and what configures each."""
PACKAGES = {"haproxy": "haproxy", "nginx": "nginx-light"}
"""What Debian calls them."""
NODES = 2
"""How many the configurations name."""

_PLACES = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


def program(name: str) -> str | None:
    """Return the path of a program, if it is installed."""
    return shutil.which(name, path=_PLACES)


@dataclass
class Certificate:
    """A certificate for this machine, which no one vouches for but its authority."""

    authority: trustme.CA = field(default_factory=trustme.CA)

    def write(self, folder: Path) -> None:
        """Write what the configurations name."""
        issued = self.authority.issue_cert(LOOPBACK)
        issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        issued.private_key_pem.write_to_path(folder / "key.pem")
        issued.private_key_and_cert_chain_pem.write_to_path(folder / "plait.pem")


def command(
    name: str, folder: Path, port: int, plain_port: int, nodes: Sequence[int], connections: int
) -> list[str]:
    """Write a configuration of `deploy/` for this machine; return the command that runs it.

    Args:
        folder: where the certificate is.
        port: of TLS.
        plain_port: of what is redirected to it.
        nodes: the ports of the nodes.
        connections: how many are prepared for.

    Raises:
        BenchError: the program is missing.
    """
    path = program(name)
    if path is None:
        raise BenchError(f"{name} is missing: apt-get install {PACKAGES[name]}")
    text = (DEPLOY / FILES[name]).read_text()
    for old, new in {
        ":8080": f":{plain_port}",
        ":8443": f":{port}",
        "listen 8080": f"listen {LOOPBACK}:{plain_port}",
        "listen 8443": f"listen {LOOPBACK}:{port}",
        **{f"plait-{n}:8000": f"{LOOPBACK}:{node}" for n, node in enumerate(nodes, 1)},
        "/usr/local/etc/haproxy/certs": str(folder),
        "/etc/nginx/certs": str(folder),
        "maxconn 50000": f"maxconn {connections}",
        "worker_rlimit_nofile 120000;": f"daemon off; pid {folder}/pid;",
        "worker_connections 50000": f"worker_connections {2 * connections}",
    }.items():
        text = text.replace(old, new)
    if name == "nginx":
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        own = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
        text = text.replace("http {", f"http {{ {own}", 1)
    file = folder / FILES[name]
    file.write_text(text)
    if name == "haproxy":
        return [path, "-db", "-f", str(file)]
    return [path, "-e", "stderr", "-p", str(folder), "-c", str(file)]


def kind(
    name: str, nodes: Sequence[int], certificate: Certificate, plain_port: int, connections: int
) -> Kind:
    """Return a load balancer as a server of `servers.Server`."""

    def run(port: int, folder: Path) -> Command:
        certificate.write(folder)
        return command(name, folder, port, plain_port, nodes, connections), {}

    return Kind(name, run)
