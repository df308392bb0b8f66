"""Whether generated volumes show what was asked for, differ, and are no copies."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from prod9.data.volumes import VolumeSet
from prod9.evaluate.classifier import Classifier, as_tensor
from prod9.metrics.ms_ssim import ms_ssim
from prod9.metrics.neighbours import nearest_neighbours

_PERCENTILE = 0.05


@dataclass(frozen=True)
class GenerationMetrics:
    """Figures on N generated volumes beside the same figures on real ones."""

    volumes: int
    class_accuracy: float
    """Share that a classifier trained on real volumes recognises as the class asked for."""
    classifier_real_accuracy: float
    """The classifier's own accuracy on real test volumes."""
    msssim: float
    """Mean MS-SSIM of pairs within a class: high means little variety."""
    msssim_real: float
    nearest_train_p05: float
    """5th percentile of the distance (RMSE) to the nearest training volume."""
    nearest_train_p05_real: float
    """The same for real test volumes: a generator that copies stays below it."""
    class_accuracy_per_class: dict[str, float]


def within_class_msssim(volumes: Tensor, labels: Tensor, most: int = 8) -> float:
    """Mean MS-SSIM over all pairs within a class, of at most ``most`` volumes a class.

    Raises:
        ValueError: no class has two volumes.

    """
    pairs = [
        pair
        for label in torch.unique(labels).tolist()
        for pair in itertools.combinations(torch.nonzero(labels == label)[:most, 0].tolist(), 2)
    ]
    if not pairs:
        raise ValueError("MS-SSIM within classes needs a class with at least two volumes")
    first, second = torch.tensor(pairs).T
    scores = [
        ms_ssim(volumes[a], volumes[b])
        for a, b in zip(first.split(64), second.split(64), strict=True)
    ]
    return float(torch.cat(scores).mean())


def evaluate_generation(
    generated: Tensor, labels: Tensor, train: VolumeSet, test: VolumeSet, classifier: Classifier
) -> GenerationMetrics:
    """Measure generated volumes (N, 1, D, H, W) in [0, 1] of classes ``labels`` (N,)."""
    real_train, real_test = as_tensor(train), as_tensor(test)
    right = (classifier.predict(generated) == labels).float()

    def nearest(volumes: Tensor) -> float:
        distance = nearest_neighbours(volumes, real_train).distance
        return float(torch.quantile(distance, _PERCENTILE))

    return GenerationMetrics(
        volumes=len(generated),
        class_accuracy=float(right.mean()),
        classifier_real_accuracy=classifier.real_accuracy,
        msssim=within_class_msssim(generated, labels),
        msssim_real=within_class_msssim(real_test, torch.from_numpy(test.labels)),
        nearest_train_p05=nearest(generated),
        nearest_train_p05_real=nearest(real_test),
        class_accuracy_per_class={
            train.class_names[label]: float(right[labels == label].mean())
            for label in torch.unique(labels).tolist()
        },
    )
