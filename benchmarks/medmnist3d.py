"""Both stages on published MedMNIST 3D data, by the specification's commands: docs/results.md.

Each row trains a shipped configuration, reduced by overrides to what two processor cores can do,
and tests both stages. A file of the data set that is not in ``--root`` is downloaded.

    python -m benchmarks.medmnist3d --root data/medmnist3d [--work outputs/results] [ROW ...]

Writes ``benchmarks/results/medmnist3d.json`` (rows that are not run again are kept) and prints the
tables of docs/results.md.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from prod9.results.provenance import provenance

RESULT = Path(__file__).parent / "results" / "medmnist3d.json"
CONFIGS = Path("src/prod9/configs/maskgit/medmnist3d")
PROGRAMS = {"stage1": "prod9-train-autoencoder", "stage2": "prod9-train-transformer"}
SPACE = "efficientnet"
"""Feature space of the distances."""


@dataclass(frozen=True)
class Row:
    """One training of both stages."""

    dataset: str
    size: int
    config: str
    """``ffl`` or ``base``."""
    stage1: tuple[str, ...]
    """Overrides."""
    stage2: tuple[str, ...]


_STAGE1 = (
    "data.num_workers=0",
    "model.autoencoder.stem_stride=2",
    "loss.adversarial.weight=0",
    "training.optimizer.learning_rate=2e-3",
    "training.scheduler.warmup_steps=40",
    "training.stability.ema_decay=0.995",
    "callbacks.checkpoint.export=best",
)
_STAGE2 = (
    "data.num_workers=0",
    "model.transformer.hidden_dim=192",
    "model.transformer.num_blocks=3",
    "model.transformer.num_heads=3",
    "model.transformer.local_blocks=3",
    "training.optimizer.learning_rate=2e-3",
    "training.scheduler.warmup_steps=70",
    "training.stability.ema_decay=0.995",
    "callbacks.checkpoint.export=best",
    "evaluation.samples_per_class=149",
)


def _row(size: int, config: str, stage1: tuple[str, ...], epochs: int) -> Row:
    # MedicalNet's file need not be there.
    loss = ("loss.loss_type=ffl",) if config == "base" else ()
    two = ("data.batch_size=12", f"trainer.max_epochs={epochs}")
    return Row("adrenalmnist3d", size, config, _STAGE1 + loss + stage1, _STAGE2 + two)


def _stage1(widths: str, batch: int, epochs: int, *more: str) -> tuple[str, ...]:
    sizes = (f"model.autoencoder.num_channels={widths}", f"data.batch_size={batch}")
    return (*sizes, f"trainer.max_epochs={epochs}", *more)


ROWS = {
    "adrenal_28_ffl": _row(28, "ffl", _stage1("[32,96]", 8, 6), 10),
    "adrenal_28_base": _row(28, "base", _stage1("[64,128]", 8, 3), 10),
    "adrenal_64_ffl": _row(64, "ffl", _stage1("[32,64,96]", 4, 1), 6),
    "adrenal_64_base": _row(
        64, "base", _stage1("[64,128,128]", 4, 1, "trainer.limit_train_batches=150"), 6
    ),
}


def run(row: Row, root: Path, work: Path) -> dict[str, Any]:
    """Train and test both stages; return the figures."""
    seconds: dict[str, float] = {}
    overrides = {"stage1": row.stage1, "stage2": row.stage2}
    export = work / "autoencoder.pt"
    for stage, program in PROGRAMS.items():
        given = [
            f"data.dataset_name={row.dataset}",
            f"data.size={row.size}",
            f"data.root={root}",
            f"output_dir={work / stage}",
            f"{'autoencoder_export_path' if stage == 'stage1' else 'autoencoder_path'}={export}",
            *overrides[stage],
        ]
        config = str(CONFIGS / stage / f"{row.config}.yaml")
        for verb in ("train", "test"):
            more = ["--overwrite"] if verb == "train" else []
            command = [str(Path(sys.executable).with_name(program)), verb, "--config", config]
            start = time.perf_counter()
            subprocess.run([*command, *more, *given], check=True)
            seconds[f"{stage} {verb}"] = round(time.perf_counter() - start, 1)
    measured = {s: json.loads((work / s / "metrics.json").read_text("utf-8")) for s in PROGRAMS}
    origin = provenance(seed=measured["stage2"]["provenance"]["seed"])
    del origin["command"]  # it names folders of this machine
    return {
        "dataset": row.dataset,
        "size": row.size,
        "config": row.config,
        "overrides": {stage: list(values) for stage, values in overrides.items()},
        "seconds": seconds,
        "reconstruction": measured["stage1"]["reconstruction"],
        "generation": _short(measured["stage2"]["generation"]),
        "machine": describe(),
        "provenance": origin,
    }


def _short(generation: dict[str, Any]) -> dict[str, Any]:
    """Return what the tables show, and the verdict on copies."""
    spaces = [
        {key: space[key] for key in ("key", "space", "generated", "floor")}
        for space in generation["spaces"]
    ]
    keys = ("volumes", "class_accuracy", "classifier_real_accuracy", "msssim", "msssim_real")
    found = {key: generation[key] for key in keys}
    privacy = generation["privacy"]
    return found | {
        "spaces": spaces,
        "usefulness": generation["usefulness"],
        "verdict": privacy and privacy["verdict"],
    }


def tables(rows: dict[str, dict[str, Any]]) -> tuple[str, str]:
    """Return the two tables of docs/results.md: both stages, and generated volumes in training."""
    text = [
        "| data, size | config | PSNR, dB | SSIM | Dice | bits per voxel | "
        "Frechet (real) | kernel (real) | precision, recall (real) | seconds |",
        "|---" * 10 + "|",
    ]
    for row in rows.values():
        found, made = row["reconstruction"], row["generation"]
        space = next(s for s in made["spaces"] if s["key"] == SPACE)
        ours, floor = space["generated"], space["floor"]
        spent = ", ".join(
            f"{stage} {sum(s for name, s in row['seconds'].items() if name.startswith(key)):.0f}"
            for stage, key in (("Stage 1", "stage1"), ("Stage 2", "stage2"))
        )
        text.append(
            f"| {row['dataset']}, {row['size']} | {row['config']} | {_ranged(found, 'psnr', 2)} | "
            f"{_ranged(found, 'ssim', 3)} | {_ranged(found, 'dice', 3)} | "
            f"{found['bits_per_voxel']:.3f} | {ours['frechet']:.1f} ({floor['frechet']:.1f}) | "
            f"{ours['kernel']:.3f} ({floor['kernel']:.3f}) | "
            f"{ours['precision']:.2f}, {ours['recall']:.2f} "
            f"({floor['precision']:.2f}, {floor['recall']:.2f}) | {spent} |"
        )
    second = [
        "| data, size | config | a classifier trained on | volumes | accuracy | AUC |",
        "|---" * 6 + "|",
    ]
    for row in rows.values():
        for part in row["generation"]["usefulness"]["rows"]:
            low, high = part["accuracy_interval"]
            second.append(
                f"| {row['dataset']}, {row['size']} | {row['config']} | {part['trained_on']} | "
                f"{part['volumes']} | {part['accuracy']:.3f} [{low:.3f}, {high:.3f}] | "
                f"{part['auc']:.3f} |"
            )
    return "\n".join(text), "\n".join(second)


def _ranged(figures: dict[str, Any], key: str, digits: int) -> str:
    low, high = figures["intervals"][key]
    return f"{figures[key]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def main() -> None:
    """Run the rows that are asked for, keep the figures, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--root", type=Path, default=Path("data/medmnist3d"))
    parser.add_argument("--work", type=Path, default=Path("outputs/results"))
    parser.add_argument("--tables", action="store_true", help="print what is there, and stop")
    options = parser.parse_args()
    for name in options.rows:
        if name not in ROWS:
            parser.error(f"there is no row {name}; there are {', '.join(ROWS)}.")
    found = json.loads(RESULT.read_text("utf-8"))["rows"] if RESULT.is_file() else {}
    for name in [] if options.tables else options.rows or ROWS:
        found[name] = run(ROWS[name], options.root, options.work / name)
        record = {"name": "medmnist3d", "rows": {key: found[key] for key in ROWS if key in found}}
        RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(*tables({key: found[key] for key in ROWS if key in found}), sep="\n\n")


if __name__ == "__main__":
    main()
