"""``prod9 evaluate``: figures and a page on volumes of any generator."""

from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from prod9.cli.verbs import MAX_SEED, OverwriteOption
from prod9.config.evaluation import FeatureSpaceKey
from prod9.data.volume_sets.open import named_dataset, open_collection
from prod9.data.volume_sets.pairs import paired
from prod9.data.volume_sets.volume_set import VolumeSet, comparable
from prod9.errors import Prod9Error
from prod9.evaluation.features.networks import feature_spaces
from prod9.evaluation.runner import METRICS, REPORT, ROWS, Evaluator, Settings
from prod9.files import require_writable
from prod9.runtime.processes import require_alone
from prod9.training.trainer import resolve_device

_SPACES: tuple[FeatureSpaceKey, ...] = get_args(FeatureSpaceKey)
_LEAD = (
    "Figures with 95 % bootstrap intervals where they have one; every distance names its feature "
    "space and stands beside what real volumes show."
)


def evaluate(
    output: Annotated[
        Path, typer.Option("--output", "-o", help=f"Folder for {METRICS} and {REPORT}.")
    ],
    real: Annotated[
        str,
        typer.Option(
            help="Real held-out volumes: a folder of NIfTI or npy files, or a data set such as "
            "brainregionmnist3d (its test split) or organmnist3d/val."
        ),
    ],
    generated: Annotated[
        str | None, typer.Option(help="Generated volumes: a folder.", show_default=False)
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            help="The generator's training volumes: finds copies; a data set's own training split "
            "when left out.",
            show_default=False,
        ),
    ] = None,
    reconstructed: Annotated[
        str | None,
        typer.Option(
            help="Reconstructions of real volumes: a folder; files are paired by name.",
            show_default=False,
        ),
    ] = None,
    intensity: Annotated[
        str,
        typer.Option(
            help="How stored intensities become [0, 1]: auto (uint8, or floats in [0, 1]; anything "
            "else is refused), LOW,HIGH, or percentiles (each volume by itself)."
        ),
    ] = "auto",
    features: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Feature space: {', '.join(_SPACES)}; repeatable.", show_default="all three"
        ),
    ] = None,
    medicalnet: Annotated[
        Path | None,
        typer.Option(
            help="MedicalNet's weights; the cached ones when left out.", show_default=False
        ),
    ] = None,
    usefulness: Annotated[
        bool, typer.Option(help="Train classifiers on generated volumes too.")
    ] = True,
    size: Annotated[int, typer.Option(help="Voxels per side of a data set: 28 or 64.")] = 28,
    root: Annotated[Path, typer.Option(help="Folder of the data sets' files.")] = Path(
        "data/medmnist3d"
    ),
    device: Annotated[
        Literal["auto", "cpu", "gpu"], typer.Option(help="Where feature networks compute.")
    ] = "auto",
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of everything random.")] = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Measure generated (and reconstructed) volumes of any generator; write figures and a page."""
    require_alone("prod9 evaluate")
    if generated is None and reconstructed is None:
        raise Prod9Error("give --generated DIR, --reconstructed DIR or both.")
    if reconstructed is not None and intensity == "percentiles":
        raise Prod9Error(
            "--intensity percentiles scales an original and its reconstruction each by itself, "
            "which hides errors of brightness; with --reconstructed give --intensity LOW,HIGH."
        )
    for text in (real, generated, train, reconstructed):
        _require_text(text)
    _require_free(output, overwrite)
    place = resolve_device(device, "--device ")
    spaces: list[FeatureSpaceKey] = [space for space in _SPACES if space in (features or _SPACES)]
    for name in features or ():
        if name not in _SPACES:
            raise Prod9Error(f"--features {name}: choose from {', '.join(_SPACES)}.")

    def opened(what: str, option: str) -> VolumeSet:
        return open_collection(what, option, size=size, root=root, intensity=intensity)

    if "medicalnet" in spaces and medicalnet is not None:
        feature_spaces(["medicalnet"], medicalnet)  # a mistake must not come after all the rest
    # Everything is opened before anything is measured: mistakes come at once.
    reference = opened(real, "--real")
    pairs = None
    if reconstructed is not None:
        pairs = paired(reference, opened(reconstructed, "--reconstructed"))
    drawn = None if generated is None else opened(generated, "--generated")
    named = named_dataset(real, "--real")
    if train is None and named is not None and named[1] != "train":
        train = f"{named[0]}/train"
    known = None if train is None or drawn is None else opened(train, "--train")
    if drawn is not None:
        comparable(reference, drawn, *([] if known is None else [known]))
    evaluator = Evaluator(Settings(seed, spaces, usefulness, medicalnet, place))
    if pairs is not None:
        evaluator.measure_reconstruction(*pairs)
    if drawn is not None:
        evaluator.measure_generation(reference, drawn, known)
    page = evaluator.write(
        output,
        evaluator.evaluation({}),
        title=f"Evaluation of {Path(generated or reconstructed or real).name}",
        lead=_LEAD,
    )
    for warning in evaluator.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"figures: {output / METRICS}\npage: {page}")


def _require_free(output: Path, overwrite: bool) -> None:
    for name in (METRICS, REPORT, ROWS):
        if (output / name).exists() and not overwrite:
            raise Prod9Error(
                f"{output / name} exists; pass --overwrite to replace it, or another --output."
            )
    require_writable(output)


def _require_text(name: str | None) -> None:
    """Refuse a name that no page could show."""
    try:
        (name or "").encode()
    except UnicodeEncodeError as error:
        raise Prod9Error(f"the name {name!r} is not valid UTF-8; rename the folder.") from error
