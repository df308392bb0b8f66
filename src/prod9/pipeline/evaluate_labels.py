"""``prod9 evaluate MODEL``: what a model that has learned labels is good for."""

import io
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr
from pathlib import Path

from prod9.config import Stage2Config
from prod9.config.data import FolderSourceConfig
from prod9.config.evaluation import SegmentationConfig
from prod9.config.load import load_stage2, overridden
from prod9.data.dataset import Splits, open_splits, require_unseen
from prod9.data.folder.dataset import described
from prod9.errors import Prod9Error
from prod9.evaluation.evaluator import Evaluator
from prod9.evaluation.progress import hidden
from prod9.evaluation.runner import claim
from prod9.evaluation.segmenter import require_monai
from prod9.evaluation.test_metrics import UNFINISHED
from prod9.evaluation.work_cache import WorkCache
from prod9.inference.labelled import label_codes
from prod9.inference.load import load
from prod9.inference.model import Model
from prod9.inference.volumes import PathLike
from prod9.pipeline.train_folder import SPLIT, WORK
from prod9.results.schema import Evaluation

_LEAD = (
    "Segmenters trained on real and on generated pairs, images drawn from the masks of held-out "
    "subjects, and the volumes of labels."
)


def evaluate_labels(
    model: PathLike,
    data: PathLike | None = None,
    *,
    split_file: PathLike | None = None,
    output: PathLike | None = None,
    settings: Sequence[str] = (),
    device: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = False,
) -> Evaluation:
    """Measure what a model that has learned labels is good for: segmenters, masks, volumes.

    Args:
        model: its folder, run folder, ``transformer.pt`` or configuration, on this disk.
        data: the folder of scans; when left out, that of the training, as the model's folder
            records it. Who is held out is as in the training.
        split_file: who is in train, val and test, as the training wrote it; when left out, the
            training's, or what the data itself says.
        output: folder for ``metrics.json`` and ``report.html``; nothing is written without it.
        settings: of ``evaluation.segmentation``, such as ``steps=500``.
        device: as of :func:`load`.
        seed: of everything random.
        overwrite: replace an evaluation in ``output``.
        progress: show progress on stderr.

    Returns:
        The figures; ``segmentation`` has them.

    Raises:
        Prod9Error: a model without labels; it is not known who was held out; MONAI is missing.
    """
    path, folder = Path(model), None if output is None else Path(output)
    require_monai()
    found = load(path, device=device)
    if not isinstance(found, Model):
        raise Prod9Error(f"{path} is a tokenizer, which generates nothing; give a model.")
    label_codes(found.network)
    config = None if data is not None else _training_of(path)
    section = SegmentationConfig() if config is None else config.evaluation.segmentation
    section = overridden(section, settings)
    label_codes(found.network, section.channel)
    if folder is not None:
        claim(folder, overwrite=overwrite)
    with nullcontext() if progress else redirect_stderr(io.StringIO()), hidden(not progress):
        splits = _splits(path, found, config, data, split_file)
        evaluator = Evaluator(seed)
        if folder is not None:
            evaluator.kept = WorkCache(folder / UNFINISHED)
        evaluator.measure_segmentation(found.network, splits, found.generation, section)
        network = found.network
        evaluation = evaluator.evaluation(
            {
                "tokenizer": network.tokenizer.digest,
                "transformer": network.digest,
                "segmentation": section.model_dump(mode="json"),
            }
        )
        if folder is not None:
            title = f"Labels of {path.resolve().name}"
            evaluator.write(folder, evaluation, title=title, lead=_LEAD)
    return evaluation


def _training_of(path: Path) -> Stage2Config:
    """Return the configuration that a model was trained with."""
    if path.suffix in (".yaml", ".yml"):
        return load_stage2(path)
    folder = path if path.is_dir() else path.parent
    for place in (folder / WORK / "stage2.yaml", folder / "config.yaml"):
        if place.is_file():
            return load_stage2(place)
    raise Prod9Error(
        f"{path} does not say which data it was trained on; give the folder of the scans too: "
        "prod9 evaluate MODEL DATA."
    )


def _splits(
    path: Path,
    model: Model,
    config: Stage2Config | None,
    data: PathLike | None,
    split_file: PathLike | None,
) -> Splits:
    spec = model.network.tokenizer.spec
    if config is not None:
        section = config.data
        if split_file is not None:
            section = section.model_copy(update={"split_file": Path(split_file)})
    else:
        assert data is not None
        split = Path(split_file) if split_file is not None else path / WORK / SPLIT
        own = all(entry.split is not None for entry in described(Path(data)).scans.values())
        if not own and not split.is_file():
            raise Prod9Error(
                f"it is not known which subjects of {data} the model was trained on; give the "
                "training's split (--split-file), or a split of each scan in dataset.yaml."
            )
        section = FolderSourceConfig(dataset_name="folder", path=Path(data), split_file=split)
    splits = open_splits(section, spec.preprocessing)
    for subjects, what in (
        (spec.train_subjects, "the tokenizer"),
        (model.network.spec.train_subjects, "the transformer"),
    ):
        require_unseen(subjects, splits, what)
    return splits
