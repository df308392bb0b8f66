"""What ``prod9 evaluate`` says of sets whose fault is known: every figure must tell its story.

Fresh volumes of the embedded brain regions (another seed than the data set's) are written as NIfTI
folders: as they are, blurred, made noisy, with shuffled slices, of one class only, copies of
training volumes, and copies among fresh ones. Each folder goes through the command line.

    python -m benchmarks.evaluation_story [FOLDER]

Writes ``benchmarks/results/evaluation_story.json`` and prints the table of docs/evaluation.md.
"""

import csv
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from prod9.config import MedMNISTSourceConfig
from prod9.data import medmnist
from prod9.data.brain_region_table import CLASS_NAMES
from prod9.data.brain_regions import RegionSampler
from prod9.data.volume_files.write import write_nifti
from prod9.results.provenance import provenance

PER_CLASS = 20
SEED = 4711
ROOT = Path("data/medmnist3d")
RESULT = Path(__file__).parent / "results" / "evaluation_story.json"
Set = tuple[np.ndarray, np.ndarray]
"""uint8 (N, D, H, W) and labels (N,)."""


def fresh(labels: np.ndarray, seed: int) -> np.ndarray:
    """Draw real volumes that are in no split."""
    stream = torch.Generator().manual_seed(seed)
    return RegionSampler(28)(torch.from_numpy(labels), stream).numpy()


def sets() -> Iterator[tuple[str, Set]]:
    """Give each set with its name."""
    random = np.random.default_rng(SEED)
    labels = np.repeat(np.arange(len(CLASS_NAMES)), PER_CLASS)
    real = fresh(labels, SEED)
    train = medmnist.load(
        MedMNISTSourceConfig(dataset_name="brainregionmnist3d", size=28, root=ROOT), "train"
    )
    yield "real", (real, labels)
    blurred = np.stack([ndimage.gaussian_filter(v.astype(np.float32), 1.0) for v in real])
    yield "blurred", (blurred.round().astype(np.uint8), labels)
    noisy = real + random.normal(0, 0.1 * 255, real.shape)
    yield "noisy", (noisy.clip(0, 255).round().astype(np.uint8), labels)
    yield "shuffled", (np.stack([v[:, :, random.permutation(28)] for v in real]), labels)
    frontal = np.full(len(labels), CLASS_NAMES.index("frontal-pole"))
    yield "one_class", (fresh(frontal, SEED + 1), frontal)
    copied = random.choice(len(train), len(labels), replace=False)
    yield "copies", (train.images[copied], train.labels[copied])
    mixed, tenth = real.copy(), len(labels) // 10
    mixed_labels = labels.copy()
    mixed[::10], mixed_labels[::10] = train.images[copied[:tenth]], train.labels[copied[:tenth]]
    yield "tenth_copied", (mixed, mixed_labels)


def write(folder: Path, volumes: Set) -> None:
    """Write a set as any generator might: NIfTI files and a manifest of classes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = []
    for index, (volume, label) in enumerate(zip(*volumes, strict=True)):
        name = f"{index:04d}.nii.gz"
        write_nifti(folder / name, volume, np.diag([2.0, 2, 2, 1]), np.uint8, overwrite=True)
        rows.append((name, CLASS_NAMES[label]))
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "class"), *rows])


def evaluate(folder: Path, output: Path) -> dict[str, Any]:
    """Run the command as a user would."""
    command = [str(Path(sys.executable).with_name("prod9")), "evaluate"]
    command += ["--real", "brainregionmnist3d", "--generated", str(folder)]
    command += ["--output", str(output), "--root", str(ROOT), "--overwrite"]
    subprocess.run(command, check=True)
    return json.loads((output / "metrics.json").read_text())


def row(figures: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of the table."""
    g = figures["generation"]
    found: dict[str, Any] = {
        "recognised": g["class_accuracy"],
        "msssim": g["msssim"],
        "useful": next(
            r["accuracy"] for r in g["usefulness"]["rows"] if r["trained_on"] == "generated"
        )
        if g["usefulness"]
        else None,
        "verdict": g["privacy"]["verdict"],
        "near_duplicates": max(s["near_duplicates"] for s in g["privacy"]["spaces"]),
        "below_p05": g["privacy"]["spaces"][0]["share_below_p05"],
        "nearer_train": g["privacy"]["spaces"][0]["nearer_train_share"],
        "distance_ratio": g["privacy"]["spaces"][0]["distance_ratio"],
        "membership_auc": g["privacy"]["spaces"][0]["membership_auc"],
    }
    for space in g["spaces"]:
        ours = space["generated"]
        found |= {f"{space['key']}_{k}": ours[k] for k in ("frechet", "kernel")}
        found |= {f"{space['key']}_{k}": ours[k] for k in ("precision", "recall", "coverage")}
        found[f"{space['key']}_floor"] = space["floor"]["frechet"]
        found[f"{space['key']}_floor_kernel"] = space["floor"]["kernel"]
    return found


def main(arguments: list[str]) -> None:
    """Write the sets, evaluate each, keep the figures."""
    folder = Path(arguments[0] if arguments else tempfile.mkdtemp())
    table: dict[str, dict[str, Any]] = {}
    for name, volumes in sets():
        write(folder / name, volumes)
        table[name] = row(evaluate(folder / name, folder / "evaluations" / name))
        print(name, json.dumps(table[name]), flush=True)
        record = {"name": "evaluation_story", "per_class": PER_CLASS, "table": table}
        RESULT.write_text(
            json.dumps(record | {"provenance": provenance(seed=SEED)}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
