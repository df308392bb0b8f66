"""The report in a real browser: it opens from disk, shows everything, and asks nobody."""

import sys
from pathlib import Path

import numpy as np
import pytest
from browser_pages import activity, keep_screenshot, open_page, outside, pixels
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from prod9.cli import main
from prod9.data.volume_files.write import write_nifti

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.ci]

# A class's name comes from a file's folder, and a stranger may have named it.
EVIL = "<img src=x onerror=window.hacked=1>"


def draw(folder: Path, count: int, seed: int) -> Path:
    """Write volumes of two classes: a bright half at the right, or at the top."""
    random = np.random.default_rng(seed)
    for index in range(count):
        kind = ("right", EVIL)[index % 2]
        volume = random.uniform(0, 0.4, (16, 16, 16))
        volume[
            (slice(8, None), slice(None), slice(None)) if kind == "right" else np.s_[:, :, 8:]
        ] += 0.5
        stored = (volume * 255).round().astype(np.uint8)
        path = folder / kind / f"{index:03d}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_nifti(path, stored, np.eye(4), np.uint8, overwrite=False)
    return folder


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a report of a generator that is honest, with a training set."""
    root = tmp_path_factory.mktemp("report")
    sets = {
        name: draw(root / name, n, s)
        for s, (name, n) in enumerate({"train": 24, "real": 20, "generated": 16}.items())
    }
    arguments = [f"--{name}={folder}" for name, folder in sets.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sys,
            "argv",
            ["prod9", "evaluate", *arguments, f"--output={root / 'out'}", "--features=classifier"],
        )
        with pytest.raises(SystemExit, match="0"):
            main.run()
    return root / "out" / "report.html"


def test_report_opens_from_disk(browser: WebDriver, report: Path) -> None:
    open_page(browser, report)
    assert "Evaluation of" in browser.find_element(By.TAG_NAME, "h1").text
    keep_screenshot(browser, "report_top")
    for section, name in (("pictures", "report_montage"), ("viewer", "report_viewer")):
        browser.execute_script(f"document.getElementById('{section}').scrollIntoView()")
        keep_screenshot(browser, name)
    images = browser.find_elements(By.CSS_SELECTOR, "main img")
    assert len(images) > 10
    widths = [browser.execute_script("return arguments[0].naturalWidth", i) for i in images]
    assert min(widths) > 0
    assert all(image.get_attribute("alt") for image in images)
    found = activity(browser)
    assert found.requests[0] == report.as_uri()
    assert outside(found.requests) == []
    assert found.errors == []
    assert browser.execute_script("return window.hacked") is None


def test_its_viewer_scrolls_and_switches(browser: WebDriver, report: Path) -> None:
    open_page(browser, report)
    canvas = browser.find_elements(By.CSS_SELECTOR, ".p9-stage canvas")[0]
    browser.execute_script("arguments[0].scrollIntoView()", canvas)
    WebDriverWait(browser, 30).until(lambda _: pixels(canvas).std() > 0.05)  # it is drawn
    canvas.click()  # which moves the cross-hair by itself
    before = browser.execute_script("return prod9Viewer.slice[0]")
    canvas.send_keys(Keys.ARROW_UP)
    WebDriverWait(browser, 30).until(
        lambda driver: driver.execute_script("return prod9Viewer.slice[0]") != before
    )
    chooser = browser.find_elements(By.CSS_SELECTOR, ".p9-volume")[0]
    shown = browser.execute_script("return prod9Viewer.current[0].name")
    other = next(o.text for o in Select(chooser).options if o.text.strip() != shown)
    Select(chooser).select_by_visible_text(other)
    WebDriverWait(browser, 30).until(
        lambda driver: driver.execute_script("return prod9Viewer.current[0].name") != shown
    )
    assert activity(browser).errors == []


def test_it_is_readable_on_a_telephone(browser: WebDriver, report: Path) -> None:
    size = browser.get_window_size()
    browser.set_window_size(520, 900)  # the narrowest that Chromium's window becomes
    try:
        open_page(browser, report)
        overflow = browser.execute_script(
            "return document.documentElement.scrollWidth - window.innerWidth"
        )
    finally:
        browser.set_window_size(size["width"], size["height"])
    assert overflow <= 0
