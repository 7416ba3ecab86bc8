"""What `plait health` does: ask the server of this machine whether it takes clients."""

import json
import ssl
import sys
import urllib.error
import urllib.request

from plait.server.settings import Settings

ANSWER_SECONDS = 8.0
"""Longer than a server waits for its store."""


def check_health(settings: Settings) -> int:
    """Print what `/readyz` tells.

    Returns:
        0 if the server is ready; 1 if it is not, or does not answer.
    """
    secure = ssl.create_default_context()
    # The certificate is for the name by which clients know the server; this asks this machine.
    secure.check_hostname = False
    secure.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=secure)
    )
    url = address(settings) + "/readyz"
    try:
        with opener.open(url, timeout=ANSWER_SECONDS) as answer:
            print(json.dumps(json.load(answer)))
            return 0
    except urllib.error.HTTPError as error:
        print(error.read().decode(errors="replace"))
    except (OSError, ValueError) as error:
        print(f"plait: {url} does not answer: {error}", file=sys.stderr)
    return 1


def address(settings: Settings) -> str:
    """Return the URL at which a server with these settings is reached from its own machine."""
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    host = f"[{host}]" if ":" in host else host
    return f"http{'s' if settings.tls_cert else ''}://{host}:{settings.port}"
