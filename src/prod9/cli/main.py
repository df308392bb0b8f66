"""``prod9``: make a model, use it, look and measure; data and machine."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from prod9.cli.edit import edit
from prod9.cli.evaluate import evaluate
from prod9.cli.export import export
from prod9.cli.options import Count, OptionalOutput, OverwriteOption, command, print_table
from prod9.cli.plan import plan
from prod9.cli.run import guarded, new_app
from prod9.cli.train import train
from prod9.cli.use import add_verbs
from prod9.cli.view import view
from prod9.errors import Prod9Error
from prod9.runtime.processes import require_alone
from prod9.runtime.starting import starting

app = new_app("Learn to draw new 3D medical volumes.", script=True)
data_app = new_app("Data sets: what is there, and fetching or building them.")
weights_app = new_app("Weights of pre-trained networks.")
MAKE, USE = "Make a model", "Use a model"
LOOK, MACHINE = "Look and measure", "Data and machine"
"""Headings of ``prod9 --help``, in this order: that of their first commands."""
app.add_typer(data_app, name="data", rich_help_panel=MACHINE)
app.add_typer(weights_app, name="weights", rich_help_panel=MACHINE)

RootOption = Annotated[Path, typer.Option("--root", help="Folder of the npz files.")]
_ROOT = Path("data/medmnist3d")


command(app, panel=MAKE)(train)


@command(app, panel=MAKE)
def demo(
    what: Annotated[Literal["regions", "brats"], typer.Argument()] = "regions",
    output: OptionalOutput = None,
    overwrite: bool = False,
    stage1: list[str] | None = None,
    stage2: list[str] | None = None,
) -> None:
    """Train both stages on data that prod9 carries, generate, measure, and write a page.

    Args:
        what: Brain regions by name, or any MRI modality from any other.
        output: Folder for everything the demo makes; outputs/demo or outputs/demo_brats when left
            out.
        overwrite: Replace an earlier demo.
        stage1: Override of Stage 1, KEY=VALUE; repeatable.
        stage2: Override of Stage 2, KEY=VALUE; repeatable.
    """
    require_alone("prod9 demo")
    with starting("prod9 demo"):
        from prod9.demo.brats import run_brats_demo
        from prod9.demo.regions import run_demo

    run_it = run_demo if what == "regions" else run_brats_demo
    page = run_it(
        output or Path("outputs/demo" if what == "regions" else "outputs/demo_brats"),
        overwrite=overwrite,
        stage1_overrides=stage1 or (),
        stage2_overrides=stage2 or (),
    )
    typer.echo(f"done: open {page}")


for verb in (plan, export):
    command(app, panel=MAKE)(verb)
add_verbs(app, USE)
command(app, panel=USE)(edit)
for verb in (evaluate, view):
    command(app, panel=LOOK)(verb)


@command(data_app, "list")
def list_data(root: RootOption = _ROOT) -> None:
    """List every data set: its file, whether it is there, volumes per split, classes."""
    from rich.console import Console
    from rich.table import Column, Table

    from prod9.data import medmnist
    from prod9.data.medmnist_table import class_names

    path = Column("file", overflow="fold")
    table = Table("data set", "size", path, "there", "train/val/test", "classes")
    for row in medmnist.describe(root):
        names = ", ".join(class_names(row.flag))
        counts = "/".join(str(n) for n in row.counts.values())
        there = row.problem or ("yes" if row.present else "no")
        table.add_row(row.flag, str(row.size), str(row.path), there, counts, names)
    Console(soft_wrap=True, markup=False).print(table)


@command(data_app, "fetch")
def fetch_data(
    name: Annotated[str, typer.Argument()], size: int = 28, root: RootOption = _ROOT
) -> None:
    """Download a data set (or build the embedded one) and check it.

    Args:
        name: Data set, or `all` for the six of MedMNIST.
        size: Voxels per side: 28 or 64.
    """
    from prod9.config import MedMNISTSourceConfig
    from prod9.config.load import validated
    from prod9.data import medmnist

    values = {"dataset_name": name, "size": size, "root": root}
    config = validated(MedMNISTSourceConfig, values, "command line")
    medmnist.check(config)
    for path in medmnist.prepare(config):
        typer.echo(str(path))


@command(data_app, "inspect")
def inspect_data(
    folder: Annotated[Path, typer.Argument()],
    output: OptionalOutput = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Read every scan of a folder and say what is there: channels, grids, values, broken cases.

    Exit code 2 where something is wrong.

    Args:
        folder: A folder of scans in any known layout, or a dataset.yaml, CSV or JSON file of them.
        output: Where to write the description, to be edited: dataset.yaml.
    """
    from rich.progress import Progress

    from prod9.config.dataset import write_description
    from prod9.data.folder.inspection import inspect_folder
    from prod9.data.volume_files.write import refuse_overwrite

    if output is not None:
        refuse_overwrite(output, overwrite)
    with Progress(transient=True) as bar:
        task = bar.add_task("reading scans", total=None)
        found = inspect_folder(
            folder, lambda done, total: bar.update(task, completed=done, total=total)
        )
    print_table(found.lines)
    if output is not None:
        write_description(output, found.description)
        typer.echo(f"description written to {output}")
    if found.broken:
        raise Prod9Error(
            f"{found.broken} of {found.broken + found.usable} cases of {folder} cannot be used; "
            "repair them, or train with data.on_bad_case=skip."
        )
    if found.problems:
        raise Prod9Error(f"{folder} has {len(found.problems)} problems, named above; mend them.")


@command(data_app, "make-phantom-brats")
def make_phantom_brats(
    folder: Annotated[Path, typer.Argument()],
    cases: Count,
    release: Literal["2021", "2023", "msd"] = "2021",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a semi-synthetic BraTS folder: one template brain, bent, with drawn tumours.

    Args:
        folder: Folder for the cohort.
        cases: How many.
        release: Whose names and layout.
        seed: Seed of the cohort.
    """
    from rich.progress import Progress

    from prod9.data.brats.phantom.cohort import make_phantom

    with Progress(transient=True) as bar:
        task = bar.add_task("drawing cases", total=cases)
        make_phantom(
            folder,
            cases=cases,
            release=release,
            seed=seed,
            overwrite=overwrite,
            on_case=lambda index: bar.advance(task),
        )
    typer.echo(f"{cases} cases written to {folder} (semi-synthetic: nobody's brain)")


@command(weights_app, "fetch")
def fetch_weights(network: Annotated[Literal["medicalnet"], typer.Argument()]) -> None:
    """Download a network's weights to the cache and check them; training then needs no network.

    Args:
        network: Which network.
    """
    from prod9.config.loss import PerceptualLossConfig
    from prod9.training.stage1 import fetch_medicalnet

    typer.echo(f"{network}: {fetch_medicalnet(PerceptualLossConfig())}")


@command(app, panel=MACHINE)
def doctor(root: RootOption = _ROOT) -> None:
    """Print versions, device, memory, speed, and which data sets and weights are found."""
    with starting("prod9 doctor"):
        from prod9.cli.doctor import findings

    print_table(findings(root))


run = guarded(app)
