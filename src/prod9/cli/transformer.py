"""``prod9-train-transformer``: Stage 2."""

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from prod9.build import stage2
from prod9.build.figures import measure_stage2
from prod9.build.generate import generate_files
from prod9.build.inpainting import inpaint as fill_mask
from prod9.build.launch import gather, require_alone
from prod9.build.sweep import PLOT, PRESET, RECORD, TABLE, grid_of
from prod9.build.sweep import sweep as run_sweep
from prod9.build.synthesis import Settings
from prod9.build.translation import translate as make_modality
from prod9.cli.run import guarded, new_app
from prod9.cli.verbs import (
    MAX_SEED,
    ConfigOption,
    OverridesArgument,
    OverwriteOption,
    Split,
    Stage,
    add_shared_verbs,
)
from prod9.config import Stage2Config
from prod9.errors import UserError
from prod9.ranks import is_main
from prod9.shapes import MAX_VOXELS

app = new_app("Stage 2: learn the tokens (MaskGIT transformer) and generate volumes.")


def _train(config: Stage2Config, resume: bool, overwrite: bool) -> None:
    stage2.train(config, resume=resume, overwrite=overwrite)


def _measure(config: Stage2Config, split: Split) -> dict[str, object]:
    return measure_stage2(config, split)


_STAGE = Stage(Stage2Config, _train, _measure)
add_shared_verbs(app, _STAGE)


_BRATS = Path("maskgit/brats/stage2/base.yaml")

SynthesisConfigOption = Annotated[
    Path,
    typer.Option("--config", "-c", help="YAML file of a BraTS model; shipped ones by their name."),
]
StepsOption = Annotated[
    int | None,
    typer.Option("--steps", min=1, help="Overrides the config's steps.", show_default=False),
]
GuidanceOption = Annotated[
    float | None,
    typer.Option(
        "--guidance", min=1.0, help="Overrides the config's guidance_scale.", show_default=False
    ),
]
TemperatureOption = Annotated[
    float | None,
    typer.Option("--temperature", help="Overrides the config's temperature.", show_default=False),
]
SeedOption = Annotated[
    int | None,
    typer.Option("--seed", min=0, max=MAX_SEED, help="Seed; the config's when left out."),
]
SamplesOption = Annotated[
    int, typer.Option("--samples", "-k", min=1, help="Draws, from different random numbers.")
]


def _resolved(
    config: Path,
    overrides: list[str] | None,
    steps: int | None,
    guidance: float | None,
    temperature: float | None,
    seed: int | None,
    section: Literal["sampler", "completion"],
) -> Stage2Config:
    """Read the configuration with what was said on the command line of ``section``."""
    chosen = {
        f"{section}.steps": steps,
        f"{section}.guidance_scale": guidance,
        f"{section}.temperature": temperature,
        "seed": seed,
    }
    given = [f"{key}={value}" for key, value in chosen.items() if value is not None]
    return _STAGE.load(config, [*(overrides or ()), *given])


def settings_of(config: Stage2Config, samples: int) -> Settings:
    """Return how ``translate`` and ``inpaint`` draw."""
    return Settings(config.completion, config.sliding_window, config.seed, samples)


