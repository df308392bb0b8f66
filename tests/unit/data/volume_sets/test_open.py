import gzip
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from prod9.data import brain_regions
from prod9.data.medmnist_table import TABLE
from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.write import write_nifti
from prod9.data.volume_sets import folder as folder_module
from prod9.data.volume_sets import volume_set as module
from prod9.data.volume_sets.open import named_dataset, open_volumes
from prod9.data.volume_sets.pairs import paired
from prod9.data.volume_sets.volume_set import VolumeSet
from prod9.errors import Prod9Error
from prod9.inference.generate import generation_affine

SHAPE = (4, 5, 6)
RAS = np.diag([1.0, 2.0, 3.0, 1.0])


def volume(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def nifti(path: Path, array: np.ndarray, affine: np.ndarray = RAS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)  # type: ignore[attr-defined]
    return path


def opened(what: Any, **more: Any) -> VolumeSet:
    return open_volumes(what, **{"root": Path("nowhere"), **more})


def refused(what: Any, **more: Any) -> str:
    with pytest.raises(Prod9Error) as caught:
        opened(what, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Folders.


def test_a_folder_of_bytes(tmp_path: Path) -> None:
    for seed in (2, 0, 1):
        nifti(tmp_path / f"v{seed}.nii{'.gz' * (seed % 2)}", volume(seed))
    found = opened(tmp_path)
    assert found.name == str(tmp_path)
    assert found.names == ("v0", "v1", "v2")
    assert found.files == tuple(tmp_path / name for name in ("v0.nii", "v1.nii.gz", "v2.nii"))
    assert (found.class_names, found.labels.tolist()) == (("all",), [0, 0, 0])
    assert (found.shape, found.spacing_mm, found.intensity) == (SHAPE, (1, 2, 3), "uint8 / 255")
    for index in range(3):
        assert found[index].dtype == np.float32
        assert np.array_equal(found[index], volume(index) / np.float32(255))
    with pytest.raises(IndexError):
        found[3]


def test_floats_and_scaled_integers(tmp_path: Path) -> None:
    half = volume(0).astype(np.float32) / 510
    np.save(tmp_path / "a.npy", half)
    image = nib.Nifti1Image(volume(1).astype(np.int16), RAS)
    image.header.set_slope_inter(0.002, 0.25)
    nib.save(image, tmp_path / "b.nii")  # type: ignore[attr-defined]
    found = opened(tmp_path)
    assert found.intensity == "stored in [0, 1]"
    assert found.spacing_mm is None
    assert np.array_equal(found[0], half)
    assert np.allclose(found[1], volume(1) * 0.002 + 0.25, atol=1e-6)


CODES = [
    a + b + c for a in "LR" for b in "AP" for c in "IS"
] + ["PSR", "SRA", "ILP", "ASL", "IPR", "SAL"]  # fmt: skip


@settings(max_examples=40)
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    codes=st.sampled_from(CODES),
    seed=st.integers(0, 2**32 - 1),
)
def test_axes_are_turned_to_right_front_up(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int, int], codes: str, seed: int
) -> None:
    upright = np.maximum(volume(seed, shape), 2)
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    stored = nib.orientations.apply_orientation(upright, turn)  # type: ignore[attr-defined]
    folder = tmp_path_factory.mktemp("turned")
    nifti(folder / "a.nii", upright)
    nifti(folder / "b.nii", stored, RAS @ inv_ornt_aff(turn, shape))
    found = opened(folder)
    assert found.shape == shape
    assert found.spacing_mm == pytest.approx((1, 2, 3))
    assert np.array_equal(found[0], upright / np.float32(255))
    assert np.array_equal(found[1], found[0])


