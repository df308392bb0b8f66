import gzip
import json
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.interpolate import BSpline
from torch import Tensor

from prod9.data import phantom, phantom_files
from prod9.data.brain_regions import template_path
from prod9.data.brats_layouts import MODALITIES
from prod9.data.phantom import CORE, ENHANCING, OEDEMA, PhantomCase, draw_case
from prod9.data.phantom_files import Release, make_phantom
from prod9.errors import UserError

SUFFIXES = {
    "2021": ("_t1", "_t1ce", "_t2", "_flair", "_seg"),
    "2023": ("-t1n", "-t1c", "-t2w", "-t2f", "-seg"),
}


class Still(np.random.Generator):
    """Draws the middle of every normal and uniform distribution."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        return 0.0 if size is None else np.zeros(size, dtype)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        middle = (low + high) / 2
        return middle if size is None else np.full(size, middle)


@pytest.fixture
def two_threads() -> Generator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def full() -> PhantomCase:
    return draw_case(3, 1)


@pytest.fixture(scope="module")
def halves() -> list[PhantomCase]:
    return [draw_case(3, index, voxel_mm=2.0) for index in range(4)]


def anatomy_of(
    index: int, voxel_mm: float = 2.0
) -> tuple[phantom._Canvas, phantom._Atlas, phantom._Anatomy]:
    """What ``draw_case(3, index)`` draws first."""
    canvas = phantom._Canvas(voxel_mm, np.random.default_rng([3, index]))
    atlas = phantom._atlas()
    return canvas, atlas, phantom._draw_anatomy(canvas, atlas)


def places_of(canvas: phantom._Canvas, brain: Tensor, affine: np.ndarray) -> np.ndarray:
    """The brain's voxels in the world of ``affine``, mm to the right, front and top: (N, 3)."""
    indices = brain.nonzero().numpy() + [part.start for part in canvas.box]
    return indices @ affine[:3, :3].T + affine[:3, 3]


# Fields


def test_noise_is_made_of_cubic_splines_and_has_variance_one_everywhere() -> None:
    places = torch.linspace(-48, 48, 50)
    weights = phantom._spline(places, 48.0, 20.0)
    assert torch.allclose(weights.square().sum(1), torch.ones(50))
    middle = weights.shape[1] // 2
    spline = BSpline.basis_element(np.arange(-2.0, 3.0) * 20, extrapolate=False)
    columns = [np.nan_to_num(spline(places.numpy() - 20.0 * k)) for k in range(-middle, middle + 1)]
    outside = np.stack(columns, 1)
    assert np.allclose(outside.sum(1), 1)  # no place lacks a knot
    expected = outside / np.linalg.norm(outside, axis=1, keepdims=True)
    assert np.allclose(weights.numpy(), expected, atol=1e-5)

    canvas = phantom._Canvas(8.0, np.random.default_rng(0))
    drawn = torch.stack([canvas.noise(60.0) for _ in range(400)])
    assert (drawn.var(0) - 1).abs().max() < 0.4  # five standard errors of 400 draws
    assert (drawn.var(0).mean() - 1).abs() < 0.05
    assert drawn.mean(0).abs().max() < 0.25


# Anatomy


def test_maps_are_read_where_the_anatomy_says() -> None:
    _, _, anatomy = anatomy_of(0, 4.0)
    origin = np.array([-98.0, -134.0, -72.0])  # of the template's file
    voxels = anatomy.mm.double().numpy() - origin[:, None]
    for name, own in {"t1": anatomy.t1, "gm": anatomy.grey, "wm": anatomy.white}.items():
        template = np.asarray(nib.load(template_path(name)).dataobj)
        expected = ndimage.map_coordinates(template, voxels, np.float64, order=1) / 255
        error = np.abs(own.numpy() - expected)
        assert np.quantile(error, 0.8) < 1e-4, name  # at the brain's edge it is another rule
        assert np.quantile(error, 0.95) < 0.1, name
    total = anatomy.white + anatomy.grey + anatomy.fluid
    assert torch.allclose(total, torch.ones_like(total), atol=1e-3)


def test_the_brain_does_not_fade_towards_its_edge() -> None:
    canvas, atlas = phantom._Canvas(4.0, np.random.default_rng([3, 0])), phantom._atlas()
    flat = torch.tensor([1, 0.8, 0.6, 0.3, 0.5])[:, None, None, None] * atlas.maps[0]
    anatomy = phantom._draw_anatomy(canvas, replace(atlas, maps=flat))
    for own, value in {
        "t1": 0.8,
        "white": 0.6,
        "grey": 0.3,
        "fluid": 0.1,
        "white_around": 0.5,
    }.items():
        assert (getattr(anatomy, own) - value).abs().max() < 1e-5, own


