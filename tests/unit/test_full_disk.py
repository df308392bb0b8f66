"""Every writer on a disk that is full or may not be written: one sentence, nothing lost."""

import resource
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from prod9.config import SamplerConfig, SlidingWindowConfig
from prod9.data.brats.phantom.cohort import make_phantom
from prod9.data.tokens.build import open_or_build
from prod9.data.tokens.store import TokenStoreKey
from prod9.data.volume_files.write import write_inside, write_nifti, write_volume
from prod9.errors import Prod9Error
from prod9.files import write_text
from prod9.inference.generate import generate_files
from prod9.inference.tokenizer import Tokenizer as FileTokenizer
from prod9.inference.tokenizer import reconstruct_file
from prod9.model import Model as VolumeGenerator
from prod9.model import save_transformer
from prod9.montage import montage, save_figure
from prod9.report.page import document
from prod9.sample_request import SampleRequest
from prod9.training.last_checkpoint import WholeCheckpoints

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")

# Incompressible.
VOXELS = np.random.default_rng(0).random((20, 20, 20)).astype(np.float32)
WINDOWS = SlidingWindowConfig()

Write = Callable[[Path], object]


@contextmanager
def full(room: int) -> Generator[None]:
    """Let no file of this process grow beyond ``room`` bytes: an OSError, as of a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def writers(make_generator: Callable[..., VolumeGenerator]) -> dict[str, Write]:
    """Return what writes a file, or a folder of them, of more than 300 bytes, at a path."""
    generator = make_generator()
    tokenizer = generator.tokenizer

    def encode_volumes(folder: Path) -> None:
        open_or_build(
            folder,
            TokenStoreKey("a", "b", "train"),
            names=[str(n) for n in range(20)],
            labels=np.zeros(20, np.int64),
            class_names=("ball",),
            grid=(8, 8, 8),
            codebook_size=60,
            encode=lambda start, stop: [torch.zeros(stop - start, 8, 8, 8, dtype=torch.int64)],
        )

    def generate(folder: Path) -> None:
        sampler, shape = SamplerConfig(steps=1), (10, 10, 10)
        request = SampleRequest((0, 0), sampler, batch_size=1, shape=shape)
        generate_files(generator, request, folder, overwrite=True)

    def infer(folder: Path) -> None:
        source = folder.parent.parent / "source.npy"
        reconstruct_file(
            FileTokenizer(tokenizer, WINDOWS), source, folder, save_tokens=True, overwrite=True
        )

    def paint(path: Path) -> None:
        source = path.parent.parent / "source.npy"
        write_inside(path, source, VOXELS, VOXELS > 0.5, overwrite=True)

    rows = [("ball", torch.rand(2, 1, 8, 8, 8))]
    return {
        "text": lambda path: write_text(path, "x" * 10_000),
        "page": lambda path: write_text(path, document("t", "l", [])),
        "tokenizer": tokenizer.save,
        "transformer": lambda path: save_transformer(path, generator.spec, generator.transformer),
        "checkpoint": lambda path: WholeCheckpoints().save_checkpoint({"x": VOXELS.tolist()}, path),
        "x.nii.gz": lambda path: write_nifti(path, VOXELS, np.eye(4), overwrite=True),
        "x.npy": lambda path: write_volume(path, VOXELS, overwrite=True),
        "painted.npy": paint,
        "figure.png": lambda path: save_figure(path, montage(rows)),
        "token store": encode_volumes,
        "generated": generate,
        "inferred": infer,
        "phantom": lambda path: make_phantom(path, cases=1, release="msd", seed=0, voxel_mm=8.0),
    }


NAMES = [
    *("text", "page", "tokenizer", "transformer", "checkpoint", "x.nii.gz", "x.npy"),
    *("painted.npy", "figure.png", "token store", "generated", "inferred", "phantom"),
]
FOLDERS = {"token store", "generated", "inferred", "phantom"}


def place(folder: Path, name: str) -> Path:
    """Return where a writer of the name writes; what it reads lies beside the folder."""
    np.save(folder.parent / "source.npy", VOXELS)
    return folder / name.replace(" ", "-")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("room", [300, pytest.param(0, marks=pytest.mark.slow)])
def test_a_full_disk(tmp_path: Path, writers: dict[str, Write], name: str, room: int) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    path = place(folder, name)
    if name not in FOLDERS:
        path.write_bytes(b"what was there before")
    with full(room), pytest.raises(Prod9Error) as caught:
        writers[name](path)
    message = str(caught.value)
    assert str(folder) in message
    assert "File too large" in message or "did not take all of it" in message
    assert "\n" not in message
    if name in FOLDERS:
        left = [entry.name for entry in path.rglob("*") if entry.is_file()]
        # A start that can be gone on with is no leftover.
        assert [x for x in left if x not in ("unfinished.json",)] == []
    else:
        assert path.read_bytes() == b"what was there before"
        assert [entry.name for entry in folder.iterdir()] == [path.name]
    writers[name](path)  # there is room again


@pytest.fixture
def small_disk(make_disk: Callable[[int], Path]) -> Path:
    return make_disk(1)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(1 << 12)):
            pass


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_is_really_full(small_disk: Path, writers: dict[str, Write], name: str) -> None:
    folder = small_disk / "out"
    folder.mkdir()
    path = place(folder, name)
    if name not in FOLDERS:
        path.write_bytes(b"what was there before")
    fill(small_disk / "filler")
    with pytest.raises(Prod9Error, match=r"No space left on device|did not take all of it"):
        writers[name](path)
    if name not in FOLDERS:
        assert path.read_bytes() == b"what was there before"
        assert [entry.name for entry in folder.iterdir()] == [path.name]
    (small_disk / "filler").unlink()
    writers[name](path)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_may_only_be_read(
    small_disk: Path, writers: dict[str, Write], name: str
) -> None:
    folder = small_disk / "out"
    folder.mkdir()
    path = place(folder, name)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(Prod9Error, match="Read-only file system"):
        writers[name](path)
