"""Options that several commands share. Nothing here imports PyTorch: ``--help`` must be quick."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from prod9.config import Stage2Config

MAX_SEED = 2**32 - 1
"""What NumPy, PyTorch and Lightning all take."""
BRATS = Path("maskgit/brats/stage2/base.yaml")
"""The shipped model of scans."""

ConfigOption = Annotated[
    Path,
    typer.Option("--config", "-c", help="YAML file; shipped ones are found by their name too."),
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="Overrides such as data.batch_size=2.", show_default=False
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
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
) -> "Stage2Config":
    """Read a configuration with what was said on the command line of its ``section``."""
    from prod9.config.load import load_stage2

    chosen = {
        f"{section}.steps": steps,
        f"{section}.guidance_scale": guidance,
        f"{section}.temperature": temperature,
        "seed": seed,
    }
    given = [f"{key}={value}" for key, value in chosen.items() if value is not None]
    return load_stage2(config, [*(overrides or ()), *given])
