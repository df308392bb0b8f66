"""``prod9-train-transformer``: Stage 2."""

from pathlib import Path
from typing import Annotated

import typer

from prod9.build import stage2
from prod9.build.generate import generate_files
from prod9.cli.run import guarded, new_app
from prod9.cli.verbs import (
    ConfigOption,
    OverridesArgument,
    OverwriteOption,
    Split,
    Stage,
    add_shared_verbs,
)
from prod9.config import Stage2Config

app = new_app("Stage 2: learn the tokens (MaskGIT transformer) and generate volumes.")


def _train(config: Stage2Config, resume: bool, overwrite: bool) -> None:
    stage2.train(config, resume=resume, overwrite=overwrite)


def _measure(config: Stage2Config, split: Split) -> dict[str, object]:
    return stage2.measure(config, split)


_STAGE = Stage(Stage2Config, _train, _measure)
add_shared_verbs(app, _STAGE)


@app.command()
def generate(
    config: ConfigOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the volumes.")],
    overrides: OverridesArgument = None,
    num_samples: Annotated[
        int, typer.Option("--num-samples", "-n", min=1, help="Volumes per class.")
    ] = 4,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="Class name, or `all`; repeatable.", show_default="all"),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Overrides sampler.steps.", show_default=False)
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(min=1.0, help="Overrides sampler.guidance_scale.", show_default=False),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Overrides sampler.temperature.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed; the config's when left out.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Draw new volumes: NIfTI files, a montage and a manifest."""
    chosen = {
        "sampler.steps": steps,
        "sampler.guidance_scale": guidance,
        "sampler.temperature": temperature,
        "seed": seed,
    }
    given = [f"{key}={value}" for key, value in chosen.items() if value is not None]
    resolved = _STAGE.load(config, [*(overrides or ()), *given])
    generator = stage2.load(resolved)
    labels = stage2.labels_of(generator, classes or ["all"], num_samples)
    generate_files(
        generator,
        labels,
        resolved.sampler,
        output,
        seed=resolved.seed,
        batch_size=resolved.data.batch_size,
        overwrite=overwrite,
    )
    typer.echo(f"{len(labels)} volumes, montage.png and manifest.json written to {output}")


run = guarded(app)
