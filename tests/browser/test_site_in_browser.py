"""The documentation's site in a real browser: light and dark, on a phone and a desk, offline."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser_pages import activity, keep_screenshot, open_page, outside, pixels
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

pytest.importorskip("sphinx", reason="Sphinx is not installed: pip install 'prod9[docs]'")
pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.ci]

DOCS = Path(__file__).parents[2] / "docs"
SIZES = {"phone": (390, 844), "desk": (1280, 900)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    subprocess.run([sys.executable, "-m", "sphinx", "--quiet", DOCS, folder], check=True)
    return folder


@pytest.fixture
def screen(browser: WebDriver, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """A browser of one size and one taste, which is given back as it was."""
    size, taste = request.param
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": taste}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    yield size, taste
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize(
    "screen", [(s, t) for s in SIZES for t in ("light", "dark")], indirect=True, ids="-".join
)
def test_pages_are_readable(browser: WebDriver, site: Path, screen: tuple[str, str]) -> None:
    size, taste = screen
    for name in ("index", "start", "evaluation", "configuration", "api", "threats"):
        open_page(browser, site / f"{name}.html")
        if name in ("index", "start", "evaluation"):
            keep_screenshot(browser, f"site_{name}_{size}_{taste}")
        assert browser.find_element(By.TAG_NAME, "h1").text
        room = "return document.documentElement.scrollWidth - window.innerWidth"
        assert browser.execute_script(room) <= 0, f"{name} is wider than a {size}"
        paper = float(np.median(pixels(browser.find_element(By.TAG_NAME, "body"))))
        assert (paper < 0.3) if taste == "dark" else (paper > 0.8)
        for image in browser.find_elements(By.CSS_SELECTOR, "article img"):
            browser.execute_script("arguments[0].loading = 'eager'", image)
            assert image.get_attribute("alt")
            WebDriverWait(browser, 10).until(lambda _, i=image: int(i.get_property("naturalWidth")))
        assert activity(browser).errors == []


def test_the_search_works_from_disk(browser: WebDriver, site: Path) -> None:
    open_page(browser, f"{(site / 'search.html').as_uri()}?q=frechet")
    found = WebDriverWait(browser, 30).until(
        lambda driver: driver.find_elements(By.CSS_SELECTOR, "#search-results li a")
    )
    keep_screenshot(browser, "site_search")
    assert "Evaluation" in [link.text for link in found]


def test_it_asks_nobody_for_anything(browser: WebDriver, site: Path) -> None:
    for page in sorted(site.glob("*.html")):
        open_page(browser, page)
        seen = activity(browser)
        assert seen.requests[0] == page.as_uri()
        assert outside(seen.requests) == []
