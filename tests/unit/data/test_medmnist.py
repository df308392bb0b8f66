import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prod9.config import MedMNISTDataConfig
from prod9.data import brain_region_table, brain_regions, medmnist
from prod9.data.medmnist_table import PUBLISHED, TABLE, class_names
from prod9.data.splits import SPLITS
from prod9.errors import Prod9Error

Arrays = dict[str, np.ndarray]
SIZES = {"train": 4, "val": 2, "test": 3}


def arrays_for(flag: str = "nodulemnist3d", size: int = 28) -> Arrays:
    """Three splits in MedMNIST's layout; each volume is filled with a number of its own."""
    row = TABLE[flag]
    base = 10 * list(TABLE).index(flag)
    arrays: Arrays = {}
    for split, count in SIZES.items():
        values = base + np.arange(count, dtype=np.uint8)
        arrays[f"{split}_images"] = np.broadcast_to(
            values[:, None, None, None], (count, size, size, size)
        ).copy()
        labels = np.arange(count)[::-1] % len(row.class_names)
        arrays[f"{split}_labels"] = labels.astype(np.uint8)[:, None]
    return arrays


def write(root: Path, flag: str = "nodulemnist3d", size: int = 28, **change: Any) -> Path:
    arrays = arrays_for(flag, size)
    arrays.update(change)
    path = TABLE[flag].file(root, size)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def config(root: Path, dataset_name: Any = "nodulemnist3d", **more: Any) -> MedMNISTDataConfig:
    return MedMNISTDataConfig(dataset_name=dataset_name, root=root, download=False, **more)


