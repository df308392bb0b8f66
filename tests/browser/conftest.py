"""One headless Chromium for all tests of this folder."""

import shutil
from collections.abc import Generator

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.chrome.webdriver import WebDriver

_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--window-size=1280,1000",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-sync",
    # Nothing but this machine has an address.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    # WebGL 2 without a graphics card.
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)


def start(profile: str, *extra: str) -> WebDriver:
    """Start Chromium with an empty profile, or skip the test where there is none."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no browser: install Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (*_ARGUMENTS, f"--user-data-dir={profile}", *extra):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    # The driver is named, so that selenium looks for none, nor downloads one.
    return webdriver.Chrome(options=options, service=Service(driver))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Generator[WebDriver]:
    """Chromium with WebGL 2 and an empty profile; shared, as a start costs seconds."""
    driver = start(str(tmp_path_factory.mktemp("chromium")))
    yield driver
    driver.quit()


@pytest.fixture
def browser_without_webgl(tmp_path_factory: pytest.TempPathFactory) -> Generator[WebDriver]:
    """Chromium that refuses WebGL."""
    driver = start(
        str(tmp_path_factory.mktemp("chromium")), "--disable-3d-apis", "--disable-webgl2"
    )
    yield driver
    driver.quit()
