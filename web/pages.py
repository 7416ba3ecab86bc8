"""Serve the demo page and its files, from a table made when the module is loaded.

A path is looked up in that table and never joined to a folder, so what is not in it does not
exist. The files are built by `scripts/web` and together smaller than a megabyte, so they are kept
in memory, compressed as well.
"""

import gzip
import hashlib
import mimetypes
import re
from dataclasses import dataclass, field
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

_STATIC = Path(__file__).parent / "static"
_INDEX = "index.html"
_FAVICON = "favicon.svg"

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        # Sockets of the same origin too.
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

# Device features, none of which the page uses; whatever got into it could not either.
PERMISSIONS_POLICY = ", ".join(
    f"{feature}=()"
    for feature in (
        "camera",
        "display-capture",
        "geolocation",
        "hid",
        "microphone",
        "midi",
        "payment",
        "serial",
        "usb",
    )
)

# All files have all of them: an SVG, too, can be opened as a page.
_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": PERMISSIONS_POLICY,
    "referrer-policy": "no-referrer",
    "vary": "accept-encoding",
    "x-content-type-options": "nosniff",
    # For browsers that do not know frame-ancestors.
    "x-frame-options": "DENY",
}
_HSTS = "max-age=31536000"
_REVALIDATE = "no-cache"
_IMMUTABLE = "public, max-age=31536000, immutable"

# Vite puts a hash of the content into a name; such a file never changes.
_HASHED = re.compile(r"-[\w-]{8}\.\w+\Z", re.ASCII)

# The system's table of types differs between machines.
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    body: bytes = field(repr=False)
    zipped: bytes = field(repr=False)
    etag: str

    @classmethod
    def read(cls, path: Path) -> "_File":
        body = path.read_bytes()
        # Weak: the same for the body and its compressed form.
        etag = f'W/"{hashlib.sha256(body).hexdigest()[:20]}"'
        return cls(path.name, body, gzip.compress(body, mtime=0), etag)

    def respond(self, request: Request, headers: dict[str, str]) -> Response:
        """Answer a GET or HEAD; with 304 if the client has this content already."""
        headers = {**_HEADERS, **headers, "etag": self.etag}
        # It counts for all ports of a host: on one's own machine it would lock out everything else.
        if request.url.scheme == "https" and request.url.hostname != "localhost":
            headers["strict-transport-security"] = _HSTS
        if _names(request.headers.get("if-none-match", ""), self.etag):
            return Response(status_code=304, headers=headers)
        body = self.body
        if "gzip" in request.headers.get("accept-encoding", ""):
            body = self.zipped
            headers["content-encoding"] = "gzip"
        headers["content-length"] = str(len(body))
        suffix = Path(self.name).suffix
        headers["content-type"] = _MEDIA_TYPES.get(suffix) or (
            mimetypes.guess_type(self.name)[0] or "application/octet-stream"
        )
        return Response(b"" if request.method == "HEAD" else body, headers=headers)


def _names(if_none_match: str, etag: str) -> bool:
    """Whether an If-None-Match header names an ETag, compared weakly (RFC 9110, 13.1.2)."""
    named = {each.strip().removeprefix("W/") for each in if_none_match.split(",")}
    return "*" in named or etag.removeprefix("W/") in named


_FILES = {path.name: _File.read(path) for path in _STATIC.iterdir() if path.is_file()}


async def _index(request: Request) -> Response:
    return _FILES[_INDEX].respond(request, {"cache-control": _REVALIDATE})


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    file = _FILES.get(name)
    if file is None or name == _INDEX:
        raise HTTPException(404)
    cache = _IMMUTABLE if _HASHED.search(name) else _REVALIDATE
    return file.respond(request, {"cache-control": cache})


async def _favicon(request: Request) -> Response:
    return _FILES[_FAVICON].respond(request, {"cache-control": _REVALIDATE})


def routes() -> list[BaseRoute]:
    """Return the routes of the pages, to be put beside those of the server."""
    return [
        Route("/", _index),
        Route("/favicon.ico", _favicon),
        Route("/static/{name:path}", _static),
    ]
