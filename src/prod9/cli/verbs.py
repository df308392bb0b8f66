"""The verbs that both stages share: train, validate, test. Defined once."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from prod9.cli.options import ConfigOption, OverridesArgument, OverwriteOption
from prod9.errors import Prod9Error

if TYPE_CHECKING:
    from pathlib import Path

    from prod9.config import Stage1Config, Stage2Config
    from prod9.data.splits import HeldOut

Stage = Literal[1, 2]


def load_config(
    stage: Stage, path: "Path", overrides: Sequence[str] | None
) -> "Stage1Config | Stage2Config":
    """Read and validate a configuration of a stage."""
    from prod9.config.load import load_stage1, load_stage2

    return (load_stage1 if stage == 1 else load_stage2)(path, overrides or ())


def _measure(config: "Stage1Config | Stage2Config", split: "HeldOut") -> Mapping[str, object]:
    """Return figures on a split; on the test split they are written, too."""
    from prod9.config import Stage1Config
    from prod9.evaluation.test_metrics import measure_stage1, measure_stage2

    if isinstance(config, Stage1Config):
        return measure_stage1(config, split)
    return measure_stage2(config, split)


def _train(config: "Stage1Config | Stage2Config", *, resume: bool, overwrite: bool) -> None:
    from prod9.config import Stage1Config
    from prod9.training import stage1, stage2

    if isinstance(config, Stage1Config):
        stage1.train(config, resume=resume, overwrite=overwrite)
    else:
        stage2.train(config, resume=resume, overwrite=overwrite)


def show(title: str, figures: Mapping[str, object]) -> None:
    """Print figures as a table on stdout; nested mappings are left to the JSON file.

    Of several processes, only the main one does.
    """
    from rich.console import Console
    from rich.table import Table

    from prod9.runtime.distributed import is_main

    if not is_main():
        return
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in figures.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.4f}")
        elif isinstance(value, int | str):
            table.add_row(name, str(value))
    Console(soft_wrap=True).print(table)


def add_shared_verbs(app: typer.Typer, stage: Stage) -> None:
    """Give ``app`` the verbs train, validate and test."""

    @app.command()
    def train(
        config: ConfigOption,
        overrides: OverridesArgument = None,
        resume: Annotated[
            bool, typer.Option("--resume", help="Continue from the run's last checkpoint.")
        ] = False,
        resume_or_start: Annotated[
            bool,
            typer.Option(
                "--resume-or-start",
                help="Continue where there is a checkpoint, else start: for requeued jobs.",
            ),
        ] = False,
        overwrite: OverwriteOption = False,
        print_config: Annotated[
            bool, typer.Option("--print-config", help="Print the resolved configuration and stop.")
        ] = False,
    ) -> None:
        """Train, and export what was learned."""
        from prod9.config.load import dump

        resolved = load_config(stage, config, overrides)
        if print_config:
            typer.echo(dump(resolved), nl=False)
            return
        if (resume or resume_or_start) and overwrite:
            going = "--resume" if resume else "--resume-or-start"
            raise Prod9Error(f"{going} goes on and --overwrite begins anew; give one of them.")
        from prod9.planning.out_of_memory import memory_advice
        from prod9.runtime.distributed import is_main, of_main
        from prod9.training.processes import gather
        from prod9.training.run_folder import RunFolder

        gather(resolved.trainer)
        if resume_or_start:
            # One looks for all: a shared disk may show a file to one process before the other.
            resume = of_main(is_main() and RunFolder(resolved.output_dir).can_resume())
        with memory_advice(resolved):
            _train(resolved, resume=resume, overwrite=overwrite)

    @app.command()
    def validate(config: ConfigOption, overrides: OverridesArgument = None) -> None:
        """Measure what was trained on the validation split."""
        from prod9.training.processes import gather

        resolved = load_config(stage, config, overrides)
        gather(resolved.trainer)
        show("validation split", _measure(resolved, "val"))

    @app.command()
    def test(config: ConfigOption, overrides: OverridesArgument = None) -> None:
        """Measure what was trained on the test split; write OUTPUT_DIR/metrics.json."""
        from prod9.runtime.distributed import is_main
        from prod9.training.processes import gather

        resolved = load_config(stage, config, overrides)
        gather(resolved.trainer)
        show("test split", _measure(resolved, "test"))
        if is_main():
            typer.echo(f"written to {resolved.output_dir / 'metrics.json'}")

    _ = train, validate, test
