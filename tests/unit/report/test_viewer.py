import base64
import gzip
import hashlib
import json
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image

from prod9.report.page import asset, document
from prod9.report.viewer import ViewerVolume, embed, nifti_bytes, niivue, viewer_section

NIIVUE_SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
EVIL = '</script></option></select><img src=x onerror="window.hacked=1"><!-- \' & {0}'


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def volume(group: str, name: str, size: int = 30) -> ViewerVolume:
    return ViewerVolume(group, name, bytes(size))


def section(volumes: list[ViewerVolume], limit_bytes: int = 1 << 25) -> str:
    return viewer_section(volumes, limit_bytes, "the first ones")


def read(content: bytes) -> Nifti1Image:
    return Nifti1Image.from_bytes(gzip.decompress(content))


def test_the_vendored_library_is_the_published_one() -> None:
    content = (files("prod9.report") / "vendor/niivue.umd.js").read_bytes()
    assert hashlib.sha256(content).hexdigest() == NIIVUE_SHA256
    assert NIIVUE_SHA256 in asset("vendor/README.md")
    assert "Copyright (c) 2021, Niivue" in asset("vendor/LICENSE")


def test_nothing_inside_the_library_ends_its_script() -> None:
    page = Page(document("t", "", [], [niivue()]))
    assert page.all("script") == [{}]
    assert page.open == []
    assert asset("vendor/niivue.umd.js") in niivue()
    # It would change how a browser reads the rest of the script.
    assert "<!--" not in niivue()


def test_nifti_holds_the_intensities_and_the_geometry() -> None:
    array = np.random.default_rng(0).random((4, 5, 6))
    image = read(nifti_bytes(array, (1.0, 2.0, 3.0)))
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_allclose(image.get_fdata(), np.rint(array * 255) / 255, atol=1e-7)
    # RAS+, and the grid's centre (voxel 1.5, 2, 2.5) at 0 mm.
    np.testing.assert_array_equal(image.affine[:3, :3], np.diag([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(image.affine @ [1.5, 2.0, 2.5, 1.0], [0, 0, 0, 1])
    assert (image.header["cal_min"], image.header["cal_max"]) == (0, 1)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_nifti_clips_and_knows_no_spacing() -> None:
    array = np.array([-0.5, 0.0, 0.5, 1.0, 1.7]).reshape(5, 1, 1)
    image = read(nifti_bytes(array))
    np.testing.assert_allclose(image.get_fdata().ravel(), [0, 0, 128 / 255, 1, 1], atol=1e-7)
    assert image.header.get_zooms() == (1, 1, 1)


def test_nifti_is_the_same_each_time() -> None:
    array = np.linspace(0, 1, 60).reshape(3, 4, 5)
    content = nifti_bytes(array)
    assert content == nifti_bytes(array.copy(order="F"))
    assert content[4:8] == bytes(4)  # no time
    assert not content[3]  # no file name, no other extras


def test_fragment_holds_every_volume_to_the_byte() -> None:
    volumes = [
        ViewerVolume("real", "a", nifti_bytes(np.zeros((2, 3, 4)))),
        ViewerVolume("real", "b", nifti_bytes(np.ones((2, 3, 4)))),
        ViewerVolume("generated", "c", nifti_bytes(np.full((2, 3, 4), 0.5))),
    ]
    fragment = section(volumes)
    page = Page(fragment)
    assert page.open == []
    options = page.all("option")
    urls = [str(option["value"]) for option in options if str(option["value"]).startswith("#")]
    assert urls == 2 * ["#volume-0", "#volume-1", "#volume-2"]
    for position, wanted in enumerate(volumes):
        opening = f'<script type="application/json" id="volume-{position}">'
        text = fragment.split(opening)[1].split("</script>")[0]
        assert base64.b64decode(json.loads(text)) == wanted.source
    assert [group["label"] for group in page.all("optgroup")] == 2 * ["real", "generated"]
    # The first of each group stand side by side at first.
    assert [o["value"] for o in options if "selected" in o] == ["#volume-0", "#volume-2"]


@pytest.mark.parametrize(
    ("count", "shown"), [(1, ["#volume-0"] * 2), (2, ["#volume-0", "#volume-1"])]
)
def test_one_group_shows_its_first_two(count: int, shown: list[str]) -> None:
    page = Page(section([volume("all", str(i)) for i in range(count)]))
    assert [o["value"] for o in page.all("option") if "selected" in o] == shown


def test_fragment_fetches_nothing() -> None:
    page = Page(section([volume("a", "b")]))
    for _, attributes in page.tags:
        assert not {"src", "href", "srcset", "data", "action"} & set(attributes)
    assert "url(" not in asset("viewer.css")
    assert "@import" not in asset("viewer.css")


def test_names_cannot_inject() -> None:
    harmless = Page(section([volume("g", "n"), volume("g", "m")]))
    page = Page(section([volume(EVIL, EVIL), volume(EVIL, "m")]))
    # The same tags with the same attributes, whatever the names.
    assert [(tag, set(found)) for tag, found in page.tags] == [
        (tag, set(found)) for tag, found in harmless.tags
    ]
    assert page.texts["option"].count(EVIL) == 2
    assert [group["label"] for group in page.all("optgroup")] == [EVIL, EVIL]


def test_embed_keeps_the_first_of_each_group() -> None:
    volumes = [volume("real", str(i)) for i in range(4)]
    volumes += [volume("made", str(i)) for i in range(3)]
    assert embed(volumes, 1 << 20) == volumes
    # 30 bytes are 40 of base64. 4 fit: two of each group, in the page's order.
    assert [(v.group, v.name) for v in embed(volumes, 199)] == [
        ("real", "0"),
        ("real", "1"),
        ("made", "0"),
        ("made", "1"),
    ]
    assert len(embed(volumes, 200)) == 5
    assert embed(volumes, 39) == []
    # The 31st byte needs another four letters.
    assert len(embed([volume("a", "a", 31)], 44)) == 1
    assert embed([volume("a", "a", 31)], 43) == []


def test_embed_ends_with_the_first_that_is_too_large() -> None:
    volumes = [volume("a", "0"), volume("a", "1", 3000), volume("a", "2")]
    assert [v.name for v in embed(volumes, 1000)] == ["0"]


def test_what_was_left_out_is_said() -> None:
    volumes = [volume("real", str(i)) for i in range(4)] + [volume("made", "0")]
    left_out = " ".join(Page(section(volumes, 120)).texts["p"])
    assert "the first ones; 2 more did not fit into 0.00012 MB" in left_out
    assert "did not fit" not in section(volumes)
    assert section(volumes, 10) == ""
