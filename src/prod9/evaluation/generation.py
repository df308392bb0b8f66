"""Whether generated volumes look real, show what was asked for, differ, help, and are no copies."""

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from prod9.data.volume_sets.volume_set import VolumeSet
from prod9.evaluation.distances import Features, distances
from prod9.evaluation.diversity import flat_voxels, within_class_msssim
from prod9.evaluation.domain_classifier import Classifier, classifier_space, train_classifier
from prod9.evaluation.features.spaces import FeatureSpace, features_of
from prod9.evaluation.privacy import privacy, short_name
from prod9.evaluation.usefulness import usefulness
from prod9.results.distances import FeatureSpaceFigures
from prod9.results.schema import ClassFigures, Generation, Privacy, Usefulness
from prod9.results.stability import too_few

MOST_TRAIN = 1000
"""Training volumes in feature spaces, and that the classifier learns from; voxels see all."""
VOXELS = "voxels (RMSE; sides above 32 averaged down)"
Tell = Callable[[str, int, int], None]
"""Told (what, done, of how many); 0 of 0 where nobody knows how far it is."""
FeaturesOf = Callable[[FeatureSpace, VolumeSet, Callable[[int], None]], Tensor]


def evaluate_generation(
    real: VolumeSet,
    generated: VolumeSet,
    train: VolumeSet | None,
    spaces: Sequence[FeatureSpace],
    *,
    reconstructed: VolumeSet | None = None,
    seed: int = 0,
    with_classifier: bool = True,
    with_usefulness: bool = True,
    tell: Tell = lambda what, done, total: None,
    real_features: FeaturesOf = features_of,
) -> tuple[Generation, list[str]]:
    """Measure generated volumes against real ones.

    Args:
        real: held-out volumes: not the generator's training set.
        generated: what is judged; at least two, as ``real``.
        train: the generator's training volumes; without them neither privacy nor usefulness nor
            recognition can be measured.
        spaces: feature spaces, beside that of a classifier trained on ``train``.
        reconstructed: reconstructions of real volumes: what could be reached at best.
        seed: of everything random.
        with_classifier: take distances in the features of a classifier of the training volumes,
            if there are classes.
        with_usefulness: train classifiers on generated volumes too.
        tell: for a progress bar.
        real_features: features of real volumes; may remember them.

    Returns:
        The figures, and warnings that a reader must see.
    """
    warnings: list[str] = []
    classifier, spaces = None, list(spaces)
    warnings += _blank(generated)
    every = train
    if train is not None and len(train) > MOST_TRAIN:
        chosen = np.random.default_rng(seed).choice(len(train), MOST_TRAIN, replace=False)
        warnings.append(
            f"Feature spaces and classifiers see {MOST_TRAIN} of the {len(train)} training "
            "volumes, chosen at random; voxels are compared with all."
        )
        train = train.select(np.sort(chosen))
    several = train is not None and len(train.counts) > 1
    if train is not None and several:
        classifier = train_classifier(train, seed=seed)
        if with_classifier:
            right = _share(classifier.predict(real), real.labels)
            spaces.append(classifier_space(classifier, train.name, right))
    elif train is None:
        warnings.append(
            "There are no training volumes (--train): copies cannot be found, and neither "
            "recognition nor usefulness is measured."
        )
    elif not several:
        warnings.append("There are no classes: recognition and usefulness are not measured.")
    figures: list[FeatureSpaceFigures] = []
    vectors: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    if every is not None:
        vectors[VOXELS] = (flat_voxels(generated), flat_voxels(every), flat_voxels(real))
    for space in spaces:
        ours = _features(features_of, space, generated, tell)
        theirs = _features(real_features, space, real, tell)
        # A classifier places volumes that it has learned by heart elsewhere than new ones: they
        # tell neither a floor nor copies.
        compares = train is not None and space.key != "classifier"
        others = _features(real_features, space, train, tell) if train and compares else None
        name = "" if train is None else train.name
        again = None
        if reconstructed is not None:
            again = _features(features_of, space, reconstructed, tell)
        names = real.class_names
        tell(f"{space.key}: distances and their intervals", 0, 0)
        figures.append(distances(space, ours, theirs, others, name, names, seed, again))
        if others is not None:
            vectors[space.name] = (ours.values, others.values, theirs.values)
    warnings += [
        f"Frechet distance, {short_name(space.space)}: UNSTABLE at {space.generated.volumes:,} "
        f"volumes: {why}"
        for space in figures
        if (why := too_few(space))
    ]
    warnings += _mixture(real, generated)
    for other in (generated, *([] if train is None else [train])):
        warnings += _unlike(real, other)
    tell("copies of training volumes", 0, 0)
    closeness = None if every is None else privacy(generated, every, vectors, seed)
    if closeness is not None and closeness.verdict != "no sign of copying":
        warnings.insert(0, f"Privacy: {closeness.verdict}. {closeness.reasons[0]}")
    helped = None
    if classifier is not None and train is not None and with_usefulness:
        if len(generated.counts) < 2:
            warnings.append("All generated volumes are of one class: usefulness is not measured.")
        else:
            helped = usefulness(
                train,
                generated,
                real,
                seed=seed,
                learned=classifier,
                on_step=lambda done, total: tell("training on generated volumes", done, total),
            )
    return _summary(real, generated, classifier, figures, closeness, helped, seed), warnings