def test_without_chance_the_brain_is_the_template_made_smaller(full: PhantomCase) -> None:
    canvas = phantom._Canvas(1.0, Still())
    anatomy = phantom._draw_anatomy(canvas, phantom._atlas())
    # BraTS' affine: the grid's centre is at (-119.5, 119.5, 77).
    places = places_of(canvas, anatomy.brain, full.affine) - [-119.5, 119.5, 77.0]
    assert places[:, 2].max() == pytest.approx(77.5 - 6 - 2, abs=3)
    mm = anatomy.mm.T.numpy()
    assert np.allclose(mm[:, :2], [0, -17] + places[:, :2] / 0.935, atol=1e-3)
    height = mm[:, 2] - places[:, 2] / 0.935
    assert np.ptp(height) < 1e-3
    # And the middle of its outline is the grid's.
    assert np.abs(places.max(0) + places.min(0))[:2].max() <= 2


def test_the_affine_takes_voxels_to_the_anatomy_unmirrored(halves: list[PhantomCase]) -> None:
    turns = []
    for index in range(4):
        canvas, _, anatomy = anatomy_of(index)
        places = places_of(canvas, anatomy.brain, halves[index].affine)
        design = np.concatenate([places, np.ones((len(places), 1))], axis=1)
        linear = np.linalg.lstsq(design, anatomy.mm.T.numpy(), rcond=None)[0][:3].T
        left, stretch, right = np.linalg.svd(linear)
        assert np.linalg.det(linear) > 0
        assert np.abs(stretch - 1 / 0.935).max() < 0.15
        turn = left @ right
        turns.append(np.rad2deg(np.arccos((np.trace(turn) - 1) / 2)))
    assert 1 < np.mean(turns) < 15


def test_no_brain_is_cut_off_but_at_the_neck() -> None:
    for index in range(12):
        brain = draw_case(11, index, voxel_mm=4.0).images["T1"] > 0
        for axis, sides in enumerate(((0, -1), (0, -1), (-1,))):
            for side in sides:
                assert not brain.take(side, axis).any(), (index, axis, side)
        assert 1000 < brain.sum() * 0.064 < 1900  # millilitres


def test_brains_differ(halves: list[PhantomCase]) -> None:
    brains = [case.images["T1"] > 0 for case in halves]
    for i, one in enumerate(brains):
        for other in brains[:i]:
            assert 2 * (one & other).sum() / (one.sum() + other.sum()) < 0.98


# Contrasts


def test_contrasts_are_the_recipe() -> None:
    canvas = phantom._Canvas(8.0, Still())
    one, zero = torch.eye(6), torch.zeros(6)
    # White, grey, fluid; then white that is all core, all rim, half oedema.
    white = one[0] + one[3] + one[4] + one[5]
    anatomy = phantom._Anatomy(
        brain=torch.ones(1, 1, 6, dtype=torch.bool),
        mm=torch.zeros(3, 6),
        t1=0.87 * white + 0.65 * one[1] + 0.27 * one[2],
        white=white,
        grey=one[1],
        fluid=one[2],
        white_around=white,
    )
    tumour = phantom._Tumour(one[3], one[4], 0.5 * one[5], zero, zero.to(torch.uint8))
    expected = {
        "T1": [0.87, 0.65, 0.27, 0.25, 0.50, (0.87 + 0.50) / 2],
        "T1ce": [0.8265, 0.6175, 0.2565, 0.20, 1.00, (0.8265 + 0.48) / 2],
        "T2": [0.28, 0.45, 0.95, 0.80, 0.60, (0.28 + 0.75) / 2],
        "FLAIR": [0.42, 0.55, 0.08, 0.45, 0.70, (0.42 + 0.95) / 2],
    }
    drawn = phantom._contrasts(canvas, anatomy, tumour)
    assert list(drawn) == list(MODALITIES)
    for name, values in expected.items():
        assert torch.allclose(drawn[name], torch.tensor(values), atol=1e-6), name


