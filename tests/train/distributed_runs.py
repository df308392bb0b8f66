"""Training commands on several processes of this machine (gloo), and what they leave behind."""

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

FLAG = "adrenalmnist3d"
BIN = Path(sys.executable).parent
SCRIPTS = {1: BIN / "prod9-train-autoencoder", 2: BIN / "prod9-train-transformer"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
SLACK = 120
"""Seconds that a run may take."""


def write_data(root: Path) -> None:
    """Write eight smooth volumes for training and five for validation: two processes do not share
    five evenly.
    """
    root.mkdir(parents=True)
    random = np.random.default_rng(0)
    axis = np.linspace(0, 3, 28)
    content: dict[str, np.ndarray] = {}
    for split, count in (("train", 8), ("val", 5), ("test", 3)):
        waves = [
            np.sin(a * axis[:, None, None] + b * axis[:, None] + c * axis)
            for a, b, c in random.uniform(-3, 3, (count, 3))
        ]
        content[f"{split}_images"] = ((np.stack(waves) + 1) * 127.5).astype(np.uint8)
        content[f"{split}_labels"] = np.arange(count)[:, None] % 2
    np.savez_compressed(root / f"{FLAG}.npz", **content)


def write_config(folder: Path, stage: int, name: str, **changes: Any) -> Path:
    """Write ``folder/name.yaml``: a run of seconds into ``folder/name``; dotted changes."""
    if not (folder / "data").exists():
        write_data(folder / "data")
    config: dict[str, Any] = {
        "output_dir": str(folder / name),
        "data": {
            "dataset_name": FLAG,
            "root": str(folder / "data"),
            "download": False,
            "batch_size": 2,
        },
        "training": {"scheduler": {"name": "constant", "warmup_steps": 1}},
        "trainer": {
            "max_epochs": 2,
            "log_every_n_steps": 1,
            "accelerator": "cpu",
            "logger": "csv",
        },
        "callbacks": {"preview": {"every_n_steps": 0}},
    }
    if stage == 1:
        config |= {
            "autoencoder_export_path": str(folder / name / "tokenizer.pt"),
            "model": {
                "autoencoder": {"num_channels": [8, 8], "stem_stride": 2, "norm_num_groups": 4},
                "discriminator": {"channels": 4, "num_layers_d": 1},
            },
            "loss": {"loss_type": "ffl", "discriminator_iter_start": 0},
        }
    else:
        sizes = {"hidden_dim": 32, "num_blocks": 2, "num_heads": 2, "token_dim": 8}
        config |= {
            "autoencoder_path": str(folder / "tokenizer.pt"),
            "model": {"transformer": sizes},
        }
    for key, value in changes.items():
        *sections, last = key.split("__")
        section = config
        for part in sections:
            section = section.setdefault(part, {})
        section[last] = value
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def train(
    stage: int, config: Path, *options: str, launcher: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the training command as users do; return how it ended."""
    return subprocess.run(
        [*launcher, str(SCRIPTS[stage]), "train", "--config", str(config), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=SLACK,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@contextmanager
def training(stage: int, config: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Start the training command; it is ended with the block."""
    process = subprocess.Popen(
        [str(SCRIPTS[stage]), "train", "--config", str(config), *options],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        process.kill()  # its children end with it
        process.wait()


def children(process: subprocess.Popen[str]) -> dict[int, int]:
    """Return the process id of each rank that has been started; they start in this order."""
    pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    spawned = [pid for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return dict(enumerate(sorted(map(int, spawned))))


def history(folder: Path) -> dict[str, list[float]]:
    """Logged values of a run, by name."""
    values: dict[str, list[float]] = {}
    with (folder / "history" / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name not in ("epoch", "step"):
                    values.setdefault(name, []).append(float(value))
    return values


def checkpoint(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def tensors(value: Any, prefix: str = "") -> dict[str, Tensor]:
    """All tensors inside nested dictionaries and lists, by their place."""
    if isinstance(value, Tensor):
        return {prefix: value}
    if not isinstance(value, dict | list | tuple):
        return {}
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return {k: v for name, part in pairs for k, v in tensors(part, f"{prefix}/{name}").items()}


def furthest(a: Any, b: Any) -> float:
    """Largest difference between the tensors of two equal structures."""
    left, right = tensors(a), tensors(b)
    assert left.keys() == right.keys()
    assert left
    return max(
        float((left[k].double() - right[k].double()).abs().max()) for k in left if left[k].numel()
    )
