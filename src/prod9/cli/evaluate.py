"""``prod9 evaluate``: figures and a page on volumes of any generator, or on a model's labels."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from prod9.cli.options import Output, OverwriteOption, Seed
from prod9.errors import Prod9Error
from prod9.runtime.processes import require_alone
from prod9.runtime.starting import starting


def evaluate(
    output: Output,
    model: Annotated[
        Path | None,
        typer.Argument(help="A model that has learned labels, in place of --real and --generated."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Argument(help="The scans it was trained on; as its training says when left out."),
    ] = None,
    segmentation: list[str] | None = None,
    split_file: Path | None = None,
    real: str | None = None,
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

    With MODEL: what a model that has learned labels is good for. Segmenters learn from real and
    from generated pairs and are tested on held-out subjects; images are drawn from masks.

    Args:
        output: Folder for metrics.json and report.html.
        segmentation: With MODEL: setting of evaluation.segmentation, such as steps=500; repeatable.
        split_file: With MODEL DATA: who is in train, val and test; the training's when left out.
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
    if (model is None) == (real is None):
        raise Prod9Error(
            "give --real with --generated or --reconstructed, to compare folders; or MODEL, to "
            "measure a model that has learned labels."
        )
    if model is not None:
        _labels(model, data, output, segmentation, split_file, device, seed, overwrite)
        return
    assert real is not None
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
    _tell(found.warnings, output / METRICS, output / REPORT)


def _labels(
    model: Path,
    data: Path | None,
    output: Path,
    settings: list[str] | None,
    split_file: Path | None,
    device: str,
    seed: int,
    overwrite: bool,
) -> None:
    with starting("prod9 evaluate"):
        from prod9.evaluation.evaluator import METRICS, REPORT
        from prod9.pipeline.evaluate_labels import evaluate_labels

    found = evaluate_labels(
        model,
        data,
        split_file=split_file,
        output=output,
        settings=settings or (),
        device={"auto": None, "cpu": "cpu", "gpu": "cuda"}[device],
        seed=seed,
        overwrite=overwrite,
        progress=True,
    )
    _tell(found.warnings, output / METRICS, output / REPORT)


def _tell(warnings: list[str], figures: Path, page: Path) -> None:
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"figures: {figures}\npage: {page}")
