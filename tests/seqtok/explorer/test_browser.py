"""The page in a browser, served by the command: slid by the keyboard, drawn on, swapped, and free of complaints."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.seqtok.explorer.toy import LENGTH, make_run, picture_bytes

pytestmark = pytest.mark.slow
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="module")
def address(run: Path) -> Iterator[str]:
    """Of `seqtok explore`, which must end well when it is interrupted."""
    words = [sys.executable, "-u", "-m", "seqtok", "explore", str(run), "--port", "0", "--no-open"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
    assert found is not None
    yield found.group(0)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser of {', '.join(BROWSERS)} is installed")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=browser, args=ARGUMENTS.split())
        yield opened
        opened.close()


@pytest.fixture
def page(chromium: Any, address: str) -> Iterator[Any]:
    """On its first tab, with a picture; a complaint of the browser fails the test, and so does a word to others."""
    page = chromium.new_page(viewport={"width": 640, "height": 900})
    complaints: list[str] = []

    def hear(message: Any) -> None:
        if message.type == "error" and "status of 422" not in message.text:  # which the page puts in words
            complaints.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith((address, "data:")) else complaints.append(asked.url))
    page.goto(address)
    page.wait_for_selector("#look-decoded[src]")
    yield page
    width = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    page.close()
    assert complaints == []
    assert width[0] <= width[1], "nothing sticks out of a narrow window"


def test_the_prefix_is_slid_by_the_keyboard(page: Any):
    page.focus("#look-k")
    page.keyboard.press("End")
    page.wait_for_selector(f"#look-decoded[alt='decoded from the first {LENGTH} tokens']")
    page.wait_for_selector(f".drawn img[alt='drawn from the first {LENGTH} tokens, seed 1']")
    assert page.text_content("#look-k-says") == f"{LENGTH} of {LENGTH}"
    last = page.get_attribute("#look-decoded", "src")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector(f"#look-decoded[alt='decoded from the first {LENGTH - 1} tokens']")
    assert page.get_attribute("#look-decoded", "src") != last
    assert page.locator("#look-says li").count() == 5
    page.select_option("#look-candidates", "8")
    page.click("text=Ask for a caption")
    page.wait_for_selector(f"#look-caption:has-text('From {LENGTH - 1} tokens')")


def test_a_picture_is_opened_and_what_is_none_is_refused_in_a_sentence(page: Any):
    before = page.get_attribute("#look-picker img", "src")
    files = page.locator("#look-picker input[type=file]")
    files.set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": picture_bytes()})
    page.wait_for_selector("#look-picker img[alt*='a.png']")
    assert page.get_attribute("#look-picker img", "src") != before
    assert page.is_hidden("#problem")
    files.set_input_files({"name": "b.png", "mimeType": "image/png", "buffer": b"no picture"})
    page.wait_for_selector("#problem:has-text('not a picture that can be read')")
    page.click("text=Next held-out one")
    page.wait_for_selector("#problem", state="hidden")


def test_tabs_are_walked_by_the_keyboard_and_tokens_are_swapped(page: Any):
    page.focus("#tab-look")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#swap-two[src]")
    assert page.get_attribute("#tab-swap", "aria-selected") == "true"
    assert page.is_hidden("#look")
    first = page.get_attribute("#swap-one", "src")
    page.focus("#swap-k")
    page.keyboard.press("End")
    page.wait_for_selector(f"#swap-one[alt^='First {LENGTH} tokens of B']")
    assert page.get_attribute("#swap-one", "src") != first


def test_a_prompt_emerges_and_is_redrawn_from_where_one_goes_back_to(page: Any):
    page.click("#tab-prompt")
    page.fill("#prompt-text", "a red zebra")
    page.keyboard.press("Enter")
    page.wait_for_selector("#prompt-warning:has-text('zebra')")
    page.wait_for_selector(f"#prompt-caption:has-text('After {LENGTH} tokens')")
    whole = page.get_attribute("#prompt-picture", "src")
    page.focus("#prompt-k")
    for _ in range(LENGTH - 2):
        page.keyboard.press("ArrowLeft")
    kept = page.get_attribute("#prompt-picture", "src")
    page.click("text=Keep 2 tokens, redraw the rest")
    page.wait_for_selector(f"#prompt-caption:has-text('After {LENGTH} tokens')")
    assert page.get_attribute("#prompt-picture", "src") != whole
    assert page.get_attribute("#prompt-film figure:nth-child(2) img", "src") == kept


def test_the_report_is_shown_in_a_frame(page: Any):
    page.click("#tab-report")
    assert "the judge's numbers" in page.frame_locator("iframe").locator("p").text_content()
