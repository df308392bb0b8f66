"""A scan through a tokenizer and back: its geometry, its background, its tokens."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_files import AFFINES, OBLIQUE, PREPROCESSING, head, stored, write_scan
from torch import Tensor

from prod9.config import SlidingWindowConfig
from prod9.data.native_space import NOTHING, NativeVolume
from prod9.data.volume_files.read import read_volume
from prod9.errors import Prod9Error
from prod9.inference import tokenizer as module
from prod9.inference.tokenizer import Tokenizer as FileTokenizer
from prod9.inference.tokenizer import decode_file, reconstruct_file
from prod9.metrics.psnr import psnr
from prod9.runtime import memory_limits
from prod9.sliding_window import decode, encode
from prod9.tokenizer import Tokenizer

WINDOWS = SlidingWindowConfig(roi_size=(12, 12, 12))


@pytest.fixture(scope="module")
def tokenizer(make_scan_tokenizer: Callable[..., Tokenizer]) -> Tokenizer:
    return make_scan_tokenizer()


def reconstructed(tokenizer: Tokenizer, path: Path, **rest: Any) -> Path:
    options: dict[str, Any] = {"save_tokens": False, "overwrite": False} | rest
    return reconstruct_file(
        FileTokenizer(tokenizer, WINDOWS), path, path.parent / "out", **options
    )[0]


@st.composite
def affines(draw: Any) -> np.ndarray:
    """Axes in any order, to either side, 0.6 to 2.5 mm, up to 20 degrees askew, anywhere."""
    axes = np.eye(3)[list(draw(st.permutations(range(3))))]
    spacing = [draw(st.floats(0.6, 2.5)) * draw(st.sampled_from([-1, 1])) for _ in range(3)]
    angle, about = np.deg2rad(draw(st.floats(-20, 20))), draw(st.integers(0, 2))
    i, j = (about + 1) % 3, (about + 2) % 3
    turn = np.eye(3)
    turn[i, i] = turn[j, j] = np.cos(angle)
    turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
    affine = np.eye(4)
    affine[:3, :3] = turn @ axes * spacing
    affine[:3, 3] = [draw(st.floats(-200, 200)) for _ in range(3)]
    return affine


@settings(max_examples=25)
@given(
    affine=affines(),
    shape=st.tuples(*[st.integers(2, 11)] * 3),
    dtype=st.sampled_from([np.int16, np.float32, np.uint8]),
    resampled=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_header_comes_back(
    make_scan_tokenizer: Any,
    tmp_path_factory: pytest.TempPathFactory,
    affine: np.ndarray,
    shape: tuple[int, int, int],
    dtype: Any,
    resampled: bool,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    voxels = np.random.default_rng(seed).integers(0, 4, shape) * 50  # a quarter is background
    voxels.flat[0], voxels.flat[1] = 0, 200
    path = write_scan(folder / "scan.nii.gz", voxels, affine, dtype)
    own = tuple(
        float(x) for x in nib.affines.voxel_sizes(nib.as_closest_canonical(nib.load(path)).affine)
    )
    spacing = (1.3, 1.0, 1.7) if resampled else own
    tokenizer = make_scan_tokenizer(PREPROCESSING.model_copy(update={"spacing_mm": spacing}))
    result = nib.nifti1.load(reconstructed(tokenizer, path))
    source = nib.nifti1.load(path)
    assert result.shape == shape
    assert result.get_data_dtype() == dtype
    np.testing.assert_allclose(result.affine, source.affine, atol=1e-6)
    for code in ("sform_code", "qform_code", "xyzt_units"):
        assert result.header[code] == source.header[code]
    after = np.asarray(result.dataobj)
    assert not after[voxels == 0].any()
    assert after.max() <= 200


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_a_perfect_network_gives_every_voxel_back(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, affine: np.ndarray
) -> None:
    """Orientation, intensities and rounding are undone exactly where nothing is resampled."""
    sizes = nib.affines.voxel_sizes(
        nib.as_closest_canonical(nib.Nifti1Image(head(), affine)).affine
    )
    own = PREPROCESSING.model_copy(update={"spacing_mm": tuple(sizes.tolist())})
    spec = tokenizer.spec.model_copy(update={"preprocessing": own})
    exact = Tokenizer(spec, tokenizer.autoencoder)
    for name, dtype in (("a.nii.gz", np.int16), ("b.nii", np.float32)):
        path = write_scan(tmp_path / name, head(), affine, dtype)
        volume = NativeVolume.of(read_volume(path), own).tensor()
        monkeypatch.setattr(module, "decode", lambda *given, volume=volume: volume)
        target, result = reconstruct_file(
            FileTokenizer(exact, WINDOWS),
            path,
            tmp_path / "out",
            save_tokens=False,
            overwrite=False,
        )
        tolerance = 0 if dtype == np.int16 else 1e-3
        np.testing.assert_allclose(stored(target), stored(path), atol=tolerance)
        assert result.psnr == np.inf


def test_figures_are_of_the_volume_that_the_network_sees(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = write_scan(tmp_path / "scan.nii.gz", head(), OBLIQUE)
    result = FileTokenizer(tokenizer, WINDOWS).measured(read_volume(path))
    seen = NativeVolume.of(read_volume(path), PREPROCESSING).tensor()
    output = decode(tokenizer, encode(tokenizer, seen, WINDOWS), seen.shape[2:], WINDOWS)
    assert result.psnr == pytest.approx(float(psnr(output, seen)))
    assert result.psnr == pytest.approx(-10 * float((output - seen).square().mean().log10()))


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_tokens_are_on_the_ras_grid(tokenizer: Tokenizer, tmp_path: Path, affine: Any) -> None:
    path = write_scan(tmp_path / "scan.nii.gz", head(), affine)
    upright = nib.as_closest_canonical(nib.load(path))
    own = tuple(nib.affines.voxel_sizes(upright.affine).tolist())
    spec = {"preprocessing": PREPROCESSING.model_copy(update={"spacing_mm": own})}
    exact = Tokenizer(tokenizer.spec.model_copy(update=spec), tokenizer.autoencoder)
    reconstructed(exact, path, save_tokens=True)
    out = tmp_path / "out"
    target = decode_file(
        FileTokenizer(exact, WINDOWS), out / "scan_reconstructed.tokens.npz", out, overwrite=False
    )
    assert target == out / "scan_reconstructed_decoded.nii.gz"
    decoded, again = nib.nifti1.load(target), nib.load(out / "scan_reconstructed.nii.gz")
    assert nib.aff2axcodes(decoded.affine) == ("R", "A", "S")
    assert decoded.shape == upright.shape
    assert decoded.get_data_dtype() == np.float32
    np.testing.assert_allclose(decoded.affine, upright.affine, atol=1e-5)
    # Where there is anything, the same as the reconstruction, brought to RAS by nibabel. (Tokens
    # alone do not know where the head ends: what is decoded to almost nothing is background.)
    again = np.asarray(nib.as_closest_canonical(again).dataobj)
    inside = np.asarray(upright.dataobj) != 0
    values = np.asarray(decoded.dataobj)
    shown = inside & (values != 0)
    assert shown.sum() > 0.8 * inside.sum()
    np.testing.assert_allclose(values[shown], again[shown], atol=0.501)
    low, high = head()[head() > 0].min(), head().max()
    assert (again[inside & ~shown] <= low + NOTHING * (high - low) + 1).all()
    assert not again[~inside].any()


def test_tokens_of_a_resampled_scan(make_scan_tokenizer: Any, tmp_path: Path) -> None:
    wide = PREPROCESSING.model_copy(update={"spacing_mm": (2.0, 3.0, 1.5)})
    tokenizer = make_scan_tokenizer(wide)
    path = write_scan(tmp_path / "scan.nii.gz", head(shape=(12, 12, 9)), AFFINES["LPS"])
    reconstructed(tokenizer, path, save_tokens=True)
    out = tmp_path / "out"
    with np.load(out / "scan_reconstructed.tokens.npz") as file:
        content = dict(file)
    assert content["tokens"].dtype == np.uint8  # 60 codes
    assert content["sides"].tolist() == [6, 4, 6]
    voxels = head(shape=(12, 12, 9)).astype(np.int16)
    low, high = voxels[voxels > 0].min(), voxels.max()
    np.testing.assert_array_equal(content["intensity"], [low, high, 0])
    # The box of 12 x 12 x 9 mm keeps its faces: x from -11.5 to 0.5, y from 227.5 to 239.5.
    np.testing.assert_allclose(
        content["affine"],
        [[2, 0, 0, -10.5], [0, 3, 0, 229], [0, 0, 1.5, 0.25], [0, 0, 0, 1]],
        atol=1e-5,
    )
    target = decode_file(
        FileTokenizer(tokenizer, WINDOWS),
        out / "scan_reconstructed.tokens.npz",
        out,
        overwrite=False,
    )
    decoded = nib.nifti1.load(target)
    np.testing.assert_allclose(decoded.affine, content["affine"], atol=1e-5)
    tokens = torch.from_numpy(content["tokens"].astype(np.int64))[None]
    volume: Tensor = decode(tokenizer, tokens, (6, 4, 6), WINDOWS)[0, 0]
    expected = np.where(volume > NOTHING, low + volume.numpy() * (high - low), 0)
    np.testing.assert_allclose(np.asarray(decoded.dataobj), expected, rtol=1e-5)


def test_a_token_file_without_background_has_none(tokenizer: Tokenizer, tmp_path: Path) -> None:
    full = np.random.default_rng(0).uniform(100, 200, (9, 8, 7))
    path = write_scan(tmp_path / "scan.nii.gz", full)
    reconstructed(tokenizer, path, save_tokens=True)
    tokens = tmp_path / "out" / "scan_reconstructed.tokens.npz"
    with np.load(tokens) as file:
        assert np.isnan(file["intensity"][2])
    target = decode_file(FileTokenizer(tokenizer, WINDOWS), tokens, tmp_path, overwrite=False)
    low, high = np.asarray(nib.nifti1.load(target).dataobj).min(), full.astype(np.int16).max()
    assert full.astype(np.int16).min() <= low < high


def forged(tokenizer: Tokenizer, path: Path, **changes: Any) -> Path:
    """Write a token file of a volume of 8 x 8 x 8 voxels, all of one token, but for the changes."""
    content = {
        "tokens": np.zeros(tokenizer.grid((8, 8, 8)), np.uint8),
        "sides": np.array([8, 8, 8]),
        "affine": np.eye(4),
        "intensity": np.array([0.0, 1.0, 0.0]),
        "digest": np.frombuffer(bytes.fromhex(tokenizer.digest), np.uint8),
    }
    np.savez_compressed(path, **(content | changes))
    return path


def test_a_token_file_larger_than_it_may_be(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode_it(path: Path) -> Path:
        return decode_file(FileTokenizer(tokenizer, WINDOWS), path, tmp_path, overwrite=True)

    decode_it(forged(tokenizer, tmp_path / "a.npz"))
    monkeypatch.setattr(module, "MAX_VOXELS", 511)
    with pytest.raises(Prod9Error, match=r"a\.npz is damaged"):
        decode_it(tmp_path / "a.npz")
    monkeypatch.setattr(module, "MAX_VOXELS", 512)
    decode_it(tmp_path / "a.npz")
    monkeypatch.setattr(memory_limits, "available_memory", lambda: 512 * 8 - 1)
    with pytest.raises(Prod9Error, match=r"the volume of .*a\.npz needs"):
        decode_it(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": np.zeros((5, 4, 4), np.uint8)},
        {"tokens": np.full((4, 4, 4), 60, np.uint8)},
        {"tokens": np.zeros((4, 4, 4))},
        {"sides": np.ones(2, int)},
        {"sides": np.array([8, 8, 10**9])},
        {"affine": np.full((4, 4), np.nan)},
        {"affine": np.eye(3)},
        {"intensity": np.array([np.inf, 1, 0])},
    ],
)
def test_arrays_that_do_not_fit_together(
    tokenizer: Tokenizer, tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = forged(tokenizer, tmp_path / "a.npz", **changes)
    with pytest.raises(Prod9Error, match="is damaged"):
        decode_file(FileTokenizer(tokenizer, WINDOWS), path, tmp_path, overwrite=True)


def test_tokens_are_not_decoded_by_another_tokenizer(
    make_scan_tokenizer: Any, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = write_scan(tmp_path / "scan.nii.gz", head())
    reconstructed(tokenizer, path, save_tokens=True)
    tokens = tmp_path / "out" / "scan_reconstructed.tokens.npz"
    # Another spacing is another tokenizer, though the weights are the same.
    other = make_scan_tokenizer(PREPROCESSING.model_copy(update={"spacing_mm": (2.0, 2.0, 2.0)}))
    with pytest.raises(Prod9Error, match="was made by the tokenizer"):
        decode_file(FileTokenizer(other, WINDOWS), tokens, tmp_path, overwrite=False)


def test_a_constant_and_an_empty_scan(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for name, value in (("empty", 0), ("constant", 7)):
        path = write_scan(tmp_path / f"{name}.nii.gz", np.full((6, 5, 4), value))
        assert (stored(reconstructed(tokenizer, path)) == value).all()


def test_results_in_the_way_are_found_before_anything_is_read(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_scan(tmp_path / "scan.nii.gz", head())
    reconstructed(tokenizer, path, save_tokens=True)
    monkeypatch.setattr(module, "encode", None)
    for name, rest in (
        ("scan_reconstructed.nii.gz", {}),
        ("scan_reconstructed.tokens.npz", {"save_tokens": True}),
    ):
        if rest:
            (tmp_path / "out" / "scan_reconstructed.nii.gz").unlink()
        with pytest.raises(Prod9Error, match=f"{name} exists; pass --overwrite"):
            reconstructed(tokenizer, path, **rest)
