"""``prod9 evaluate``: figures and a page on volumes of any generator."""

from pathlib import Path
from typing import Literal

import typer

from prod9.cli.options import Output, OverwriteOption, Seed
from prod9.runtime.processes import require_alone
from prod9.runtime.starting import starting


def evaluate(
    output: Output,
    real: str,
    generated: str | None = None,
    train: str | None = None,
    reconstructed: str | None = None,
    intensity: str = "auto",
    features: list[str] | None = None,
    medicalnet: Path | None = None,
    usefulness: bool = True,
    two_sample_test: bool = True,
    size: int = 28,
    root: Path = Path("data/medmnist3d"),
    device: Literal["auto", "cpu", "gpu"] = "auto",
    seed: Seed = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Measure generated (and reconstructed) volumes of any generator; write figures and a page.

    Args:
        output: Folder for metrics.json and report.html.
        real: Real held-out volumes: a folder of NIfTI or npy files, or a data set such as
            brainregionmnist3d (its test split) or organmnist3d/val.
        generated: Generated volumes: a folder.
        train: The generator's training volumes: finds copies; a data set's own training split when
            left out.
        reconstructed: Reconstructions of real volumes: a folder; files are paired by name.
        intensity: How stored intensities become [0, 1]: auto (uint8, or floats in [0, 1]; anything
            else is refused), LOW,HIGH, or percentiles (each volume by itself).
        features: Feature space: efficientnet, medicalnet, classifier; repeatable, all three when
            left out.
        medicalnet: MedicalNet's weights; the cached ones when left out.
        usefulness: Train classifiers on generated volumes too.
        two_sample_test: Train networks to tell generated from real volumes.
        size: Voxels per side of a data set: 28 or 64.
        root: Folder of the data sets' files.
        device: Where feature networks compute.
        seed: Seed of everything random.
    """
    require_alone("prod9 evaluate")
    with starting("prod9 evaluate"):
        from prod9.evaluation.evaluator import METRICS, REPORT
        from prod9.evaluation.runner import SPACES
        from prod9.evaluation.runner import evaluate as run_evaluation

    found = run_evaluation(
        real,
        generated,
        train=train,
        reconstructed=reconstructed,
        output=output,
        intensity=intensity,
        features=features or SPACES,
        usefulness=usefulness,
        two_sample_test=two_sample_test,
        medicalnet=medicalnet,
        size=size,
        root=root,
        device=device,
        seed=seed,
        overwrite=overwrite,
        progress=True,
    )
    for warning in found.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"figures: {output / METRICS}\npage: {output / REPORT}")
