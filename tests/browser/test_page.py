"""Two people chat in two windows; the server is killed in between; nothing is lost and nothing is shown twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from secureconnect.testing.line import Line
from secureconnect.testing.process import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.service]

PATIENCE_MS = 20_000
POLLS_MAX = 40
"""Of a page that waits 25 s per poll and is disturbed once; a hot loop makes hundreds each second."""
Scheme = Literal["light", "dark"]


def window(browser: Browser, *, width: int, height: int, scheme: Scheme = "light") -> Page:
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.on("pageerror", lambda error: pytest.fail(f"the page threw: {error}"))
    return page


def sign_in(page: Page, server: ServerProcess, name: str, *, url: str = "", words: str = "Connected") -> None:
    page.goto(url or server.url)
    page.get_by_label("E-mail").first.fill(f"{name}@example.org")
    page.get_by_label("Password").first.fill(server.passwords()[name])
    page.get_by_role("button", name="Sign in").first.click()
    expect(page.get_by_role("status")).to_have_text(words, timeout=PATIENCE_MS)


class Ben:
    """Somebody at the other end who needs no page."""

    def __init__(self, server: ServerProcess) -> None:
        self._url = server.url
        fields = {"email": "ben@example.org", "password": server.passwords()["ben"]}
        self._token = str(self._post("/v1/auth/login", fields)["access_token"])

    def makes_group(self, title: str) -> str:
        wish = {"type": "group", "title": title, "participant_usernames": ["ada"], "is_e2ee_enabled": False}
        return str(self._post("/v1/conversations", wish)["conversation_id"])

    def says(self, conversation: str, *said: str) -> None:
        for text in said:
            self._post("/v1/messages", {"conversation_id": conversation, "content": text})

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._token}"} if hasattr(self, "_token") else {}
        answer = httpx.post(f"{self._url}{path}", json=body, headers=headers, timeout=10)
        assert answer.status_code in (200, 201), answer.text
        return dict(answer.json()["data"])


@pytest.fixture
def line(server: ServerProcess) -> Iterator[Line]:
    line = Line(server.port)
    yield line
    line.close()


def texts(page: Page) -> list[str]:
    return page.locator("#messages .text").all_inner_texts()


def say(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def expect_message(page: Page, text: str) -> None:
    expect(page.locator("#messages .text", has_text=text)).to_have_count(1, timeout=PATIENCE_MS)


def test_two_windows_chat_and_a_killed_server_loses_nothing(server: ServerProcess, browser: Browser, evidence: Path) -> None:
    ada = window(browser, width=1280, height=800)
    ben = window(browser, width=390, height=844, scheme="dark")
    sign_in(ada, server, "ada")
    sign_in(ben, server, "ben")
    ada.get_by_role("option").first.click()
    ben.get_by_role("option").first.click()

    say(ada, "Hello, Ben!")
    expect_message(ben, "Hello, Ben!")
    say(ben, "Hello, Ada. All is well here.")
    expect_message(ada, "All is well here.")
    ada.screenshot(path=evidence / "ada-desktop-light.png")
    ben.screenshot(path=evidence / "ben-phone-dark.png")

    server.kill()
    expect(ada.get_by_role("status")).not_to_have_text("Connected", timeout=PATIENCE_MS)
    say(ada, "Written while the server was dead.")
    expect(ada.locator("#messages li[data-state=sending]")).to_have_count(1)
    ada.screenshot(path=evidence / "ada-server-dead.png")

    server.start()
    for page in (ada, ben):
        expect(page.get_by_role("status")).to_have_text("Connected", timeout=2 * PATIENCE_MS)
    expect_message(ben, "Written while the server was dead.")
    expect(ada.locator("#messages li[data-state=sending]")).to_have_count(0)
    said = ["Hello, Ben!", "Hello, Ada. All is well here.", "Written while the server was dead."]
    assert texts(ada) == said
    assert texts(ben) == said
    ada.screenshot(path=evidence / "ada-after-restart.png")


def test_a_newcomer_makes_an_account_and_begins_a_chat_by_keyboard(
    server: ServerProcess, browser: Browser, evidence: Path
) -> None:
    ada = window(browser, width=1280, height=800, scheme="dark")
    sign_in(ada, server, "ada")
    cleo = window(browser, width=390, height=844)
    cleo.goto(server.url)
    cleo.get_by_role("button", name="Make an account").click()
    form = cleo.locator("#register")
    for label, value in (
        ("Name", "Cleo"),
        ("User name", "cleo"),
        ("E-mail", "cleo@example.org"),
        ("Password", "a long password"),
    ):
        form.get_by_label(label, exact=True).fill(value)
    cleo.screenshot(path=evidence / "register-phone-light.png")
    cleo.keyboard.press("Enter")
    expect(cleo.get_by_role("status")).to_have_text("Connected", timeout=PATIENCE_MS)
    expect(cleo.get_by_text("No conversations yet")).to_be_visible()

    cleo.get_by_label("User names, separated by commas").fill("ada")
    cleo.keyboard.press("Enter")
    say(cleo, "Hi Ada, Cleo here.")
    expect_message(cleo, "Hi Ada, Cleo here.")
    row = ada.get_by_role("option").filter(has_text="Cleo")
    expect(row).to_contain_text("Hi Ada, Cleo here.", timeout=PATIENCE_MS)
    row.click()
    expect_message(ada, "Hi Ada, Cleo here.")
    ada.screenshot(path=evidence / "ada-desktop-dark.png")


def test_a_wrong_password_is_said_on_the_page(server: ServerProcess, browser: Browser) -> None:
    page = window(browser, width=800, height=600)
    page.goto(server.url)
    page.get_by_label("E-mail").first.fill("ada@example.org")
    page.get_by_label("Password").first.fill("not the password")
    page.get_by_role("button", name="Sign in").first.click()
    expect(page.get_by_role("alert").first).to_have_text("Invalid email or password", timeout=PATIENCE_MS)


def test_a_conversation_joined_while_live_is_shown_whole_after_a_cut(server: ServerProcess, browser: Browser, line: Line) -> None:
    ada, ben = window(browser, width=1280, height=800), Ben(server)
    with ada.expect_websocket() as opened:
        sign_in(ada, server, "ada", url=line.url)
    with opened.value.expect_event("framereceived", lambda payload: '"subscribed"' in str(payload)):
        conversation = ben.makes_group("Fresh")
    row = ada.get_by_role("option").filter(has_text="Fresh")
    row.click()
    expect(ada.get_by_role("heading", name="Fresh")).to_be_visible()
    line.cut()
    expect(ada.get_by_role("status")).not_to_have_text("Connected", timeout=PATIENCE_MS)
    ben.says(conversation, "away 1", "away 2", "away 3")
    line.mend()
    expect(ada.get_by_role("status")).to_have_text("Connected", timeout=2 * PATIENCE_MS)
    ben.says(conversation, "afterwards")
    expect_message(ada, "afterwards")
    assert texts(ada) == ["away 1", "away 2", "away 3", "afterwards"]


def test_a_page_that_polls_goes_on_after_the_server_was_restarted(server: ServerProcess, browser: Browser, line: Line) -> None:
    line.takes_sockets = False
    ada, ben = window(browser, width=1280, height=800), Ben(server)
    sign_in(ada, server, "ada", url=line.url, words="Connected by polling (no live socket)")
    conversation = ben.makes_group("Polled")
    ada.get_by_role("option").filter(has_text="Polled").click()
    ben.says(conversation, "before")
    expect_message(ada, "before")
    server.kill()
    expect(ada.get_by_role("status")).to_contain_text("Offline", timeout=PATIENCE_MS)
    server.start()
    expect(ada.get_by_role("status")).to_contain_text("polling", timeout=PATIENCE_MS)
    for text in ("after 1", "after 2", "after 3"):
        ben.says(conversation, text)
        expect_message(ada, text)
    assert texts(ada) == ["before", "after 1", "after 2", "after 3"]
    assert line.polls < POLLS_MAX
