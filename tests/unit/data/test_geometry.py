"""Scans brought to the training geometry, and back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine, voxel_sizes

from prod9.data.geometry import Placement, grid_difference
from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.stored_volume import StoredVolume
from prod9.data.volume_files.write import write_nifti, write_volume
from prod9.errors import Prod9Error

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Scan:
    shape: tuple[int, int, int]
    affine: np.ndarray


@st.composite
def scans(draw: st.DrawFn, side: int = 9) -> Scan:
    """Draw oblique, flipped, permuted scans with voxels that are no cubes."""
    # Whole numbers of a small unit: no denormal numbers, which ITK's inverse does not survive.
    quaternion = [draw(st.integers(-20, 20)) for _ in range(4)]
    turn = nib.quaternions.quat2mat(np.array(quaternion)) if any(quaternion) else np.eye(3)
    axes = np.eye(3)[draw(st.permutations(range(3)))]
    signs = [draw(st.sampled_from([-1.0, 1.0])) for _ in range(3)]
    spacing = [draw(st.integers(30, 400)) / 100 for _ in range(3)]
    affine = np.eye(4)
    affine[:3, :3] = turn @ axes @ np.diag(signs) @ np.diag(spacing)
    affine[:3, 3] = [draw(st.integers(-2000, 2000)) / 10 for _ in range(3)]
    sides = st.integers(1, side)
    return Scan((draw(sides), draw(sides), draw(sides)), affine)


spacings = st.tuples(*[st.floats(0.3, 4.0)] * 3)


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def bits(array: np.ndarray) -> bytes:
    return array.tobytes()


def corners(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Return the eight corners of the box that the voxels fill, in mm."""
    ends = np.stack(np.meshgrid(*[(-0.5, side - 0.5) for side in shape]), -1).reshape(-1, 3)
    return apply_affine(affine, ends)


def same_box(left: np.ndarray, right: np.ndarray, tolerance: float = 1e-6) -> bool:
    distance = np.linalg.norm(left[:, None] - right[None], axis=-1)
    return bool(max(distance.min(0).max(), distance.min(1).max()) < tolerance)


@given(scans())
@settings(max_examples=50)
def test_without_resampling_it_is_nibabel_s_canonical_form(scan: Scan) -> None:
    array = noise(scan.shape)
    placement = Placement.of(scan.shape, scan.affine, None)
    canonical: Any = nib.as_closest_canonical(nib.Nifti1Image(array, scan.affine))
    result = placement.apply(array)
    assert bits(result) == bits(np.ascontiguousarray(canonical.dataobj))
    assert placement.shape == result.shape == canonical.shape
    assert np.allclose(placement.affine, canonical.affine, atol=1e-9)
    cosines = np.diag(placement.affine)[:3] / placement.spacing_mm
    assert cosines.min() >= 0
    if cosines.min() > 0.75:  # an axis halfway between two has no name
        assert "".join(nib.aff2axcodes(placement.affine)) == "RAS"
    assert placement.spacing_mm == pytest.approx(tuple(voxel_sizes(canonical.affine)))
    assert placement.source_shape == scan.shape
    assert np.array_equal(placement.source_affine, scan.affine)


@given(scans(), st.floats(-0.00099, 0.00099))
@settings(max_examples=50)
def test_there_and_back_is_exact_without_resampling(scan: Scan, off: float) -> None:
    array = noise(scan.shape)
    array.flat[0] = -0.0
    own = Placement.of(scan.shape, scan.affine, None)
    wanted = tuple(side * (1 + off) for side in own.spacing_mm)
    placement = Placement.of(scan.shape, scan.affine, (wanted[0], wanted[1], wanted[2]))
    assert placement.shape == own.shape
    assert np.array_equal(placement.affine, own.affine)
    assert bits(placement.invert(placement.apply(array))) == bits(array)
    upright = noise(placement.shape, 1)
    assert bits(placement.apply(placement.invert(upright))) == bits(upright)