def refused(root: Path, split: Any = "train", **more: Any) -> str:
    with pytest.raises(Prod9Error) as caught:
        medmnist.load(config(root, **more), split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_table_is_the_published_one() -> None:
    assert sum(sum(row.split_sizes) for row in PUBLISHED) == 9996  # version 3 of the record
    assert [len(row.class_names) for row in PUBLISHED] == [11, 2, 2, 3, 2, 2]
    digests = [digest for row in PUBLISHED for digest in row.md5.values()]
    assert len(set(digests)) == 12
    assert all(len(digest) == 32 and int(digest, 16) for digest in digests)
    row = TABLE["vesselmnist3d"]
    assert row.url(28) == ("https://zenodo.org/records/10519652/files/vesselmnist3d.npz?download=1")
    assert row.url(64) == (
        "https://zenodo.org/records/10519652/files/vesselmnist3d_64.npz?download=1"
    )


def test_class_names() -> None:
    assert class_names("fracturemnist3d") == ("buckle", "nondisplaced", "displaced")
    assert class_names("brainregionmnist3d") == brain_region_table.CLASS_NAMES
    joint = class_names("all")
    assert len(joint) == len(set(joint)) == 22
    assert joint[0] == "organmnist3d/liver"
    assert joint[11:13] == ("nodulemnist3d/benign", "nodulemnist3d/malignant")
    assert joint[-1] == "synapsemnist3d/excitatory"


@pytest.mark.parametrize("size", [28, 64])
def test_a_file_that_is_there_is_read_whatever_its_digest(tmp_path: Path, size: Any) -> None:
    write(tmp_path, size=size)
    volumes = medmnist.load(config(tmp_path, size=size), "test")
    assert volumes.images.dtype == np.uint8
    assert volumes.images.shape == (3, 1, size, size, size)
    assert volumes.images[:, 0, 0, 0, 0].tolist() == [10, 11, 12]
    assert [volumes.class_of(item) for item in range(3)] == [0, 1, 0]
    assert volumes.names[2] == "nodulemnist3d/test/2"
    assert len(volumes) == 3
    assert volumes.flip_axes(0) == volumes.flip_axes(1) == (0, 1, 2)


def test_labels_may_be_flat(tmp_path: Path) -> None:
    write(tmp_path, train_labels=np.array([0, 1, 1, 0]))
    assert medmnist.load(config(tmp_path), "train").classes.tolist() == [0, 1, 1, 0]


def test_all_joins_the_six_with_labels_of_their_own(tmp_path: Path) -> None:
    for row in PUBLISHED:
        write(tmp_path, row.flag)
    volumes = medmnist.load(config(tmp_path, "all"), "val")
    assert volumes.images[:, 0, 0, 0, 0].tolist() == [0, 1, 10, 11, 20, 21, 30, 31, 40, 41, 50, 51]
    assert volumes.classes.tolist() == [1, 0, 12, 11, 14, 13, 16, 15, 19, 18, 21, 20]
    assert volumes.names[5] == "adrenalmnist3d/val/1"
    assert volumes.class_names[volumes.class_of(5)] == "adrenalmnist3d/normal"
    flips = [volumes.flip_axes(item) for item in range(12)]
    assert set(flips[:2]) == {()}
    assert set(flips[2:]) == {(0, 1, 2)}


def test_sides_of_the_body_are_never_flipped() -> None:
    assert TABLE["organmnist3d"].flip_axes == ()
    assert TABLE["brainregionmnist3d"].flip_axes == ()


def test_a_missing_file_without_download_says_everything(tmp_path: Path) -> None:
    message = refused(tmp_path, size=64, dataset_name="organmnist3d")
    for word in (
        "organmnist3d_64.npz?download=1",
        "58a2205adf14a9d0a189cb06dc78bf10",
        str(tmp_path / "organmnist3d_64.npz"),
        "data.dataset_name=brainregionmnist3d",
    ):
        assert word in message


def test_a_missing_file_is_downloaded_with_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def fetch(url: str, path: Path, *, digest: str, allowed: bool, **_: str) -> Path:
        asked.append((url, digest, allowed))
        return write(path.parent)

    monkeypatch.setattr(medmnist, "fetch", fetch)
    online = MedMNISTDataConfig(dataset_name="nodulemnist3d", root=tmp_path)
    assert len(medmnist.load(online, "train")) == 4
    assert len(medmnist.load(online, "val")) == 2
    row = TABLE["nodulemnist3d"]
    assert asked == [(row.url(28), "md5:8755a7e9e05a4d9ce80a24c3e7a256f3", True)]


def test_the_embedded_set_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []

    def build(path: Path, size: int) -> None:
        built.append(size)
        write(path.parent, "brainregionmnist3d")

    monkeypatch.setattr(brain_regions, "build", build)
    for split in SPLITS:
        medmnist.load(config(tmp_path, "brainregionmnist3d"), split)
    assert built == [28]
    assert [file.name for file in tmp_path.iterdir()] == ["brainregionmnist3d_v1.npz"]


def test_not_an_npz(tmp_path: Path) -> None:
    path = tmp_path / "nodulemnist3d.npz"
    path.write_bytes(b"<html>404</html>")
    assert "nodulemnist3d.npz cannot be read" in refused(tmp_path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_truncated(tmp_path: Path, share: float) -> None:
    path = write(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "nodulemnist3d.npz cannot be read" in refused(tmp_path)


def test_damaged_voxels(tmp_path: Path) -> None:
    path = tmp_path / "nodulemnist3d.npz"
    np.savez(path, **arrays_for())
    content = bytearray(path.read_bytes())
    content[40_000] ^= 1  # inside train_images: only the checksum can tell
    path.write_bytes(content)
    message = refused(tmp_path)
    assert "train_images" in message
    assert "nodulemnist3d.npz cannot be read" in message


def test_pickled(tmp_path: Path) -> None:
    write(tmp_path, train_images=np.array([{"a": 1}] * 4, dtype=object))
    message = refused(tmp_path)
    assert "pickled" in message


@pytest.mark.parametrize("key", ["train_images", "train_labels"])
def test_a_missing_array_is_named(tmp_path: Path, key: str) -> None:
    write(tmp_path, **{key: None})
    message = refused(tmp_path)
    assert f"no array '{key}'" in message
    assert "nodulemnist3d.npz" in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train_images": np.zeros((4, 28, 28, 28), np.float32)}, ("uint8", "float32")),
        ({"train_images": np.zeros((4, 28, 28), np.uint8)}, ("N x 28 x 28 x 28", "4 x 28 x 28 of")),
        ({"train_images": np.zeros((4, 64, 64, 64), np.uint8)}, ("data.size", "64 x 64 x 64")),
        ({"train_labels": np.zeros((5, 1), np.uint8)}, ("'train_labels'", "N x 1", "5 x 1")),
        ({"train_labels": np.zeros((4, 2), np.uint8)}, ("'train_labels'", "4 x 2")),
        ({"train_labels": np.zeros((4, 1), np.float64)}, ("'train_labels'", "float64")),
        ({"train_labels": np.full((4, 1), 2, np.uint8)}, ("'train_labels'", "0..1", "2..2")),
        ({"train_labels": np.full((4, 1), -1, np.int8)}, ("'train_labels'", "-1..-1")),
        (
            {
                "train_images": np.zeros((0, 28, 28, 28), np.uint8),
                "train_labels": np.zeros((0, 1), np.uint8),
            },
            ("'train_images'", "0 x 28"),
        ),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, change: Arrays, words: tuple[str, ...]) -> None:
    write(tmp_path, **change)
    message = refused(tmp_path)
    assert str(tmp_path / "nodulemnist3d.npz") in message
    for word in words:
        assert word in message
    assert len(medmnist.load(config(tmp_path), "val")) == 2  # the other splits are sound
    with pytest.raises(Prod9Error):
        medmnist.check(config(tmp_path))


def test_a_forged_header_is_refused_before_allocating(tmp_path: Path) -> None:
    path = write(tmp_path, train_images=None)
    header = (
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 28, 28, 28), }".ljust(
            117
        )
        + b"\n"
    )
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train_images.npy", b"\x93NUMPY\x01\x00\x76\x00" + header + bytes(100))
    message = refused(tmp_path)
    assert "'train_images'" in message


def test_check_accepts_a_sound_file(tmp_path: Path) -> None:
    write(tmp_path)
    medmnist.check(config(tmp_path))


def test_describe(tmp_path: Path) -> None:
    write(tmp_path, "vesselmnist3d", 64)
    (tmp_path / "nodulemnist3d.npz").write_bytes(b"broken")
    files = {(file.flag, file.size): file for file in medmnist.describe(tmp_path)}
    assert len(files) == 14
    vessel = files["vesselmnist3d", 64]
    assert vessel.present
    assert vessel.counts == SIZES
    assert vessel.path == tmp_path / "vesselmnist3d_64.npz"
    organ = files["organmnist3d", 28]
    assert not organ.present
    assert organ.counts == {"train": 971, "val": 161, "test": 610}
    assert organ.problem is None
    assert "cannot be read" in str(files["nodulemnist3d", 28].problem)
