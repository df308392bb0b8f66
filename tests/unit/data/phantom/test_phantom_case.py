from dataclasses import replace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.interpolate import BSpline
from torch import Tensor

from prod9.data.brain_regions import template_path
from prod9.data.brats.layouts import MODALITIES
from prod9.data.phantom import case as case_module
from prod9.data.phantom.anatomy import Anatomy, Atlas, Canvas, _spline, draw_anatomy, read_atlas
from prod9.data.phantom.case import PhantomCase, contrasts, draw_case, scanned
from prod9.data.phantom.tumour import CORE, ENHANCING, OEDEMA, Tumour, draw_tumour


class Still(np.random.Generator):
    """Draws the middle of every normal and uniform distribution."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        return 0.0 if size is None else np.zeros(size, dtype)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        middle = (low + high) / 2
        return middle if size is None else np.full(size, middle)


@pytest.fixture(scope="module")
def full() -> PhantomCase:
    return draw_case(3, 1)


@pytest.fixture(scope="module")
def halves() -> list[PhantomCase]:
    return [draw_case(3, index, voxel_mm=2.0) for index in range(4)]


def anatomy_of(index: int, voxel_mm: float = 2.0) -> tuple[Canvas, Atlas, Anatomy]:
    """What ``draw_case(3, index)`` draws first."""
    canvas = Canvas(voxel_mm, np.random.default_rng([3, index]))
    atlas = read_atlas()
    return canvas, atlas, draw_anatomy(canvas, atlas)


def places_of(canvas: Canvas, brain: Tensor, affine: np.ndarray) -> np.ndarray:
    """The brain's voxels in the world of ``affine``, mm to the right, front and top: (N, 3)."""
    indices = brain.nonzero().numpy() + [part.start for part in canvas.box]
    return indices @ affine[:3, :3].T + affine[:3, 3]


# Fields


def test_noise_is_made_of_cubic_splines_and_has_variance_one_everywhere() -> None:
    places = torch.linspace(-48, 48, 50)
    weights = _spline(places, 48.0, 20.0)
    assert torch.allclose(weights.square().sum(1), torch.ones(50))
    middle = weights.shape[1] // 2
    spline = BSpline.basis_element(np.arange(-2.0, 3.0) * 20, extrapolate=False)
    columns = [np.nan_to_num(spline(places.numpy() - 20.0 * k)) for k in range(-middle, middle + 1)]
    outside = np.stack(columns, 1)
    assert np.allclose(outside.sum(1), 1)  # no place lacks a knot
    expected = outside / np.linalg.norm(outside, axis=1, keepdims=True)
    assert np.allclose(weights.numpy(), expected, atol=1e-5)

    canvas = Canvas(8.0, np.random.default_rng(0))
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
    canvas, atlas = Canvas(4.0, np.random.default_rng([3, 0])), read_atlas()
    flat = torch.tensor([1, 0.8, 0.6, 0.3, 0.5])[:, None, None, None] * atlas.maps[0]
    anatomy = draw_anatomy(canvas, replace(atlas, maps=flat))
    for own, value in {
        "t1": 0.8,
        "white": 0.6,
        "grey": 0.3,
        "fluid": 0.1,
        "white_around": 0.5,
    }.items():
        assert (getattr(anatomy, own) - value).abs().max() < 1e-5, own


def test_without_chance_the_brain_is_the_template_made_smaller(full: PhantomCase) -> None:
    canvas = Canvas(1.0, Still())
    anatomy = draw_anatomy(canvas, read_atlas())
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
    canvas = Canvas(8.0, Still())
    one, zero = torch.eye(6), torch.zeros(6)
    # White, grey, fluid; then white that is all core, all rim, half oedema.
    white = one[0] + one[3] + one[4] + one[5]
    anatomy = Anatomy(
        brain=torch.ones(1, 1, 6, dtype=torch.bool),
        mm=torch.zeros(3, 6),
        t1=0.87 * white + 0.65 * one[1] + 0.27 * one[2],
        white=white,
        grey=one[1],
        fluid=one[2],
        white_around=white,
    )
    tumour = Tumour(one[3], one[4], 0.5 * one[5], zero, zero.to(torch.uint8))
    expected = {
        "T1": [0.87, 0.65, 0.27, 0.25, 0.50, (0.87 + 0.50) / 2],
        "T1ce": [0.8265, 0.6175, 0.2565, 0.20, 1.00, (0.8265 + 0.48) / 2],
        "T2": [0.28, 0.45, 0.95, 0.80, 0.60, (0.28 + 0.75) / 2],
        "FLAIR": [0.42, 0.55, 0.08, 0.45, 0.70, (0.42 + 0.95) / 2],
    }
    drawn = contrasts(canvas, anatomy, tumour)
    assert list(drawn) == list(MODALITIES)
    for name, values in expected.items():
        assert torch.allclose(drawn[name], torch.tensor(values), atol=1e-6), name


def test_a_scan_has_rician_noise_and_its_own_units() -> None:
    canvas = Canvas(2.0, Still())
    brain = torch.zeros([len(axis) for axis in canvas.axes], dtype=torch.bool)
    brain[10:60, 10:60, 10:50] = True
    ideal = torch.ones(100_000)
    ideal[::2] = 0
    image = scanned(canvas, brain, ideal, 1.0).double()
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
        tumour = draw_tumour(canvas, atlas, anatomy)
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
    canvas = Canvas(1.5, Still())
    site = np.array([[36.0, -20.0, 25.0]], np.float32)  # far from the falx and from the surface
    atlas = replace(read_atlas(), sites_mm=site, depths_mm=np.array([30.0], np.float32))
    drawn = draw_anatomy(canvas, atlas)
    # A head of nothing but white matter.
    solid, none = torch.ones_like(drawn.t1), torch.zeros_like(drawn.t1)
    anatomy = Anatomy(drawn.brain, drawn.mm, solid, solid, none, none, solid)
    labels = draw_tumour(canvas, atlas, anatomy).labels
    size = np.sqrt(0.6 * 1.5) * 0.935  # the middle size, in the world's mm
    for parts, radius in {(1,): 9.0, (1, 3): 13.0, (1, 2, 3): 24.0}.items():
        volume = 1.5**3 * sum(int((labels == part).sum()) for part in parts)
        assert volume == pytest.approx(4 / 3 * np.pi * (radius * size) ** 3, rel=0.03), parts


def test_a_tumour_stops_at_the_falx() -> None:
    canvas, atlas = Canvas(2.0, Still()), read_atlas()
    drawn = draw_anatomy(canvas, atlas)
    solid, none = torch.ones_like(drawn.t1), torch.zeros_like(drawn.t1)
    anatomy = Anatomy(drawn.brain, drawn.mm, solid, solid, none, none, solid)
    radius, depth = 24 * np.sqrt(0.6 * 1.5), np.array([30.0], np.float32)
    for side in (-1, 1):
        site = np.array([[side * 15.0, -20.0, 25.0]], np.float32)
        atlas = replace(atlas, sites_mm=site, depths_mm=depth)
        tumour = draw_tumour(canvas, atlas, anatomy).labels > 0
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


def test_one_thread_draws(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # Rounding hides most of what another split of the work would change: so look at the threads.
    seen = set[int]()

    def spy(*args: Any) -> Tensor:
        seen.add(torch.get_num_threads())
        return scanned(*args)

    monkeypatch.setattr(case_module, "scanned", spy)
    draw_case(0, 0, voxel_mm=8.0)
    assert seen == {1}
    assert torch.get_num_threads() == 2
