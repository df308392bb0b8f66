"""Translation and in-painting with untrained networks: what must hold whatever is drawn."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from scan_files import AFFINES, OBLIQUE, PREPROCESSING, head, stored, write_scan
from torch import Tensor

from prod9.config import SamplerConfig, SlidingWindowConfig
from prod9.data.native_space import NativeVolume
from prod9.data.volume_files.read import read_volume
from prod9.errors import Prod9Error
from prod9.inference.completion import CompletedFiles, background_cells
from prod9.inference.inpaint import inpaint_files
from prod9.inference.translate import translate_files
from prod9.model import Model
from prod9.sample_request import SampleRequest
from prod9.sliding_window import encode

WINDOWS = SlidingWindowConfig(roi_size=(12, 12, 12))
T1, T1CE, T2, FLAIR = range(4)


SAMPLER = SamplerConfig(steps=2, guidance_scale=1.0)


def request(model: Model, channel: str, samples: int = 1, seed: int = 0) -> SampleRequest:
    return SampleRequest(model.labels_of([channel], samples), SAMPLER, WINDOWS, seed)


@pytest.fixture(scope="module")
def generator(make_scan_generator: Callable[..., Model]) -> Model:
    return make_scan_generator()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Record what every call of ``Model.sample`` is given, and gives."""
    calls: list[dict[str, Any]] = []
    real = Model.sample

    def sample(self: Model, request: SampleRequest, *args: Any, **rest: Any) -> Tensor:
        result = real(self, request, *args, **rest)
        calls.append({**vars(request), "result": result})
        return result

    monkeypatch.setattr(Model, "sample", sample)
    return calls


