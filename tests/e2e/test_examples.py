"""The applications of docs/examples, as their readers start them: each lets its users into a real
Plait, through the client that is beside them.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Route, async_playwright, expect

from tests.support.deadlines import eventually
from tests.support.node import FOLDER as NODE_FOLDER
from tests.support.node import NODE
from tests.support.server import PlaitProcess, environment, free_port

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
SECRET = "a-secret-of-more-than-thirty-two-characters"
AUTH_SECRET = "another-secret-of-more-than-thirty-two-characters"
WRITTEN = "written by ann"
CHROMIUM = os.environ.get("PLAIT_TEST_CHROMIUM") or shutil.which("chromium")

CLIENT = """
import WebSocket from 'ws'
import * as Y from 'yjs'
import { connect } from './plait-client.js'

const { url, tokens, room, origin, text, seconds } = JSON.parse(process.argv[2])
class Socket extends WebSocket {
  constructor (url, protocols) { super(url, protocols, { origin }) }
}
const pause = () => new Promise(resolve => setTimeout(resolve, 20))
const until = async condition => { while (!condition()) await pause() }
const doc = new Y.Doc(), told = [], denied = []
let given = 0
const getToken = async () => ({ url, token: tokens[Math.min(given++, tokens.length - 1)], seconds })
const { provider, renew } = await connect(room, doc, getToken, {
  WebSocketPolyfill: Socket, disableBc: true,
  onAccess: access => told.push(access), onDenied: reason => denied.push(reason)
})
await until(() => provider.synced || denied.length)
if (provider.synced) {
  await renew()
  await until(() => told.length || denied.length)
  if (text) doc.getText('text').insert(0, text)
  else await until(() => doc.getText('text').length)
}
console.log(JSON.stringify({ text: doc.getText('text').toString(), told, denied, given }))
const socket = provider.ws
provider.destroy()
// What was written goes before the end of the connection.
await until(() => !socket || socket.readyState === WebSocket.CLOSED)
process.exit()
"""

Start = Callable[..., Awaitable[httpx.AsyncClient]]
Logins = Callable[[httpx.AsyncClient, str], Awaitable[None]]


@pytest.fixture(scope="module")
def sockets() -> str:
    """Applications don't care how frames are carried."""
    return "direct"


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A copy of the examples, with what npm would install beside them."""
    folder = tmp_path / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
    (folder / "node_modules").symlink_to(NODE_FOLDER / "node_modules")
    (folder / "client.mjs").write_text(CLIENT)
    return folder


@pytest.fixture
async def start(examples: Path) -> AsyncIterator[Start]:
    """A function that starts an application and returns a browser of it."""
    processes: list[subprocess.Popen[bytes]] = []
    browsers: list[httpx.AsyncClient] = []

    async def start(file: str, **variables: str) -> httpx.AsyncClient:
        port = variables.pop("PORT", "") or str(free_port())
        log = examples / "log"
        process = launch(examples / file, log, environment(PORT=port, **variables))
        processes.append(process)
        browser = httpx.AsyncClient(base_url=f"http://localhost:{port}", trust_env=False)
        browsers.append(browser)

        async def answers() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return (await browser.get("/plait-client.js")).status_code == 200
            except httpx.TransportError:
                return False

        await eventually(answers, f"an answer of {file}")
        return browser

    yield start
    for browser in browsers:
        await browser.aclose()
    for process in processes:
        process.terminate()
        process.wait(30)


def launch(file: Path, log: Path, variables: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start an application in its folder."""
    with log.open("wb") as out:
        return subprocess.Popen(
            [NODE if file.suffix == ".mjs" else sys.executable, file.name],
            cwd=file.parent,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )


async def basic(browser: httpx.AsyncClient, name: str) -> None:
    """Log in as browsers do when they are answered with 401."""
    assert (await browser.get("/", auth=None)).status_code == 401
    browser.auth = httpx.BasicAuth(name, name)


async def form(browser: httpx.AsyncClient, name: str) -> None:
    """Log in with Django's form; its cookie goes into a header of later requests."""
    browser.cookies.clear()
    assert (await browser.get("/")).status_code == 302
    page = await browser.get("/login")
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert found is not None, page.text
    sent = {"csrfmiddlewaretoken": found[1], "username": name, "password": name}
    assert (await browser.post("/login", data=sent)).status_code == 302
    browser.headers["x-csrftoken"] = browser.cookies["csrftoken"]


