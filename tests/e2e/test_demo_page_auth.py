"""The demo page on a server that asks who one is: signing in and out, reading without writing, and
what becomes of text that may not be saved.
"""

import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Page, expect

from tests.e2e.conftest import OpenServer
from tests.e2e.test_demo_page import DEADLINE_MS, Window
from tests.e2e.test_demo_page import browser as browser
from tests.server.auth.parts import SECRET
from tests.support.deadlines import DEADLINE_SECONDS
from tests.support.rights import Grants, admin, bearer, token
from tests.support.server import PlaitProcess

READ: Grants = [{"docs": "*", "access": "read"}]
WRITE: Grants = [{"docs": "*", "access": "write"}]
ALL_STORAGE = "JSON.stringify([Object.entries(localStorage), document.cookie])"

Visit = Callable[..., Awaitable[Window]]


def signed(grants: Grants, **claims: Any) -> str:
    """Return a token for a server that asks for no audience."""
    return token(grants, **{"aud": None, **claims})


@pytest.fixture
def sockets() -> str:
    """What differs between the two kinds of sockets is tested without a browser, in less time."""
    return "direct"


@pytest.fixture
async def plait_server(open_server: OpenServer) -> PlaitProcess:
    """A server that lets in only those who bring a token."""
    return await open_server("--token-secret", SECRET)


@pytest.fixture
async def visit(browser: Browser, plait_server: PlaitProcess) -> Visit:
    """A function that opens a window of a person's own browser, with a token in its address."""
    expect.set_options(timeout=DEADLINE_MS)

    async def visit(room: str, given: str = "", server: PlaitProcess = plait_server) -> Window:
        own = await browser.new_context(viewport={"width": 1280, "height": 800})
        own.set_default_timeout(DEADLINE_MS)
        window = Window(await own.new_page(), server.url)
        await window.page.goto(f"{server.url}/?room={room}" + (f"#token={given}" if given else ""))
        return window

    return visit


async def ask(server: PlaitProcess, method: str, path: str, **more: Any) -> httpx.Response:
    """Ask for something as admin of everything; it has to be well done."""
    async with httpx.AsyncClient(base_url=server.url, timeout=DEADLINE_SECONDS) as http:
        answer = await http.request(method, path, headers=bearer(admin(aud=None)), **more)
    assert answer.is_success, answer.text
    return answer


def form(window: Window) -> Any:
    """The sign-in form."""
    return window.page.get_by_role("dialog", name="Sign in")


async def sign_in(window: Window, given: str) -> None:
    """Paste a token into the form and press Enter."""
    box = form(window).get_by_role("textbox", name="Token")
    await expect(box).to_be_focused()
    await box.fill(given)
    await box.press("Enter")


async def is_shown_read_only(window: Window) -> None:
    """Wait until it says that the room can only be read."""
    await expect(window.page.locator("#notice")).to_contain_text(
        "You can read this room, not edit it."
    )
    await expect(window.editor).to_have_attribute("contenteditable", "false")


async def test_a_token_in_the_address_is_used_and_seen_nowhere(visit: Visit) -> None:
    given = signed(WRITE, name="Mina Okafor", color="#8a3f7d")
    window = await visit("notes", given)
    await window.is_live()
    await window.write("Signed in.")
    await window.is_saved()
    await expect(window.room("notes")).to_be_visible()

    page = window.page
    assert page.url.endswith("/?room=notes")
    assert await page.evaluate("sessionStorage.getItem('plait.token')") == given
    assert given not in await page.evaluate(ALL_STORAGE)
    await expect(page.locator("#you")).to_contain_text("Mina Okafor")

    await page.reload()
    await expect(window.editor).to_contain_text("Signed in.")
    await expect(page.locator("#you")).to_contain_text("Mina Okafor")
    await page.go_back()
    assert "token" not in page.url
    assert window.complaints == []
    assert window.strangers == []


async def test_a_token_is_never_in_the_address_of_a_request(visit: Visit) -> None:
    given = signed(WRITE)
    window = await visit("quiet")
    asked: list[str] = []
    window.page.on("request", lambda request: asked.append(request.url))
    window.page.on("websocket", lambda socket: asked.append(socket.url))
    await sign_in(window, given)
    await window.is_live()
    await window.write("x")
    await window.is_saved()
    assert any(url.startswith("ws") for url in asked)
    assert not any(given in url for url in asked)