@given(scans(), spacings)
@settings(max_examples=50)
def test_the_box_and_the_spacing_stay(scan: Scan, wanted: tuple[float, float, float]) -> None:
    placement = Placement.of(scan.shape, scan.affine, wanted)
    own = Placement.of(scan.shape, scan.affine, None)
    assert same_box(corners(scan.shape, scan.affine), corners(placement.shape, placement.affine))
    assert placement.spacing_mm == pytest.approx(tuple(voxel_sizes(placement.affine)))
    for side, have, asked, count, spacing in zip(
        own.shape, own.spacing_mm, wanted, placement.shape, placement.spacing_mm, strict=True
    ):
        assert count * spacing == pytest.approx(side * have)
        assert count == max(1, round(side * have / asked))
        assert count > 1 or side * have / asked < 1.5 + 1e-9
    there = placement.apply(noise(scan.shape))
    assert (there.shape, there.dtype) == (placement.shape, np.float32)
    back = placement.invert(there)
    assert (back.shape, back.dtype) == (scan.shape, np.float32)
    assert there.flags.c_contiguous
    assert back.flags.c_contiguous


def ramp(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Return a linear function of the world coordinates, in mm, at the voxel centres."""
    points = apply_affine(affine, np.stack(np.indices(shape), -1))
    return points @ np.array([0.5, -0.7, 0.3]) + 12.0


def inner(
    shape: tuple[int, ...], affine: np.ndarray, other: tuple[int, ...], other_affine: np.ndarray
) -> np.ndarray:
    """Return which voxels of a grid draw upon no voxel beyond the faces of the other."""
    way = np.linalg.inv(other_affine) @ affine
    at = apply_affine(way, np.stack(np.indices(shape), -1))
    factor = np.abs(way[:3, :3]).sum(1)  # along the other's axes
    reach = np.where(factor > 2 - 1e-6, factor / 2, 0)  # of a mean
    inside = (at >= reach - 1e-6) & (at <= np.array(other) - 1 - reach + 1e-6)
    return inside.all(-1)


@given(scans(side=24), spacings)
@settings(max_examples=50)
def test_a_ramp_in_mm_stays_one(scan: Scan, wanted: tuple[float, float, float]) -> None:
    placement = Placement.of(scan.shape, scan.affine, wanted)
    source, target = (scan.shape, scan.affine), (placement.shape, placement.affine)
    there = placement.apply(ramp(*source))
    assert np.abs(there - ramp(*target))[inner(*target, *source)].max(initial=0) < 1e-3
    back = placement.invert(ramp(*target))
    assert np.abs(back - ramp(*source))[inner(*source, *target)].max(initial=0) < 1e-3


def test_a_ramp_over_a_whole_scan() -> None:
    affine = np.diag([-0.7, 0.7, 0.5, 1.0])
    affine[:3, 3] = [150, -160, -700]
    shape = (2, 3, 1000)
    placement = Placement.of(shape, affine, (0.7, 0.7, 1.7))
    target = (placement.shape, placement.affine)
    error = np.abs(placement.apply(ramp(shape, affine)) - ramp(*target))
    assert error[inner(*target, shape, affine)].max() < 1e-3
    assert placement.shape == (2, 3, 294)
    assert placement.spacing_mm == pytest.approx((0.7, 0.7, 500 / 294))


@pytest.mark.parametrize("factor", [2, 3, 4, 7])
def test_shrinking_by_a_whole_number_is_the_mean(factor: int) -> None:
    array = noise((2 * factor, factor, 3 * factor))
    affine = np.diag([1.0, 1.5, 0.5, 1.0])
    placement = Placement.of(array.shape, affine, (factor * 1.0, factor * 1.5, factor * 0.5))
    blocks = array.reshape(2, factor, 1, factor, 3, factor).astype(np.float64)
    assert placement.shape == (2, 1, 3)
    assert np.allclose(placement.apply(array), blocks.mean((1, 3, 5)), atol=1e-6)
    first = (factor - 1) / 2 * np.array([1.0, 1.5, 0.5])
    assert np.allclose(placement.affine[:3, 3], first)


def test_doubling_by_hand() -> None:
    array = np.array([0.0, 4.0, 8.0], np.float32).reshape(3, 1, 1)
    placement = Placement.of((3, 1, 1), np.eye(4), (0.5, 1.0, 1.0))
    # Centres at 0.25, 0.75 ... 2.75 of 3; the first and last lie outside the outer centres.
    assert placement.apply(array).ravel().tolist() == [0, 1, 3, 5, 7, 8]
    assert np.allclose(placement.affine[:3, 3], [-0.25, 0, 0])


@given(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.floats(0.4, 2.0)] * 3))
@settings(max_examples=40)
def test_up_to_a_factor_of_two_it_is_torch_s(
    shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    array, placement = noise(shape), Placement.of(shape, np.eye(4), spacing)
    assume(all(2 * new >= old for new, old in zip(placement.shape, shape, strict=True)))
    expected = F.interpolate(
        torch.from_numpy(array)[None, None], placement.shape, mode="trilinear", align_corners=False
    )
    assert np.allclose(placement.apply(array), expected[0, 0].numpy(), atol=1e-5)


@pytest.mark.parametrize("factor", [2.1, 2.5, 3.3, 5.7])
def test_what_is_finer_than_the_new_voxels_vanishes(factor: float) -> None:
    side = round(40 * factor)
    placement = Placement.of((side, 1, 1), np.eye(4), (factor, 1.0, 1.0))
    assert placement.shape == (40, 1, 1)
    # Voxels that alternate between -1 and 1: picking some of them would keep that strength.
    stripes = (1 - 2 * (np.arange(side) % 2)).reshape(side, 1, 1)
    assert np.abs(placement.apply(stripes)).max() < 0.35
    # Every voxel counts, about as much as any other: the mean stays, and noise falls.
    unit = Placement.of((side, side, 1), np.eye(4), (factor, 1.0, 1.0)).apply(
        np.eye(side)[..., None]
    )
    share = unit[..., 0].sum(0) * factor
    assert 0.7 < share[2:-2].min() < share[2:-2].max() < 1.3
    white = noise((side, 50, 50))
    averaged = Placement.of(white.shape, np.eye(4), (factor, 1.0, 1.0)).apply(white)
    assert averaged.std() < 1.1 / np.sqrt(factor)


@given(scans(), spacings)
@settings(max_examples=30)
def test_nothing_overshoots(scan: Scan, wanted: tuple[float, float, float]) -> None:
    array = np.random.default_rng(5).integers(0, 2, scan.shape) * np.float32(1000)
    placement = Placement.of(scan.shape, scan.affine, wanted)
    there = placement.apply(array)
    assert array.min() * (1 - 1e-6) <= there.min()
    assert there.max() <= array.max() * (1 + 1e-6)
    flat = placement.invert(placement.apply(np.full(scan.shape, 7.5)))
    assert np.allclose(flat, 7.5, rtol=1e-6)


def test_a_result_is_the_caller_s_own() -> None:
    array = noise((3, 4, 5))
    for spacing in (None, (2.0, 1.0, 1.0)):
        placement = Placement.of(array.shape, np.eye(4), spacing)
        there = placement.apply(array)
        back = placement.invert(there)
        assert not np.may_share_memory(there, array)
        assert not np.may_share_memory(back, there)


@pytest.mark.parametrize("spacing", [None, (1.0, 0.5, 1.0)])
def test_torch_takes_a_flipped_slice(spacing: tuple[float, float, float] | None) -> None:
    # One voxel thick: numpy calls its flipped view contiguous, with a negative stride.
    placement = Placement.of((1, 4, 5), np.diag([-1.0, 1.0, 1.0, 1.0]), spacing)
    there = placement.apply(noise((1, 4, 5)))
    torch.from_numpy(there)
    torch.from_numpy(placement.invert(there))


def test_spacings_that_are_near_enough() -> None:
    shape, affine = (1000, 1000, 3), np.diag([1.0, 1.0, 1.0, 1.0])
    placement = Placement.of(shape, affine, (1.0009, 1.002, 1.002))
    assert placement.shape == (1000, 998, 3)  # 3 voxels of 1.002 mm are 3 voxels
    assert placement.spacing_mm == pytest.approx((1, 1000 / 998, 1))
    # float32 headers round their spacings.
    assert Placement.of(shape, affine * np.float32(0.7), (0.7, 0.7, 0.7)).shape == shape


def test_one_voxel_stays_one() -> None:
    placement = Placement.of((1, 1, 4), np.eye(4), (5.0, 0.2, 9.0))
    assert placement.shape == (1, 5, 1)
    assert placement.spacing_mm == pytest.approx((1, 0.2, 4))
    array = np.array([1.0, 2.0, 3.0, 6.0]).reshape(1, 1, 4)
    assert placement.apply(array).ravel().tolist() == [3] * 5


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.diag([1.0, 0.0, 2.0, 1.0]), "span no volume"),
        (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "span no volume"),
        (np.diag([1.0, np.nan, 1.0, 1.0]), "finite"),
        (np.eye(3), "4 x 4"),
    ],
)
def test_affines_that_place_nothing(affine: np.ndarray, message: str) -> None:
    with pytest.raises(Prod9Error, match=f"case-7.*{message}"):
        Placement.of((3, 4, 5), affine, None, "case-7")


def test_too_many_voxels_are_refused() -> None:
    for spacing in ((1e-3, 1e-3, 1e-3), (1e-300, 1.0, 1.0)):
        with pytest.raises(Prod9Error, match=r"case-7 would have .* choose a wider spacing"):
            Placement.of((300, 400, 500), np.eye(4), spacing, "case-7")


def test_the_distance_between_grids_by_hand() -> None:
    def on(affine: np.ndarray, shape: tuple[int, ...] = (8, 9, 7)) -> StoredVolume:
        array = np.zeros(shape, np.float32)
        return StoredVolume(array, affine, np.dtype(np.float32), Path("case.nii"))

    turned = LPS.copy()
    assert grid_difference(on(LPS), on(turned)) is None
    turned[0, 0] = -1.5  # the far end of the first axis moves by 7 * 0.5
    assert "corner 3.5 mm apart" in str(grid_difference(on(LPS), on(turned)))
    turned[0, 3] = 4.0  # the near end by 4, the far end by 0.5 only
    assert "corner 4 mm apart" in str(grid_difference(on(LPS), on(turned)))
    turned[1, 3] += 3.0
    assert "corner 5 mm apart" in str(grid_difference(on(LPS), on(turned)))
    assert grid_difference(on(LPS), on(LPS, (8, 9, 6))) == "8 x 9 x 7 and 8 x 9 x 6 voxels"


# ---- Files: what nibabel and SimpleITK make of them ----


def saved(path: Path, array: np.ndarray, affine: np.ndarray, codes: tuple[int, int]) -> Path:
    image = nib.Nifti1Image(array, affine)
    image.set_qform(affine, code=codes[1])
    image.set_sform(affine, code=codes[0])
    nib.save(image, path)
    return path


def seen_by_itk(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Return the size, and voxel to mm turned from SimpleITK's left/posterior to RAS."""
    itk = pytest.importorskip("SimpleITK")
    image = itk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return image.GetSize(), LPS @ affine


CODES = st.sampled_from([(1, 1), (2, 0), (0, 1), (4, 2), (0, 0)])


@given(scans(), st.none() | spacings, CODES, st.sampled_from([".nii", ".nii.gz"]))
@settings(max_examples=40)
def test_a_written_scan_lies_where_its_source_lies(
    tmp_path_factory: pytest.TempPathFactory,
    scan: Scan,
    wanted: tuple[float, float, float] | None,
    codes: tuple[int, int],
    suffix: str,
) -> None:
    folder = tmp_path_factory.mktemp("scan")
    array = (noise(scan.shape) * 1000).astype(np.int16)
    source, target = saved(folder / f"in{suffix}", array, scan.affine, codes), folder / "out.nii.gz"
    raw = read_volume(source)
    placement = Placement.of(raw.array.shape, raw.affine, wanted)
    write_volume(target, placement.invert(placement.apply(raw.array)), like=raw)
    before, after = nib.load(source), nib.load(target)
    assert after.shape == before.shape
    assert np.array_equal(after.affine, before.affine)
    assert np.array_equal(after.get_qform(), before.get_qform())
    assert np.array_equal(after.get_sform(), before.get_sform())
    assert after.header.get_zooms() == before.header.get_zooms()
    assert nib.aff2axcodes(after.affine) == nib.aff2axcodes(before.affine)
    for name in ("sform_code", "qform_code", "pixdim", "xyzt_units"):
        assert np.array_equal(after.header[name], before.header[name])
    if wanted is None:
        assert np.array_equal(np.asanyarray(after.dataobj), array)
    size, affine = seen_by_itk(source)
    assert seen_by_itk(target)[0] == size == scan.shape
    assert np.array_equal(seen_by_itk(target)[1], affine)
    if codes != (0, 0):  # a header without either form: each reader has its own idea
        assert np.allclose(affine, before.affine, atol=2e-4)


@given(scans(), spacings)
@settings(max_examples=20)
def test_a_written_ras_grid_lies_in_the_scan(
    tmp_path_factory: pytest.TempPathFactory, scan: Scan, wanted: tuple[float, float, float]
) -> None:
    target = tmp_path_factory.mktemp("scan") / "ras.nii"
    placement = Placement.of(scan.shape, scan.affine, wanted)
    write_nifti(target, placement.apply(noise(scan.shape)), placement.affine)
    size, affine = seen_by_itk(target)
    assert size == placement.shape
    assert np.allclose(affine, placement.affine, atol=2e-4)
    assert same_box(corners(scan.shape, scan.affine), corners(size, affine), 1e-3)


@given(scans(side=12), st.tuples(*[st.floats(0.6, 1.9)] * 3))
@settings(max_examples=30)
def test_simpleitk_finds_the_same_voxels(scan: Scan, factors: tuple[float, float, float]) -> None:
    itk = pytest.importorskip("SimpleITK")
    array = noise(scan.shape)
    own = Placement.of(scan.shape, scan.affine, None).spacing_mm
    wanted = tuple(side * factor for side, factor in zip(own, factors, strict=True))
    placement = Placement.of(scan.shape, scan.affine, (wanted[0], wanted[1], wanted[2]))
    assume(all(2 * new >= old for new, old in zip(placement.shape, scan.shape, strict=True)))

    def placed(image: Any, affine: np.ndarray) -> Any:
        spacing = voxel_sizes(affine)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((LPS[:3, :3] @ affine[:3, :3] / spacing).ravel().tolist())
        image.SetOrigin((LPS[:3, :3] @ affine[:3, 3]).tolist())
        return image

    source = placed(itk.GetImageFromArray(array.T.copy()), scan.affine)
    grid = placed(itk.Image(*placement.shape, itk.sitkFloat32), placement.affine)
    resampled = itk.Resample(source, grid, itk.Transform(), itk.sitkLinear)
    expected = itk.GetArrayFromImage(resampled).T
    there = placement.apply(array)
    target = (placement.shape, placement.affine)
    difference = np.abs(there - expected)[inner(*target, scan.shape, scan.affine)]
    assert difference.max(initial=0) < 1e-3
