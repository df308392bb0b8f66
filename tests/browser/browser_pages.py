"""Opening pages in a real browser, and asking it what it did."""

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

LOCAL_SCHEMES = ("file:", "data:", "blob:")
_STARTED = "return !window.prod9Viewer || prod9Viewer.ready || prod9Viewer.error !== null"


@dataclass(frozen=True)
class Activity:
    """What a page did since it was opened."""

    requests: list[str]
    """Addresses, the page's own first."""
    errors: list[str]
    """Of the console: errors and warnings' errors, refused requests, exceptions."""


def open_page(browser: WebDriver, page: Path | str, timeout: float = 60) -> None:
    """Open a file or an address; return when it is loaded and its viewer, if any, has started."""
    browser.get("about:blank")
    activity(browser)  # what an earlier page did is not this one's
    browser.get(page if isinstance(page, str) else page.resolve().as_uri())
    WebDriverWait(browser, timeout).until(
        lambda driver: driver.execute_script("return document.readyState") == "complete"
    )
    WebDriverWait(browser, timeout).until(lambda driver: driver.execute_script(_STARTED))


def activity(browser: WebDriver) -> Activity:
    """Return what happened since the last call; it is forgotten then."""
    requests: list[str] = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            requests.append(message["params"]["request"]["url"])
    errors = [e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE"]
    return Activity([url for url in requests if url != "about:blank"], errors)


def outside(requests: list[str], *allowed: str) -> list[str]:
    """Return the requests that left the machine or the allowed addresses' beginnings."""
    return [url for url in requests if not url.startswith((*LOCAL_SCHEMES, *allowed))]


def pixels(element: WebElement) -> np.ndarray:
    """Return what an element looks like: float (H, W, 3) in [0, 1].

    Cut out of the window's picture: Chromium's own picture of an element may wait for ever for a
    frame of a WebGL canvas that no graphics card draws.
    """
    browser: WebDriver = element.parent
    browser.execute_script("arguments[0].scrollIntoView({block: 'nearest'})", element)
    box = browser.execute_script(
        "const r = arguments[0].getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]",
        element,
    )
    window = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    left, top, right, bottom = (max(0, round(side)) for side in box)
    return np.asarray(window.crop((left, top, right, bottom)), dtype=np.float64) / 255


def keep_screenshot(browser: WebDriver, name: str) -> Path:
    """Save what the window shows for people to look at; return the file."""
    default = Path(__file__).parent / "artefacts"
    folder = Path(os.environ.get("PROD9_TEST_ARTEFACTS") or default)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    path.write_bytes(browser.get_screenshot_as_png())
    return path