def _features(of: FeaturesOf, space: FeatureSpace, collection: VolumeSet, tell: Tell) -> Features:
    def on_volume(done: int) -> None:
        tell(f"{space.key}: {collection.name}", done, len(collection))

    return Features(of(space, collection, on_volume), collection.labels)


def _share(predicted: Tensor, labels: np.ndarray) -> float:
    return float((predicted.cpu().numpy() == labels).mean())


def _summary(
    real: VolumeSet,
    generated: VolumeSet,
    classifier: Classifier | None,
    spaces: list[FeatureSpaceFigures],
    closeness: Privacy | None,
    helped: Usefulness | None,
    seed: int,
) -> Generation:
    ours = within_class_msssim(generated, seed)
    # The same classes in both: they are not equally varied by nature.
    theirs = within_class_msssim(real, seed, None if ours is None else ours.per_class)
    right = real_right = None
    if classifier is not None:
        right = (classifier.predict(generated).numpy() == generated.labels).astype(float)
        real_right = _share(classifier.predict(real), real.labels)
    voxels = None if closeness is None else closeness.spaces[0]
    per_class: dict[str, ClassFigures] = {}
    for label, name in enumerate(real.class_names):
        members = generated.of_class(label)
        if real.has_classes and len(members):
            per_class[name] = ClassFigures(
                volumes=len(members),
                real_volumes=len(real.of_class(label)),
                class_accuracy=None if right is None else float(right[members].mean()),
                msssim=None if ours is None else ours.per_class.get(name),
                msssim_real=None if theirs is None else theirs.per_class.get(name),
            )
    return Generation(
        volumes=len(generated),
        class_accuracy=None if right is None else float(right.mean()),
        classifier_real_accuracy=real_right,
        msssim=None if ours is None else ours.mean,
        msssim_interval=None if ours is None else ours.interval,
        msssim_real=None if theirs is None else theirs.mean,
        nearest_train_p05=None if voxels is None else voxels.p05,
        nearest_train_p05_real=None if voxels is None else voxels.p05_held_out,
        per_class=per_class,
        spaces=spaces,
        usefulness=helped,
        privacy=closeness,
    )


def _blank(generated: VolumeSet) -> list[str]:
    """Say so where volumes show nothing."""
    vectors = flat_voxels(generated)
    count = int((vectors.amin(1) == vectors.amax(1)).sum())
    if not count:
        return []
    return [f"{count} of {len(generated)} generated volumes are blank: one value everywhere."]


def _unlike(real: VolumeSet, other: VolumeSet) -> list[str]:
    """Say so where voxels or intensities do not mean the same."""
    found: list[str] = []
    if real.spacing_mm is not None and other.spacing_mm is not None:
        ratios = np.array(other.spacing_mm) / np.array(real.spacing_mm)
        if np.abs(ratios - 1).max() > 0.01:
            found.append(
                f"Voxels of {other.name} are {_mm(other.spacing_mm)}, those of {real.name} "
                f"{_mm(real.spacing_mm)}: the same grid shows other sizes."
            )
    if ("percentile" in real.intensity) != ("percentile" in other.intensity):
        found.append(
            f"Intensities of {other.name} ({other.intensity}) and {real.name} ({real.intensity}) "
            "were not scaled alike."
        )
    return found


def _mm(spacing: tuple[float, float, float]) -> str:
    return " x ".join(f"{side:g}" for side in spacing) + " mm"


def _mixture(real: VolumeSet, generated: VolumeSet) -> list[str]:
    """Say so where the classes are mixed otherwise."""
    count = len(real.class_names)
    shares = [
        np.bincount(collection.labels, minlength=count) / len(collection)
        for collection in (real, generated)
    ]
    apart = float(np.abs(shares[0] - shares[1]).sum() / 2)
    if apart <= 0.1:
        return []
    worst = int(np.argmax(np.abs(shares[0] - shares[1])))
    return [
        f"The classes are mixed otherwise than in the real set ({real.class_names[worst]}: "
        f"{shares[1][worst]:.0%} instead of {shares[0][worst]:.0%}): distances over all classes "
        "contain this difference; see those by class."
    ]
