"""Whether generated volumes can stand in for real ones: train on them, test on real volumes."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from prod9.data.volume_sets.volume_set import VolumeSet, comparable
from prod9.errors import Prod9Error
from prod9.evaluation.domain_classifier import (
    BATCH_SIZE,
    Classifier,
    accuracy,
    balanced_accuracy,
    default_steps,
    fit,
    require_classes,
    small_volumes,
)
from prod9.metrics.bootstrap import bootstrap_interval
from prod9.results.schema import TrainedClassifier, Usefulness

ALL, AS_MANY, GENERATED, BOTH = (
    "real (all)",
    "real, as many as generated",
    "generated",
    "real + generated",
)


def nothing(_done: int, _total: int) -> None:
    """Report to nobody."""


def usefulness(
    train: VolumeSet,
    generated: VolumeSet,
    test: VolumeSet,
    *,
    steps: int | None = None,
    seed: int = 0,
    learned: Classifier | None = None,
    on_step: Callable[[int, int], None] = nothing,
) -> Usefulness:
    """Train one classifier on each of several sets, alike in all else; test all on real volumes.

    The classifier is that of :mod:`prod9.evaluation.domain_classifier`. All start from the same
    weights and take equally many steps at the same rates: what differs is what they saw. A step is
    of 64 volumes, or of the whole set where that is smaller, whatever the other sets are: the
    generated volumes and as many real ones are always learned from alike. Sets: all real training
    volumes; as many of them as were generated, of the same classes where there are enough (left out
    where that would be all); the generated ones; both together. The intervals hold the chance in
    the test volumes, not that in the training.

    Args:
        train: real volumes.
        generated: volumes of the classes of ``train``.
        test: real volumes that neither the generator nor a classifier has seen; at least two.
        steps: of each classifier; when left out, those that suit ``train``.
        seed: of the first weights, the order, the subset and the intervals.
        learned: what ``train_classifier`` made of ``train`` with the same seed and steps, so that
            it is not trained again.
        on_step: called after each step with the steps done and the steps of all classifiers.

    Raises:
        Prod9Error: sets that do not compare (shape, classes), a training set with fewer than two
            classes, or fewer than two test volumes.
    """
    train, generated, test = comparable(train, generated, test)
    if len(test) < 2:
        raise Prod9Error(
            f"{test.name} has {len(test)} volume(s), and a test needs at least 2; give more real "
            "held-out volumes, or leave this part out."
        )
    truth = torch.from_numpy(test.labels)
    real_labels, made_labels = torch.from_numpy(train.labels), torch.from_numpy(generated.labels)
    for name, labels in ((train.name, real_labels), (generated.name, made_labels)):
        require_classes(name, labels)
    steps = default_steps(len(train)) if steps is None else steps
    real, made, held_out = small_volumes(train), small_volumes(generated), small_volumes(test)

    sets: dict[str, tuple[Tensor, Tensor]] = {ALL: (real, real_labels)}
    if len(generated) < len(train):
        chosen = torch.from_numpy(drawn_like(generated.labels, train.labels, seed))
        sets[AS_MANY] = (real[chosen], real_labels[chosen])
    sets[GENERATED] = (made, made_labels)
    sets[BOTH] = (torch.cat([real, made]), torch.cat([real_labels, made_labels]))

    done, total = 0, steps * (len(sets) - (learned is not None))

    def count() -> None:
        nonlocal done
        done += 1
        on_step(done, total)

    rows: list[TrainedClassifier] = []
    for name, (volumes, labels) in sets.items():
        classifier = learned if name == ALL else None
        if classifier is None:
            classifier = fit(
                volumes,
                labels,
                train.class_names,
                steps=steps,
                batch_size=BATCH_SIZE,
                seed=seed,
                on_step=count,
            )
        predicted = classifier.predict_in(held_out)
        rows.append(
            TrainedClassifier(
                trained_on=name,
                volumes=len(volumes),
                accuracy=accuracy(predicted, truth),
                accuracy_interval=bootstrap_interval((predicted == truth).double(), seed=seed),
                balanced_accuracy=balanced_accuracy(predicted, truth),
            )
        )
    return Usefulness(steps=steps, test_volumes=len(test), rows=rows)


def drawn_like(wanted: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Draw as many of the volumes with ``labels`` as there are ``wanted`` labels, class by class.

    Where a class has too few, all of them are taken and others make up the number at random.

    Returns:
        Indices into ``labels``, ascending, none twice: int64 (len(wanted),), or all if there are
        not as many.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(labels))
    shuffled = labels[order]
    taken = np.zeros(len(labels), bool)
    for label, count in zip(*np.unique(wanted, return_counts=True), strict=True):
        taken[np.flatnonzero(shuffled == label)[:count]] = True
    missing = len(wanted) - int(taken.sum())
    taken[np.flatnonzero(~taken)[:missing]] = True
    return np.sort(order[taken])
