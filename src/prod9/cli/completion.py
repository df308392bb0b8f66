"""``prod9-train-transformer translate`` and ``inpaint``: what a scan lacks."""

from pathlib import Path
from typing import Annotated

import typer

from prod9.cli.drawing import (
    BRATS,
    GuidanceOption,
    SeedOption,
    StepsOption,
    TemperatureOption,
    configured,
)
from prod9.cli.verbs import OverridesArgument, OverwriteOption
from prod9.errors import Prod9Error
from prod9.inference.inpaint import inpaint as fill_mask
from prod9.inference.synthesis import Settings
from prod9.inference.translate import translate as make_modality
from prod9.model import Model
from prod9.runtime.processes import require_alone
from prod9.training import stage2

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
    require_alone("translate")
    files = _files_of(source)
    generator, settings = _model(config, overrides, steps, guidance, temperature, seed, samples)
    written = make_modality(generator, files, target, output, settings, overwrite=overwrite)
    parts = (written.output, *written.draws, written.deviation, written.picture, written.record)
    for path in parts:
        if path is not None:
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
    require_alone("inpaint")
    generator, settings = _model(config, overrides, steps, guidance, temperature, seed, samples)
    written = fill_mask(generator, scan, mask, modality, output, settings, overwrite=overwrite)
    for path in (*written.outputs, written.picture, written.record):
        typer.echo(str(path))


def _model(
    config: Path,
    overrides: list[str] | None,
    steps: int | None,
    guidance: float | None,
    temperature: float | None,
    seed: int | None,
    samples: int,
) -> tuple[Model, Settings]:
    """Return the model of a configuration, and how it is to draw."""
    resolved = configured(
        config,
        overrides,
        "completion",
        seed=seed,
        steps=steps,
        guidance=guidance,
        temperature=temperature,
    )
    return stage2.load(resolved), Settings.of(resolved, samples)


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
