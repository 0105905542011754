"""The dashboard in a real browser: Chromium without a window, over the scripted engine."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.clients.environment import npm_with
from tests.integration.fake_service import FAKE
from tests.service import Service, service

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install '.[browser]'"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt install chromium"),
]

ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
WIDE, NARROW = (1440, 1000), (390, 844)
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    environ = FAKE | {"GPUFC_FAKE_SCRIPT": "step_ms=20"}
    with service(tmp_path_factory.mktemp("dashboard") / "run", environ=environ) as started:
        started.wait_ready()
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


class Opened:
    """One page, with what its console and its network have said."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.faults: list[str] = []
        self.elsewhere: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda said: said.type == "error" and self.faults.append(said.text))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on(
            "request",
            lambda asked: (
                asked.url.startswith((url, "data:", "blob:")) or self.elsewhere.append(asked.url)
            ),
        )

    def epoch(self) -> int:
        """The number of the worker's process, as the page shows it."""
        return int(self.page.locator("[data-part=epoch]").inner_text().split()[-1])

    def wait_epoch_after(self, epoch: int) -> None:
        self.page.wait_for_function(
            """epoch => {
              const found = document.querySelector("[data-part=epoch]").textContent;
              const state = document.querySelector("[data-part=state]").textContent;
              return Number(found.split(" ").at(-1)) > epoch && state === "ready";
            }""",
            arg=epoch,
        )


@contextmanager
def opened(
    browser: Any,
    running: Service,
    size: tuple[int, int] = WIDE,
    scheme: str = "light",
    **options: Any,
) -> Iterator[Opened]:
    """The page, signed in by the address that `start` prints, with its first figures."""
    token = running.runtime.admin_token.read_text()
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, **options
    )
    try:
        page = context.new_page()
        found = Opened(page, running.url)
        page.goto(f"{running.url}/?token={token}")
        page.get_by_role("button", name="Sign out").wait_for()
        page.locator("[data-part=epoch]").wait_for()
        assert "token" not in page.url
        yield found
    finally:
        context.close()


def test_an_operator_restarts_a_worker_and_sees_the_new_one(browser: Any, running: Service) -> None:
    with opened(browser, running) as view:
        before = view.epoch()
        view.page.get_by_role("button", name="Restart default-0").click()
        view.wait_epoch_after(before)
        view.page.locator("#deaths").get_by_text("restarted").first.wait_for()
        assert view.faults == []
        assert view.elsewhere == []


def test_a_chat_goes_on_across_the_death_of_its_worker(browser: Any, running: Service) -> None:
    with opened(browser, running) as view:
        page, before = view.page, view.epoch()
        page.get_by_label("Your message").fill("hello")
        page.get_by_label("Most tokens of an answer").fill("400")
        page.get_by_label("Your message").press("Enter")
        answer = page.locator(".message.assistant")
        page.locator("#request-list").get_by_text("(yours)").wait_for()
        page.get_by_role("button", name="Kill default-0").click()
        page.get_by_role("button", name="Kill it").click()
        view.wait_epoch_after(before)
        answer.locator(".seam").wait_for()
        page.locator(".message.assistant[aria-busy=false]").wait_for()
        assert "400 tokens" in answer.locator(".foot").inner_text()
        assert "1 stream went on" in page.locator("#promise").inner_text()
        assert page.locator("#death-list").get_by_text("1 of 1 went on").count() == 1
        assert view.faults == []
        assert view.elsewhere == []


def test_a_page_that_is_opened_later_draws_a_worker_from_its_start(
    browser: Any, running: Service
) -> None:
    with opened(browser, running) as view:
        before = view.epoch()
        view.page.get_by_role("button", name="Kill default-0").click()
        view.page.get_by_role("button", name="Kill it").click()
        view.wait_epoch_after(before)
    with opened(browser, running) as view:
        view.page.locator("#strip .cut").last.wait_for(state="attached")
        cut, begins = view.page.evaluate(
            """() => [[".cut", "d"], [".life", "x"]].map(([one, name]) => parseFloat(
              document.querySelector(`#strip ${one}`).getAttribute(name).replace("M", "")))"""
        )
        assert begins >= cut - 1


def test_the_page_can_be_used_by_keyboard_alone(browser: Any, running: Service) -> None:
    with opened(browser, running) as view:
        page = view.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        reached = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate(
                    "(document.activeElement.ariaLabel || document.activeElement.textContent)"
                )
            )
        assert {"Sign out", "Restart default-0", "Kill default-0", "Swap model…"} <= reached
        assert {"Your message", "Send"} <= reached


def test_a_narrow_screen_shows_everything_without_scrolling_sideways(
    browser: Any, running: Service
) -> None:
    with opened(browser, running, NARROW) as view:
        width = view.page.evaluate("document.documentElement.scrollWidth")
        assert width == NARROW[0]


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """axe-core, which checks a page against the WCAG's rules."""
    folder = npm_with(tmp_path_factory.mktemp("axe") / "npm", "axe-core")
    return (Path(folder) / "node_modules" / "axe-core" / "axe.min.js").read_text()


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["narrow", "wide"])
def test_axe_finds_no_serious_fault(
    browser: Any, running: Service, axe: str, size: tuple[int, int], scheme: str
) -> None:
    with opened(browser, running, size, scheme, bypass_csp=True) as view:
        page = view.page
        page.get_by_label("Your message").fill("hello")
        page.get_by_label("Most tokens of an answer").fill("8")
        page.get_by_label("Your message").press("Enter")
        page.locator(".message.assistant[aria-busy=false]").wait_for()
        page.evaluate(axe)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    grave = [
        {"rule": one["id"], "where": [node["target"] for node in one["nodes"]]}
        for one in found["violations"]
        if one["impact"] in {"serious", "critical"}
    ]
    assert grave == [], json.dumps(grave, indent=1)
