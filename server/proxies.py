"""Whom to believe where a connection comes from: proxies that tell it in X-Forwarded-For and
X-Forwarded-Proto.

uvicorn takes what is neither an address nor a network for a name, which then never matches, and it
compares 127.0.0.1 with what a socket for both versions of IP calls ::ffff:127.0.0.1. So the setting
is read here, and said once more in the other form.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, ip_interface, ip_network

from plait.server.errors import ConfigError

EVERYBODY = "*"


def trusted(proxies: Iterable[str]) -> list[str]:
    """Return what `uvicorn.Config(forwarded_allow_ips=...)` takes.

    Args:
        proxies: the setting `trusted_proxies`.

    Raises:
        ConfigError: one of them is neither an address nor a network.
    """
    found = []
    for each in proxies:
        if each == EVERYBODY:
            return [EVERYBODY]
        network = ip_network(_checked(each))
        found.append(str(network))
        if isinstance(network, IPv4Network):
            found.append(f"::ffff:{network.network_address}/{96 + network.prefixlen}")
    return found


def _checked(text: str) -> str:
    try:
        ip_network(text)
    except ValueError:
        raise ConfigError(f"trusted_proxies: {text!r} can't be used: {_why(text)}") from None
    return text


def _why(text: str) -> str:
    try:
        network = ip_interface(text).network
    except ValueError:
        return "an address, a network like 10.0.0.0/8, or * is expected"
    return f"as a network it is {network}"
