"""``prod9-train-transformer generate``: new volumes."""

import math
from pathlib import Path
from typing import Annotated

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


def generate(
    overrides: OverridesArgument = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help="YAML file; shipped ones are found by their name too. With --modality: the "
            "shipped BraTS one when left out.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for the volumes; OUTPUT_DIR/generated when left out."
        ),
    ] = None,
    num_samples: Annotated[
        int, typer.Option("--num-samples", "-n", min=1, help="Volumes per class.")
    ] = 4,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="Class name, or `all`; repeatable.", show_default="all"),
    ] = None,
    modalities: Annotated[
        list[str] | None,
        typer.Option("--modality", help="The same for scans: T1, T1ce, T2 or FLAIR; repeatable."),
    ] = None,
    shape: Annotated[
        tuple[int, int, int] | None,
        typer.Option(
            help="Voxels per side, around the middle of the training volumes.",
            show_default="the training volumes'",
        ),
    ] = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    temperature: TemperatureOption = None,
    seed: SeedOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted set; draw what is missing.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Draw new volumes: NIfTI files, a montage and a manifest.

    The processes of a distributed run share the work.
    """
    from prod9.inference.generate import generate_files
    from prod9.runtime.distributed import is_main
    from prod9.sample_request import SampleRequest
    from prod9.shapes import MAX_VOXELS
    from prod9.training import stage2
    from prod9.training.processes import gather

    if resume and overwrite:
        raise Prod9Error("--resume goes on and --overwrite begins anew; give one of them.")
    if config is None and not modalities:
        raise typer.BadParameter("give --config FILE (or --modality for the shipped BraTS model)")
    if shape is not None and not (min(shape) >= 1 and math.prod(shape) <= MAX_VOXELS):
        raise typer.BadParameter(
            f"--shape {' '.join(map(str, shape))}: every side is at least 1, and there are at most "
            f"{MAX_VOXELS} voxels"
        )
    resolved = configured(
        config or BRATS,
        overrides,
        "sampler",
        seed=seed,
        steps=steps,
        guidance_scale=guidance,
        temperature=temperature,
    )
    gather(resolved.trainer)
    model = stage2.load(resolved)
    names = [*(classes or ()), *(modalities or ())] or ["all"]
    request = SampleRequest.generation_of(resolved, model.labels_of(names, num_samples), shape)
    folder = output or resolved.output_dir / "generated"
    generate_files(model, request, folder, overwrite=overwrite, resume=resume)
    if is_main():
        count = len(request.labels)
        typer.echo(f"{count} volumes, montage.png and manifest.json written to {folder}")
