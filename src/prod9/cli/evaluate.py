"""``prod9 evaluate``: figures and a page on volumes of any generator."""

from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from prod9.cli.options import MAX_SEED, OverwriteOption
from prod9.config.evaluation import FeatureSpaceKey
from prod9.runtime.processes import require_alone

_SPACES = get_args(FeatureSpaceKey)


def evaluate(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for metrics.json and report.html.")
    ],
    real: Annotated[
        str,
        typer.Option(
            help="Real held-out volumes: a folder of NIfTI or npy files, or a data set such as "
            "brainregionmnist3d (its test split) or organmnist3d/val."
        ),
    ],
    generated: Annotated[str | None, typer.Option(help="Generated volumes: a folder.")] = None,
    train: Annotated[
        str | None,
        typer.Option(
            help="The generator's training volumes: finds copies; a data set's own training split "
            "when left out."
        ),
    ] = None,
    reconstructed: Annotated[
        str | None,
        typer.Option(help="Reconstructions of real volumes: a folder; files are paired by name."),
    ] = None,
    intensity: Annotated[
        str,
        typer.Option(
            help="How stored intensities become [0, 1]: auto (uint8, or floats in [0, 1]; anything "
            "else is refused), LOW,HIGH, or percentiles (each volume by itself)."
        ),
    ] = "auto",
    features: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Feature space: {', '.join(_SPACES)}; repeatable.", show_default="all three"
        ),
    ] = None,
    medicalnet: Annotated[
        Path | None, typer.Option(help="MedicalNet's weights; the cached ones when left out.")
    ] = None,
    usefulness: Annotated[
        bool, typer.Option(help="Train classifiers on generated volumes too.")
    ] = True,
    size: Annotated[int, typer.Option(help="Voxels per side of a data set: 28 or 64.")] = 28,
    root: Annotated[Path, typer.Option(help="Folder of the data sets' files.")] = Path(
        "data/medmnist3d"
    ),
    device: Annotated[
        Literal["auto", "cpu", "gpu"], typer.Option(help="Where feature networks compute.")
    ] = "auto",
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of everything random.")] = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Measure generated (and reconstructed) volumes of any generator; write figures and a page."""
    require_alone("prod9 evaluate")
    from prod9.evaluation.evaluator import METRICS, REPORT
    from prod9.evaluation.runner import evaluate as run_evaluation

    found = run_evaluation(
        real,
        generated,
        train=train,
        reconstructed=reconstructed,
        output=output,
        intensity=intensity,
        features=features or _SPACES,
        usefulness=usefulness,
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