def test_a_scan_has_rician_noise_and_its_own_units() -> None:
    canvas = phantom._Canvas(2.0, Still())
    brain = torch.zeros([len(axis) for axis in canvas.axes], dtype=torch.bool)
    brain[10:60, 10:60, 10:50] = True
    ideal = torch.ones(100_000)
    ideal[::2] = 0
    image = phantom._scanned(canvas, brain, ideal, 1.0).double()
    mean = np.exp((np.log(200) + np.log(900)) / 2)
    assert image.mean().item() == pytest.approx(mean, abs=0.2)
    gain = image[1::2].mean().item()
    assert image[1::2].std().item() / gain == pytest.approx(0.015, rel=0.03)
    assert image.min() == 1  # 0 is the background's
    # Without signal, Rice's distribution is Rayleigh's.
    assert image[::2].mean().item() / gain == pytest.approx(0.015 * np.sqrt(np.pi / 2), rel=0.03)


def test_tissues_and_tumour_look_as_they_should(halves: list[PhantomCase]) -> None:
    for index, case in enumerate(halves):
        canvas, _, anatomy = anatomy_of(index)
        labels = torch.from_numpy(case.segmentation)[canvas.box][anatomy.brain]
        parts = {
            "white": (anatomy.white > 0.9) & (labels == 0),
            "grey": (anatomy.grey > 0.8) & (labels == 0),
            "fluid": (anatomy.fluid > 0.9) & (labels == 0),
            "core": labels == CORE,
            "oedema": labels == OEDEMA,
            "rim": labels == ENHANCING,
        }
        t1, t1ce, t2, flair = (
            {
                part: float(
                    torch.from_numpy(image)[canvas.box][anatomy.brain][own].float().median()
                )
                for part, own in parts.items()
            }
            for image in case.images.values()
        )
        for seen in (t1, t1ce):
            assert seen["white"] > 1.1 * seen["grey"] > 1.3 * seen["fluid"], index
        assert t2["fluid"] > 1.5 * t2["grey"] > 1.7 * t2["white"], index
        assert flair["grey"] > 1.1 * flair["white"] > 2 * flair["fluid"], index

        assert max(t1ce, key=lambda part: t1ce[part]) == "rim", index
        assert t1ce["rim"] > 1.5 * t1ce["oedema"] > 1.7 * t1ce["core"], index
        assert max(flair, key=lambda part: flair[part]) == "oedema", index
        assert min(flair, key=lambda part: flair[part]) == "fluid", index
        assert flair["oedema"] > 1.1 * flair["rim"] > 1.2 * flair["core"], index
        assert max(t2, key=lambda part: t2[part]) == "fluid", index
        assert min(t2["core"], t2["oedema"]) > 1.3 * t2["grey"], index


def test_background_is_exactly_zero(full: PhantomCase, halves: list[PhantomCase]) -> None:
    for case in [full, *halves]:
        assert tuple(case.images) == MODALITIES
        brain = case.images["T1"] > 0
        for image in case.images.values():
            assert image.dtype == np.int16
            assert image.min() == 0
            assert np.array_equal(image > 0, brain)
            assert 199 < image[brain].mean() < 901
            assert image.max() < 10_000
        assert not (case.segmentation[~brain]).any()


# Tumour


def test_labels_are_nested(full: PhantomCase, halves: list[PhantomCase]) -> None:
    for case in [full, *halves]:
        labels = case.segmentation
        assert labels.dtype == np.uint8
        assert set(np.unique(labels)) == {0, CORE, OEDEMA, ENHANCING}
        core, solid = labels == CORE, (labels == CORE) | (labels == ENHANCING)
        skin = ndimage.binary_dilation(core) & ~core
        assert (labels[skin] == ENHANCING).mean() > 0.9
        skin = ndimage.binary_dilation(solid) & ~solid
        assert (labels[skin] == OEDEMA).mean() > 0.3  # along grey matter and fluid there is none
        # One tumour or two, not crumbs.
        parts, count = ndimage.label(solid)
        sizes = np.sort(np.bincount(parts.ravel())[1:])[::-1]
        assert sizes[:2].sum() > 0.98 * sizes.sum(), count


