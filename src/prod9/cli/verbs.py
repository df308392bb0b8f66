"""The verbs that both stages share: train, validate, test. Defined once."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from prod9.cli.options import (
    ConfigOption,
    OverridesArgument,
    OverwriteOption,
    command,
    print_table,
)
from prod9.errors import Prod9Error
from prod9.runtime.starting import starting

if TYPE_CHECKING:
    from prod9.config import Stage1Config, Stage2Config


def add_shared_verbs(app: typer.Typer, stage: Literal[1, 2]) -> None:
    """Give ``app`` the verbs train, validate and test."""

    def read(path: Path, overrides: Sequence[str] | None) -> "Stage1Config | Stage2Config":
        from prod9.config.load import load_stage1, load_stage2

        return (load_stage1 if stage == 1 else load_stage2)(path, overrides or ())

    @command(app)
    def train(
        config: ConfigOption,
        overrides: OverridesArgument = None,
        resume: bool = False,
        resume_or_start: bool = False,
        overwrite: OverwriteOption = False,
        print_config: bool = False,
    ) -> None:
        """Train, and export what was learned.

        Args:
            resume: Continue from the run's last checkpoint.
            resume_or_start: Continue where there is a checkpoint, else start: for requeued jobs.
            print_config: Print the resolved configuration and stop.
        """
        from prod9.config.load import dump

        resolved = read(config, overrides)
        if print_config:
            typer.echo(dump(resolved), nl=False)
            return
        if (resume or resume_or_start) and overwrite:
            going = "--resume" if resume else "--resume-or-start"
            raise Prod9Error(f"{going} goes on and --overwrite begins anew; give one of them.")
        with starting(f"Stage {stage}"):
            from prod9.inference.load import train as train_stage
            from prod9.planning.out_of_memory import memory_advice
            from prod9.runtime.distributed import is_main, of_main
            from prod9.training.processes import gather
            from prod9.training.run_folder import RunFolder

        gather(resolved.trainer)
        if resume_or_start:
            # One looks for all: a shared disk may show a file to one process before the other.
            resume = of_main(is_main() and RunFolder(resolved.output_dir).can_resume())
        with memory_advice(resolved):
            train_stage(resolved, resume=resume, overwrite=overwrite, progress=True)

    @command(app)
    def validate(config: ConfigOption, overrides: OverridesArgument = None) -> None:
        """Measure what was trained on the validation split."""
        _measure(read(config, overrides), "val")

    @command(app)
    def test(config: ConfigOption, overrides: OverridesArgument = None) -> None:
        """Measure what was trained on the test split; write OUTPUT_DIR/metrics.json."""
        _measure(read(config, overrides), "test")

    _ = train, validate, test


def _measure(config: "Stage1Config | Stage2Config", split: Literal["val", "test"]) -> None:
    """Print figures on a split; on the test split they are written, too."""
    from prod9.config import Stage1Config

    title = "validation split" if split == "val" else "test split"
    with starting(title):
        from prod9.evaluation.test_metrics import measure_stage1, measure_stage2
        from prod9.runtime.distributed import is_main
        from prod9.training.processes import gather

    gather(config.trainer)
    if isinstance(config, Stage1Config):
        figures = measure_stage1(config, split)
    else:
        figures = measure_stage2(config, split)
    if not is_main():
        return
    rows: list[tuple[str, str]] = []
    for name, value in figures.items():  # nested ones are left to the JSON file
        if isinstance(value, float | int | str):
            rows.append((name, f"{value:.4f}" if isinstance(value, float) else str(value)))
    print_table(rows, title)
    if split == "test":
        typer.echo(f"written to {config.output_dir / 'metrics.json'}")
