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
from prod9.runtime.processes import require_alone

if TYPE_CHECKING:
    from prod9.config import Stage2Config
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
        list[str], typer.Option(help="MODALITY=FILE, such as T1=a.nii.gz; repeatable.")
    ],
    target: Annotated[str, typer.Option(help="The modality to make.")],
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
    files: dict[str, Path] = {}
    for item in source:
        name, _, file = item.partition("=")
        if not (name and file):
            raise Prod9Error(f"--source {item}: write MODALITY=FILE, such as T1=a.nii.gz.")
        if name in files:
            raise Prod9Error(f"--source {name} is given twice; give each modality once.")
        files[name] = Path(file)
    require_alone("translate")
    resolved = configured(
        config,
        overrides,
        "completion",
        seed=seed,
        steps=steps,
        guidance_scale=guidance,
        temperature=temperature,
    )
    from prod9.inference.translate import translate_files

    model, request = _model_and_request(resolved, target, samples)
    for path in translate_files(model, files, output, request, overwrite=overwrite).all:
        typer.echo(str(path))


def inpaint(
    scan: Annotated[Path, typer.Option("--input", "-i", help="The scan: NIfTI or npy.")],
    mask: Annotated[Path, typer.Option("--mask", "-m", help="Same grid; not 0: draw anew.")],
    modality: Annotated[str, typer.Option(help="What the scan is.")],
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
    require_alone("inpaint")
    resolved = configured(
        config,
        overrides,
        "completion",
        seed=seed,
        steps=steps,
        guidance_scale=guidance,
        temperature=temperature,
    )
    from prod9.inference.inpaint import inpaint_files

    model, request = _model_and_request(resolved, modality, samples)
    for path in inpaint_files(model, scan, mask, output, request, overwrite=overwrite).all:
        typer.echo(str(path))


def _model_and_request(
    config: "Stage2Config", channel: str, samples: int
) -> "tuple[Model, SampleRequest]":
    from prod9.sample_request import SampleRequest
    from prod9.training import stage2

    model = stage2.load(config)
    return model, SampleRequest.completion_of(config, model.labels_of([channel], samples))
