"""How good a tokenizer is after two and after five minutes of training, at equal bits per voxel.

    python -m benchmarks quality_per_second
    python -m benchmarks.quality_per_second [SECONDS]    # try the rivals' settings

Everybody turns 28^3 voxels into 7^3 tokens of 512 codes, and learns from the same volumes. Rivals
have the settings that :func:`tune` found best for them.
"""

import itertools
import multiprocessing
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks.quality_contenders import (
    CONFIG,
    MAISI_FSQ,
    RIVAL_SETTINGS,
    SEED,
    VQVAE,
    RivalSettings,
    Trained,
    configuration,
    shown,
    train_prod9,
    train_rival,
)
from benchmarks.results import RESULTS, Result, goal, result
from prod9.config import MedMNISTDataConfig
from prod9.data import medmnist
from prod9.montage import montage, save_figure

BUDGETS = (120.0, 300.0)
MARKS = (30.0, 60.0, 120.0)
MARGIN = 1.0
"""Decibels by which prod9 claims to be ahead of the better rival."""
_WIDTHS: dict[str, list[tuple[int, ...]]] = {
    VQVAE: [(64,), (128,), (256,)],  # 256 is the tutorial's, made for hours on a GPU
    MAISI_FSQ: [(8, 32, 96), (16, 32, 64), (32, 64, 96)],
}


def alone(train: Callable[..., Trained], *arguments: object) -> Trained:
    """Train in a process of its own, with this one's number of threads.

    Nobody else runs meanwhile; nobody inherits another's allocator, caches or random numbers.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(train, *arguments, torch.get_num_threads()).result()


def measure(
    budgets: Sequence[float], marks: Sequence[float], settings: Mapping[str, RivalSettings]
) -> dict[str, dict[float, Trained]]:
    """Train each contender once for each budget: a schedule ends with its budget."""
    found: dict[str, dict[float, Trained]] = {}
    for seconds in budgets:
        found.setdefault("prod9", {})[seconds] = alone(train_prod9, seconds, marks)
        for rival, chosen in settings.items():
            trained = alone(train_rival, rival, chosen, seconds, marks)
            found.setdefault(rival, {})[seconds] = trained
    return found


def as_result(
    found: dict[str, dict[float, Trained]], settings: Mapping[str, RivalSettings]
) -> Result:
    """Return the figures and the goals; the headline is the longest budget's."""
    rivals = [name for name in found if name != "prod9"]
    budgets = sorted(found["prod9"])
    longest = budgets[-1]
    goals = [
        goal(
            f"{MARGIN:g} dB better than the better rival after {seconds:g} s",
            MARGIN,
            found["prod9"][seconds].psnr - max(found[rival][seconds].psnr for rival in rivals),
            unit="dB",
        )
        for seconds in budgets
    ]
    each = {
        name: {
            f"{seconds:g}": {
                "psnr": trained.psnr,
                "seconds": trained.seconds,
                "steps": trained.steps,
                "weights": trained.weights,
            }
            for seconds, trained in by_budget.items()
        }
        for name, by_budget in found.items()
    }
    curves = {name: [list(at) for at in found[name][longest].curve] for name in found}
    config = configuration()
    return result(
        "quality_per_second",
        "PSNR of held-out brain regions (28^3 voxels, 7^3 tokens of 512 codes) after "
        f"{' and '.join(f'{seconds:g}' for seconds in budgets)} seconds of training.",
        ours=found["prod9"][longest].psnr,
        rivals={rival: found[rival][longest].psnr for rival in rivals},
        better="higher",
        unit="dB",
        goals=goals,
        figures={"budgets": each, "curves": curves},
        packages=("pytorch-lightning", "monai", "vector-quantize-pytorch"),
        parameters={name: found[name][longest].parameters for name in found},
        seed=SEED,
        sizes={
            "config": CONFIG.as_posix(),
            "widths": list(config.model.autoencoder.num_channels),
            "batch": config.data.batch_size,
            "threads": torch.get_num_threads(),
            "rivals": {rival: asdict(settings[rival]) for rival in rivals},
        },
    )


def draw(path: Path, found: dict[str, dict[float, Trained]]) -> None:
    """Draw test volumes above what each contender makes of them after its longest training."""
    longest = max(found["prod9"])
    rows = [("original", shown(configuration()))]
    rows += [
        (f"{name}\n{by_budget[longest].psnr:.2f} dB", torch.from_numpy(by_budget[longest].pictures))
        for name, by_budget in found.items()
    ]
    title = f"Encoded to 7^3 tokens and decoded, after {longest:g} seconds of training"
    save_figure(path, montage(rows, title=title))


def run() -> list[Result]:
    """Train everybody, one after the other (21 minutes of training), and draw the picture."""
    data = configuration().data
    assert isinstance(data, MedMNISTDataConfig)
    medmnist.prepare(data)
    found = measure(BUDGETS, MARKS, RIVAL_SETTINGS)
    draw(RESULTS / "quality_per_second.png", found)
    return [as_result(found, RIVAL_SETTINGS)]


def candidates(rival: str) -> list[RivalSettings]:
    """Return widths and learning rates to choose among, in the tutorials' way otherwise."""
    rates = (3e-4, 1e-3, 2e-3)
    return [RivalSettings(w, rate) for w, rate in itertools.product(_WIDTHS[rival], rates)]


def tune(seconds: float) -> dict[str, RivalSettings]:
    """Print what each rival reaches in ``seconds`` with each candidate; return the best of each.

    First widths and learning rates, then batch and loss with the best of those.
    """
    best: dict[str, RivalSettings] = {}
    for rival in RIVAL_SETTINGS:
        reached: dict[RivalSettings, float] = {}
        for settings in candidates(rival):
            reached[settings] = _attempt(rival, settings, seconds)
        first = max(reached, key=lambda settings: reached[settings])
        for batch, criterion in itertools.product((8, 16, 32), ("l1", "mse")):
            settings = replace(first, batch=batch, criterion=criterion)
            if settings not in reached:
                reached[settings] = _attempt(rival, settings, seconds)
        best[rival] = max(reached, key=lambda settings: reached[settings])
        print(f"{rival}  best: {best[rival]}", flush=True)
    return best


def _attempt(rival: str, settings: RivalSettings, seconds: float) -> float:
    trained = alone(train_rival, rival, settings, seconds, ())
    print(f"{rival}  {trained.psnr:.2f} dB  {trained.steps} steps  {settings}", flush=True)
    return trained.psnr


if __name__ == "__main__":
    tune(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
