"""Whether generated volumes can stand in for real ones: train on them, test on real volumes."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from prod9.data.volume_sets.volume_set import VolumeSet, comparable
from prod9.errors import Prod9Error
from prod9.evaluation.domain_classifier import (
    Classifier,
    balanced_accuracy,
    default_steps,
    fit,
    require_classes,
    small_volumes,
)
from prod9.metrics.bootstrap import bootstrap_interval
from prod9.results.schema import TrainedClassifier, Usefulness

ALL = "real (all)"


def usefulness(
    train: VolumeSet,
    generated: VolumeSet,
    test: VolumeSet,
    *,
    steps: int | None = None,
    seed: int = 0,
    learned: Classifier | None = None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Usefulness:
    """Train one classifier on each of several sets, alike in all else; test all on real volumes.

    All classifiers (:func:`~prod9.evaluation.domain_classifier.fit`) start from the same weights
    and take equally many steps at the same rates. Sets: all real training volumes; as many of them
    as were generated, of the same classes where there are enough (left out where that would be
    all); the generated ones; both together. The intervals hold the chance in the test volumes, not
    that in the training.

    Args:
        train: real volumes.
        generated: volumes of the classes of ``train``.
        test: real volumes that neither the generator nor a classifier has seen; at least two.
        steps: of each classifier; when left out, those that suit ``train``.
        seed: of the first weights, the order, the subset and the intervals.
        learned: what ``train_classifier`` made of ``train`` with the same seed and steps.
        on_step: called after each step with the steps done and the steps of all classifiers.

    Raises:
        Prod9Error: sets that do not compare (shape, classes), a training set with fewer than two
            classes, or fewer than two test volumes.
    """
    train, generated, test = comparable(train, generated, test)
    if len(test) < 2:
        raise Prod9Error(f"{test.name} has {len(test)} volume(s); a test needs at least 2.")
    require_classes(train)
    require_classes(generated)
    truth = torch.from_numpy(test.labels)
    real_labels, made_labels = torch.from_numpy(train.labels), torch.from_numpy(generated.labels)
    steps = default_steps(len(train)) if steps is None else steps
    real, made, held_out = small_volumes(train), small_volumes(generated), small_volumes(test)

    sets: dict[str, tuple[Tensor, Tensor]] = {ALL: (real, real_labels)}
    if len(generated) < len(train):
        chosen = torch.from_numpy(drawn_like(generated.labels, train.labels, seed))
        sets["real, as many as generated"] = (real[chosen], real_labels[chosen])
    sets["generated"] = (made, made_labels)
    sets["real + generated"] = (torch.cat([real, made]), torch.cat([real_labels, made_labels]))

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
                volumes, labels, train.class_names, steps=steps, seed=seed, on_step=count
            )
        predicted = classifier.predict_in(held_out)
        right = (predicted == truth).double()
        rows.append(
            TrainedClassifier(
                trained_on=name,
                volumes=len(volumes),
                accuracy=float(right.mean()),
                accuracy_interval=bootstrap_interval(right, seed=seed),
                balanced_accuracy=balanced_accuracy(predicted, truth),
            )
        )
    return Usefulness(steps=steps, test_volumes=len(test), rows=rows)


def drawn_like(wanted: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Draw volumes with ``labels``, of each class as many as there are in ``wanted``.

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