def test_a_tumour_lies_deep_in_white_matter_and_spares_fluid() -> None:
    for index in range(10):
        canvas, atlas, anatomy = anatomy_of(index, 4.0)
        tumour = phantom._draw_tumour(canvas, atlas, anatomy)
        parts = torch.stack([tumour.core, tumour.rim, tumour.oedema])
        assert parts.min() >= 0
        assert parts.sum(0).max() <= 1 + 1e-6
        brain, labels = anatomy.brain.numpy(), np.zeros(anatomy.brain.shape, np.uint8)
        labels[brain] = tumour.labels.numpy()
        depth = 4.0 * ndimage.distance_transform_edt(np.pad(brain, 1))[1:-1, 1:-1, 1:-1]
        assert depth[labels == CORE].mean() > 10
        oedema = tumour.labels == OEDEMA
        assert anatomy.white[oedema].mean() > 0.7
        assert anatomy.fluid[oedema].mean() < 0.05
        assert tumour.oedema[anatomy.fluid > 0.95].max() < 0.06


def test_radii_are_the_recipe_without_chance() -> None:
    canvas = phantom._Canvas(1.5, Still())
    site = np.array([[36.0, -20.0, 25.0]], np.float32)  # far from the falx and from the surface
    atlas = replace(phantom._atlas(), sites_mm=site, depths_mm=np.array([30.0], np.float32))
    drawn = phantom._draw_anatomy(canvas, atlas)
    # A head of nothing but white matter.
    solid, none = torch.ones_like(drawn.t1), torch.zeros_like(drawn.t1)
    anatomy = phantom._Anatomy(drawn.brain, drawn.mm, solid, solid, none, none, solid)
    labels = phantom._draw_tumour(canvas, atlas, anatomy).labels
    size = np.sqrt(0.6 * 1.5) * 0.935  # the middle size, in the world's mm
    for parts, radius in {(1,): 9.0, (1, 3): 13.0, (1, 2, 3): 24.0}.items():
        volume = 1.5**3 * sum(int((labels == part).sum()) for part in parts)
        assert volume == pytest.approx(4 / 3 * np.pi * (radius * size) ** 3, rel=0.03), parts


def test_a_tumour_stops_at_the_falx() -> None:
    canvas, atlas = phantom._Canvas(2.0, Still()), phantom._atlas()
    drawn = phantom._draw_anatomy(canvas, atlas)
    solid, none = torch.ones_like(drawn.t1), torch.zeros_like(drawn.t1)
    anatomy = phantom._Anatomy(drawn.brain, drawn.mm, solid, solid, none, none, solid)
    radius, depth = 24 * np.sqrt(0.6 * 1.5), np.array([30.0], np.float32)
    for side in (-1, 1):
        site = np.array([[side * 15.0, -20.0, 25.0]], np.float32)
        atlas = replace(atlas, sites_mm=site, depths_mm=depth)
        tumour = phantom._draw_tumour(canvas, atlas, anatomy).labels > 0
        across = side * drawn.mm[0][tumour]
        assert across.max().item() == pytest.approx(15 + radius, abs=2.2)
        # 15 mm to the falx, and a third of what remains.
        assert across.min().item() == pytest.approx(-(radius - 15) / 3, abs=2.2)


# The grid


