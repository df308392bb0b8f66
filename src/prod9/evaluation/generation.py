"""Whether generated volumes look real, show their class, differ, are useful, and are no copies."""

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
"""Training volumes that feature spaces and the classifier see; voxels are compared with all."""
VOXELS = "voxels (RMSE; sides above 32 averaged down)"
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
    tell: Callable[[str, int, int], None] = lambda what, done, total: None,
    real_features: FeaturesOf = features_of,
) -> tuple[Generation, list[str]]:
    """Measure generated volumes against real ones.

    Args:
        real: held-out volumes, at least two; none is in the generator's training set.
        generated: at least two.
        train: the generator's training volumes; without them neither privacy nor usefulness nor
            recognition can be measured.
        spaces: feature spaces, beside that of a classifier trained on ``train``.
        reconstructed: reconstructions of real volumes: the best that the tokenizer allows.
        seed: of everything random.
        with_classifier: measure distances in the features of a classifier of the training volumes
            too, if there are classes.
        with_usefulness: train classifiers on generated volumes too.
        tell: called with (what, done, of how many) for a progress bar; 0 of 0: not known.
        real_features: computes the features of real volumes; may cache them.

    Returns:
        The figures, and warnings that a reader must see.
    """
    warnings, classifier, spaces, every = _blank(generated), None, list(spaces), train
    if train is None:
        warnings.append(
            "There are no training volumes (--train): copies cannot be found, and neither "
            "recognition nor usefulness is measured."
        )
    else:
        if len(train) > MOST_TRAIN:
            chosen = np.random.default_rng(seed).choice(len(train), MOST_TRAIN, replace=False)
            warnings.append(
                f"Feature spaces and classifiers see {MOST_TRAIN} of the {len(train)} training "
                "volumes, chosen at random; voxels are compared with all."
            )
            train = train.select(np.sort(chosen))
        if len(train.counts) > 1:
            classifier = train_classifier(train, seed=seed)
            if with_classifier:
                spaces.append(classifier_space(classifier, train, real))
        else:
            warnings.append("There are no classes: recognition and usefulness are not measured.")

    def features(of: FeaturesOf, space: FeatureSpace, volumes: VolumeSet) -> Tensor:
        def on_volume(done: int) -> None:
            tell(f"{space.key}: {volumes.name}", done, len(volumes))

        return of(space, volumes, on_volume)

    found: list[FeatureSpaceFigures] = []
    vectors: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    if every is not None:
        vectors[VOXELS] = (flat_voxels(generated), flat_voxels(every), flat_voxels(real))
    for space in spaces:
        ours = features(features_of, space, generated)
        theirs = features(real_features, space, real)
        others = again = None
        # A classifier has memorised its training volumes: they have other features than new ones,
        # and serve neither as a floor nor to find copies.
        if train is not None and space.key != "classifier":
            others = features(real_features, space, train)
            vectors[space.name] = (ours, others, theirs)
        if reconstructed is not None:
            again = features(features_of, space, reconstructed)
        tell(f"{space.key}: distances and their intervals", 0, 0)
        found.append(
            distances(
                space,
                Features(ours, generated.labels),
                Features(theirs, real.labels),
                others,
                "" if train is None else train.name,
                real.class_names,
                seed,
                again,
            )
        )
    warnings += [
        f"Frechet distance, {short_name(space.space)}: UNSTABLE at {space.generated.volumes:,} "
        f"volumes: {why}"
        for space in found
        if (why := too_few(space))
    ]
    warnings += _mixture(real, generated) + _unlike(real, generated)
    closeness = helped = None
    if every is not None and train is not None:
        warnings += _unlike(real, train)
        tell("copies of training volumes", 0, 0)
        closeness = privacy(generated, every, vectors, seed)
        if closeness.verdict != "no sign of copying":
            warnings.insert(0, f"Privacy: {closeness.verdict}. {closeness.reasons[0]}")
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
    return _summary(real, generated, classifier, found, closeness, helped, seed), warnings


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
    # The same classes in both: classes differ in how varied they are.
    theirs = within_class_msssim(real, seed, None if ours is None else ours.per_class)
    right = None
    if classifier is not None:
        right = (classifier.predict(generated).numpy() == generated.labels).astype(float)
    voxels = None if closeness is None else closeness.spaces[0]
    per_class: dict[str, ClassFigures] = {}
    for label, name in enumerate(real.class_names):
        members = generated.of_class(label)
        if real.has_classes and len(members):
            per_class[name] = ClassFigures(
                volumes=len(members),
                real_volumes=len(real.of_class(label)),
                class_accuracy=None if right is None else float(right[members].mean()),
                msssim=ours and ours.per_class.get(name),
                msssim_real=theirs and theirs.per_class.get(name),
            )
    return Generation(
        volumes=len(generated),
        class_accuracy=None if right is None else float(right.mean()),
        classifier_real_accuracy=classifier and classifier.right(real),
        msssim=ours and ours.mean,
        msssim_interval=ours and ours.interval,
        msssim_real=theirs and theirs.mean,
        nearest_train_p05=voxels and voxels.p05,
        nearest_train_p05_real=voxels and voxels.p05_held_out,
        per_class=per_class,
        spaces=spaces,
        usefulness=helped,
        privacy=closeness,
    )


def _blank(generated: VolumeSet) -> list[str]:
    """Return a warning where volumes have one value everywhere."""
    vectors = flat_voxels(generated)
    count = int((vectors.amin(1) == vectors.amax(1)).sum())
    if not count:
        return []
    return [f"{count} of {len(generated)} generated volumes are blank: one value everywhere."]


def _unlike(real: VolumeSet, other: VolumeSet) -> list[str]:
    """Return warnings where voxel sizes or intensities of two sets differ."""
    found: list[str] = []
    if real.spacing_mm is not None and other.spacing_mm is not None:
        ratios = np.array(other.spacing_mm) / np.array(real.spacing_mm)
        if np.abs(ratios - 1).max() > 0.01:
            theirs, ours = (
                " x ".join(f"{side:g}" for side in spacing) + " mm"
                for spacing in (other.spacing_mm, real.spacing_mm)
            )
            found.append(
                f"Voxels of {other.name} are {theirs}, those of {real.name} {ours}: the same grid "
                "shows other sizes."
            )
    if ("percentile" in real.intensity) != ("percentile" in other.intensity):
        found.append(
            f"Intensities of {other.name} ({other.intensity}) and {real.name} ({real.intensity}) "
            "were not scaled alike."
        )
    return found


def _mixture(real: VolumeSet, generated: VolumeSet) -> list[str]:
    """Return a warning where the classes have other shares."""
    count = len(real.class_names)
    wanted, shares = (
        np.bincount(volumes.labels, minlength=count) / len(volumes) for volumes in (real, generated)
    )
    apart = np.abs(wanted - shares)
    if float(apart.sum() / 2) <= 0.1:
        return []
    worst = int(np.argmax(apart))
    return [
        f"The classes are mixed otherwise than in the real set ({real.class_names[worst]}: "
        f"{shares[worst]:.0%} instead of {wanted[worst]:.0%}): distances over all classes "
        "contain this difference; see those by class."
    ]
