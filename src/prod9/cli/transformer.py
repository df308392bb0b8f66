"""``prod9-train-transformer``: Stage 2."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from prod9.cli.options import (
    ConfigOption,
    NumSamples,
    OptionalOutput,
    Output,
    OverridesArgument,
    OverwriteOption,
    command,
)
from prod9.cli.run import guarded, new_app
from prod9.cli.verbs import add_shared_verbs
from prod9.errors import Prod9Error
from prod9.runtime.processes import require_alone

if TYPE_CHECKING:
    from prod9.config import Stage2Config
    from prod9.model import Model
    from prod9.sample_request import SampleRequest

BRATS = Path("maskgit/brats/stage2/base.yaml")
"""The shipped model of scans."""

StepsOption = Annotated[int | None, typer.Option(min=1, help="Overrides the config's steps.")]
GuidanceOption = Annotated[
    float | None, typer.Option(min=1.0, help="Overrides the config's guidance_scale.")
]
TemperatureOption = Annotated[
    float | None, typer.Option(help="Overrides the config's temperature.")
]
SeedOption = Annotated[
    int | None, typer.Option(min=0, max=2**32 - 1, help="Seed; the config's when left out.")
]
ScanModelOption = Annotated[
    Path,
    typer.Option("--config", "-c", help="YAML file of a BraTS model; shipped ones by their name."),
]
SamplesOption = Annotated[
    int, typer.Option("--samples", "-k", min=1, help="Draws, from different random numbers.")
]

app = new_app("Stage 2: learn the tokens (MaskGIT transformer) and generate volumes.")
add_shared_verbs(app, 2)


@command(app)
def generate(
    overrides: OverridesArgument = None,
    config: Annotated[Path | None, typer.Option("--config", "-c")] = None,
    output: OptionalOutput = None,
    num_samples: NumSamples = 4,
    classes: Annotated[list[str] | None, typer.Option("--class")] = None,
    modalities: Annotated[list[str] | None, typer.Option("--modality")] = None,
    shape: tuple[int, int, int] | None = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    temperature: TemperatureOption = None,
    seed: SeedOption = None,
    resume: bool = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Draw new volumes: NIfTI files, a montage and a manifest.

    The processes of a distributed run share the work.

    Args:
        config: YAML file; shipped ones are found by their name too. With --modality: the shipped
            BraTS one when left out.
        output: Folder for the volumes; OUTPUT_DIR/generated when left out.
        num_samples: Volumes per class.
        classes: Class name, or `all`; repeatable, all when left out.
        modalities: The same for scans: T1, T1ce, T2 or FLAIR; repeatable.
        shape: Voxels per side, around the middle of the training volumes; the training volumes'
            when left out.
        resume: Go on with an interrupted set; draw what is missing.
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
        raise typer.BadParameter(f"--shape takes sides of at least 1, {MAX_VOXELS} voxels in all")
    settings = {"steps": steps, "guidance_scale": guidance, "temperature": temperature}
    resolved = _configured(config or BRATS, overrides, "sampler", seed, settings)
    gather(resolved.trainer)
    model = stage2.load(resolved)
    names = [*(classes or ()), *(modalities or ())] or ["all"]
    request = SampleRequest.generation_of(resolved, model.labels_of(names, num_samples), shape)
    folder = output or resolved.output_dir / "generated"
    generate_files(model, request, folder, overwrite=overwrite, resume=resume)
    if is_main():
        count = len(request.labels)
        typer.echo(f"{count} volumes, montage.png and manifest.json written to {folder}")


@command(app)
def translate(
    source: list[str],
    target: str,
    output: Output,
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

    Args:
        source: MODALITY=FILE, such as T1=a.nii.gz; repeatable.
        target: The modality to make.
        output: NIfTI file for the result.
    """
    from prod9.inference.translate import translate_files

    files: dict[str, Path] = {}
    for item in source:
        name, _, file = item.partition("=")
        if not (name and file):
            raise Prod9Error(f"--source {item}: write MODALITY=FILE, such as T1=a.nii.gz.")
        if name in files:
            raise Prod9Error(f"--source {name} is given twice; give each modality once.")
        files[name] = Path(file)
    settings = {"steps": steps, "guidance_scale": guidance, "temperature": temperature}
    model, request = _asked("translate", config, overrides, target, samples, seed, settings)
    for path in translate_files(model, files, output, request, overwrite=overwrite).all:
        typer.echo(str(path))