def test_las_is_flipped(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii", volume(0), np.diag([-1.0, 2.0, 3.0, 1.0]))
    assert np.array_equal(opened(tmp_path)[0], volume(0)[::-1] / np.float32(255))


def test_grids_must_agree(tmp_path: Path) -> None:
    first = nifti(tmp_path / "a.nii", volume(0))
    # The same numbers of voxels, but of other axes.
    other = nifti(tmp_path / "b.nii", volume(1), RAS[[1, 0, 2, 3]])
    assert f"{first} has 4 x 5 x 6 voxels but {other} has 5 x 4 x 6" in refused(tmp_path)
    nifti(other, volume(1), np.diag([1.0, 2.0, 3.02, 1.0]))
    assert opened(tmp_path).spacing_mm == (1, 2, 3)
    nifti(other, volume(1), np.diag([1.0, 2.0, 3.05, 1.0]))
    message = refused(tmp_path)
    assert f"{first} has voxels of 1 x 2 x 3 mm but {other} of 1 x 2 x 3.05 mm" in message
    other.unlink()
    np.save(tmp_path / "c.npy", volume(1))
    assert opened(tmp_path).spacing_mm is None
    # An affine of another spacing is found whatever lies between.
    nifti(tmp_path / "d.nii", volume(1), np.diag([1.0, 2.0, 3.05, 1.0]))
    assert "resample them to one spacing" in refused(tmp_path)


def test_broken_files_are_named(tmp_path: Path) -> None:
    good = nifti(tmp_path / "a.nii", volume(0))
    bad = tmp_path / "b.nii"
    bad.write_bytes(b"no header")
    assert f"{bad} cannot be read" in refused(tmp_path)
    nifti(bad, volume(0, (4, 5, 6, 2)))
    assert f"{bad} has the shape 4 x 5 x 6 x 2; a volume has three axes" in refused(tmp_path)
    header = bytearray(good.read_bytes())
    header[42:48] = np.array([30000] * 3, "<i2").tobytes()
    bad.write_bytes(header)
    assert f"{bad} declares 30000 x 30000 x 30000 voxels" in refused(tmp_path)
    bad.unlink()
    bad = tmp_path / "b.npy"
    np.save(bad, np.array([[[{}]]], dtype=object))
    assert "pickled Python objects" in refused(tmp_path)
    voxels = volume(0) / np.float32(255)
    voxels[0, 0, 0] = np.nan
    np.save(bad, voxels)
    good.unlink()
    assert f"{bad} has 1 of 120 voxels that are NaN or infinite" in refused(tmp_path)


def test_intensities_are_checked_when_it_is_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", volume(0) / np.float32(255))
    np.save(tmp_path / "b.npy", volume(1).astype(np.float32))
    message = refused(tmp_path)
    low, high = volume(1).min(), volume(1).max()
    assert f"{tmp_path / 'b.npy'} holds float32 with values {low} to {high}" in message
    assert "outside the intensity range 0,200" in refused(tmp_path, intensity="0,200")
    assert "not auto, percentiles" in refused(tmp_path, intensity="bytes")
    fixed = opened(tmp_path, intensity="0,255")
    assert np.allclose(fixed[1], volume(1) / 255)
    assert fixed.intensity == "0 to 255, the same range for all volumes"
    np.save(tmp_path / "a.npy", volume(0))
    assert f"{tmp_path / 'a.npy'} holds uint8 and {tmp_path / 'b.npy'} holds float32" in refused(
        tmp_path
    )
    np.save(tmp_path / "b.npy", volume(1) > 99)
    (tmp_path / "a.npy").unlink()
    assert f"{tmp_path / 'b.npy'} holds bool with values 0 to 1" in refused(tmp_path)


def test_percentiles_by_hand(tmp_path: Path) -> None:
    # Foreground 10, 20 .. 10010: the percentiles 0.1 and 99.9 are its second and last but one.
    voxels = np.zeros((11, 13, 14), np.int16)
    voxels.reshape(-1)[500:1501] = np.arange(10, 10011, 10)
    nifti(tmp_path / "a.nii", voxels, np.diag([-1.0, 1.0, 1.0, 1.0]))
    found = opened(tmp_path, intensity="percentiles")
    expected = np.where(voxels > 0, ((voxels - 20.0) / 9980).clip(0, 1), 0)[::-1]
    assert np.allclose(found[0], expected, atol=1e-6)
    assert "hides differences of brightness" in found.intensity


def test_what_does_not_fit_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        nifti(tmp_path / f"{seed}.nii", volume(seed))
    read: list[str] = []

    def counted(path: Path) -> Any:
        read.append(path.name)
        return read_volume(path)

    monkeypatch.setattr(folder_module, "read_volume", counted)
    monkeypatch.setattr(module, "MEMORY_BUDGET", 2 * 4 * 4 * 5 * 6)
    found = opened(tmp_path)
    assert set(read) == {"0.nii", "1.nii", "2.nii"}
    read.clear()
    for _ in range(2):
        for index in range(3):
            assert np.array_equal(found[index], volume(index) / np.float32(255))
            found[index][:] = 0  # the caller's own
    assert read == ["2.nii"] * 4
    read.clear()
    monkeypatch.setattr(module, "MEMORY_BUDGET", 0)
    none_kept = opened(tmp_path)
    assert none_kept.sha256 == found.sha256
    nifti(tmp_path / "0.nii", volume(0, (5, 5, 6)))
    with pytest.raises(Prod9Error, match=r"0.nii has 5 x 5 x 6"):
        none_kept[0]
    nifti(tmp_path / "1.nii", volume(1).astype(np.int16))
    with pytest.raises(Prod9Error, match=r"1.nii holds int16"):
        none_kept[1]


def test_folders_as_prod9_generates_them(tmp_path: Path) -> None:
    classes = ("organmnist3d/liver", "organmnist3d/heart")
    samples: list[dict[str, Any]] = []
    for index, label in enumerate([0, 0, 1]):
        file = f"{index:04d}_{classes[label].replace('/', '-')}.nii.gz"
        affine = generation_affine(SHAPE, (2.0, 2.0, 2.0))
        write_nifti(tmp_path / file, volume(index), affine, np.uint8)
        samples.append({"file": file, "class": classes[label], "label": label, "index": index})
    content = {"prod9": "0", "seed": 0, "classes": classes, "samples": samples}
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    (tmp_path / "montage.png").touch()
    found = opened(tmp_path)
    assert found.names[2] == "0002_organmnist3d-heart"
    assert found.counts == {"organmnist3d/heart": 1, "organmnist3d/liver": 2}
    assert (found.spacing_mm, found.intensity) == ((2, 2, 2), "uint8 / 255")
    assert np.array_equal(found[2], volume(2) / np.float32(255))
    (tmp_path / samples[0]["file"]).unlink()
    assert "has no volume '0000_organmnist3d-liver.nii.gz'" in refused(tmp_path)


def test_class_folders_and_a_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "volumes"
    nifti(folder / "liver" / "1.nii", volume(0))
    nifti(folder / "heart" / "1.nii", volume(1))
    found = opened(str(folder))
    assert found.names == ("heart/1", "liver/1")
    assert found.class_names == ("heart", "liver")
    assert found.labels.tolist() == [0, 1]
    (folder / "manifest.csv").write_text("file,class\nliver/1.nii,a\nheart/1.nii,b\n")
    found = opened(folder)
    assert found.counts == {"a": 1, "b": 1}
    assert found.labels.tolist() == [1, 0]


def test_a_folder_and_its_reconstructions(tmp_path: Path) -> None:
    for seed in range(3):
        nifti(tmp_path / "real" / f"s{seed}.nii.gz", volume(seed))
    for seed in (2, 1):
        path = nifti(tmp_path / "infer" / f"s{seed}_reconstructed.nii.gz", volume(seed + 10))
        path.with_name(f"s{seed}_reconstructed.tokens.npz").touch()
    originals, result = paired(opened(tmp_path / "real"), opened(tmp_path / "infer"))
    for index, seed in enumerate((1, 2)):
        assert np.array_equal(originals[index], volume(seed) / np.float32(255))
        assert np.array_equal(result[index], volume(seed + 10) / np.float32(255))


def test_a_damaged_gzip(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii.gz", volume(0))
    packed = bytearray(gzip.compress(gzip.decompress(path.read_bytes())))
    packed[-6] ^= 1  # of the checksum
    path.write_bytes(packed)
    assert f"{path} cannot be read" in refused(tmp_path)


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    for what in (str(nifti(tmp_path / "a.nii", volume(0))), "", tmp_path / "gone"):
        message = refused(what)
        assert "neither a folder nor a data set" in message
        assert str(what) in message
    assert "did you mean the data set organmnist3d" in refused("organmnst3d")
    assert "did you mean the data set brainregionmnist3d" in refused("brainregionsmnist3d/test")


# Arrays.


def test_arrays(tmp_path: Path) -> None:
    stored = np.stack([volume(0), volume(1)])
    for array in (stored, stored[:, None], torch.from_numpy(stored)):
        found = opened(array, name="mine")
        assert (found.name, found.names, found.shape) == ("mine", ("0", "1"), SHAPE)
        assert found.intensity == "uint8 / 255"
        assert np.array_equal(found[1], volume(1) / np.float32(255))
    assert opened(found) is found
    assert np.array_equal(opened(stored / 255.0)[0], (volume(0) / 255).astype(np.float32))
    assert np.array_equal(opened(stored.astype(np.int16), intensity="0,255")[1], found[1])
    assert "mine[0] holds int16" in refused(stored.astype(np.int16), name="mine")
    assert "(N, D, H, W)" in refused(stored[0])
    assert "NaN" in refused(np.full((2, 3, 3, 3), np.nan))


# Data sets.


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two of MedMNIST's files, each volume full of a number of its own."""
    arrays: dict[str, np.ndarray] = {}
    for base, split in ((10, "train"), (20, "val"), (30, "test")):
        images = np.empty((3, 28, 28, 28), np.uint8)
        images[:] = (base + np.arange(3))[:, None, None, None]
        arrays[f"{split}_images"] = images
        arrays[f"{split}_labels"] = np.array([[1], [0], [1]], np.uint8)
    folder = tmp_path / "root"
    folder.mkdir()
    for name in ("nodulemnist3d", "brainregionmnist3d"):
        np.savez_compressed(TABLE[name].file(folder, 28), **arrays)
    return folder


def test_a_data_set_and_its_splits(root: Path) -> None:
    for what, split, base in (
        ("nodulemnist3d", "test", 30),
        ("nodulemnist3d/val", "val", 20),
        ("nodulemnist3d/train", "train", 10),
    ):
        found = opened(what, root=root)
        assert found.name == f"nodulemnist3d/{split}"
        assert [round(255 * float(found[i].max())) for i in range(3)] == [
            base + i for i in range(3)
        ]
        assert found.class_names == ("benign", "malignant")
        assert found.labels.tolist() == [1, 0, 1]
        assert (found.shape, found.spacing_mm, found.files) == ((28, 28, 28), None, None)
        assert found.intensity == "uint8 / 255"
    assert opened("brainregionmnist3d", root=root).spacing_mm == (2, 2, 2)
    # A fixed range is the folders' business, percentiles are everyone's.
    assert opened("nodulemnist3d", root=root, intensity="0,9").intensity == "uint8 / 255"
    by_itself = opened("nodulemnist3d", root=root, intensity="percentiles")
    assert by_itself.intensity.startswith("percentiles")
    assert by_itself[0].max() == 0  # a constant has no range


def test_the_embedded_data_set_is_built(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = TABLE["brainregionmnist3d"].file(root, 28)
    content = built.read_bytes()
    built.unlink()
    monkeypatch.setattr(brain_regions, "build", lambda path, size: path.write_bytes(content))
    assert len(opened("brainregionmnist3d", root=root)) == 3


def test_data_sets_that_cannot_be_opened(root: Path) -> None:
    message = refused("organmnist3d", root=root)
    assert f"is not at {root / 'organmnist3d.npz'}" in message
    assert f"`prod9 data fetch organmnist3d --size 28 --root {root}`" in message
    assert f"is not at {root / 'organmnist3d.npz'}" in refused("all", root=root)
    assert "or nodulemnist3d/val?" in refused("nodulemnist3d/dev", root=root)
    assert "28 or 64 voxels per side, not 32" in refused("nodulemnist3d", root=root, size=32)


def test_a_folder_of_a_data_sets_name(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nifti(tmp_path / "nodulemnist3d" / "a.nii", volume(0))
    message = refused("nodulemnist3d", root=root)
    assert "nodulemnist3d is both a data set and a folder here" in message
    assert "write ./nodulemnist3d for the folder" in message
    for folder in ("./nodulemnist3d", "nodulemnist3d/", Path("nodulemnist3d")):
        assert opened(folder, root=root).names == ("a",)
    assert opened("nodulemnist3d/test", root=root).name == "nodulemnist3d/test"
    nifti(tmp_path / "all" / "mine" / "b.nii", volume(0))
    assert opened("all/mine", root=root).names == ("b",)
    nifti(tmp_path / "nodulemnist3d" / "test" / "a.nii", volume(0))
    assert "write ./nodulemnist3d/test for the folder" in refused("nodulemnist3d/test", root=root)


def test_names_of_data_sets() -> None:
    assert named_dataset("vesselmnist3d") == ("vesselmnist3d", "test")
    assert named_dataset("all/val") == ("all", "val")
    assert named_dataset("some/folder") is None
    assert named_dataset(Path("vesselmnist3d")) is None