def play(examples: Path, told: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Let the client of the examples use a token; return what became of it."""
    options = {"url": told["url"], "tokens": [told["token"]], "seconds": told["seconds"], **options}
    done = subprocess.run(
        [NODE, "client.mjs", json.dumps({"room": "minutes", **options})],
        cwd=examples,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


APPLICATIONS = {
    "fastapi_app.py": basic,
    "django_app.py": form,
    "express_app.mjs": basic,
}


@pytest.mark.parametrize("file", APPLICATIONS)
async def test_an_application_lets_its_users_in(
    file: str, start: Start, open_server: Callable[..., Awaitable[PlaitProcess]], examples: Path
) -> None:
    server = await open_server("--token-secret", SECRET)
    browser = await start(
        file, PLAIT_TOKEN_SECRET=SECRET, PLAIT_URL=f"{server.ws_url}/ws", DJANGO_DATABASE="app.db"
    )
    log_in: Logins = APPLICATIONS[file]
    here = str(browser.base_url).rstrip("/")

    await log_in(browser, "ann")
    page = await browser.get("/")
    assert page.status_code == 200 and "importmap" in page.text
    answer = await browser.post("/token", params={"document": "minutes"})
    assert answer.status_code == 200, answer.text
    assert "no-store" in answer.headers["cache-control"]
    anns = answer.json()
    written = play(examples, anns, text=WRITTEN, origin=here)
    assert written["told"] == ["read-write"] and written["denied"] == []
    elsewhere = play(examples, anns, room="secrets", origin=here)
    assert elsewhere["text"] == "" and "not allowed" in elsewhere["denied"][0]
    assert (await browser.post("/token", params={"document": "secrets"})).status_code == 403

    await log_in(browser, "bob")
    bobs = (await browser.post("/token", params={"document": "minutes"})).json()
    seen = play(examples, bobs, origin=here)
    assert seen["text"] == WRITTEN and seen["told"] == ["readonly"] and seen["denied"] == []
    await server.stop()


async def test_an_application_is_asked_whose_its_sessions_are(
    start: Start, open_server: Callable[..., Awaitable[PlaitProcess]], examples: Path
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/plait/who"
    server = await open_server("--auth-url", url, "--auth-secret", AUTH_SECRET)
    browser = await start(
        "fastapi_app.py",
        PLAIT_AUTH_SECRET=AUTH_SECRET,
        PLAIT_URL=f"{server.ws_url}/ws",
        PORT=str(port),
    )
    await basic(browser, "ann")
    anns = (await browser.post("/session")).json()
    here = str(browser.base_url).rstrip("/")
    assert play(examples, anns, text=WRITTEN, origin=here)["told"] == ["read-write"]
    await basic(browser, "bob")
    bobs = (await browser.post("/session")).json()
    seen = play(examples, bobs, origin=here)
    assert seen["text"] == WRITTEN and seen["told"] == ["readonly"]
    forged = play(examples, {**bobs, "token": "guessed"}, origin=here)
    assert forged["text"] == "" and "does not know it" in forged["denied"][0]
    unsigned = await browser.post(
        "/plait/who", json={"token": anns["token"], "document": "minutes"}
    )
    assert unsigned.status_code == 400
    await server.stop()


async def from_npm(route: Route) -> None:
    """Answer for esm.sh, which is not asked in tests, with the same versions from npm."""
    found = re.fullmatch(r"https://esm\.sh/\*([\w-]+)@([\d.]+)(?:/(.*))?", route.request.url)
    assert found is not None, route.request.url
    package, version, path = found.groups()
    folder = NODE_FOLDER / "node_modules" / package
    described = json.loads((folder / "package.json").read_text())
    assert described["version"] == version
    target = described["exports"].get("./" + path if path else ".", path)
    while isinstance(target, dict):
        target = next(target[each] for each in ("browser", "module", "import") if each in target)
    await route.fulfill(body=(folder / target).read_text(), content_type="text/javascript")


async def test_the_page_edits_with_the_right_to(
    start: Start, open_server: Callable[..., Awaitable[PlaitProcess]]
) -> None:
    server = await open_server("--token-secret", SECRET)
    application = await start(
        "fastapi_app.py", PLAIT_TOKEN_SECRET=SECRET, PLAIT_URL=f"{server.ws_url}/ws"
    )
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name in ("ann", "bob"):
            context = await browser.new_context(
                http_credentials={"username": name, "password": name}
            )
            page = await context.new_page()
            await page.route("https://esm.sh/**", from_npm)
            await page.goto(str(application.base_url))
            await expect(page.locator("#state")).to_have_text("connected")
            area = page.locator("#text")
            if name == "ann":
                await expect(area).to_be_enabled()
                await area.type(WRITTEN)
            else:
                await expect(area).to_be_disabled()
            await expect(area).to_have_value(WRITTEN)
        await browser.close()
    await server.stop()
