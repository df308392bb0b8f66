"""``prod9-train-transformer sweep``: which sampler settings are best."""

from pathlib import Path
from typing import Annotated

import typer

from prod9.cli.options import (
    ConfigOption,
    OverridesArgument,
    OverwriteOption,
    SeedOption,
    configured,
)
from prod9.config.evaluation import FeatureSpaceKey
from prod9.runtime.processes import require_alone


def sweep(
    config: ConfigOption,
    overrides: OverridesArgument = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="OUTPUT_DIR/sweep when left out.")
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
        FeatureSpaceKey, typer.Option(help="Feature space of the Frechet distance.")
    ] = "efficientnet",
    seed: SeedOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Draw with every combination of sampler settings; table, plot, and the best as a preset.

    Judged on the validation split. What an option leaves out stays as the config has it. An
    interrupted sweep goes on where it was.
    """
    require_alone("sweep")
    from prod9.evaluation.sweep import PLOT, PRESET, RECORD, TABLE, grid_of
    from prod9.evaluation.sweep import sweep as run_sweep

    resolved = configured(config, overrides, "sampler", seed=seed)
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
