"""Whether generated volumes look real, show their class, differ, are useful, and are no copies."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from prod9.data.volume_sets.volume_set import VolumeSet
from prod9.evaluation.distances import Features, distances
from prod9.evaluation.diversity import flat_voxels, within_class_msssim
from prod9.evaluation.domain_classifier import (
    Classifier,
    classifier_space,
    train_classifier,
    usefulness,
)
from prod9.evaluation.feature_spaces import NO_CACHE, FeatureSpace, features_of
from prod9.evaluation.privacy import privacy, short_name
from prod9.evaluation.two_sample_test import FEWEST, two_sample_tests
from prod9.evaluation.work_cache import WorkCache
from prod9.results.schema import (
    ClassFigures,
    FeatureSpaceFigures,
    Generation,
    Privacy,
    TwoSampleTest,
    Usefulness,
    too_few,
)
from prod9.runtime.clock import Clock

MOST_TRAIN = 1000
"""Training volumes that feature spaces and the classifier see; voxels are compared with all."""
VOXELS = "voxels (RMSE; sides above 32 averaged down)"


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
    with_two_sample_test: bool = True,
    cache: WorkCache = NO_CACHE,
    clock: Clock | None = None,
) -> tuple[Generation, list[str]]:
    """Measure generated volumes against real ones; return the figures, and warnings.

    Args:
        real: held-out volumes, at least two; none is in the generator's training set.
        generated: at least two.
        train: the generator's training volumes; without them neither privacy nor usefulness nor
            recognition can be measured.
        spaces: feature spaces, beside that of a classifier trained on ``train``.
        reconstructed: reconstructions of real volumes: the best that the tokenizer allows.
        seed: of everything random.
        with_classifier: measure distances in the features of that classifier too.
        with_usefulness: train classifiers on generated volumes too.
        with_two_sample_test: train networks to tell generated from real volumes.
        cache: of the features of real volumes.
        clock: is told which part of the work took how long.
    """
    clock = clock or Clock(quiet=True)
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
            clock.lap("classifier")
            if with_classifier:
                spaces.append(classifier_space(classifier, train, real))
        else:
            warnings.append("There are no classes: recognition and usefulness are not measured.")

    found: list[FeatureSpaceFigures] = []
    vectors: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    if every is not None:
        vectors[VOXELS] = (flat_voxels(generated), flat_voxels(every), flat_voxels(real))
        clock.lap("voxels")
    for space in spaces:
        own = space.key == "classifier"  # trained anew each time: nothing to keep
        kept = NO_CACHE if own else cache
        ours, theirs = features_of(space, generated), features_of(space, real, kept)
        others = again = None
        # A classifier has memorised its training volumes: they have other features than new ones,
        # and serve neither as a floor nor to find copies.
        if train is not None and not own:
            others = Features(features_of(space, train, kept), train.labels, train.name)
            vectors[space.name] = (ours, others.values, theirs)
        if reconstructed is not None:
            again = features_of(space, reconstructed)
        clock.lap(f"features ({space.key})")
        found.append(
            distances(
                space,
                Features(ours, generated.labels),
                Features(theirs, real.labels),
                others,
                real.class_names,
                seed,
                again,
            )
        )
    clock.lap("distances")
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
        closeness = privacy(generated, every, vectors, seed)
        clock.lap("privacy")
        if closeness.verdict != "no sign of copying":
            warnings.insert(0, f"Privacy: {closeness.verdict}. {closeness.reasons[0]}")
    if classifier is not None and train is not None and with_usefulness:
        if len(generated.counts) < 2:
            warnings.append("All generated volumes are of one class: usefulness is not measured.")
        else:
            helped = usefulness(classifier, train, generated, real, seed)
            clock.lap("usefulness")
    told_apart: list[TwoSampleTest] = []
    if with_two_sample_test:
        told_apart = two_sample_tests(real, generated, reconstructed, seed=seed)
        if not told_apart:
            warnings.append(
                f"Fewer than {FEWEST} volumes of each set: whether a network can tell generated "
                "from real volumes is not measured."
            )
        elif reconstructed is not None and len(reconstructed) != len(real):
            warnings.append(
                f"There are {len(reconstructed)} reconstructions and {len(real)} real volumes: "
                "whether a network can tell reconstructions apart is not measured."
            )
        clock.lap("two-sample test")
    figures = _summary(real, generated, classifier, found, closeness, helped, seed, told_apart)
    clock.lap("MS-SSIM pairs and recognition")
    return figures, warnings


def _summary(
    real: VolumeSet,
    generated: VolumeSet,
    classifier: Classifier | None,
    spaces: list[FeatureSpaceFigures],
    closeness: Privacy | None,
    helped: Usefulness | None,
    seed: int,
    told_apart: list[TwoSampleTest],
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
        two_sample_tests=told_apart,
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
    ours, theirs = real.spacing_mm, other.spacing_mm
    if ours is not None and theirs is not None and not np.allclose(theirs, ours, rtol=0.01, atol=0):
        sizes = [" x ".join(f"{side:g}" for side in spacing) + " mm" for spacing in (theirs, ours)]
        found.append(
            f"Voxels of {other.name} are {sizes[0]}, those of {real.name} {sizes[1]}: the same "
            "grid shows other sizes."
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
