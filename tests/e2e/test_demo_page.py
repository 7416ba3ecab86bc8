"""The demo page in a real browser, against a real server.

Waiting is always for something that can be seen, with a deadline; nothing sleeps.
"""

import os
import re
import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from itertools import combinations
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from tests.support.deadlines import eventually
from tests.support.server import PlaitProcess

CHROMIUM = os.environ.get("PLAIT_TEST_CHROMIUM") or shutil.which("chromium")
DEADLINE_MS = 60_000

OpenWindow = Callable[..., Awaitable["Window"]]


class Window:
    """One person's browser window, which notes what it complains of and what it asks others for."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.editor = page.locator(".cm-content")
        self.state = page.locator("#state")
        self.saved = page.locator("#saved")
        self.rooms = page.locator("#rooms")
        self.complaints: list[str] = []
        self.strangers: list[str] = []
        page.on("console", lambda message: self._said(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._asked(request.url, origin))
        page.on("websocket", lambda socket: self._asked(socket.url, origin))

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def _asked(self, url: str, origin: str) -> None:
        if urlsplit(url).netloc != urlsplit(origin).netloc:
            self.strangers.append(url)

    async def is_live(self) -> None:
        await expect(self.state).to_have_attribute("data-connection", "live")

    async def is_saved(self) -> None:
        await expect(self.state).to_have_attribute("data-saved", "true")
        await expect(self.saved).to_have_text(re.compile("^Saved"))

    async def write(self, text: str) -> None:
        await self.editor.click()
        await self.page.keyboard.press("Control+End")
        await self.page.keyboard.type(text)

    async def text(self) -> Any:
        """What the editor shows, without the others' carets and their names."""
        return await self.editor.evaluate(
            """editor => {
                const copy = editor.cloneNode(true);
                copy.querySelectorAll(".caret").forEach(caret => caret.remove());
                return [...copy.querySelectorAll(".cm-line")].map(line => line.textContent);
            }"""
        )

    async def color(self, element: Locator) -> Any:
        """The colour of an element's text."""
        return await element.evaluate("element => getComputedStyle(element).color")

    def room(self, name: str) -> Any:
        """The row of a room in the list."""
        return self.rooms.locator("li", has=self.page.get_by_text(name, exact=True))


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        await browser.close()


@pytest.fixture
async def open_window(browser: Browser, plait_server: PlaitProcess) -> OpenWindow:
    expect.set_options(timeout=DEADLINE_MS)

    async def open_window(room: str = "", name: str = "", **context: Any) -> Window:
        """Open a window of a person's own browser."""
        own = await browser.new_context(**{"viewport": {"width": 1280, "height": 800}} | context)
        own.set_default_timeout(DEADLINE_MS)
        if name:
            await own.add_init_script(
                "localStorage.setItem('plait.identity', "
                f"JSON.stringify({{name: {name!r}, color: '#2f5d8c'}}))"
            )
        window = Window(await own.new_page(), plait_server.url)
        await window.page.goto(plait_server.url + (f"/?room={room}" if room else "/"))
        return window

    return open_window