@app.command()
def generate(
    overrides: OverridesArgument = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help="YAML file; shipped ones are found by their name too. With --modality: the "
            "shipped BraTS one when left out.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for the volumes; OUTPUT_DIR/generated when left out.",
            show_default=False,
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
    if resume and overwrite:
        raise UserError("--resume goes on and --overwrite begins anew; give one of them.")
    if config is None and not modalities:
        raise typer.BadParameter("give --config FILE (or --modality for the shipped BraTS model)")
    if shape is not None and not (min(shape) >= 1 and math.prod(shape) <= MAX_VOXELS):
        raise typer.BadParameter(
            f"--shape {' '.join(map(str, shape))}: every side is at least 1, and there are at most "
            f"{MAX_VOXELS} voxels"
        )
    resolved = _resolved(config or _BRATS, overrides, steps, guidance, temperature, seed, "sampler")
    gather(resolved.trainer)
    generator = stage2.load(resolved)
    names = [*(classes or ()), *(modalities or ())] or ["all"]
    labels = stage2.labels_of(generator, names, num_samples)
    folder = output or resolved.output_dir / "generated"
    generate_files(
        generator,
        labels,
        resolved.sampler,
        folder,
        seed=resolved.seed,
        batch_size=resolved.data.batch_size,
        windows=resolved.sliding_window,
        shape=shape,
        overwrite=overwrite,
        resume=resume,
    )
    if is_main():
        typer.echo(f"{len(labels)} volumes, montage.png and manifest.json written to {folder}")


@app.command()
def translate(
    source: Annotated[
        list[str], typer.Option("--source", help="MODALITY=FILE, such as T1=a.nii.gz; repeatable.")
    ],
    target: Annotated[str, typer.Option("--target", help="The modality to make.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="NIfTI file for the result.")],
    overrides: OverridesArgument = None,
    config: SynthesisConfigOption = _BRATS,
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
    require_alone("translate")
    sources: dict[str, Path] = {}
    for item in source:
        name, separator, file = item.partition("=")
        if not (name and separator and file):
            raise UserError(f"--source {item}: write MODALITY=FILE, such as T1=a.nii.gz.")
        if name in sources:
            raise UserError(f"--source {name} is given twice; give each modality once.")
        sources[name] = Path(file)
    resolved = _resolved(config, overrides, steps, guidance, temperature, seed, "completion")
    written = make_modality(
        stage2.load(resolved),
        sources,
        target,
        output,
        settings_of(resolved, samples),
        overwrite=overwrite,
    )
    parts = (written.output, *written.draws, written.deviation, written.picture, written.record)
    for path in parts:
        if path is not None:
            typer.echo(str(path))


@app.command()
def inpaint(
    scan: Annotated[Path, typer.Option("--input", "-i", help="The scan: NIfTI or npy.")],
    mask: Annotated[Path, typer.Option("--mask", "-m", help="Same grid; not 0: draw anew.")],
    modality: Annotated[str, typer.Option("--modality", help="What the scan is.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    overrides: OverridesArgument = None,
    config: SynthesisConfigOption = _BRATS,
    samples: SamplesOption = 1,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    temperature: TemperatureOption = None,
    seed: SeedOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Draw anew what lies under a mask; every other voxel comes back untouched, bit for bit."""
    require_alone("inpaint")
    resolved = _resolved(config, overrides, steps, guidance, temperature, seed, "completion")
    written = fill_mask(
        stage2.load(resolved),
        scan,
        mask,
        modality,
        output,
        settings_of(resolved, samples),
        overwrite=overwrite,
    )
    for path in (*written.outputs, written.picture, written.record):
        typer.echo(str(path))


@app.command()
def sweep(
    config: ConfigOption,
    overrides: OverridesArgument = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="OUTPUT_DIR/sweep when left out.", show_default=False),
    ] = None,
    steps: Annotated[list[int] | None, typer.Option(help="Repeatable.")] = None,
    temperature: Annotated[list[float] | None, typer.Option(help="Repeatable.")] = None,
    guidance: Annotated[list[float] | None, typer.Option(help="Repeatable.")] = None,
    order: Annotated[
        list[str] | None, typer.Option(help="confidence or halton; repeatable.")
    ] = None,
    choice_temperature: Annotated[
        list[float] | None, typer.Option(help="Of the confidence order; repeatable.")
    ] = None,
    num_samples: Annotated[
        int, typer.Option("--num-samples", "-n", min=1, help="Volumes per class and setting.")
    ] = 16,
    space: Annotated[
        Literal["efficientnet", "medicalnet", "classifier"],
        typer.Option(help="Feature space of the Frechet distance."),
    ] = "efficientnet",
    seed: SeedOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Draw with every combination of sampler settings; table, plot, and the best as a preset.

    Judged on the validation split. What an option leaves out stays as the config has it. An
    interrupted sweep goes on where it was.
    """
    require_alone("sweep")
    resolved = _resolved(config, overrides, None, None, None, seed, "sampler")
    settings = grid_of(
        resolved.sampler,
        steps=steps or (),
        temperatures=temperature or (),
        guidance=guidance or (),
        orders=order or (),
        choice_temperatures=choice_temperature or (),
    )
    folder = output or resolved.output_dir / "sweep"
    run_sweep(
        resolved,
        settings,
        folder,
        samples_per_class=num_samples,
        space=space,
        overwrite=overwrite,
    )
    typer.echo(f"{', '.join((TABLE, PLOT, RECORD, PRESET))} written to {folder}")


run = guarded(app)