@command(app)
def inpaint(
    scan: Annotated[Path, typer.Option("--input", "-i")],
    mask: Annotated[Path, typer.Option("--mask", "-m")],
    modality: str,
    output: Output,
    overrides: OverridesArgument = None,
    config: ScanModelOption = BRATS,
    samples: SamplesOption = 1,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    temperature: TemperatureOption = None,
    seed: SeedOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Draw anew what lies under a mask; every other voxel comes back untouched, bit for bit.

    Args:
        scan: The scan, of any format.
        mask: Same grid; not 0: draw anew.
        modality: What the scan is.
        output: Folder for the results.
    """
    from prod9.inference.inpaint import inpaint_files

    settings = {"steps": steps, "guidance_scale": guidance, "temperature": temperature}
    model, request = _asked("inpaint", config, overrides, modality, samples, seed, settings)
    for path in inpaint_files(model, scan, mask, output, request, overwrite=overwrite).all:
        typer.echo(str(path))


def _asked(
    command: str,
    config: Path,
    overrides: list[str] | None,
    channel: str,
    samples: int,
    seed: int | None,
    settings: Mapping[str, float | None],
) -> "tuple[Model, SampleRequest]":
    """Return the model of a configuration, and the samples of a channel that are asked for."""
    from prod9.sample_request import SampleRequest
    from prod9.training import stage2

    require_alone(command)
    resolved = _configured(config, overrides, "completion", seed, settings)
    model = stage2.load(resolved)
    return model, SampleRequest.completion_of(resolved, model.labels_of([channel], samples))


@command(app)
def sweep(
    config: ConfigOption,
    overrides: OverridesArgument = None,
    output: OptionalOutput = None,
    steps: list[int] | None = None,
    temperature: list[float] | None = None,
    guidance: list[float] | None = None,
    order: list[str] | None = None,
    choice_temperature: list[float] | None = None,
    num_samples: NumSamples = 16,
    space: Literal["efficientnet", "medicalnet", "classifier"] = "efficientnet",
    seed: SeedOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Draw with every combination of sampler settings; table, plot, and the best as a preset.

    Judged on the validation split. What an option leaves out stays as the config has it. An
    interrupted sweep goes on where it was.

    Args:
        output: OUTPUT_DIR/sweep when left out.
        steps: Repeatable.
        temperature: Repeatable.
        guidance: Repeatable.
        order: Such as confidence or halton; repeatable.
        choice_temperature: Of the confidence order; repeatable.
        num_samples: Volumes per class and setting.
        space: Feature space of the Frechet distance.
    """
    require_alone("sweep")
    from prod9.evaluation.sweep import PLOT, PRESET, RECORD, TABLE, grid_of
    from prod9.evaluation.sweep import sweep as run_sweep

    resolved = _configured(config, overrides, "sampler", seed, {})
    values = {
        "steps": steps or (),
        "temperature": temperature or (),
        "guidance_scale": guidance or (),
        "order": order or (),
        "choice_temperature": choice_temperature or (),
    }
    settings, folder = grid_of(resolved.sampler, values), output or resolved.output_dir / "sweep"
    run_sweep(
        resolved, settings, folder, samples_per_class=num_samples, space=space, overwrite=overwrite
    )
    typer.echo(f"{', '.join((TABLE, PLOT, RECORD, PRESET))} written to {folder}")


def _configured(
    config: Path,
    overrides: list[str] | None,
    section: Literal["sampler", "completion"],
    seed: int | None,
    settings: Mapping[str, float | None],
) -> "Stage2Config":
    """Read a configuration with options in place of its seed and keys of ``section``."""
    from prod9.config.load import load_stage2

    chosen = {f"{section}.{key}": value for key, value in settings.items()} | {"seed": seed}
    options = [f"{key}={value}" for key, value in chosen.items() if value is not None]
    return load_stage2(config, [*(overrides or ()), *options])


run = guarded(app)