async def test_who_has_no_token_is_asked_for_one_and_can_use_the_keyboard(visit: Visit) -> None:
    window = await visit("asked")
    page = window.page
    await expect(form(window)).to_contain_text("Paste the token")
    await expect(page.locator("#rooms-message")).to_have_text("Sign in to see the rooms.")

    await sign_in(window, "not a token, says ü")
    await expect(page.locator("#sign-in-error")).to_contain_text("This is not a token")
    await sign_in(window, signed(WRITE, exp=time.time() - 3600))
    await expect(page.locator("#sign-in-error")).to_contain_text("does not accept this token")
    await expect(page.locator("#sign-in-error")).to_contain_text("expired")

    # Closed without a token it stays closed, and can be opened again.
    await page.keyboard.press("Escape")
    await expect(form(window)).to_be_hidden()
    await expect(page.locator("#notice")).to_contain_text("You have to sign in to open this room.")
    await page.locator("#notice").get_by_role("button", name="Sign in").press("Enter")
    await sign_in(window, f"Bearer {signed(WRITE)}\n")
    await expect(form(window)).to_be_hidden()
    await window.is_live()
    await expect(page.locator("#notice")).to_be_hidden()
    await window.write("In.")
    await window.is_saved()


async def test_signing_out_forgets_the_token_and_what_was_seen_with_it(visit: Visit) -> None:
    window = await visit("secret", signed(WRITE, name="Mina"))
    await window.write("For my eyes only.")
    await window.is_saved()
    await expect(window.room("secret")).to_be_visible()

    page = window.page
    await page.get_by_role("button", name="Sign out").click()
    await expect(form(window)).to_be_visible()
    await expect(page.locator("#state")).to_have_attribute("data-connection", "refused")
    await expect(window.editor).not_to_contain_text("For my eyes only.")
    await expect(window.rooms.locator("li")).to_have_count(0)
    assert await page.evaluate("sessionStorage.length") == 0
    await expect(page.locator("#you")).not_to_contain_text("Mina")
    await page.reload()
    await expect(form(window)).to_be_visible()


async def test_another_token_in_the_address_takes_the_place_of_the_first(visit: Visit) -> None:
    window = await visit("changing", signed(READ))
    await window.is_live()
    await is_shown_read_only(window)
    other = signed(WRITE, subject="ben", name="Ben")
    await window.page.evaluate("token => { location.hash = `token=${token}` }", other)
    await expect(window.page.locator("#you")).to_contain_text("Ben")
    await expect(window.editor).to_have_attribute("contenteditable", "true")
    assert "token" not in window.page.url


async def test_a_reader_sees_what_others_write_and_cannot_write(visit: Visit) -> None:
    writer = await visit("read", signed(WRITE))
    reader = await visit("read", signed(READ, subject="rea"))
    await writer.write("One. ")
    await expect(reader.editor).to_contain_text("One.")
    await is_shown_read_only(reader)
    await expect(reader.saved).to_have_text("Read only")
    await reader.editor.focus()
    await reader.page.keyboard.type("Not by me.")
    await reader.page.keyboard.press("Control+z")
    await writer.write("Two.")
    await expect(reader.editor).to_contain_text("One. Two.")
    assert await reader.text() == ["One. Two."]
    await expect(reader.saved).to_have_text("Read only")
    assert reader.complaints == []


