"""What a model folder holds beside the model: description, figures, report, model card."""

from pathlib import Path
from typing import TypedDict

from prod9 import __version__
from prod9.config.dataset import DATASET_YAML, DatasetDescription, read_description
from prod9.config.load import dump
from prod9.errors import Prod9Error
from prod9.inference.model_card import model_card
from prod9.inference.volumes import PathLike
from prod9.inference.without_names import description_without_names, metrics_without_names
from prod9.model import Model
from prod9.results.schema import Evaluation
from prod9.tokenizer import Tokenizer

CARD, METRICS, REPORT = "README.md", "metrics.json", "report.html"


class Extras(TypedDict, total=False):
    """What a model folder holds beside the model.

    ``dataset``: its description, or a ``dataset.yaml``. ``metrics``: a ``metrics.json`` of this
    model. ``report``: a ``report.html``, which is copied as it is: it shows volumes and their
    names. ``licence`` and ``intended_use``: texts of the model card. ``subjects``: keep names of
    subjects and paths of this machine; left out otherwise. ``half``: store weights as fp16.
    """

    dataset: PathLike | DatasetDescription
    metrics: PathLike
    report: PathLike
    licence: str
    intended_use: str
    subjects: bool
    half: bool


def description_of(extras: Extras) -> DatasetDescription | None:
    """Return the description of the data set, if there is one."""
    found = extras.get("dataset")
    if found is None or isinstance(found, DatasetDescription):
        return found
    return read_description(Path(found))


def texts_of(
    trained: Model | Tokenizer, saved: Model | Tokenizer, extras: Extras
) -> dict[str, str]:
    """Return the content of the files beside the weights and ``config.json``, by name.

    Args:
        trained: the model as it was trained.
        saved: the same without names, where they are left out.
        extras: what there is.

    Raises:
        Prod9Error: a file cannot be read, or has the figures of another model.
    """
    named, metrics = extras.get("subjects", False), None
    dataset, texts = description_of(extras), dict[str, str]()
    if dataset is not None:
        texts[DATASET_YAML] = dump(dataset if named else description_without_names(dataset))
    if "metrics" in extras:
        metrics = _metrics_of(Path(extras["metrics"]), trained, saved)
        metrics = metrics if named else metrics_without_names(metrics)
        texts[METRICS] = metrics.model_dump_json(indent=2) + "\n"
    if "report" in extras:
        texts[REPORT] = _read_text(Path(extras["report"]))
    card = model_card(
        trained,
        dataset,
        metrics,
        licence=extras.get("licence", ""),
        intended_use=extras.get("intended_use", ""),
        report=REPORT in texts,
    )
    return {**texts, CARD: card}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise Prod9Error(f"cannot read {path}: {reason}; choose another file.") from error


def _metrics_of(path: Path, trained: Model | Tokenizer, saved: Model | Tokenizer) -> Evaluation:
    """Read figures; those with a digest are this model's, and name the one that is saved."""
    try:
        metrics = Evaluation.model_validate_json(_read_text(path))
    except ValueError as error:
        raise Prod9Error(
            f"{path} is not a metrics.json of prod9 {__version__}; measure the model again."
        ) from error
    digests: dict[str, str] = {}
    for kind, (before, after) in _digests(trained, saved).items():
        measured = metrics.provenance.get(kind, before)
        if measured != before:
            raise Prod9Error(
                f"{path} has the figures of the {kind} {str(measured)[:12]}, not of "
                f"{before[:12]}; measure this model, or choose its metrics.json."
            )
        digests |= {kind: after} if kind in metrics.provenance else {}
    return metrics.model_copy(update={"provenance": {**metrics.provenance, **digests}})


def _digests(trained: Model | Tokenizer, saved: Model | Tokenizer) -> dict[str, tuple[str, str]]:
    if isinstance(trained, Model) and isinstance(saved, Model):
        both = _digests(trained.tokenizer, saved.tokenizer)
        return {**both, "transformer": (trained.digest, saved.digest)}
    return {"tokenizer": (trained.digest, saved.digest)}
