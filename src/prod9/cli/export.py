"""``prod9 export``: a trained model as a folder for others."""

from pathlib import Path
from typing import Annotated, Any

import typer

from prod9.cli.options import OverwriteOption


def export(
    run: Annotated[Path, typer.Argument()],
    output: Annotated[Path, typer.Argument()],
    tokenizer: Path | None = None,
    monai_bundle: bool = False,
    with_subjects: bool = False,
    half: bool = False,
    dataset: Path | None = None,
    metrics: Path | None = None,
    report: Path | None = None,
    licence: str = "",
    intended_use: str = "",
    overwrite: OverwriteOption = False,
) -> None:
    """Write a trained model as a folder: safetensors, config.json, and a model card.

    Names of subjects and paths of this machine are left out; metrics.json and dataset.yaml of the
    run are taken along.

    Args:
        run: Run folder of Stage 2, configuration, autoencoder.pt, transformer.pt or model folder.
        output: Folder for the model.
        tokenizer: The autoencoder.pt of a transformer, where it is not found.
        monai_bundle: Write a MONAI bundle with the model folder inside.
        with_subjects: Keep names of subjects, paths, and the run's report.html.
        half: Store weights as fp16: half the size, nearly the same volumes.
        dataset: A dataset.yaml; the run's when left out.
        metrics: A metrics.json of this model; the run's when left out.
        report: A report.html to copy; it shows volumes and their names.
        licence: Licence of the weights, for the model card.
        intended_use: Text for the model card.
    """
    from prod9.inference.export import export as write

    given = {"dataset": dataset, "metrics": metrics, "report": report}
    texts = {"licence": licence, "intended_use": intended_use}
    extras: dict[str, Any] = {key: value for key, value in (given | texts).items() if value}
    write(
        run,
        output,
        tokenizer=tokenizer,
        monai_bundle=monai_bundle,
        overwrite=overwrite,
        subjects=with_subjects,
        half=half,
        **extras,
    )
    typer.echo(f"written to {output}")