async def test_what_a_reader_may_no_more_save_is_kept_discarded_or_saved_later(
    visit: Visit, plait_server: PlaitProcess
) -> None:
    window = await visit("downgraded", signed(WRITE, subject="dora"))
    await window.write("Kept. ")
    await window.is_saved()

    what = {"subject": "dora", "docs": "*", "access": "read"}
    revocation = (await ask(plait_server, "POST", "/api/revocations", json=what)).json()["id"]
    await is_shown_read_only(window)
    await window.editor.focus()
    await window.page.keyboard.press("Control+z")  # It would change the shared text.
    assert await window.text() == ["Kept. "]
    await expect(window.saved).to_have_text("Read only")
    await ask(plait_server, "DELETE", f"/api/revocations?id={revocation}")
    await expect(window.editor).to_have_attribute("contenteditable", "true")
    await expect(window.page.locator("#notice")).to_be_hidden()

    # What is typed while the server is away, and the right is lost meanwhile.
    async def type_and_lose() -> str:
        await window.page.context.set_offline(True)
        await plait_server.stop()
        await expect(window.page.locator("#connection")).to_have_text("Offline")
        await window.write("Too late. ")
        await plait_server.start()
        answer = await ask(plait_server, "POST", "/api/revocations", json=what)
        await window.page.context.set_offline(False)
        await is_shown_read_only(window)
        await expect(window.page.locator("#notice")).to_contain_text("is not saved")
        await expect(window.saved).to_have_text("Not saved")
        await expect(window.editor).to_contain_text("Too late.")
        return str(answer.json()["id"])

    revocation = await type_and_lose()
    await ask(plait_server, "DELETE", f"/api/revocations?id={revocation}")
    await window.is_saved()
    await expect(window.editor).to_have_attribute("contenteditable", "true")
    witness = await visit("downgraded", signed(READ))
    await expect(witness.editor).to_contain_text("Kept. Too late.")

    await window.write("Never. ")
    await window.is_saved()
    await type_and_lose()
    assert (await window.text())[0].count("Too late.") == 2
    await window.page.get_by_role("button", name="Discard my changes").click()
    await expect(window.editor).to_contain_text("Kept. Too late. Never.")
    await is_shown_read_only(window)
    assert await window.text() == ["Kept. Too late. Never. "]
    await expect(window.page.locator("#notice")).not_to_contain_text("not saved")


async def test_a_room_that_may_not_be_opened_says_so_and_is_not_tried_again(visit: Visit) -> None:
    given = signed([{"docs": "mine/*", "access": "write"}])
    window = await visit("mine%2Fown", given)
    await window.is_live()
    page = window.page
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    box = page.get_by_role("textbox", name="Room name")
    await box.fill("yours")
    await box.press("Enter")
    await expect(page.locator("#notice")).to_contain_text("You are not allowed to open this room.")
    await expect(window.editor).to_have_attribute("contenteditable", "false")
    await expect(form(window)).to_be_hidden()
    assert await page.evaluate("sessionStorage.getItem('plait.token')") == given

    # Its own room works on; by then the provider would have come back, had it not stopped.
    await page.go_back()
    await window.is_live()
    await window.write("Mine.")
    await window.is_saved()
    assert sum(url.endswith("/yours") for url in sockets) == 1


async def test_deleting_without_the_right_is_answered_and_downloading_works(
    visit: Visit, tmp_path: Path
) -> None:
    window = await visit("lasting", signed(WRITE))
    await window.write("Lasting text.")
    await window.is_saved()
    page = window.page
    async with page.expect_download() as downloading:
        await window.room("lasting").get_by_role("button", name="Download").click()
    download = await downloading.value
    assert download.suggested_filename == "lasting.yjs"
    await download.save_as(tmp_path / "lasting.yjs")
    assert b"Lasting text." in (tmp_path / "lasting.yjs").read_bytes()

    await page.get_by_role("button", name="Delete lasting").click()
    await page.get_by_role("alertdialog").get_by_role("button", name="Delete").click()
    await expect(page.locator("#rooms-failure")).to_have_text(
        "“lasting” was not deleted. You are not allowed to do that."
    )
    await expect(window.room("lasting")).to_be_visible()
    await expect(form(window)).to_be_hidden()


async def test_a_token_that_ends_is_announced_and_renewed_over_the_same_connection(
    visit: Visit,
) -> None:
    window = await visit("renewed", signed(WRITE, exp=time.time() + 60))
    await window.is_live()
    page = window.page
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    notice = page.locator("#expiry")
    await expect(notice).to_have_text(re.compile(r"Your token ends at \d+:\d\d"))
    await notice.get_by_role("button", name="Sign in again").click()
    await sign_in(window, signed(WRITE))
    await expect(notice).to_be_hidden()
    await window.write("Still here.")
    await window.is_saved()
    assert sockets == []