def test_the_grid_is_brats(full: PhantomCase, halves: list[PhantomCase]) -> None:
    expected = [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert np.array_equal(full.affine, expected)
    assert nib.aff2axcodes(full.affine) == ("L", "P", "S")
    assert {image.shape for image in full.images.values()} == {(240, 240, 155)}
    assert full.segmentation.shape == (240, 240, 155)
    assert draw_case(3, 1, voxel_mm=4.0).segmentation.shape == (60, 60, 39)
    # Larger voxels show the same: brain and tumour lie at the same place in the world.
    for volume in (lambda case: case.images["T1"] > 0, lambda case: case.segmentation > 0):
        one, other = (
            nib.affines.apply_affine(case.affine, np.argwhere(volume(case)))
            for case in (full, halves[1])
        )
        assert np.abs(one.mean(0) - other.mean(0)).max() < 0.3
        assert len(one) == pytest.approx(8 * len(other), rel=0.03)
    # In the same units, with the same contrast.
    for one, other in zip(full.images.values(), halves[1].images.values(), strict=True):
        assert one[one > 0].mean() == pytest.approx(other[other > 0].mean(), rel=0.001)
        assert one[one > 0].std() == pytest.approx(other[other > 0].std(), rel=0.03)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"seed": -1}, "at least 0, not -1 and 0"),
        ({"index": -2}, "at least 0, not 0 and -2"),
        ({"voxel_mm": 0.2}, "0.5 to 8 mm, not 0.2"),
        ({"voxel_mm": float("nan")}, "0.5 to 8 mm, not nan"),
    ],
)
def test_numbers_out_of_range_are_refused(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw_case(**({"seed": 0, "index": 0} | numbers))


# Files


def cohort(folder: Path, release: Release = "2021", cases: int = 2, **others: Any) -> Path:
    options = {"seed": 5, "voxel_mm": 8.0} | others
    make_phantom(folder, cases=cases, release=release, **options)
    return folder


def listing(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def stored(folder: Path, release: Release, index: int) -> list[np.ndarray]:
    """T1, T1ce, T2, FLAIR and labels in the meaning of 2023, the layout undone by hand."""
    if release == "msd":
        name = f"BRATS_{index + 1:03d}.nii.gz"
        image, labels = (
            np.asarray(nib.load(folder / part / name).dataobj) for part in ("imagesTr", "labelsTr")
        )
        meaning = np.array([0, 2, 1, 3])
        return [image[..., channel] for channel in (1, 2, 3, 0)] + [meaning[labels]]
    name = f"BraTS2021_{index:05d}" if release == "2021" else f"BraTS-GLI-{index:05d}-000"
    *images, labels = (
        np.asarray(nib.load(folder / name / f"{name}{suffix}.nii.gz").dataobj)
        for suffix in SUFFIXES[release]
    )
    return [*images, np.where(labels == 4, 3, labels)]


def test_the_layouts_are_exact_and_hold_the_same(tmp_path: Path) -> None:
    written: list[int] = []
    cohort(tmp_path / "2021", "2021", on_case=written.append)
    assert written == [0, 1]
    cohort(tmp_path / "2023", "2023")
    cohort(tmp_path / "msd", "msd")
    assert set(listing(tmp_path / "2021")) == {
        f"BraTS2021_0000{i}/BraTS2021_0000{i}_{part}.nii.gz"
        for i in range(2)
        for part in ("t1", "t1ce", "t2", "flair", "seg")
    }
    assert set(listing(tmp_path / "2023")) == {
        f"BraTS-GLI-0000{i}-000/BraTS-GLI-0000{i}-000-{part}.nii.gz"
        for i in range(2)
        for part in ("t1n", "t1c", "t2w", "t2f", "seg")
    }
    assert set(listing(tmp_path / "msd")) == {"dataset.json"} | {
        f"{part}/BRATS_00{i}.nii.gz" for i in (1, 2) for part in ("imagesTr", "labelsTr")
    }
    for index in range(2):
        case = draw_case(5, index, voxel_mm=8.0)
        expected = [*(case.images[name] for name in MODALITIES), case.segmentation]
        for release in ("2021", "2023", "msd"):
            for own, array in zip(
                stored(tmp_path / release, release, index), expected, strict=True
            ):
                assert np.array_equal(own, array)
    # Undoing a layout hides its label numbers: there they are.
    for release, name in {
        "2021": "BraTS2021_00000/BraTS2021_00000_seg.nii.gz",
        "2023": "BraTS-GLI-00000-000/BraTS-GLI-00000-000-seg.nii.gz",
        "msd": "labelsTr/BRATS_001.nii.gz",
    }.items():
        labels = np.unique(np.asarray(nib.load(tmp_path / release / name).dataobj))
        assert set(labels) == ({0, 1, 2, 4} if release == "2021" else {0, 1, 2, 3})


def test_headers(tmp_path: Path) -> None:
    cohort(tmp_path, "msd", cases=1)
    affine = draw_case(5, 0, voxel_mm=8.0).affine
    for part, shape, dtype in (
        ("imagesTr", (30, 30, 20, 4), np.int16),
        ("labelsTr", (30, 30, 20), np.uint8),
    ):
        image = nib.load(tmp_path / part / "BRATS_001.nii.gz")
        assert image.shape == shape
        assert image.get_data_dtype() == dtype
        for matrix, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
            assert code > 0
            assert np.allclose(matrix, affine)
        assert image.header.get_zooms()[:3] == (8, 8, 8)
        assert image.header.get_xyzt_units()[0] == "mm"
        assert b"not a patient" in bytes(image.header["descrip"])


def test_the_decathlon_description(tmp_path: Path) -> None:
    cohort(tmp_path, "msd", cases=1)
    cohort(tmp_path, "msd", cases=2, overwrite=True)
    cohort(tmp_path, "msd", cases=1, overwrite=True)  # case 2 stays, and stays listed
    content = json.loads((tmp_path / "dataset.json").read_text())
    assert content["name"] == "BRATS"
    assert content["modality"] == {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    assert content["labels"] == {
        "0": "background",
        "1": "edema",
        "2": "non-enhancing tumor",
        "3": "enhancing tumour",
    }
    assert content["numTraining"] == 2
    assert content["training"] == [
        {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
        for name in ("BRATS_001", "BRATS_002")
    ]
    assert content["test"] == []


@pytest.mark.parametrize("release", ["2021", "msd"])
def test_the_seed_decides_every_byte_and_the_cores_none(
    two_threads: None, tmp_path: Path, release: Release
) -> None:
    one = listing(cohort(tmp_path / "one", release, voxel_mm=4.0))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    two = listing(cohort(tmp_path / "two", release, voxel_mm=4.0))
    other = listing(cohort(tmp_path / "other", release, voxel_mm=4.0, seed=6))
    assert one == two
    for name in one.keys() - {"dataset.json"}:
        assert one[name] != other[name]
        assert (
            one[name][:10] == b"\x1f\x8b\x08\x00" + bytes(4) + one[name][8:10]
        )  # no time, no name
    assert len(set(one.values())) == len(one)


def test_one_thread_draws(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # Rounding hides most of what another split of the work would change: so look at the threads.
    seen, scanned = set[int](), phantom._scanned

    def spy(*args: Any) -> Tensor:
        seen.add(torch.get_num_threads())
        return scanned(*args)

    monkeypatch.setattr(phantom, "_scanned", spy)
    draw_case(0, 0, voxel_mm=8.0)
    assert seen == {1}
    assert torch.get_num_threads() == 2


def test_a_folder_with_something_in_it_needs_overwrite(tmp_path: Path) -> None:
    cohort(tmp_path / "empty" / "below", cases=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"full is not empty; .* --overwrite"):
        cohort(tmp_path / "full")
    assert list(listing(tmp_path / "full")) == ["notes.txt"]


def test_overwriting_replaces_these_cases_alone(tmp_path: Path) -> None:
    before = listing(cohort(tmp_path, cases=3))
    (tmp_path / "notes.txt").write_text("mine")
    cohort(tmp_path, cases=2, seed=6, overwrite=True)
    after = listing(tmp_path)
    assert after.pop("notes.txt") == b"mine"
    assert after.keys() == before.keys()
    for name, content in after.items():
        assert (content == before[name]) == name.startswith("BraTS2021_00002")


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("2021", "BraTS2021_00001/BraTS2021_00001_t1.nii.gz"),
        ("2021", "BraTS2021_00001/notes.txt"),
        ("2021", "BraTS2021_00001"),
        ("2023", "BraTS-GLI-00001-000/BraTS-GLI-00001-000-t1n.nii.gz"),
        ("msd", "imagesTr/BRATS_002.nii.gz"),
        ("msd", "labelsTr/BRATS_002.nii.gz"),
        ("msd", "dataset.json"),
    ],
)
def test_patients_are_never_replaced(tmp_path: Path, release: Release, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = nib.Nifti1Image(np.ones((3, 3, 3), np.int16), np.eye(4)).to_bytes()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else b'{"name": "BRATS"}')
    before = listing(tmp_path)
    with pytest.raises(UserError, match=f"{Path(name).name} is no phantom"):
        cohort(tmp_path, release, overwrite=True)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("release", ["2021", "msd"])
def test_what_fails_leaves_whole_cases_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: Release
) -> None:
    write, count = phantom_files._write_nifti, 0

    def fail(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
        nonlocal count
        count += 1
        if path.name.endswith(("00001_t2.nii.gz", "labelsTr/BRATS_002.nii.gz")) or count == 7:
            raise OSError(28, "No space left on device")
        write(path, array, affine)

    monkeypatch.setattr(phantom_files, "_write_nifti", fail)
    whole = listing(cohort(tmp_path / "whole", release, cases=1))
    count = 0 if release == "2021" else 4
    with pytest.raises(UserError, match=r"cannot write the case .*No space left"):
        cohort(tmp_path / "broken", release)
    whole.pop("dataset.json", None)
    assert listing(tmp_path / "broken") == whole
    assert not [path for path in (tmp_path / "broken").iterdir() if path.name.startswith(".")]


def test_a_file_in_the_folder_s_place_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        cohort(tmp_path / "file")
    with pytest.raises(UserError, match="at least 1 case, not 0"):
        cohort(tmp_path / "none", cases=0)
    with pytest.raises(UserError, match="at least 0"):
        cohort(tmp_path / "none", seed=-1)
    assert not (tmp_path / "none").exists()