def decodes_to(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """Let every draw be one grey value."""
    monkeypatch.setattr(
        Model,
        "decode",
        lambda self, tokens, sides, windows: torch.full((len(tokens), 1, *sides), value),
    )


# --- translation --------------------------------------------------------------------------------


def two_sources(folder: Path, **rest: Any) -> dict[str, Path]:
    """Two scans; the second one's head is smaller."""
    small = head(1)
    small[:4] = 0
    return {
        "T1": write_scan(folder / "t1.nii.gz", head(0), **rest),
        "T2": write_scan(folder / "t2.nii.gz", small, **rest),
    }


def translated(
    generator: Model,
    folder: Path,
    sources: dict[str, Path],
    name: str = "flair.nii.gz",
    target: str = "FLAIR",
    overwrite: bool = False,
    truth: Path | None = None,
    **rest: Any,
) -> CompletedFiles:
    return translate_files(
        generator,
        sources,
        folder / name,
        request(generator, target, **rest),
        overwrite=overwrite,
        truth=truth,
    )


@pytest.mark.parametrize("spacing", [1.0, 1.5, 3.0])
@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_a_translation_lies_where_its_first_source_lies(
    make_scan_generator: Any, tmp_path: Path, affine: np.ndarray, spacing: float
) -> None:
    preprocessing = PREPROCESSING.model_copy(update={"spacing_mm": (spacing, 1.0, spacing)})
    sources = two_sources(tmp_path, affine=affine)
    model = make_scan_generator(preprocessing=preprocessing)
    result = nib.nifti1.load(translated(model, tmp_path, sources).results[0])
    source = nib.nifti1.load(sources["T1"])
    assert result.shape == source.shape
    assert result.get_data_dtype() == np.int16
    np.testing.assert_allclose(result.affine, source.affine, atol=1e-6)
    np.testing.assert_allclose(result.affine, affine, atol=1e-5)
    voxels, background = np.asarray(result.dataobj), stored(sources["T1"]) == 0
    assert (voxels[background] == 0).all()
    # Of the foreground no voxel can be below the sources' mean minimum, which is about 100.
    assert (voxels[~background] > 90).all()
    assert np.ptp(voxels[~background]) > 10


def test_background_is_what_no_source_shows(generator: Model, tmp_path: Path) -> None:
    sources = two_sources(tmp_path)
    first = dict(reversed(sources.items()))  # the one with the smaller head decides nothing
    voxels = stored(translated(generator, tmp_path, first).results[0])
    np.testing.assert_array_equal(voxels == 0, stored(sources["T1"]) == 0)


@pytest.mark.parametrize("value", [0.0, 0.25, 1.0])
def test_intensities_are_the_mean_of_the_sources_ranges(
    generator: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    decodes_to(monkeypatch, value)
    first, second = head(0, low=50, high=50), head(0, low=400, high=400)
    first[6, 6, 4], second[6, 6, 4] = 150, 800
    sources = {
        "T1": write_scan(tmp_path / "a.nii.gz", first),
        "T1ce": write_scan(tmp_path / "b.nii.gz", second),
    }
    voxels = stored(translated(generator, tmp_path, sources).results[0])
    low, high = (50 + 400) / 2, (150 + 800) / 2
    assert set(np.unique(voxels)) == {0, round(low + value * (high - low))}


def test_scans_without_background_have_a_whole_result(generator: Model, tmp_path: Path) -> None:
    full = np.random.default_rng(0).uniform(100, 200, (9, 8, 7))
    source = write_scan(tmp_path / "t1.nii.gz", full)
    voxels = stored(translated(generator, tmp_path, {"T1": source}).results[0])
    assert voxels.min() >= 100


def test_what_is_drawn_from_what(
    generator: Model, tmp_path: Path, drawn: list[dict[str, Any]]
) -> None:
    sources = two_sources(tmp_path)
    translated(generator, tmp_path, sources, samples=2)
    (call,) = drawn
    mask_id = generator.transformer.mask_id
    volumes = [
        NativeVolume.of(read_volume(path), PREPROCESSING).tensor() for path in sources.values()
    ]
    tokens = [encode(generator.tokenizer, volume, WINDOWS)[0] for volume in volumes]
    assert call["labels"] == (FLAIR, FLAIR)
    for sample in call["sources"]:
        assert torch.equal(sample[T1], tokens[0])
        assert torch.equal(sample[T2], tokens[1])
        assert (sample[[T1CE, FLAIR]] == mask_id).all()
    empty = background_cells(generator, volumes)
    assert empty.any()
    initial = call["initial"][0]
    assert torch.equal(initial[empty], tokens[0][empty])
    assert (initial[~empty] == mask_id).all()
    for result in call["result"]:
        assert torch.equal(result[empty], tokens[0][empty])
        assert (result != mask_id).all()
    assert not torch.equal(call["result"][0], call["result"][1])


@pytest.mark.parametrize(("dtype", "rounding"), [(np.int16, 0.5), (np.float32, 1e-3)])
def test_several_draws_their_mean_and_their_spread(
    generator: Model, tmp_path: Path, dtype: Any, rounding: float
) -> None:
    sources = two_sources(tmp_path, dtype=dtype)
    result = translated(generator, tmp_path, sources, samples=3)
    mean, *samples, deviation_map = result.results
    assert [path.name for path in samples] == [f"flair_draw-{k}.nii.gz" for k in (1, 2, 3)]
    assert deviation_map == tmp_path / "flair_std.nii.gz"
    assert result.picture == tmp_path / "flair.png"
    assert result.picture.read_bytes().startswith(b"\x89PNG")
    draws = np.stack([stored(path) for path in samples]).astype(np.float64)
    assert all((draws[a] != draws[b]).any() for a, b in itertools.combinations(range(3), 2))
    # A draw is off by one rounding, their mean by two.
    np.testing.assert_allclose(stored(mean), draws.mean(0), atol=2 * rounding)
    deviation = nib.nifti1.load(deviation_map)
    assert deviation.get_data_dtype() == np.float32
    np.testing.assert_allclose(np.asarray(deviation.dataobj), np.std(draws, 0), atol=rounding)
    assert np.asarray(deviation.dataobj).max() > 10
    np.testing.assert_array_equal(deviation.affine, nib.nifti1.load(sources["T1"]).affine)


def test_one_draw_writes_no_map(generator: Model, tmp_path: Path) -> None:
    result = translated(generator, tmp_path, two_sources(tmp_path))
    assert len(result.results) == 1
    there = {path.name for path in tmp_path.iterdir()}
    assert there == {"t1.nii.gz", "t2.nii.gz", "flair.nii.gz", "flair.png", "flair.json"}
    record = json.loads(result.record.read_text())
    files = {"T1": "t1.nii.gz", "T2": "t2.nii.gz"}
    assert record["sources"] == {name: str(tmp_path / file) for name, file in files.items()}
    assert record["target"] == "FLAIR"
    assert record["seed"] == 0
    assert record["tokenizer"] == generator.tokenizer.digest
    assert record["transformer"] == generator.digest
    assert SamplerConfig.model_validate(record["sampler"]) == SAMPLER


def test_the_seed_decides(generator: Model, tmp_path: Path) -> None:
    sources = two_sources(tmp_path)

    def voxels(name: str, seed: int) -> bytes:
        return stored(
            translated(generator, tmp_path, sources, name, seed=seed).results[0]
        ).tobytes()

    assert voxels("a.nii.gz", 5) == voxels("b.nii", 5) != voxels("c.nii.gz", 6)


def test_the_names_of_modalities_are_read_in_any_case(generator: Model, tmp_path: Path) -> None:
    sources = two_sources(tmp_path)
    lower = {name.lower(): path for name, path in sources.items()}
    one = translated(generator, tmp_path, sources, "a.nii.gz")
    two = translated(generator, tmp_path, lower, "b.nii.gz", target="flair")
    np.testing.assert_array_equal(stored(one.results[0]), stored(two.results[0]))


def test_the_truth_is_only_shown(generator: Model, tmp_path: Path) -> None:
    sources = two_sources(tmp_path)
    without = translated(generator, tmp_path, sources, "a.nii.gz")
    truth = write_scan(tmp_path / "true.nii.gz", head(7))
    shown = translated(generator, tmp_path, sources, "b.nii.gz", truth=truth)
    np.testing.assert_array_equal(stored(without.results[0]), stored(shown.results[0]))
    assert shown.picture.stat().st_size > without.picture.stat().st_size


MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "the target among the sources": (
        {"target": "T2"},
        "T2 is one of the sources",
    ),
    "a target that is not known": (
        {"target": "T3"},
        "no class or channel T3; .*T1, T1ce, T2, FLAIR",
    ),
    "a source that is not known": (
        {"sources": {"PET": "t1.nii.gz"}},
        "no class or channel PET",
    ),
    "a source given twice": (
        {"sources": {"T1": "t1.nii.gz", "t1": "t2.nii.gz"}},
        "given twice",
    ),
    "a source that is not there": (
        {"sources": {"T1": "none.nii.gz"}},
        r"none\.nii\.gz does not exist",
    ),
    "another shape": (
        {"sources": {"T1": "t1.nii.gz", "T2": "short.nii.gz"}},
        r"short\.nii\.gz is on another grid than .*t1\.nii\.gz .*and 13 x 12 x 8 voxels",
    ),
    "another affine": (
        {"sources": {"T1": "t1.nii.gz", "T2": "moved.nii.gz"}},
        r"moved\.nii\.gz is on another grid than .*t1\.nii\.gz .*0\.5 mm apart",
    ),
    "an npy": ({"name": "flair.npy"}, r"flair\.npy must end in \.nii"),
    "a name without a format": (
        {"name": "flair"},
        r"flair must end in \.nii",
    ),
}


@pytest.mark.parametrize(("change", "words"), MISFITS.values(), ids=MISFITS)
def test_what_cannot_be_translated(
    generator: Model, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    sources = two_sources(tmp_path)
    write_scan(tmp_path / "short.nii.gz", head(1)[:, :, :8])
    moved = AFFINES["1 mm"].copy()
    moved[1, 3] += 0.5
    write_scan(tmp_path / "moved.nii.gz", head(1), moved)
    there = {path.name for path in tmp_path.iterdir()}
    if "sources" in change:
        sources = {name: tmp_path / file for name, file in change["sources"].items()}
    with pytest.raises(Prod9Error, match=words):
        translated(generator, tmp_path, **change | {"sources": sources})
    assert {path.name for path in tmp_path.iterdir()} == there


@pytest.mark.parametrize("name", ["f.nii.gz", "f.png", "f_draw-2.nii.gz", "f_std.nii.gz"])
def test_no_result_is_replaced_without_leave(generator: Model, tmp_path: Path, name: str) -> None:
    sources = two_sources(tmp_path)
    (tmp_path / name).write_text("mine")
    with pytest.raises(Prod9Error, match=f"{name} exists; pass --overwrite to replace it"):
        translated(generator, tmp_path, sources, "f.nii.gz", samples=2)
    assert (tmp_path / name).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 3
    translated(generator, tmp_path, sources, "f.nii.gz", samples=2, overwrite=True)
    assert (tmp_path / name).read_bytes() != b"mine"


def test_a_tokenizer_of_cubes_translates_nothing(
    make_tokenizer: Any, make_scan_generator: Any, tmp_path: Path
) -> None:
    cubes = make_scan_generator(make_tokenizer())
    source = {"ball": write_scan(tmp_path / "a.nii.gz", head())}
    with pytest.raises(Prod9Error, match=r"trained on organmnist3d.*choose a model of scans"):
        translated(cubes, tmp_path, source, target="box")


# --- in-painting --------------------------------------------------------------------------------

HOLE = (slice(4, 7), slice(5, 8), slice(3, 5))


def hole(shape: tuple[int, ...] = (13, 12, 9)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[HOLE] = 1
    return mask


def inpainted(
    generator: Model,
    scan: Path,
    mask: Path,
    folder: Path,
    modality: str = "T2",
    overwrite: bool = False,
    **rest: Any,
) -> CompletedFiles:
    wanted = request(generator, modality, **rest)
    return inpaint_files(generator, scan, mask, folder, wanted, overwrite=overwrite)


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "int16 with a slope": ("scan.nii.gz", {"slope": 0.25, "intercept": -1.5}),
    "float32": ("scan.nii", {"dtype": np.float32}),
    "uint8, oblique": ("scan.nii.gz", {"dtype": np.uint8, "affine": OBLIQUE}),
    "npy": ("scan.npy", {"dtype": np.float32}),
}


@pytest.mark.parametrize(("name", "kind"), KINDS.values(), ids=KINDS)
def test_outside_the_mask_not_a_bit_changes(
    generator: Model, tmp_path: Path, name: str, kind: dict[str, Any]
) -> None:
    scan = write_scan(tmp_path / name, head(high=250), **kind)
    suffix = ".npy" if name.endswith(".npy") else ".nii.gz"
    mask = write_scan(tmp_path / f"mask{suffix}", hole(), kind.get("affine"), np.uint8)
    result = inpainted(generator, scan, mask, tmp_path / "out", samples=2)
    stem, suffix = name.split(".", 1)
    assert [path.name for path in result.results] == [
        f"{stem}_inpainted-{k}.{suffix}" for k in (1, 2)
    ]
    before, inside = stored(scan), hole() > 0
    for path in result.results:
        after = stored(path)
        assert after.dtype == before.dtype
        assert after[~inside].tobytes() == before[~inside].tobytes()
        assert (after[inside] != before[inside]).mean() > 0.5
        if scan.suffix != ".npy":
            one, two = nib.nifti1.load(scan), nib.nifti1.load(path)
            assert one.header.binaryblock == two.header.binaryblock
            assert (two.dataobj.slope, two.dataobj.inter) == (one.dataobj.slope, one.dataobj.inter)
    one, two = (stored(path)[inside] for path in result.results)
    assert (one != two).any()
    assert result.picture == tmp_path / "out" / "scan_inpainted.png"
    assert result.picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("hidden", ["dark", "bright", "noise", "background"])
def test_what_is_hidden_does_not_matter(generator: Model, tmp_path: Path, hidden: str) -> None:
    first, second = head(), head()
    new = {"dark": 1, "bright": 30_000, "background": 0}.get(hidden)
    random = np.random.default_rng(3).uniform(1, 5000, second[HOLE].shape)
    second[HOLE] = random if new is None else new
    mask = write_scan(tmp_path / "mask.nii.gz", hole(), dtype=np.uint8)
    results: list[bytes] = []
    for name, voxels in (("a", first), ("b", second)):
        scan = write_scan(tmp_path / name / "scan.nii", voxels)
        (path,) = inpainted(generator, scan, mask, tmp_path / name / "out").results
        results.append(path.read_bytes())
    assert results[0] == results[1]


def test_tokens_away_from_the_mask_are_the_scans(
    generator: Model, tmp_path: Path, drawn: list[dict[str, Any]]
) -> None:
    shape = (18, 16, 14)
    # All around the hole is 500: so the nearest visible voxel is, whichever is taken.
    plain = head(shape=shape)
    plain[3:8, 4:9, 2:6] = 500
    clean = NativeVolume.of(read_volume(write_scan(tmp_path / "clean.nii", plain)), PREPROCESSING)
    plain[HOLE] = 20_000
    scan = write_scan(tmp_path / "scan.nii", plain)
    mask = write_scan(tmp_path / "mask.nii", hole(shape), dtype=np.uint8)
    inpainted(generator, scan, mask, tmp_path / "out")
    (call,) = drawn
    mask_id, tokens, result = generator.transformer.mask_id, call["initial"][0], call["result"][0]
    # In cells of two voxels the mask lies in 2-3, 2-3 and 1-2; their neighbours are drawn too.
    unknown = torch.zeros(tokens.shape, dtype=torch.bool)
    unknown[1:5, 1:5, 0:4] = True
    assert torch.equal(tokens == mask_id, unknown)
    expected = encode(generator.tokenizer, clean.tensor(), WINDOWS)[0]
    assert torch.equal(tokens[~unknown], expected[~unknown])
    assert torch.equal(result[~unknown], expected[~unknown])
    assert not torch.equal(result[unknown], expected[unknown])
    assert (result != mask_id).all()
    assert call["labels"] == (T2,)
    assert call.get("sources") is None


def test_the_scale_is_of_what_is_visible(
    generator: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decodes_to(monkeypatch, 1.0)
    voxels = head(low=100, high=300)
    voxels[HOLE] = 5000
    voxels[6, 6, 6] = 400  # the brightest that is visible
    scan = write_scan(tmp_path / "scan.nii.gz", voxels)
    mask = write_scan(tmp_path / "mask.nii.gz", hole(), dtype=np.uint8)
    (path,) = inpainted(generator, scan, mask, tmp_path / "out").results
    assert set(stored(path)[HOLE].flatten()) == {400}


def test_nothing_drawn_is_background(
    generator: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decodes_to(monkeypatch, 0.01)
    scan = write_scan(tmp_path / "scan.nii.gz", head())
    mask = write_scan(tmp_path / "mask.nii.gz", hole(), dtype=np.uint8)
    (path,) = inpainted(generator, scan, mask, tmp_path / "out").results
    assert not stored(path)[HOLE].any()


def test_in_painting_on_a_grid_that_is_resampled(make_scan_generator: Any, tmp_path: Path) -> None:
    model = make_scan_generator(
        preprocessing=PREPROCESSING.model_copy(update={"spacing_mm": (2.5, 0.7, 1.0)})
    )
    scan = write_scan(tmp_path / "scan.nii.gz", head(), OBLIQUE)
    mask = write_scan(tmp_path / "mask.nii.gz", hole(), OBLIQUE, np.uint8)
    (path,) = inpainted(model, scan, mask, tmp_path / "out").results
    before, after, inside = stored(scan), stored(path), hole() > 0
    np.testing.assert_array_equal(after[~inside], before[~inside])
    assert (after[inside] != before[inside]).mean() > 0.5


def test_the_seed_decides_what_is_painted(generator: Model, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii", head())
    mask = write_scan(tmp_path / "mask.nii.gz", hole(), dtype=np.uint8)
    one, same, other = (
        inpainted(generator, scan, mask, tmp_path / name, seed=seed).results[0].read_bytes()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert one == same != other


def test_masks_that_do_not_fit(generator: Model, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz", head())

    def sentence(mask: np.ndarray, affine: np.ndarray | None = None, modality: str = "T1") -> str:
        path = write_scan(tmp_path / "mask.nii.gz", mask, affine, np.uint8)
        with pytest.raises(Prod9Error) as caught:
            inpainted(generator, scan, path, tmp_path / "out", modality)
        assert not (tmp_path / "out").exists()
        return str(caught.value).replace(f"{tmp_path}/", "")

    assert sentence(0 * hole()).startswith("mask.nii.gz marks nothing")
    assert sentence(0 * hole() + 1).startswith("mask.nii.gz marks every voxel")
    other = "mask.nii.gz is on another grid than scan.nii.gz"
    assert sentence(hole()[:12]).startswith(f"{other} (13 x 12 x 9 and 12 x 12 x 9 voxels); ")
    assert sentence(hole(), AFFINES["LPS"]).startswith(f"{other} (affines that put a corner ")
    assert "no class or channel PD" in sentence(hole(), modality="PD")


@pytest.mark.parametrize("name", ["scan_inpainted.nii.gz", "scan_inpainted.png"])
def test_no_painting_is_replaced_without_leave(generator: Model, tmp_path: Path, name: str) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz", head())
    mask = write_scan(tmp_path / "mask.nii.gz", hole(), dtype=np.uint8)
    (tmp_path / name).write_text("mine")
    with pytest.raises(Prod9Error, match=f"{name} exists; pass --overwrite to replace it"):
        inpainted(generator, scan, mask, tmp_path)
    assert (tmp_path / name).read_text() == "mine"
    inpainted(generator, scan, mask, tmp_path, overwrite=True)
    assert (tmp_path / name).read_bytes() != b"mine"


# --- background ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(16, 16, 16), (17, 18, 19)])
@pytest.mark.parametrize("voxel", [(0, 0, 0), (7, 8, 9), (8, 3, 12), (15, 15, 15)])
def test_one_bright_voxel_makes_27_cells(
    make_scan_generator: Any, shape: tuple[int, int, int], voxel: tuple[int, int, int]
) -> None:
    """Strides of 4; padding to a multiple of it is shared, less before than behind."""
    model = make_scan_generator(num_channels=(8, 8, 8))
    volume = torch.zeros(1, 1, *shape)
    volume[(0, 0, *voxel)] = 1e-3
    background = background_cells(model, [torch.zeros_like(volume), volume])
    grid = tuple(-(-side // 4) for side in shape)
    assert background.shape == grid == model.tokenizer.grid(shape)
    before = [(4 * cells - side) // 2 for cells, side in zip(grid, shape, strict=True)]
    own = [(v + b) // 4 for v, b in zip(voxel, before, strict=True)]
    for cell in np.ndindex(*grid):
        near = max(abs(a - b) for a, b in zip(cell, own, strict=True)) <= 1
        assert bool(background[cell]) is not near


def test_nothing_is_background_of_everything(generator: Model) -> None:
    assert background_cells(generator, [torch.zeros(1, 1, 7, 8, 9)]).all()
    assert not background_cells(generator, [torch.ones(1, 1, 7, 8, 9)]).any()


# --- what the review of mistakes added ------------------------------------------------------------


def test_sources_of_several_types_give_a_type_that_holds_their_range(
    generator: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decodes_to(monkeypatch, 1.0)
    sources = {
        "T1": write_scan(tmp_path / "t1.nii.gz", head(0, low=100, high=255), dtype=np.uint8),
        "T2": write_scan(tmp_path / "t2.nii.gz", head(1, low=100, high=2000)),
    }
    image = nib.nifti1.load(translated(generator, tmp_path, sources).results[0])
    assert image.get_data_dtype() == np.float32
    tops = [float(stored(path).max()) for path in sources.values()]
    assert np.asarray(image.dataobj).max() == pytest.approx(sum(tops) / 2, rel=1e-6)


@pytest.mark.parametrize("value", [0, 7])
def test_a_scan_without_contrast_is_refused(generator: Model, tmp_path: Path, value: int) -> None:
    flat = write_scan(tmp_path / "flat.nii.gz", (head(0) > 0) * np.float32(value))
    with pytest.raises(Prod9Error, match=r"flat\.nii\.gz has no contrast"):
        translated(generator, tmp_path, {"T1": flat})
    mask = write_scan(tmp_path / "mask.nii.gz", (head(0) > 500).astype(np.float32))
    with pytest.raises(Prod9Error, match=r"flat\.nii\.gz has no contrast"):
        inpainted(generator, flat, mask, tmp_path, "T1")


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_input_is_never_replaced(generator: Model, tmp_path: Path, overwrite: bool) -> None:
    sources = two_sources(tmp_path)
    before = sources["T1"].read_bytes()
    with pytest.raises(Prod9Error, match="is one of the inputs"):
        translated(generator, tmp_path, sources, name="t1.nii.gz", overwrite=overwrite)
    assert sources["T1"].read_bytes() == before


def test_in_painting_says_how_it_was_made(generator: Model, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "t1.nii.gz", head(0))
    mask = write_scan(tmp_path / "mask.nii.gz", (head(0) > 700).astype(np.float32))
    inpainted(generator, scan, mask, tmp_path / "out", "T1", seed=3)
    record = json.loads((tmp_path / "out" / "t1_inpainted.json").read_text())
    assert (record["seed"], record["modality"]) == (3, "T1")
    assert (record["input"], record["mask"]) == (str(scan), str(mask))
