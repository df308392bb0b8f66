"""``evaluate``: compares sets of volumes; the function behind ``prod9 evaluate``."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from prod9.config.evaluation import FeatureSpaceKey
from prod9.data.volume_sets.open import Volumes, named_dataset, open_volumes
from prod9.data.volume_sets.pairs import paired
from prod9.data.volume_sets.volume_set import VolumeSet, comparable
from prod9.errors import Prod9Error
from prod9.evaluation.evaluator import METRICS, REPORT, ROWS, SPACES, Evaluator
from prod9.evaluation.pretrained import feature_spaces
from prod9.evaluation.progress import hidden
from prod9.files import require_writable
from prod9.own_files import matching, read_record, refuse_foreign
from prod9.results.schema import Evaluation
from prod9.runtime.device import resolve_device

_LEAD = (
    "Figures with 95 % bootstrap intervals where they have one; every distance names its feature "
    "space and stands beside what real volumes show."
)


def evaluate(
    real: Volumes,
    generated: Volumes | None = None,
    *,
    train: Volumes | None = None,
    reconstructed: Volumes | None = None,
    output: str | PathLike[str] | None = None,
    intensity: str = "auto",
    features: Sequence[str] = SPACES,
    usefulness: bool = True,
    two_sample_test: bool = True,
    medicalnet: str | PathLike[str] | None = None,
    size: int = 28,
    root: str | PathLike[str] = "data/medmnist3d",
    device: str = "auto",
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = False,
) -> Evaluation:
    """Measure generated (and reconstructed) volumes of any generator against real ones.

    All sets are opened before anything is measured. Volumes are given as a folder, the name of a
    data set, an array (N, D, H, W) or a :class:`VolumeSet`
    (:func:`~prod9.data.volume_sets.open.open_volumes`).

    Args:
        real: held-out real volumes.
        generated: volumes of a generator; may be left out if ``reconstructed`` is given.
        train: the generator's training volumes, to find copies; where ``real`` is a split of a
            data set, its training split when left out.
        reconstructed: reconstructions of real volumes, paired by name (arrays: by order).
        output: folder for ``metrics.json`` and ``report.html``; nothing is written without it.
        intensity: how stored intensities become [0, 1]: ``auto``, ``LOW,HIGH``, ``percentiles``.
        features: feature spaces: ``efficientnet``, ``medicalnet``, ``classifier``.
        usefulness: train classifiers on generated volumes too.
        two_sample_test: train networks to tell generated from real volumes.
        medicalnet: MedicalNet's weights; the cached ones when left out.
        size: voxels per side of a data set: 28 or 64.
        root: folder of the data sets' files.
        device: of the feature networks: ``auto``, ``cpu``, ``gpu``.
        seed: of everything random.
        overwrite: replace an evaluation in ``output``.
        progress: show a progress bar on the terminal.

    Raises:
        Prod9Error: sets that cannot be read or compared, or results that are there already.
    """
    if generated is None and reconstructed is None:
        raise Prod9Error("give generated volumes, reconstructed volumes or both (--generated DIR).")
    if reconstructed is not None and intensity == "percentiles":
        raise Prod9Error(
            "the intensity `percentiles` scales an original and its reconstruction each by itself, "
            "which hides errors of brightness; for reconstructions give LOW,HIGH."
        )
    for name in features:
        if name not in SPACES:
            raise Prod9Error(f"no feature space {name!r}: choose from {', '.join(SPACES)}.")
    folder = None if output is None else Path(output)
    if folder is not None:
        claim(folder, overwrite=overwrite)
    spaces: list[FeatureSpaceKey] = [space for space in SPACES if space in features]
    weights = None if medicalnet is None else Path(medicalnet)
    if "medicalnet" in spaces and weights is not None:
        feature_spaces(["medicalnet"], weights)  # damaged weights are reported at once
    evaluator = Evaluator(
        seed, spaces, usefulness, two_sample_test, weights, resolve_device(device, "--device ")
    )

    def opened(what: Volumes, name: str) -> VolumeSet:
        return open_volumes(what, intensity=intensity, size=size, root=Path(root), name=name)

    reference, pairs = opened(real, "real"), None
    if reconstructed is not None:
        pairs = paired(reference, opened(reconstructed, "reconstructed"))
    dataset = named_dataset(real)
    if train is None and dataset is not None and dataset[1] != "train":
        train = f"{dataset[0]}/train"
    ours = None if generated is None else opened(generated, "generated")
    known = None if train is None or ours is None else opened(train, "train")
    if ours is not None:
        comparable(reference, ours, *([] if known is None else [known]))
    with hidden(not progress):
        if pairs is not None:
            evaluator.measure_reconstruction(*pairs)
        if ours is not None:
            evaluator.measure_generation(reference, ours, known)
    evaluation = evaluator.evaluation({})
    if folder is not None:
        judged = ours or evaluator.sets["reconstructed"]
        title = f"Evaluation of {Path(judged.name).name}"
        evaluator.write(folder, evaluation, title=title, lead=_LEAD)
    return evaluation


def claim(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that cannot take an evaluation.

    Raises:
        Prod9Error: there is one (without ``overwrite``), there are files of somebody else under its
            names, or it cannot be written.
    """
    there = matching(folder, (METRICS, REPORT, ROWS))
    if read_record(folder / METRICS, {"schema_version", "sets"}) is None:
        refuse_foreign(there)
    if there and not overwrite:
        raise Prod9Error(f"{there[0]} exists; pass --overwrite to replace it, or another --output.")
    require_writable(folder)
