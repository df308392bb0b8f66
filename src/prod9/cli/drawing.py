"""What the commands that draw have in common: options of a sampler, and where they go."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from prod9.cli.verbs import MAX_SEED
from prod9.config import Stage2Config
from prod9.config.load import load_stage2

BRATS = Path("maskgit/brats/stage2/base.yaml")
"""The shipped model of scans."""

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


def configured(
    config: Path,
    overrides: list[str] | None,
    section: Literal["sampler", "completion"],
    *,
    seed: int | None,
    steps: int | None = None,
    guidance: float | None = None,
    temperature: float | None = None,
) -> Stage2Config:
    """Read the configuration with what was said on the command line of ``section``."""
    chosen = {
        f"{section}.steps": steps,
        f"{section}.guidance_scale": guidance,
        f"{section}.temperature": temperature,
        "seed": seed,
    }
    given = [f"{key}={value}" for key, value in chosen.items() if value is not None]
    return load_stage2(config, [*(overrides or ()), *given])
