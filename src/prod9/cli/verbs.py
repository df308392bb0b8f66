"""The verbs that both stages share: train, validate, test. Defined once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, Protocol, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from prod9.config import Stage1Config, Stage2Config
from prod9.config.load import dump, load
from prod9.data.splits import HeldOut
from prod9.errors import Prod9Error
from prod9.planning.out_of_memory import memory_advice
from prod9.runtime.distributed import is_main, of_main
from prod9.training.processes import gather
from prod9.training.run_folder import RunFolder

ConfigT = TypeVar("ConfigT", Stage1Config, Stage2Config)
Taken = TypeVar("Taken", Stage1Config, Stage2Config, contravariant=True)

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
PrintOption = Annotated[
    bool, typer.Option("--print-config", help="Print the resolved configuration and stop.")
]
MAX_SEED = 2**32 - 1
"""What NumPy, PyTorch and Lightning all take."""
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


class Train(Protocol[Taken]):
    """What trains a stage; it may return what was learned."""

    def __call__(self, config: Taken, *, resume: bool, overwrite: bool) -> object:
        """Train."""


@dataclass(frozen=True)
class Stage(Generic[ConfigT]):
    """What the shared verbs need to know of a stage."""

    config_type: type[ConfigT]
    train: Train[ConfigT]
    measure: Callable[[ConfigT, HeldOut], Mapping[str, object]]
    """Figures on a split; on the test split it also writes ``metrics.json``."""

    def load(self, path: Path, overrides: Sequence[str] | None) -> ConfigT:
        """Read and validate a configuration."""
        return load(path, self.config_type, overrides or ())


def show(title: str, figures: Mapping[str, object]) -> None:
    """Print figures as a table on stdout; nested mappings are left to the JSON file.

    Of several processes, only the main one does.
    """
    if not is_main():
        return
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in figures.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.4f}")
        elif isinstance(value, int | str):
            table.add_row(name, str(value))
    Console(soft_wrap=True).print(table)


def add_shared_verbs(app: typer.Typer, stage: Stage[ConfigT]) -> None:
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
        print_config: PrintOption = False,
    ) -> None:
        """Train, and export what was learned."""
        resolved = stage.load(config, overrides)
        if print_config:
            typer.echo(dump(resolved), nl=False)
            return
        if resume_or_start and overwrite:
            raise Prod9Error("--resume-or-start goes on and --overwrite begins anew; give one.")
        gather(resolved.trainer)
        if resume_or_start:
            # One looks for all: a shared disk may show a file to one process before the other.
            resume = of_main(is_main() and RunFolder(resolved.output_dir).can_resume())
        with memory_advice(resolved):
            stage.train(resolved, resume=resume, overwrite=overwrite)

    @app.command()
    def validate(config: ConfigOption, overrides: OverridesArgument = None) -> None:
        """Measure what was trained on the validation split."""
        resolved = stage.load(config, overrides)
        gather(resolved.trainer)
        show("validation split", stage.measure(resolved, "val"))

    @app.command()
    def test(config: ConfigOption, overrides: OverridesArgument = None) -> None:
        """Measure what was trained on the test split; write OUTPUT_DIR/metrics.json."""
        resolved = stage.load(config, overrides)
        gather(resolved.trainer)
        show("test split", stage.measure(resolved, "test"))
        if is_main():
            typer.echo(f"written to {resolved.output_dir / 'metrics.json'}")

    _ = train, validate, test