async def test_two_people_see_each_others_text_names_and_cursors(open_window: OpenWindow) -> None:
    mina = await open_window("together", "Mina")
    jonas = await open_window("together", "Jonas")
    await mina.is_live()
    await jonas.is_live()

    await mina.write("Hello from Mina. ")
    await expect(jonas.editor).to_contain_text("Hello from Mina.")
    await jonas.write("And from Jonas.")
    await expect(mina.editor).to_contain_text("Hello from Mina. And from Jonas.")

    await expect(mina.page.locator("#people")).to_contain_text("Jonas")
    await expect(jonas.page.locator("#people")).to_contain_text("Mina")
    await expect(mina.page.locator(".caret-name")).to_have_text("Jonas")
    await expect(jonas.page.locator(".caret-name")).to_have_text("Mina")

    await jonas.page.close()
    await expect(mina.page.locator("#people li")).to_have_count(0)
    await expect(mina.page.locator(".caret-name")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_people_of_one_color_get_different_ones_and_names_that_can_be_read(
    open_window: OpenWindow, scheme: str
) -> None:
    names = ["Maximiliane Wilhelmina von Hohenstein", "Bartholomew Featherstonehaugh", "Jo"]
    reader, *writers = [
        await open_window("crowd", name, color_scheme=scheme) for name in ["Reader", *names]
    ]
    for writer in writers:
        await writer.is_live()
        await writer.write("x")
    labels = reader.page.locator(".caret-name")
    await expect(labels).to_have_count(len(names))

    async def colors(window: Window) -> Any:
        return await window.page.evaluate(
            """[...document.querySelectorAll("#you .avatar, #people .avatar")]
                .map(avatar => getComputedStyle(avatar).backgroundColor).sort()"""
        )

    async def all_agree() -> bool:
        seen = [await colors(window) for window in (reader, *writers)]
        return len(set(seen[0])) == 1 + len(names) and all(each == seen[0] for each in seen)

    async def all_apart() -> bool:
        boxes = [await labels.nth(number).bounding_box() for number in range(len(names))]
        sheet = await reader.page.locator("#editor").bounding_box()
        assert sheet is not None
        if any(box is None for box in boxes):
            return False
        sides = [(b["x"], b["y"], b["x"] + b["width"], b["y"] + b["height"]) for b in boxes if b]
        return all(top >= sheet["y"] for _, top, _, _ in sides) and not any(
            a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
            for a, b in combinations(sides, 2)
        )

    await eventually(all_agree, "a colour for each, the same for everybody")
    await eventually(all_apart, "names none of which covers another")


async def test_what_is_written_and_what_is_deleted_is_said_to_be_saved(
    open_window: OpenWindow,
) -> None:
    window = await open_window("saving")
    await window.is_live()
    await window.write("Keep this, not that.")
    await window.is_saved()
    await expect(window.saved).to_have_text(re.compile(r"^Saved in \d+ ms$"))

    # The update that only deletes has no clock of its own to be acknowledged by.
    await window.page.keyboard.press("Control+Backspace")
    await window.is_saved()
    await window.page.keyboard.press("Control+z")
    await expect(window.editor).to_contain_text("not that.")
    await window.is_saved()

    await window.page.reload()
    await expect(window.editor).to_contain_text("Keep this, not that.")


@pytest.mark.parametrize(
    ("scheme", "amber"), [("light", "rgb(138, 93, 0)"), ("dark", "rgb(220, 170, 69)")]
)
async def test_while_the_store_hangs_the_page_says_for_how_long(
    open_window: OpenWindow, plait_server: PlaitProcess, scheme: str, amber: str
) -> None:
    window = await open_window("hanging", color_scheme=scheme)
    await window.write("Before. ")
    await window.is_saved()
    calm = await window.color(window.saved)

    with closing(sqlite3.connect(plait_server.store_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await window.write("First. ")
        await expect(window.saved).to_have_text(re.compile(r"^Not saved for \d+ s$"))
        await expect(window.state).to_have_attribute("data-late", "true")
        assert await window.color(window.saved) == amber != calm
        # The oldest edit counts, and the seconds go on.
        await window.write("Second. ")
        said = await window.saved.text_content()
        assert said is not None and said.startswith("Not saved for ")
        await expect(window.saved).not_to_have_text(said)
        await expect(window.saved).to_have_text(re.compile(r"^Not saved for \d+ s$"))
        other.execute("ROLLBACK")
    await window.is_saved()
    await expect(window.state).to_have_attribute("data-late", "false")
    assert await window.color(window.saved) == calm


async def test_without_a_server_typing_goes_on_and_is_saved_later(
    open_window: OpenWindow, plait_server: PlaitProcess
) -> None:
    mina = await open_window("islands", "Mina")
    jonas = await open_window("islands", "Jonas")
    await mina.write("Before. ")
    await mina.is_saved()
    await expect(jonas.editor).to_contain_text("Before.")

    await plait_server.stop()
    await expect(mina.page.locator("#connection")).to_have_text("Offline")
    await expect(mina.page.get_by_role("alert")).to_contain_text("edits are kept in this window")
    await mina.write("Mina alone. ")
    await jonas.write("Jonas alone. ")
    await expect(mina.saved).to_have_text("Kept in this window")
    await expect(mina.editor).not_to_contain_text("Jonas alone.")

    await plait_server.start()
    for window in (mina, jonas):
        await window.is_live()
        await window.is_saved()
        await expect(window.editor).to_contain_text("Mina alone.")
        await expect(window.editor).to_contain_text("Jonas alone.")
        await expect(window.page.get_by_role("alert")).to_be_hidden()
    assert await mina.text() == await jonas.text()


async def test_what_was_said_to_be_saved_survives_a_kill(
    open_window: OpenWindow, plait_server: PlaitProcess
) -> None:
    window = await open_window("survivor")
    await window.write("On disk before it says so.")
    await window.is_saved()
    await plait_server.kill()
    await plait_server.start()
    fresh = await open_window("survivor")
    await expect(fresh.editor).to_contain_text("On disk before it says so.")


async def test_the_list_tells_how_many_are_in_a_room(open_window: OpenWindow) -> None:
    mina = await open_window("counted")
    await mina.write("One.")
    await mina.is_saved()
    await expect(mina.room("counted")).to_contain_text("1 person")
    await open_window("counted")
    await expect(mina.room("counted")).to_contain_text("2 people")
    await expect(mina.room("counted")).to_contain_text("just now")


async def test_rooms_are_found_opened_and_created(open_window: OpenWindow) -> None:
    window = await open_window("garden/beans")
    await window.write("Sow in May.")
    await window.is_saved()
    page = window.page

    box = page.get_by_role("textbox", name="Room name")
    await box.fill("kitchen sink")
    await box.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("kitchen sink")
    await window.is_live()
    await window.write("Wash up.")
    await window.is_saved()

    find = page.get_by_role("searchbox")
    await find.fill("gard")
    await expect(window.rooms.locator("li")).to_have_count(1)
    await window.room("garden/beans").get_by_role("link").first.click()
    await expect(window.editor).to_contain_text("Sow in May.")
    assert "room=garden%2Fbeans" in page.url
    await page.go_back()
    await expect(window.editor).to_contain_text("Wash up.")

    await find.fill("no such")
    await expect(page.locator("#rooms-message")).to_contain_text("No room’s name begins with")


async def test_a_deleted_room_says_so_to_those_who_are_in_it(open_window: OpenWindow) -> None:
    mina = await open_window("doomed")
    await mina.write("Not for long.")
    await mina.is_saved()
    jonas = await open_window("doomed")
    await jonas.is_live()

    await mina.page.get_by_role("button", name="Delete doomed").click()
    await mina.page.get_by_role("alertdialog").get_by_role("button", name="Delete").click()
    for window in (mina, jonas):
        await expect(window.page.get_by_role("alert")).to_contain_text("This room was deleted")
        await expect(window.editor).to_have_attribute("contenteditable", "false")
    await expect(mina.room("doomed")).to_have_count(0)

    late = await open_window("doomed")
    await expect(late.page.get_by_role("alert")).to_contain_text("This room was deleted")
    await late.page.get_by_role("button", name="Start a new room").click()
    await late.is_live()
    await expect(late.page.get_by_role("alert")).to_be_hidden()


async def test_a_name_can_be_chosen_and_is_kept(open_window: OpenWindow) -> None:
    mina = await open_window("names")
    jonas = await open_window("names")
    await mina.is_live()
    await mina.page.locator("#you").click()
    await mina.page.get_by_role("textbox", name="Name", exact=True).fill("Mina Okafor")
    await mina.page.get_by_role("radio", name="Plum").check()
    await mina.page.get_by_role("button", name="Save").click()
    await expect(jonas.page.locator("#people")).to_contain_text("Mina Okafor")
    await mina.page.reload()
    await expect(mina.page.locator("#you")).to_contain_text("Mina Okafor")


async def test_a_second_window_is_somebody_else(open_window: OpenWindow) -> None:
    window = await open_window("mirror", "Mina")
    await window.is_live()
    async with window.page.expect_popup() as opening:
        await window.page.locator("#second").click()
    second = Window(await opening.value, window.page.url)
    await second.is_live()
    await second.write("From the second window.")
    await expect(window.editor).to_contain_text("From the second window.")
    await expect(window.page.locator("#people")).not_to_contain_text("Mina")


async def test_the_keyboard_is_enough(open_window: OpenWindow) -> None:
    window = await open_window("keys")
    await window.is_live()
    keyboard = window.page.keyboard
    await keyboard.press("Tab")
    await expect(window.page.get_by_role("link", name="Skip to the text")).to_be_focused()
    await keyboard.press("Enter")
    await expect(window.editor).to_be_focused()
    await keyboard.type("Written without a mouse.")
    await window.is_saved()

    # Tab leaves the editor: it is no trap.
    await keyboard.press("Tab")
    await expect(window.page.locator("#share")).to_be_focused()
    await keyboard.press("Shift+Tab")
    await expect(window.editor).to_be_focused()


async def test_a_phone_needs_no_sideways_scrolling(open_window: OpenWindow) -> None:
    window = await open_window(
        "a-room-whose-name-is-long-enough-to-be-cut-off-on-a-small-telephone",
        "Somebody with a rather long name",
        viewport={"width": 360, "height": 740},
    )
    await window.is_live()
    await window.write("A_word_that_is_much_too_long_to_fit_into_one_line_of_a_telephone.")
    await window.is_saved()
    width = await window.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360


async def test_dark_is_dark_and_can_be_chosen_by_hand(open_window: OpenWindow) -> None:
    async def ground(window: Window) -> Any:
        return await window.page.evaluate("getComputedStyle(document.body).backgroundColor")

    light = await open_window(color_scheme="light")
    dark = await open_window(color_scheme="dark")
    light_ground, dark_ground = await ground(light), await ground(dark)
    assert light_ground != dark_ground

    toggle = light.page.get_by_role("button", name="Dark theme")
    await toggle.click()
    await expect(toggle).to_have_attribute("aria-pressed", "true")
    assert await ground(light) == dark_ground
    await light.page.reload()
    assert await ground(light) == dark_ground
    await toggle.click()
    assert await ground(light) == light_ground


async def test_the_page_is_quiet_and_talks_to_nobody_else(open_window: OpenWindow) -> None:
    mina = await open_window()
    jonas = await open_window()
    await mina.write("# Heading\n\n*Some* **markdown**, `code` and https://example.org")
    await expect(jonas.editor).to_contain_text("example.org")
    await mina.page.keyboard.press("Control+a")
    await expect(jonas.page.locator(".their-selection").first).to_be_visible()
    await mina.is_saved()
    for window in (mina, jonas):
        assert window.complaints == []
        assert window.strangers == []
