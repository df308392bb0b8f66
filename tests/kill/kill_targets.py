"""Writers that are no console script of their own, each called with a folder."""

import json
from pathlib import Path

import numpy as np
import torch
from nibabel.nifti1 import Nifti1Image

from prod9.data import brain_regions
from prod9.data.download import fetch
from prod9.data.splits import open_split
from prod9.data.tokens import build
from prod9.data.tokens.build import open_or_build
from prod9.data.tokens.store import TokenStoreKey
from prod9.files import write_text
from prod9.torch_files import write_plain
from prod9.training.loggers import HistoryLogger

NEW = [f"line {i}\n" for i in range(4000)]


def text(folder: Path) -> None:
    """Replace a text file."""
    write_text(folder / "metrics.txt", "".join(NEW))


def export(folder: Path) -> None:
    """Replace an export."""
    write_plain(folder / "out" / "tokenizer.pt", {"kind": "toy", "weight": torch.arange(20_000.0)})


def split(folder: Path) -> None:
    """Draw a split where there is none."""
    subjects = [f"subject-{i:04d}" for i in range(200)]
    open_split(folder / "split.json", subjects, seed=1, val_share=0.1, test_share=0.1)


def token_store(folder: Path) -> None:
    """Open a token store; build it where there is none."""
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 4096, (24, 4, 4, 4)))
    build.SHARD_CELLS = 8 * 4**3  # three shards
    store = open_or_build(
        folder,
        TokenStoreKey("tokenizer", "data", "train"),
        names=[f"toy/{i}" for i in range(24)],
        labels=np.arange(24) % 2,
        class_names=("a", "b"),
        grid=(4, 4, 4),
        codebook_size=4096,
        encode=lambda first, stop: tokens[first:stop].split(4),
    )
    assert np.array_equal(store.tokens, tokens.numpy())


def brain(folder: Path) -> None:
    """Build the embedded data set, of fewer volumes."""
    path = folder / "brain.npz"
    if not path.exists():
        brain_regions.SPLIT_SIZES = {"train": 11, "val": 11, "test": 11}
        brain_regions.build(path, 28)


def download(folder: Path, url: str, digest: str) -> None:
    """Fetch a file."""
    fetch(url, folder / "data.npz", digest=digest, allowed=True, what="toy", hint="none")


def history(folder: Path) -> None:
    """Log rows of ever more columns; say the number of each one that is kept."""
    logger = HistoryLogger(folder)
    for step in range(120):
        names = ["epoch", "train/loss", *[f"val/{n}" for n in range(3) if step >= 30 * n + 20]]
        logger.log_metrics({name: history_value(name, step) for name in names}, step)
        print(step, flush=True)


def history_value(name: str, step: int) -> float:
    """Return what is logged there: many digits, of which any part would be another number."""
    return (step + 1) * len(name) / 7


def careless(folder: Path) -> None:
    """Write as prod9 does not: in pieces, under the final name."""
    with (folder / "metrics.txt").open("w") as file:
        for line in NEW:
            file.write(line)
            file.flush()


def untidy(folder: Path) -> None:
    """Leave a hidden file behind whenever it is killed, and never remove it."""
    hidden = folder / f".{len(list(folder.iterdir()))}.tmp"
    hidden.write_text("x")
    (folder / "metrics.txt").write_text("".join(NEW[:1]))
    hidden.unlink()


def volume(path: Path, seed: int, sides: tuple[int, int, int] = (28, 28, 28)) -> None:
    """Write a NIfTI file of random voxels in front of nothing."""
    voxels = np.random.default_rng(seed).integers(1, 256, sides, np.uint8)
    voxels[:3] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    Nifti1Image(voxels, np.eye(4)).to_filename(path)


def write_json(path: Path, content: object) -> None:
    """Write JSON, without care: for what is there before."""
    path.write_text(json.dumps(content))
