"""How good a tokenizer is after two and after five minutes of training, at equal bits per voxel.

    python -m benchmarks quality_per_second
    python -m benchmarks.quality_per_second [SECONDS]    # try the rivals' settings

Everybody turns 28^3 voxels into 7^3 tokens of 512 codes, and learns from the same volumes. VQVAE
has the settings that :func:`tune` found best for it.
"""

import multiprocessing
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.quality_contenders import (
    CONFIG,
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

SECONDS = 300.0
JUDGED = (120.0, SECONDS)
MARKS = (30.0, 60.0, 120.0)
"""Where the clock stops for a look; the schedule ends with the training alone."""
MARGIN = 1.0
"""Decibels by which prod9 claims to be ahead of the better rival."""


def alone(train: Callable[..., Trained], *arguments: object) -> Trained:
    """Train in a process of its own, with this one's number of threads.

    Nobody else runs meanwhile; nobody inherits another's allocator, caches or random numbers.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(train, *arguments, torch.get_num_threads()).result()


def measure(
    seconds: float, marks: Sequence[float], settings: Mapping[str, RivalSettings]
) -> dict[str, Trained]:
    """Train each contender once."""
    found = {"prod9": alone(train_prod9, seconds, marks)}
    for rival, chosen in settings.items():
        found[rival] = alone(train_rival, rival, chosen, seconds, marks)
    return found


def reached(trained: Trained, seconds: float) -> float:
    """Return the PSNR at the last look of ``seconds`` or before that was meant for then."""
    at = [value for when, value in trained.curve if round(when / seconds, 1) == 1.0]
    return at[-1]


def as_result(found: dict[str, Trained], settings: Mapping[str, RivalSettings]) -> Result:
    """Return the figures and the goals; the headline is the end of the training."""
    rivals = [name for name in found if name != "prod9"]
    goals = [
        goal(
            f"{MARGIN:g} dB better than the better rival after {seconds:g} s",
            MARGIN,
            reached(found["prod9"], seconds) - max(reached(found[r], seconds) for r in rivals),
            unit="dB",
        )
        for seconds in JUDGED
    ]
    each = {
        name: {
            "psnr": {f"{seconds:g}": reached(trained, seconds) for seconds in JUDGED},
            "seconds": trained.seconds,
            "steps": trained.steps,
            "weights": trained.weights,
        }
        for name, trained in found.items()
    }
    curves = {name: [list(at) for at in trained.curve] for name, trained in found.items()}
    config = configuration()
    return result(
        "quality_per_second",
        "PSNR of held-out brain regions (28^3 voxels, 7^3 tokens of 512 codes) after "
        f"{' and '.join(f'{seconds:g}' for seconds in JUDGED)} seconds of training.",
        ours=found["prod9"].psnr,
        rivals={rival: found[rival].psnr for rival in rivals},
        better="higher",
        unit="dB",
        goals=goals,
        figures={"trained": each, "curves": curves},
        packages=("pytorch-lightning", "monai", "vector-quantize-pytorch"),
        parameters={name: trained.parameters for name, trained in found.items()},
        seed=SEED,
        sizes={
            "config": CONFIG.as_posix(),
            "widths": list(config.model.autoencoder.num_channels),
            "batch": config.data.batch_size,
            "threads": torch.get_num_threads(),
            "rivals": {rival: asdict(settings[rival]) for rival in rivals},
        },
    )


def draw(path: Path, found: dict[str, Trained]) -> None:
    """Draw test volumes above what each contender makes of them after its training."""
    rows = [("original", shown(configuration()))]
    rows += [
        (f"{name}\n{trained.psnr:.2f} dB", torch.from_numpy(trained.pictures))
        for name, trained in found.items()
    ]
    title = f"Encoded to 7^3 tokens and decoded, after {SECONDS:g} seconds of training"
    save_figure(path, montage(rows, title=title))


def run() -> list[Result]:
    """Train everybody, one after the other (15 minutes of training), and draw the picture."""
    data = configuration().data
    assert isinstance(data, MedMNISTDataConfig)
    medmnist.prepare(data)
    found = measure(SECONDS, MARKS, RIVAL_SETTINGS)
    draw(RESULTS / "quality_per_second.png", found)
    return [as_result(found, RIVAL_SETTINGS)]


def candidates() -> list[RivalSettings]:
    """Return widths, learning rates and batches to choose among.

    At 1e-3 and above nothing is learned: 10 dB after a minute, whatever the width and batch.
    """
    return [
        RivalSettings((width,), rate, batch)
        for width, rate, batch in ((64, 1e-4, 8), (64, 3e-4, 8), (128, 3e-4, 8), (64, 3e-4, 16))
    ]


def tune(seconds: float) -> RivalSettings:
    """Print what VQVAE reaches in ``seconds`` with each candidate; return the best."""
    found = {settings: _attempt(VQVAE, settings, seconds) for settings in candidates()}
    best = max(found, key=lambda settings: found[settings])
    print(f"{VQVAE}  best: {best}", flush=True)
    return best


def _attempt(rival: str, settings: RivalSettings, seconds: float) -> float:
    trained = alone(train_rival, rival, settings, seconds, ())
    print(f"{rival}  {trained.psnr:.2f} dB  {trained.steps} steps  {settings}", flush=True)
    return trained.psnr


if __name__ == "__main__":
    tune(float(sys.argv[1]) if len(sys.argv) > 1 else 40.0)
