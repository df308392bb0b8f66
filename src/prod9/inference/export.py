"""``prod9.export`` and ``prod9 export``: from the files of a training to a folder for others."""

from pathlib import Path
from typing import Unpack

from prod9.config.dataset import DATASET_YAML
from prod9.config.load import load_either
from prod9.inference.bundle import save_bundle
from prod9.inference.extras import METRICS, REPORT, Extras
from prod9.inference.load import load
from prod9.inference.volumes import PathLike


def export(
    run: PathLike,
    output: PathLike,
    *,
    tokenizer: PathLike | None = None,
    monai_bundle: bool = False,
    overwrite: bool = False,
    **extras: Unpack[Extras],
) -> None:
    """Write what was trained as a folder for others: open formats, and a model card.

    Args:
        run: what :func:`load` takes: a run folder, a configuration, an ``autoencoder.pt``, a
            ``transformer.pt``, a model folder.
        output: the folder; made where it is not there, its other files stay.
        tokenizer: as of :func:`load`.
        monai_bundle: write a MONAI bundle, whose ``models`` is the model folder.
        overwrite: replace a model that is there.
        extras: as of ``Model.save``; ``metrics.json`` and ``dataset.yaml`` of the run are taken
            when left out, its ``report.html`` only with ``subjects``.

    Raises:
        Prod9Error: the run cannot be loaded; the folder holds a model, or foreign files.
    """
    model = load(run, tokenizer=tokenizer, device="cpu")
    extras = {**_of_run(Path(run), subjects=extras.get("subjects", False)), **extras}
    if monai_bundle:
        save_bundle(model, Path(output), extras, overwrite=overwrite)
    else:
        model.save(output, overwrite=overwrite, **extras)


def _of_run(run: Path, *, subjects: bool) -> Extras:
    """Return what lies in the folder of a run, or of a model."""
    folder, found = run, Extras()
    if run.suffix in (".yaml", ".yml"):
        folder = load_either(run, ()).output_dir
    elif run.name == "transformer.pt":
        folder = run.parent
    if (folder / METRICS).is_file():
        found["metrics"] = folder / METRICS
    if (folder / DATASET_YAML).is_file():
        found["dataset"] = folder / DATASET_YAML
    if subjects and (folder / REPORT).is_file():
        found["report"] = folder / REPORT
    return found
