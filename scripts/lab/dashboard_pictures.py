"""Pictures of the dashboard under load while a worker is killed: light, dark, and narrow.

    python -m scripts.lab.dashboard_pictures FOLDER [--fake] [--model FILE] [--one]

It needs Chromium and `pip install '.[browser]'`. Six clients stream from the demo model, or from
the scripted engine; a chat is asked on the dark page; the worker is killed. The pictures are of the
idle page, the load once every stream has tokens, the moment of the death, and some seconds after
all streams went on. What the console of a page says is printed, and should be nothing.
`wide-dark-after.png` is the picture in the README and in the page's design. With `--one` it is the
only page: on two cores five pages take the processor from the engine, and the pause is theirs.
"""

import argparse
import json
import os
import signal
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.e2e.test_dashboard import ARGUMENTS, CHROMIUM, NARROW, WIDE
from tests.integration.fake_service import FAKE
from tests.service import Service, service

N_CLIENTS = 6
ALL_HAVE_TOKENS = """n => {
  const rows = [...document.querySelectorAll("#request-list tbody tr")];
  return rows.length === n && rows.every((row) => row.children[5].textContent !== "0");
}"""
LOADED_S, AFTER_S = 20.0, 6.0
PATIENCE_MS = 300_000
PROMPTS = (
    *("Tell me a story about a fox.", "Explain how a clock works.", "Write a poem on the sea."),
    *("List ten breads and their origin.", "What is a train?", "Describe winter in a small town."),
)
QUESTION = "Tell me a long story about a lighthouse keeper."
MAIN = "wide-dark"
PAGES = {
    MAIN: (WIDE, "dark", 1),
    "wide-light": (WIDE, "light", 1),
    "middle-dark": ((900, 1000), "dark", 1),
    "narrow-dark": (NARROW, "dark", 2),
    "narrow-light": (NARROW, "light", 2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fake", action="store_true", help="the scripted engine")
    parser.add_argument("--model", help="the model's file, whose path is shown; the demo model")
    parser.add_argument("--one", action="store_true", help="the wide dark page only")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    environ = FAKE | {"GPUFC_FAKE_SCRIPT": "step_ms=30"} if args.fake else {}
    served = ("--model-path", args.model) if args.model else ()
    with (
        tempfile.TemporaryDirectory() as folder,
        service(Path(folder) / "run", *served, environ=environ) as running,
    ):
        os.nice(10)  # a browser on another machine takes nothing from the service
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            take_all(browser, running, args.folder, [MAIN] if args.one else list(PAGES))
            browser.close()


def take_all(browser: Browser, running: Service, folder: Path, names: list[str]) -> None:
    pages = {name: opened(browser, running, *PAGES[name]) for name in names}

    def take(moment: str) -> None:
        for name, page in pages.items():
            page.screenshot(path=folder / f"{name}-{moment}.png")
            page.screenshot(path=folder / f"{name}-{moment}-full.png", full_page=True)

    for page in pages.values():
        page.locator(".tile .chart path").first.wait_for(state="attached")
    take("idle")
    stop = threading.Event()
    for number in range(N_CLIENTS):
        threading.Thread(target=client, args=(running.url, number, stop), daemon=True).start()
    dark = pages[MAIN]
    dark.get_by_label("Most tokens of an answer").fill("500")
    dark.get_by_label("Your message").fill(QUESTION)
    dark.get_by_label("Your message").press("Enter")
    dark.wait_for_function(ALL_HAVE_TOKENS, arg=N_CLIENTS + 1)
    time.sleep(LOADED_S)
    take("load")
    epoch = running.worker()["epoch"]
    os.kill(running.worker()["pid"], signal.SIGKILL)
    dark.get_by_text("is restarting").wait_for()
    dark.screenshot(path=folder / "wide-dark-death.png")
    running.wait_epoch_after(epoch)
    for page in pages.values():
        page.locator("#promise").get_by_text("went on").wait_for()
    time.sleep(AFTER_S)
    take("after")
    stop.set()


def opened(
    browser: Browser, running: Service, size: tuple[int, int], scheme: Any, scale: int
) -> Page:
    """A page that is signed in by the run's token."""
    viewport: Any = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=viewport, color_scheme=scheme, device_scale_factor=scale)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.on("console", lambda said: print("console:", said.text))
    page.on("pageerror", lambda error: print("error:", error))
    page.goto(f"{running.url}/?token={running.runtime.admin_token.read_text()}")
    page.locator("[data-part=epoch]").first.wait_for()
    return page


def client(url: str, number: int, stop: threading.Event) -> None:
    """Ask one question after the other, and read each answer as a stream."""
    time.sleep(0.7 * number)
    n_asked = 0
    while not stop.is_set():
        body = {
            "messages": [{"role": "user", "content": PROMPTS[(number + n_asked) % len(PROMPTS)]}],
            "max_tokens": 60 + 23 * ((7 * number + n_asked) % 6),
            "stream": True,
        }
        request = urllib.request.Request(
            f"{url}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            for _ in answer:
                if stop.is_set():
                    return
        n_asked += 1


if __name__ == "__main__":
    main()
