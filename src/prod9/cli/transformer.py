"""``prod9-train-transformer``: Stage 2."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from prod9.cli.options import (
    ConfigOption,
    NumSamples,
    OptionalOutput,
    OverridesArgument,
    OverwriteOption,
    command,
)
from prod9.cli.run import guarded, new_app
from prod9.cli.sampling import add_sampling_verbs
from prod9.cli.verbs import add_shared_verbs
from prod9.runtime.processes import require_alone
from prod9.runtime.starting import starting

if TYPE_CHECKING:
    from prod9.inference.model import Model

_BRATS = Path("maskgit/brats/stage2/base.yaml")


@dataclass(frozen=True, kw_only=True)
class Configured:
    """The model that a configuration has trained."""

    overrides: OverridesArgument = None
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help="YAML file; shipped ones are found by their name too. For channels of scans: the "
            "shipped BraTS one when left out.",
        ),
    ] = None

    def load(self, *, scans: bool, shared: bool) -> "tuple[Model, Path | None]":
        """Read the configuration, and the model of its run folder."""
        if self.config is None and not scans:
            raise typer.BadParameter(
                "give --config FILE (or --modality for the shipped BraTS model)"
            )
        from prod9.config.load import load_stage2
        from prod9.inference.model import Model
        from prod9.inference.recorded import Recorded
        from prod9.training import stage2
        from prod9.training.processes import gather

        resolved = load_stage2(self.config or _BRATS, self.overrides or ())
        if shared:
            gather(resolved.trainer)
        recorded = Recorded.model_validate(resolved.model_dump())
        return Model.of(stage2.load(resolved), recorded), resolved.output_dir


app = new_app("Stage 2: learn the tokens (MaskGIT transformer) and generate volumes.", script=True)
add_shared_verbs(app, 2)
add_sampling_verbs(app, Configured)


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
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1)] = None,
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
        seed: Seed; the config's when left out.
    """
    require_alone("sweep")
    from prod9.config.load import load_stage2

    with starting("sweep"):
        from prod9.evaluation.sweep import PLOT, PRESET, RECORD, TABLE, grid_of
        from prod9.evaluation.sweep import sweep as run_sweep

    seeds = [] if seed is None else [f"seed={seed}"]
    resolved = load_stage2(config, [*(overrides or ()), *seeds])
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


run = guarded(app)
