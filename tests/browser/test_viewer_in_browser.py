"""The viewer in a real browser: what it draws, and what it does not do."""

import threading
from collections.abc import Callable, Generator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from browser_pages import activity, keep_screenshot, open_page, outside, pixels
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from prod9.report.page import asset, document
from prod9.report.server import VolumeServer
from prod9.report.viewed_files import find_volumes
from prod9.report.viewer import ViewerVolume, nifti_bytes, scripts, viewer_section

pytestmark = [pytest.mark.browser, pytest.mark.slow]

EVIL = "<img src=x onerror=window.hacked=1></script><script>window.hacked=1</script>"


def half(axis: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Return a cube of 16^3 whose upper half along an axis is bright."""
    place = np.arange(16).reshape([16 if a == axis else 1 for a in range(3)])
    return np.broadcast_to(np.where(place < 8, low, high), (16, 16, 16))


def ramp() -> np.ndarray:
    """Return a volume whose intensity tells its axial slice: z / 20, 10 x 12 x 20 voxels."""
    return np.broadcast_to(np.arange(20) / 20, (10, 12, 20))


def save(path: Path, volumes: list[ViewerVolume], limit_bytes: int = 1 << 20) -> Path:
    section = ("look", "Viewer", viewer_section(volumes, limit_bytes, "the first ones"))
    page = document("test", "", [section], scripts(), [asset("viewer.css")])
    path.write_text(page, encoding="utf-8")
    return path


def state(browser: WebDriver, key: str) -> object:
    return browser.execute_script("return window.prod9Viewer[arguments[0]]", key)


def wait(browser: WebDriver, condition: Callable[[], object]) -> None:
    WebDriverWait(browser, 30).until(lambda _: condition())


def choose(browser: WebDriver, side: int, name: str) -> None:
    chooser = browser.find_elements(By.CSS_SELECTOR, ".p9-volume")[side]
    Select(chooser).select_by_visible_text(name)
    wait(browser, lambda: state(browser, "current")[side]["name"] == name)  # type: ignore[index]


def show(browser: WebDriver, layout: str) -> None:
    Select(browser.find_element(By.CSS_SELECTOR, ".p9-layout")).select_by_value(layout)
    wait(browser, lambda: state(browser, "layout") == layout)


def canvases(browser: WebDriver) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, ".p9-stage canvas")


def quarters(browser: WebDriver, side: int) -> np.ndarray:
    """Return the grey levels of the centres of a canvas's quarters: (2, 2), as seen."""
    image = pixels(canvases(browser)[side]).mean(axis=2)
    rows, columns = image.shape
    at = [[(r, c) for c in (columns // 4, 3 * columns // 4)] for r in (rows // 4, 3 * rows // 4)]
    return np.array([[image[r - 4 : r + 5, c - 4 : c + 5].mean() for r, c in row] for row in at])


@pytest.fixture
def page(tmp_path: Path) -> Path:
    volumes = [
        ViewerVolume("real", "right", nifti_bytes(half(0))),
        ViewerVolume("real", "front", nifti_bytes(half(1))),
        ViewerVolume("real", "up", nifti_bytes(half(2))),
        ViewerVolume("generated", "grey right", nifti_bytes(half(0, 0.25, 0.75))),
        ViewerVolume("generated", "ramp", nifti_bytes(ramp())),
    ]
    return save(tmp_path / "page.html", volumes)


def test_it_draws_the_volumes_as_they_are(browser: WebDriver, page: Path) -> None:
    open_page(browser, page)
    assert state(browser, "error") is None
    assert state(browser, "current") == [
        {"group": "real", "name": "right"},
        {"group": "generated", "name": "grey right"},
    ]
    keep_screenshot(browser, "viewer_planes")
    show(browser, "axial")
    # Neurological: right is right. The same grey for the same intensity, whatever the range.
    np.testing.assert_allclose(quarters(browser, 0), [[0, 1], [0, 1]], atol=0.02)
    np.testing.assert_allclose(quarters(browser, 1), [[0.25, 0.75], [0.25, 0.75]], atol=0.02)
    choose(browser, 0, "front")
    np.testing.assert_allclose(quarters(browser, 0), [[1, 1], [0, 0]], atol=0.02)
    show(browser, "coronal")
    choose(browser, 0, "up")
    np.testing.assert_allclose(quarters(browser, 0), [[1, 1], [0, 0]], atol=0.02)
    show(browser, "sagittal")
    choose(browser, 1, "right")
    np.testing.assert_allclose(quarters(browser, 0), [[1, 1], [0, 0]], atol=0.02)
    show(browser, "render")
    assert pixels(canvases(browser)[0]).std() > 0.1
    assert activity(browser).errors == []


def test_it_asks_nobody_for_anything(browser: WebDriver, page: Path) -> None:
    open_page(browser, page)
    for layout in ("render", "planes"):
        show(browser, layout)
    choose(browser, 0, "up")
    found = activity(browser)
    assert found.requests[0] == page.as_uri()  # the log works
    assert outside(found.requests) == []
    assert found.errors == []


def test_keys_move_both_volumes_slice_by_slice(browser: WebDriver, page: Path) -> None:
    open_page(browser, page)
    choose(browser, 0, "ramp")
    choose(browser, 1, "ramp")
    show(browser, "axial")
    left = canvases(browser)[0]
    left.click()
    start = state(browser, "slice")
    assert isinstance(start, list)
    assert start[0] == start[1]
    x, y, z = start[0]
    for key, moved in (
        (Keys.ARROW_UP, (x, y, z + 1)),
        (Keys.ARROW_LEFT, (x - 1, y, z + 1)),
        (Keys.PAGE_UP, (x - 1, y + 1, z + 1)),
        (Keys.ARROW_RIGHT, (x, y + 1, z + 1)),
        (Keys.PAGE_DOWN, (x, y, z + 1)),
        (Keys.ARROW_DOWN, (x, y, z)),
        (Keys.ARROW_DOWN, (x, y, z - 1)),
    ):
        left.send_keys(key)
        assert state(browser, "slice") == [list(moved)] * 2
    # The slice that is shown is the one whose number is written, with the value of that voxel.
    assert state(browser, "value") == pytest.approx([(z - 1) / 20] * 2, abs=0.5 / 255)
    readouts = browser.find_elements(By.CSS_SELECTOR, ".p9-readout")
    for readout in readouts:
        assert f"z {z - 1} of 0–19" in readout.text
    np.testing.assert_allclose(quarters(browser, 0), (z - 1) / 20, atol=0.02)
    np.testing.assert_allclose(quarters(browser, 1), (z - 1) / 20, atol=0.02)
    # It ends at the border.
    left.send_keys(*[Keys.ARROW_UP] * 25)
    assert state(browser, "slice") == [[x, y, 19]] * 2


def test_the_wheel_scrolls_slices_once_a_volume_is_clicked(browser: WebDriver, page: Path) -> None:
    open_page(browser, page)
    choose(browser, 0, "ramp")
    show(browser, "axial")
    before = state(browser, "slice")
    left = canvases(browser)[0]
    origin = ScrollOrigin.from_element(left)
    ActionChains(browser).scroll_from_origin(origin, 0, 100).perform()
    assert state(browser, "slice") == before  # the page's, not ours
    left.click()
    clicked = state(browser, "slice")
    ActionChains(browser).scroll_from_origin(origin, 0, 100).perform()
    wait(browser, lambda: state(browser, "slice") != clicked)
    after = state(browser, "slice")
    assert isinstance(after, list)
    assert isinstance(clicked, list)
    assert after[0][:2] == clicked[0][:2]
    assert abs(after[0][2] - clicked[0][2]) == 1
    mm = browser.execute_script("return prod9Viewer.mm[2]")
    assert mm == pytest.approx(after[0][2] - 9.5, abs=0.51)


def test_a_click_moves_the_crosshair_of_both(browser: WebDriver, page: Path) -> None:
    open_page(browser, page)
    show(browser, "axial")
    side = canvases(browser)[0].size["width"]
    # 16 voxels across: this is the middle of the third from the left, of the fifth from the top.
    x, y = (2.5 / 16 - 0.5) * side, (4.5 / 16 - 0.5) * side
    ActionChains(browser).move_to_element_with_offset(
        canvases(browser)[0], round(x), round(y)
    ).click().perform()
    wait(browser, lambda: state(browser, "slice")[0][:2] == [2, 11])  # type: ignore[index]
    wait(browser, lambda: state(browser, "slice")[1][:2] == [2, 11])  # type: ignore[index]
    assert state(browser, "value") == pytest.approx([0, 0.25], abs=0.5 / 255)


def test_keys_turn_both_volumes_in_3d(browser: WebDriver, page: Path) -> None:
    open_page(browser, page)
    show(browser, "render")
    before = [pixels(canvas) for canvas in canvases(browser)]
    canvases(browser)[0].send_keys(*[Keys.ARROW_RIGHT] * 6)
    for canvas, old in zip(canvases(browser), before, strict=True):
        assert np.abs(pixels(canvas) - old).mean() > 0.02
    assert browser.execute_script("return prod9Viewer.slice[0]") == [8, 8, 8]


def test_smoothing_can_be_switched_off(browser: WebDriver, tmp_path: Path) -> None:
    board = np.indices((4, 4, 4)).sum(axis=0) % 2
    open_page(browser, save(tmp_path / "board.html", [ViewerVolume("a", "b", nifti_bytes(board))]))
    show(browser, "axial")

    def greys() -> float:
        image = pixels(canvases(browser)[0]).mean(axis=2)
        return float(((image > 0.1) & (image < 0.9)).mean())

    assert greys() > 0.4
    browser.find_element(By.CSS_SELECTOR, ".p9-smooth").click()
    wait(browser, lambda: state(browser, "smooth") is False)
    assert greys() < 0.1


def test_names_run_nothing(browser: WebDriver, tmp_path: Path) -> None:
    volumes = [ViewerVolume(EVIL, EVIL, nifti_bytes(half(0)))]
    open_page(browser, save(tmp_path / "evil.html", volumes))
    assert state(browser, "current") == [{"group": EVIL, "name": EVIL}] * 2
    assert browser.find_element(By.CSS_SELECTOR, ".p9-group").text == EVIL
    assert browser.execute_script("return window.hacked") is None
    assert browser.find_elements(By.TAG_NAME, "img") == []


def test_a_broken_volume_leaves_the_other_side_alone(browser: WebDriver, tmp_path: Path) -> None:
    volumes = [ViewerVolume("a", "good", nifti_bytes(half(0))), ViewerVolume("b", "bad", b"bad")]
    open_page(browser, save(tmp_path / "broken.html", volumes))
    assert state(browser, "error") is None
    trouble = state(browser, "trouble")
    assert isinstance(trouble, list)
    assert trouble[0] is None
    readouts = browser.find_elements(By.CSS_SELECTOR, ".p9-readout")
    assert readouts[1].text.startswith("cannot be shown: ")
    show(browser, "axial")
    np.testing.assert_allclose(quarters(browser, 0), [[0, 1], [0, 1]], atol=0.02)
    # And it recovers.
    choose(browser, 1, "good")
    np.testing.assert_allclose(quarters(browser, 1), [[0, 1], [0, 1]], atol=0.02)


def test_what_was_left_out_is_on_the_page(browser: WebDriver, tmp_path: Path) -> None:
    volumes = [ViewerVolume("a", str(i), nifti_bytes(half(0))) for i in range(3)]
    size = 4 * ((len(volumes[0].nifti) + 2) // 3)
    open_page(browser, save(tmp_path / "some.html", volumes, limit_bytes=2 * size))
    assert "1 more did not fit" in browser.find_element(By.CSS_SELECTOR, "p.small").text
    assert len(browser.find_elements(By.CSS_SELECTOR, ".p9-volume option")) == 4


def test_without_webgl_it_says_so(browser_without_webgl: WebDriver, page: Path) -> None:
    open_page(browser_without_webgl, page)
    message = browser_without_webgl.find_element(By.CSS_SELECTOR, ".p9-message")
    assert message.is_displayed()
    assert "no WebGL 2" in message.text
    assert not browser_without_webgl.find_element(By.CSS_SELECTOR, ".p9-panes").is_displayed()


@pytest.fixture
def server(tmp_path: Path) -> Generator[VolumeServer]:
    """Serve one uint8 .nii.gz, one float .nii in millis, and one whose axes are not RAS+."""
    evil = tmp_path / "<b onclick=x>"
    evil.mkdir()
    stored = (half(0) * 255).astype(np.uint8)
    nib.save(nib.Nifti1Image(stored, np.eye(4)), evil / "right.nii.gz")
    nib.save(nib.Nifti1Image(half(0).astype(np.float32) * 1000, np.eye(4)), evil / "float.nii")
    flipped = nib.Nifti1Image(np.flip(stored, 0).copy(), np.diag([-1.0, 1, 1, 1]))
    flipped.affine[0, 3] = 15
    nib.save(nib.Nifti1Image(flipped.dataobj, flipped.affine), evil / "flipped.nii.gz")
    with VolumeServer(find_volumes([evil])) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_prod9_view_shows_files(browser: WebDriver, server: VolumeServer) -> None:
    open_page(browser, server.url)
    assert state(browser, "error") is None
    keep_screenshot(browser, "prod9_view")
    show(browser, "axial")
    names = ["flipped", "float", "right"]
    assert [
        o.text for o in browser.find_elements(By.CSS_SELECTOR, ".p9-volume option")
    ] == 2 * names
    before = state(browser, "slice")
    ActionChains(browser).scroll_from_origin(
        ScrollOrigin.from_element(canvases(browser)[1]), 0, 100
    ).perform()
    wait(browser, lambda: state(browser, "slice") != before)  # here without a click
    for name, bright in (("right", 1.0), ("flipped", 1.0), ("float", 1000.0)):
        choose(browser, 0, name)
        assert state(browser, "trouble") == [None, None]
        np.testing.assert_allclose(quarters(browser, 0), [[0, 1], [0, 1]], atol=0.05)
        canvases(browser)[0].click()
        canvases(browser)[0].send_keys(*[Keys.ARROW_RIGHT] * 9)
        value = state(browser, "value")
        assert isinstance(value, list)
        assert value[0] == pytest.approx(255 if bright == 1 else bright)
    found = activity(browser)
    assert outside(found.requests, server.url) == []
    assert {url.removeprefix(server.url) for url in found.requests if url.startswith("http")} == {
        "",
        "niivue.js",
        "volume/0",
        "volume/1",
        "volume/2",
    }
    assert found.errors == []  # above all, the policy refused nothing that is needed


def test_the_policy_stops_what_is_not_ours(browser: WebDriver, server: VolumeServer) -> None:
    open_page(browser, server.url)
    browser.execute_script(
        """
        const script = document.createElement("script");
        script.textContent = "window.hacked = 1";
        document.body.append(script);
        fetch("http://127.0.0.1:9/").catch(() => { window.refused = true; });
        """
    )
    wait(browser, lambda: browser.execute_script("return window.refused"))
    assert browser.execute_script("return window.hacked") is None
    assert len([e for e in activity(browser).errors if "Content Security Policy" in e]) >= 2
