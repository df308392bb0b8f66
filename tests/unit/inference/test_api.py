"""The Python API: what goes in, what comes out, and that it equals what the commands write."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from scan_files import AFFINES, OBLIQUE, head, stored, write_scan

import prod9
from prod9.inference.generate import generate_files
from prod9.inference.inpaint import inpaint_files
from prod9.inference.model import Model
from prod9.inference.tokenizer import reconstruct_file
from prod9.inference.translate import translate_files
from prod9.model import Model as Network
from prod9.model import save_transformer


def saved(network: Network, folder: Path, recorded: str = "") -> Path:
    """Write a tokenizer and a run folder beside it."""
    network.tokenizer.save(folder / "autoencoder.pt")
    spec = network.spec.model_copy(update={"config_yaml": recorded})
    save_transformer(folder / "run" / "transformer.pt", spec, network.transformer)
    return folder / "run"


@pytest.fixture
def model(make_scan_generator: Callable[..., Network], tmp_path: Path) -> Model:
    loaded = prod9.load(saved(make_scan_generator(), tmp_path), device="cpu")
    assert isinstance(loaded, prod9.Model)
    return loaded


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return write_scan(tmp_path / "t1.nii.gz", head(0), OBLIQUE)


def test_what_can_be_loaded(make_generator: Any, tmp_path: Path) -> None:
    network = make_generator()
    run = saved(network, tmp_path, "autoencoder_path: elsewhere/autoencoder.pt\nseed: 5\n")
    for path in (run, str(run), run / "transformer.pt"):
        loaded = prod9.load(path, device="cpu")
        assert loaded.network.digest == prod9.load(run).network.digest
        assert loaded.generation.seed == 5
    for path in (tmp_path / "autoencoder.pt", str(tmp_path / "autoencoder.pt")):
        assert isinstance(prod9.load(path), prod9.Tokenizer)
        assert prod9.Tokenizer.load(path).network.digest == network.tokenizer.digest
    (tmp_path / "autoencoder.pt").rename(tmp_path / "moved.pt")
    with pytest.raises(prod9.Prod9Error, match="tokenizer=PATH"):
        prod9.load(run)
    assert isinstance(prod9.load(run, tokenizer=str(tmp_path / "moved.pt")), prod9.Model)
    with pytest.raises(prod9.Prod9Error, match=r"no file .*none"):
        prod9.load(tmp_path / "none")


def test_settings_are_those_of_the_training(make_generator: Any, tmp_path: Path) -> None:
    recorded = (
        "sampler: {steps: 2}\ncompletion: {steps: 3, temperature: 0.5}\ndata: {batch_size: 3}\n"
        "sliding_window: {roi_size: [8, 8, 8], overlap: 0.25}\n"
    )
    loaded = prod9.load(saved(make_generator(), tmp_path, recorded))
    assert (loaded.generation.sampler.steps, loaded.generation.batch_size) == (2, 3)
    assert (loaded.completion.sampler.steps, loaded.completion.sampler.temperature) == (3, 0.5)
    assert loaded.tokenizer.windows.overlap == 0.25


def test_generated_volumes_are_the_commands(make_generator: Any, tmp_path: Path) -> None:
    loaded = prod9.load(saved(make_generator(), tmp_path, "data: {batch_size: 2}\n"))
    images = loaded.generate(n=2, seed=3, steps=2)
    request = replace(loaded.generation, labels=(0, 0, 1, 1), seed=3)
    request = replace(request, sampler=request.sampler.model_copy(update={"steps": 2}))
    generate_files(loaded.network, request, tmp_path / "out", overwrite=False)
    files = sorted((tmp_path / "out").glob("*.nii.gz"))
    assert len(files) == len(images) == 4
    for image, path in zip(images, files, strict=True):
        assert image.get_data_dtype() == np.float32
        assert np.array_equal((image.get_fdata() * 255).round(), stored(path))
        assert np.array_equal(image.affine, nib.nifti1.load(path).affine)
    (one,) = loaded.generate("box", seed=3, steps=2, shape=(8, 10, 8))
    assert one.shape == (8, 10, 8)
    for wrong in ({"label": "boks"}, {"n": 0}, {"steps": 0}, {"stepps": 3}):
        with pytest.raises(prod9.Prod9Error):
            loaded.generate(**wrong)


def kinds_of(path: Path) -> dict[str, Any]:
    image = nib.nifti1.load(path)
    voxels = np.asarray(image.dataobj)
    return {
        "str": str(path),
        "path": path,
        "image": image,
        "array": voxels,
        "tensor": torch.from_numpy(voxels.astype(np.float32)),
    }


@pytest.mark.parametrize("kind", ["str", "path", "image", "array", "tensor"])
def test_reconstructions(model: Model, tmp_path: Path, kind: str) -> None:
    # An array has no affine: it is taken to be upright, with voxels of 1 mm.
    affine = AFFINES["1 mm"] if kind in ("array", "tensor") else OBLIQUE
    path = write_scan(tmp_path / "scan.nii", head(0), affine, np.float32)
    tokenizer = model.tokenizer
    target, _ = reconstruct_file(tokenizer, path, tmp_path, save_tokens=True, overwrite=False)
    result = tokenizer.reconstruct(kinds_of(path)[kind])
    encoded = tokenizer.encode(kinds_of(path)[kind])
    with np.load(tmp_path / "scan_reconstructed.tokens.npz") as file:
        assert np.array_equal(encoded.tokens, file["tokens"])
    if kind in ("array", "tensor"):
        assert isinstance(result, np.ndarray)
        assert np.array_equal(result, stored(target))
    else:
        assert np.array_equal(result.get_fdata(dtype=np.float32), stored(target))
        np.testing.assert_allclose(result.affine, OBLIQUE, atol=1e-5)
        assert nib.aff2axcodes(tokenizer.decode(encoded).affine) == ("R", "A", "S")


def test_tokens_from_anywhere(model: Model, scan: Path, tmp_path: Path) -> None:
    tokenizer = model.tokenizer
    encoded = tokenizer.encode(scan)
    encoded.save(str(tmp_path / "a.tokens.npz"))
    image = tokenizer.decode(encoded)
    again = tokenizer.decode(tmp_path / "a.tokens.npz")
    assert np.array_equal(image.get_fdata(), again.get_fdata())
    grid = np.zeros(tokenizer.network.grid(), np.uint8)
    assert tokenizer.decode(grid).shape == tokenizer.network.spec.volume_shape
    assert tokenizer.decode(torch.zeros(2, 2, 3).long()).shape == (4, 4, 6)
    assert tokenizer.decode(grid[:2, :2, :3], shape=(3, 4, 6)).shape == (3, 4, 6)
    for wrong in (grid[0], grid + 0.5, grid + 60, grid.astype(int) - 1):
        with pytest.raises(prod9.Prod9Error):
            tokenizer.decode(wrong)
    with pytest.raises(prod9.Prod9Error, match="another tokenizer"):
        tokenizer.decode(replace(encoded, digest="00" * 32))


def test_translations_are_the_commands(model: Model, scan: Path, tmp_path: Path) -> None:
    paths = {"T1": scan, "T2": write_scan(tmp_path / "t2.nii.gz", head(1), OBLIQUE)}
    first, second = model.translate(paths, "FLAIR", n=2, seed=4, steps=2)
    sampler = model.completion.sampler.model_copy(update={"steps": 2})
    request = replace(model.completion, labels=(3, 3), seed=4, sampler=sampler)
    files = translate_files(
        model.network, paths, tmp_path / "flair.nii.gz", request, overwrite=False
    )
    for image, path in zip((first, second), files.results[1:3], strict=True):
        assert np.array_equal(image.get_fdata().round(), stored(path))
        np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)
    for kind in ("str", "image", "array", "tensor"):
        given = {name: kinds_of(path)[kind] for name, path in paths.items()}
        (result,) = model.translate(given, "FLAIR", seed=4, steps=2)
        assert isinstance(result, np.ndarray) == (kind in ("array", "tensor"))
        assert result.shape == first.shape
    for sources, target in (({}, "T1"), (paths, "T1"), (paths, "PET"), ({"PET": scan}, "T1")):
        with pytest.raises(prod9.Prod9Error):
            model.translate(sources, target)


@pytest.mark.parametrize("kind", ["str", "path", "image", "array", "tensor"])
def test_in_painting(model: Model, tmp_path: Path, kind: str) -> None:
    affine = AFFINES["1 mm"]
    scan = write_scan(tmp_path / "scan.nii.gz", head(0), affine)
    hole = np.zeros((13, 12, 9), np.uint8)
    hole[4:7, 5:8, 3:5] = 1
    mask = write_scan(tmp_path / "mask.nii.gz", hole, affine, np.uint8)
    given = kinds_of(scan)[kind], kinds_of(mask)[kind]
    (result,) = model.inpaint(*given, channel="t2", seed=1, steps=2)
    voxels = result if isinstance(result, np.ndarray) else result.get_fdata()
    assert np.array_equal(voxels[hole == 0], stored(scan)[hole == 0])
    assert isinstance(result, np.ndarray) == (kind in ("array", "tensor"))
    if isinstance(result, np.ndarray):
        return
    np.testing.assert_allclose(result.affine, affine)
    sampler = model.completion.sampler.model_copy(update={"steps": 2})
    request = replace(model.completion, labels=(2,), seed=1, sampler=sampler)
    files = inpaint_files(model.network, scan, mask, tmp_path / "out", request, overwrite=False)
    assert np.array_equal(voxels.round(), stored(files.results[0]))


@pytest.mark.parametrize(
    "volume",
    [np.zeros((3, 4)), np.full((4, 4, 4), np.nan), np.zeros((4, 4, 4), complex), "none.nii.gz"],
)
def test_volumes_that_are_none(model: Model, volume: Any) -> None:
    with pytest.raises(prod9.Prod9Error):
        model.tokenizer.encode(volume)


def test_it_is_silent(model: Model, scan: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model.generate("T1", steps=1)
    model.translate({"T1": scan}, "T2", steps=1)
    mask = write_scan(scan.with_name("mask.nii.gz"), head(0) > 700, OBLIQUE)
    model.inpaint(scan, mask, "T1", steps=1)
    model.tokenizer.decode(model.tokenizer.encode(scan))
    assert capfd.readouterr() == ("", "")


def test_evaluation_of_arrays(capfd: pytest.CaptureFixture[str]) -> None:
    real = np.random.default_rng(0).random((2, 12, 12, 12), np.float32)
    figures = prod9.evaluate(real, reconstructed=real / 2)
    assert figures.reconstruction is not None
    decibels = -10 * np.log10(np.square(real / 2).mean((1, 2, 3)))
    assert figures.reconstruction.psnr == pytest.approx(decibels.mean(), rel=1e-4)
    assert capfd.readouterr() == ("", "")


def test_mistakes_are_exceptions_of_one_class(tmp_path: Path) -> None:
    none, volumes = tmp_path / "none.yaml", np.zeros((2, 8, 8, 8))
    calls: list[Callable[[], Any]] = [
        lambda: prod9.load(none),
        lambda: prod9.Tokenizer.load(none),
        lambda: prod9.train(none),
        lambda: prod9.evaluate(volumes),
        lambda: prod9.evaluate(volumes, none),
    ]
    for call in calls:
        with pytest.raises(prod9.Prod9Error):
            call()


def test_importing_it_imports_nothing_large() -> None:
    code = "import sys, prod9; prod9.Prod9Error; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert not {"torch", "numpy", "pydantic", "yaml"} & {*done.stdout.split()}
    assert {*prod9.__all__} <= {*dir(prod9)}
    with pytest.raises(AttributeError):
        prod9.nothing_of_the_kind  # noqa: B018
