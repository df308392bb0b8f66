"""``prod9-train-transformer translate`` and ``inpaint``: what a scan lacks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prod9.cli.options import (
    BRATS,
    GuidanceOption,
    OverridesArgument,
    OverwriteOption,
    SeedOption,
    StepsOption,
    TemperatureOption,
    configured,
)
from prod9.errors import Prod9Error

if TYPE_CHECKING:
    from prod9.model import Model
    from prod9.sample_request import SampleRequest

ScanModelOption = Annotated[
    Path,
    typer.Option("--config", "-c", help="YAML file of a BraTS model; shipped ones by their name."),
]
SamplesOption = Annotated[
    int, typer.Option("--samples", "-k", min=1, help="Draws, from different random numbers.")
]


def translate(
    source: Annotated[
        list[str], typer.Option("--source", help="MODALITY=FILE, such as T1=a.nii.gz; repeatable.")
    ],
    target: Annotated[str, typer.Option("--target", help="The modality to make.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="NIfTI file for the result.")],
    overrides: OverridesArgument = None,
    config: ScanModelOption = BRATS,
    samples: SamplesOption = 1,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    temperature: TemperatureOption = None,
    seed: SeedOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Make the scan of a missing modality from those that are there.

    With several --samples the result is their mean; the draws and a voxel-wise standard deviation
    (uncertainty) are written beside it.
    """
    from prod9.inference.translate import translate_files

    files = _files_of(source)
    model, request = _request(
        "translate", config, overrides, target, samples, steps, guidance, temperature, seed
    )
    for path in translate_files(model, files, output, request, overwrite=overwrite).all:
        typer.echo(str(path))


def inpaint(
    scan: Annotated[Path, typer.Option("--input", "-i", help="The scan: NIfTI or npy.")],
    mask: Annotated[Path, typer.Option("--mask", "-m", help="Same grid; not 0: draw anew.")],
    modality: Annotated[str, typer.Option("--modality", help="What the scan is.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    overrides: OverridesArgument = None,
    config: ScanModelOption = BRATS,
    samples: SamplesOption = 1,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    temperature: TemperatureOption = None,
    seed: SeedOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Draw anew what lies under a mask; every other voxel comes back untouched, bit for bit."""
    from prod9.inference.inpaint import inpaint_files

    model, request = _request(
        "inpaint", config, overrides, modality, samples, steps, guidance, temperature, seed
    )
    for path in inpaint_files(model, scan, mask, output, request, overwrite=overwrite).all:
        typer.echo(str(path))


def _request(
    command: str,
    config: Path,
    overrides: list[str] | None,
    channel: str,
    samples: int,
    steps: int | None,
    guidance: float | None,
    temperature: float | None,
    seed: int | None,
) -> "tuple[Model, SampleRequest]":
    """Return the model of a configuration, and the samples of a channel that are asked for."""
    from prod9.runtime.processes import require_alone
    from prod9.sample_request import SampleRequest
    from prod9.training import stage2

    require_alone(command)
    resolved = configured(
        config,
        overrides,
        "completion",
        seed=seed,
        steps=steps,
        guidance=guidance,
        temperature=temperature,
    )
    model = stage2.load(resolved)
    labels = model.labels_of([channel], samples)
    return model, SampleRequest.completion_of(resolved, labels)


def _files_of(items: list[str]) -> dict[str, Path]:
    """Return the file of each modality, of ``MODALITY=FILE``."""
    sources: dict[str, Path] = {}
    for item in items:
        name, separator, file = item.partition("=")
        if not (name and separator and file):
            raise Prod9Error(f"--source {item}: write MODALITY=FILE, such as T1=a.nii.gz.")
        if name in sources:
            raise Prod9Error(f"--source {name} is given twice; give each modality once.")
        sources[name] = Path(file)
    return sources
