"""The page and its files: what is served, with which headers, and that nothing else is."""

import gzip
import re
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette

from plait.web import pages


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    # Not Starlette's TestClient: it warns without a package that Plait has no other use for.
    transport = httpx.ASGITransport(Starlette(routes=pages.routes()))
    async with httpx.AsyncClient(transport=transport, base_url="http://plait.test") as client:
        yield client


def linked(html: str) -> list[str]:
    """The files of ours that a page names."""
    return re.findall(r'(?:src|href)="(/static/[^"]+)"', html)


async def test_the_page_is_html_and_is_asked_for_anew_each_time(client: httpx.AsyncClient) -> None:
    response = await client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert "<title>Plait</title>" in response.text


async def test_the_page_forbids_all_that_it_does_not_need(client: httpx.AsyncClient) -> None:
    headers = (await client.get("/")).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "base-uri 'none'" in policy
    for feature in ("camera", "geolocation", "microphone"):
        assert f"{feature}=()" in headers["permissions-policy"]


@pytest.mark.parametrize("path", ["/", "/favicon.ico", "/static/favicon.svg", "/static/theme.js"])
@pytest.mark.parametrize("known", [False, True], ids=["sent", "not modified"])
async def test_every_file_is_protected_from_other_pages(
    client: httpx.AsyncClient, path: str, known: bool
) -> None:
    response = await client.get(path, headers={"if-none-match": "*"} if known else {})
    assert response.status_code == (304 if known else 200)
    headers = response.headers
    assert headers["content-security-policy"] == pages.CONTENT_SECURITY_POLICY
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"


async def test_who_came_by_https_is_to_come_so_again(client: httpx.AsyncClient) -> None:
    name = "strict-transport-security"
    for path in ("/", "/static/theme.js"):
        secure = await client.get(f"https://plait.test{path}")
        assert secure.headers[name] == "max-age=31536000"
        assert name not in (await client.get(path)).headers
        # Other servers of one's own machine may have no certificate.
        assert name not in (await client.get(f"https://localhost{path}")).headers


async def test_the_page_has_nothing_inline_and_nothing_from_elsewhere(
    client: httpx.AsyncClient,
) -> None:
    html = (await client.get("/")).text
    assert "<style" not in html
    assert " style=" not in html
    assert not re.search(r"\son\w+=", html)
    assert all(" src=" in tag for tag in re.findall(r"<script[^>]*>", html))
    assert not any("//" in url for url in re.findall(r'(?:src|href)="([^"]*)"', html))


async def test_every_file_that_the_page_names_is_there(client: httpx.AsyncClient) -> None:
    paths = linked((await client.get("/")).text)
    assert any(path.endswith(".js") for path in paths)
    assert any(path.endswith(".css") for path in paths)
    for path in paths:
        assert (await client.get(path)).status_code == 200, path


async def test_a_file_with_a_hash_in_its_name_is_kept_for_ever_and_others_are_not(
    client: httpx.AsyncClient,
) -> None:
    for path in linked((await client.get("/")).text):
        cache = (await client.get(path)).headers["cache-control"]
        if re.search(r"/index-", path):
            assert cache == "public, max-age=31536000, immutable"
        else:
            assert cache == "no-cache"


@pytest.mark.parametrize("path", ["/", "/static/theme.js", "/favicon.ico"])
async def test_what_the_client_has_already_is_not_sent_again(
    client: httpx.AsyncClient, path: str
) -> None:
    etag = (await client.get(path)).headers["etag"]
    for named in (etag, etag.removeprefix("W/"), f'"other", {etag}', "*"):
        response = await client.get(path, headers={"if-none-match": named})
        assert response.status_code == 304
        assert response.content == b""
        assert response.headers["etag"] == etag
    assert (await client.get(path, headers={"if-none-match": '"other"'})).status_code == 200


async def test_head_tells_what_get_would(client: httpx.AsyncClient) -> None:
    for path in ("/", "/static/theme.js", "/favicon.ico"):
        head, get = await client.head(path), await client.get(path)
        assert head.status_code == 200
        assert head.content == b""
        assert head.headers == get.headers


async def test_a_client_that_takes_gzip_gets_the_same_content_smaller(
    client: httpx.AsyncClient,
) -> None:
    plain = await client.get("/", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    async with client.stream("GET", "/", headers={"accept-encoding": "gzip, br"}) as response:
        assert response.headers["content-encoding"] == "gzip"
        zipped = b"".join([part async for part in response.aiter_raw()])
    assert len(zipped) < len(plain.content)
    assert gzip.decompress(zipped) == plain.content


async def test_the_favicon_is_the_logo(client: httpx.AsyncClient) -> None:
    response = await client.get("/favicon.ico")
    assert response.headers["content-type"] == "image/svg+xml"
    assert response.content == (await client.get("/static/favicon.svg")).content


@pytest.mark.parametrize(
    "path",
    [
        "/static/",
        "/static/index.html",
        "/static/nothing.js",
        "/static/../pages.py",
        "/static/%2e%2e/pages.py",
        "/static/..%2fpages.py",
        "/static/..%5cpages.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/theme.js%00",
        "/static/theme.js/",
    ],
)
async def test_nothing_but_the_files_can_be_reached(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404


async def test_nothing_can_be_changed(client: httpx.AsyncClient) -> None:
    assert (await client.post("/")).status_code == 405
    assert (await client.put("/static/theme.js")).status_code == 405


async def test_the_licenses_of_what_is_bundled_are_served(client: httpx.AsyncClient) -> None:
    text = (await client.get("/static/licenses.txt")).text
    for package in ("yjs", "y-websocket", "@codemirror/view", "lib0"):
        assert f"## {package} - " in text


def test_the_files_are_small_together() -> None:
    assert sum(len(file.body) for file in pages._FILES.values()) < 1_000_000
