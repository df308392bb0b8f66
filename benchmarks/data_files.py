"""Files for the data benchmarks, written once into prod9's cache folder.

By a process of their own: what writing takes must not count as memory of whoever reads.
"""

import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prod9.data.brats.phantom.cohort import make_phantom
from prod9.data.medmnist_table import TABLE
from prod9.data.tokens.build import open_or_build
from prod9.data.tokens.store import TokenStoreKey
from prod9.runtime.cache import cache_dir

MEDMNIST = "organmnist3d"
CODES = 512
_VERSION = 1
"""Raise it with any change: older files are then left unused."""
_PART = 100


def volumes(count: int, side: int) -> np.ndarray:
    """Return uint8 (count, side, side, side): smooth shapes and a little noise, as scans pack."""
    stream = torch.Generator().manual_seed(0)
    few = min(count, _PART)
    coarse = torch.rand(few, 1, 5, 5, 5, generator=stream)
    fine = F.interpolate(coarse, size=[side] * 3, mode="trilinear")[:, 0]
    fine += 0.01 * torch.randn(fine.shape, generator=stream)
    different = (fine.clamp(0, 1) * 255).to(torch.uint8).numpy()
    # Repeated: deflate looks back by 32 KiB only, so that they pack no better.
    return np.resize(different, (count, side, side, side))


def write_npz(folder: Path, count: int, side: int) -> None:
    """Write a compressed npz in MedMNIST's layout, ``count`` training volumes."""
    row = TABLE[MEDMNIST]
    arrays: dict[str, np.ndarray] = {}
    for split, size in (("train", count), ("val", 1), ("test", 1)):
        arrays[f"{split}_images"] = volumes(size, side)
        labels = np.arange(size) % len(row.class_names)
        arrays[f"{split}_labels"] = labels.astype(np.uint8)[:, None]
    np.savez_compressed(row.file(folder, side), **arrays)


def write_scans(folder: Path, cases: int, voxel_mm: float) -> None:
    """Write drawn scans in the layout of BraTS 2021."""
    make_phantom(folder, cases=cases, release="2021", seed=0, voxel_mm=float(voxel_mm))


def write_tokens(folder: Path, count: int, side: int, npy: bool) -> None:
    """Write a token store, and the same tokens as a ``.npy`` a volume where ``npy`` asks for it."""
    stream = torch.Generator().manual_seed(0)
    tokens = torch.randint(CODES, (count, side, side, side), generator=stream)
    labels = torch.arange(count) % 11

    def encode(first: int, stop: int) -> Iterator[Tensor]:
        yield tokens[first:stop]

    store = open_or_build(
        folder,
        TokenStoreKey("benchmark", "benchmark", "train"),
        names=[f"volume {index}" for index in range(count)],
        labels=labels.numpy(),
        class_names=TABLE[MEDMNIST].class_names,
        grid=(side, side, side),
        codebook_size=CODES,
        encode=encode,
    )
    store.path.rename(folder / "store")
    if npy:
        small = tokens.numpy().astype(np.uint16)
        for index in range(count):
            np.save(folder / f"{index:05d}.npy", small[index])
        np.save(folder / "labels.npy", labels.numpy())


_WRITERS: dict[str, Callable[..., None]] = {
    "npz": write_npz,
    "scans": write_scans,
    "tokens": write_tokens,
}


def files(kind: str, **sizes: Any) -> Path:
    """Return a folder of files; write them, in another process, if they are not there yet."""
    text = "-".join(f"{key}{value:g}" for key, value in sizes.items())
    folder = cache_dir() / "benchmarks" / f"v{_VERSION}-{kind}-{text}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        partial = Path(temporary) / "files"
        partial.mkdir()
        values = [f"{key}={value:g}" for key, value in sizes.items()]
        subprocess.run(
            [sys.executable, "-m", "benchmarks.data_files", kind, str(partial), *values],
            check=True,
            cwd=Path(__file__).parents[1],
        )
        shutil.move(partial, folder)  # whole or not at all
    return folder


def _main(kind: str, folder: str, *values: str) -> None:
    sizes = {key: float(value) for key, value in (text.split("=") for text in values)}
    whole = {key: int(v) if math.floor(v) == v else v for key, v in sizes.items()}
    _WRITERS[kind](Path(folder), **whole)


if __name__ == "__main__":
    _main(*sys.argv[1:])