async def test_a_new_token_that_is_not_valid_asks_for_another(visit: Visit) -> None:
    good = signed(WRITE)
    window = await visit("forged", good)
    await window.is_live()
    forged = ".".join((*signed(WRITE, name="Mallory").split(".")[:2], good.split(".")[2]))
    await window.page.evaluate("token => { location.hash = `token=${token}` }", forged)
    await expect(form(window)).to_contain_text("does not accept your token any more")
    await expect(window.page.locator("#state")).to_have_attribute("data-connection", "refused")
    await sign_in(window, good)
    await window.is_live()
    await window.write("Well.")
    await window.is_saved()


async def test_somebody_else_who_signs_in_takes_over_the_window(visit: Visit) -> None:
    window = await visit("relay", signed(WRITE, subject="ann"))
    await window.write("Ann. ")
    await window.is_saved()
    other = signed(WRITE, subject="ben")
    async with window.page.expect_event("websocket"):
        await window.page.evaluate("token => { location.hash = `token=${token}` }", other)
    await window.is_live()
    await window.write("Ben.")
    await window.is_saved()


async def test_a_token_that_has_ended_asks_for_another_and_then_saves(visit: Visit) -> None:
    window = await visit("ending", signed(WRITE))
    await window.is_live()
    await window.write("Before. ")
    await window.is_saved()
    # The server's leeway of 10 s is over soon.
    brief = signed(WRITE, exp=time.time() + 2 - 10)
    await window.page.evaluate("token => { location.hash = `token=${token}` }", brief)
    await expect(form(window)).to_contain_text("does not accept your token any more")
    await expect(window.page.locator("#notice")).to_contain_text("expired")
    await expect(window.editor).to_contain_text("Before.")
    await sign_in(window, signed(WRITE))
    await window.is_live()
    await window.write("After.")
    await window.is_saved()
    await expect(window.editor).to_contain_text("Before. After.")


async def test_who_may_read_without_a_token_can_sign_in_to_write(
    visit: Visit, open_server: OpenServer
) -> None:
    public = await open_server(
        "--token-secret", SECRET, "--allow-anonymous", "--anonymous-access", "read"
    )
    window = await visit("public", server=public)
    await window.is_live()
    await is_shown_read_only(window)
    await window.page.locator("#notice").get_by_role("button", name="Sign in").click()
    await sign_in(window, signed(WRITE))
    await expect(window.editor).to_have_attribute("contenteditable", "true")
    await window.is_live()
    await window.write("Now I may.")
    await window.is_saved()


async def test_what_a_full_document_does_not_take_can_be_taken_back(
    visit: Visit, open_server: OpenServer
) -> None:
    small = await open_server("--document-mb", "1")
    window = await visit("full", server=small)
    await window.write("Fits. ")
    await window.is_saved()
    await window.page.keyboard.insert_text("x" * 1_100_000)
    notice = window.page.locator("#notice")
    await expect(notice).to_contain_text("The server does not accept this")
    await expect(notice).to_contain_text("is not saved")
    # Deleting is how room is made, so the editor stays open.
    await expect(window.editor).to_have_attribute("contenteditable", "true")
    await notice.get_by_role("button", name="Discard my changes").click()
    await expect(notice).to_be_hidden()
    await expect(window.editor).to_contain_text("Fits.")
    await window.write("So does this.")
    await window.is_saved()


async def test_a_second_window_has_the_token_too(visit: Visit) -> None:
    window = await visit("pair", signed(WRITE))
    await window.is_live()
    async with window.page.expect_popup() as opening:
        await window.page.locator("#second").click()
    popup: Page = await opening.value
    second = Window(popup, window.page.url)
    await second.is_live()
    await second.write("From the second window.")
    await expect(window.editor).to_contain_text("From the second window.")


async def test_the_form_fits_on_a_phone(browser: Browser, plait_server: PlaitProcess) -> None:
    expect.set_options(timeout=DEADLINE_MS)
    own = await browser.new_context(viewport={"width": 360, "height": 740})
    page = await own.new_page()
    await page.goto(f"{plait_server.url}/?room=phone")
    dialog = page.get_by_role("dialog", name="Sign in")
    await expect(dialog).to_be_visible()
    for _ in range(2):
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        await page.keyboard.press("Escape")
    await expect(page.locator("#session")).to_be_visible()
