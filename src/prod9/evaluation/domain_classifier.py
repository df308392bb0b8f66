"""A small 3D classifier, trained on the volumes at hand: judge of classes, and a feature space.

Trained on generated volumes, it shows whether they can stand in for real ones.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prod9.config.training import SchedulerConfig
from prod9.data.volume_sets.volume_set import VolumeSet
from prod9.errors import Prod9Error
from prod9.evaluation.feature_spaces import CPU, FeatureSpace, on_device
from prod9.evaluation.progress import tracked
from prod9.metrics.auc import auc
from prod9.metrics.bootstrap import bootstrap_interval
from prod9.results.schema import TrainedClassifier, Usefulness
from prod9.training.optimizer import rate_at

FEATURES = 128
LARGEST_SIDE = 64
BATCH_SIZE = 64
_PEAK_RATE = 2e-3
_SCHEDULE = SchedulerConfig(name="cosine", warmup_steps=10)


def small(volumes: Tensor) -> Tensor:
    """Average-pool volumes (B, 1, D, H, W) so that no side is above 64; smaller ones stay."""
    d, h, w = (min(side, LARGEST_SIDE) for side in volumes.shape[2:])
    return F.adaptive_avg_pool3d(volumes, (d, h, w))


def small_volumes(volumes: VolumeSet) -> Tensor:
    """Return all volumes in memory, pooled by :func:`small`: float32 (N, 1, d, h, w)."""
    return torch.cat([small(volume) for volume in volumes.batches(1)])


@dataclass(frozen=True)
class Classifier:
    """A trained network, frozen and in evaluation mode."""

    body: nn.Module
    """(B, 1, D, H, W) in [0, 1], no side above 64 -> non-negative features (B, 128)."""
    head: nn.Module
    """Features (B, 128) -> logits (B, classes)."""
    class_names: tuple[str, ...]
    steps: int
    """That it was trained for."""
    weights_sha256: str
    """Of the names and numbers of its state."""

    def predict(self, volumes: VolumeSet) -> Tensor:
        """Return the most probable class of each volume: int64 (N,), into ``class_names``."""
        return self.probabilities(small_volumes(volumes)).argmax(1)

    def right(self, volumes: VolumeSet) -> float:
        """Return the share of the volumes whose class is recognised."""
        return float((self.predict(volumes).numpy() == volumes.labels).mean())

    def log_odds(self, volumes: Tensor) -> Tensor:
        """Return log(p / (1 - p)) of the second of two classes, (N,): no score rounds to 0 or 1."""
        first, second = self.logits(volumes).unbind(1)
        return second - first

    def probabilities(self, volumes: Tensor) -> Tensor:
        """Return those of the classes (N, classes) for volumes from :func:`small_volumes`."""
        return self.logits(volumes).softmax(1)

    @torch.no_grad()
    def logits(self, volumes: Tensor) -> Tensor:
        """Return logits (N, classes) for volumes from :func:`small_volumes`."""
        features = [self.body(part) for part in volumes.split(BATCH_SIZE)]
        return self.head(torch.cat(features))


def default_steps(volumes: int) -> int:
    """Return the training steps for a set: 12 epochs, but from 120 to 1200 steps."""
    return min(1200, max(120, math.ceil(12 * volumes / BATCH_SIZE)))


def train_classifier(train: VolumeSet, *, steps: int | None = None, seed: int = 0) -> Classifier:
    """Train on the volumes and classes of a set (:func:`fit`), with :func:`default_steps`.

    Raises:
        Prod9Error: fewer than two classes occur.
    """
    if len(train.counts) < 2:
        raise Prod9Error(f"a classifier needs at least two classes; {train.name} has one.")
    steps = default_steps(len(train)) if steps is None else steps
    labels = torch.from_numpy(train.labels)
    return fit(small_volumes(train), labels, train.class_names, steps=steps, seed=seed)


def fit(
    volumes: Tensor,
    labels: Tensor,
    class_names: tuple[str, ...],
    *,
    steps: int,
    seed: int,
    batch_size: int = BATCH_SIZE,
) -> Classifier:
    """Train a classifier on volumes in memory.

    Three strided 3^3 convolutions with batch norm (16, 32, 64 channels), mean over 2^3 blocks, 128
    features, one linear layer. Cross-entropy with label smoothing 0.1, in batches of
    ``batch_size`` volumes or of the whole set, classes not weighted. AdamW, 2e-3, ten steps of
    warm-up, then cosine. The same seed gives bit-identical weights (on the same machine with the
    same number of threads); the global random state is not changed. ``volumes`` (N, 1, d, h, w),
    at least two, come from :func:`small_volumes`; ``labels`` (N,) are indices into ``class_names``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for before, after in ((1, 16), (16, 32), (32, 64)):
            layers += [nn.Conv3d(before, after, 3, 2, 1), nn.BatchNorm3d(after), nn.ReLU()]
        layers += [nn.AdaptiveAvgPool3d(2), nn.Flatten(), nn.Linear(8 * 64, FEATURES), nn.ReLU()]
        body, head = nn.Sequential(*layers), nn.Linear(FEATURES, len(class_names))
    network = nn.Sequential(body, head).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=_PEAK_RATE, weight_decay=1e-2)
    # The volumes of each step (steps, batch size): all of them before any again.
    stream, batch_size = torch.Generator().manual_seed(seed), min(batch_size, len(volumes))
    epochs = math.ceil(steps * batch_size / len(volumes))
    order = torch.cat([torch.randperm(len(volumes), generator=stream) for _ in range(epochs)])
    batches = order[: steps * batch_size].view(steps, batch_size)
    for step in tracked(range(steps), f"classifier of {len(volumes)} volumes", "steps"):
        for group in optimizer.param_groups:
            group["lr"] = _PEAK_RATE * rate_at(step, steps, _SCHEDULE)
        picked = batches[step]
        inputs = volumes[picked].contiguous(memory_format=torch.channels_last_3d)  # faster on CPUs
        loss = F.cross_entropy(network(inputs), labels[picked], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval().requires_grad_(False)
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode() + b"\0" + value.numpy().tobytes())
    return Classifier(body, head, class_names, steps, digest.hexdigest())


def balanced_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Mean over the classes that occur in ``labels`` (N,), N > 0, of the accuracy on that class."""
    shares = [float((predicted[labels == c] == c).double().mean()) for c in labels.unique()]
    return sum(shares) / len(shares)


def classifier_space(classifier: Classifier, train: VolumeSet, real: VolumeSet) -> FeatureSpace:
    """Return the classifier's features as a space: it sees what distinguishes these classes.

    What it was trained on, and how many of the held-out ``real`` volumes it recognises, are part of
    the name.
    """
    return FeatureSpace(
        key="classifier",
        name=f"3D CNN trained on {train.name} to tell {len(classifier.class_names)} classes apart "
        f"({classifier.right(real):.1%} right on held-out real volumes), whole volume",
        dimensions=FEATURES,
        weights_sha256=classifier.weights_sha256,
        embed=on_device(lambda volume: classifier.body(small(volume)), CPU),
    )


def usefulness(
    learned: Classifier, train: VolumeSet, generated: VolumeSet, test: VolumeSet, seed: int = 0
) -> Usefulness:
    """Train one classifier on each of several sets, alike in all else; test all on real volumes.

    All classifiers (:func:`fit`) start from the same weights
    and take equally many steps at the same rates. Sets: all real training volumes; as many of them
    as were generated, of the same classes where there are enough (left out where that would be
    all); the generated ones; both together. The intervals hold the chance in the test volumes, not
    that in the training.

    ``learned`` is what ``train_classifier`` made of ``train`` with the same seed; ``test`` are real
    volumes that neither the generator nor a classifier has seen.
    """
    truth = torch.from_numpy(test.labels)
    real_labels, made_labels = torch.from_numpy(train.labels), torch.from_numpy(generated.labels)
    real, made, held_out = small_volumes(train), small_volumes(generated), small_volumes(test)
    sets: dict[str, tuple[Tensor, Tensor]] = {}
    if len(generated) < len(train):
        chosen = torch.from_numpy(drawn_like(generated.labels, train.labels, seed))
        sets["real, as many as generated"] = (real[chosen], real_labels[chosen])
    sets["generated"] = (made, made_labels)
    sets["real + generated"] = (torch.cat([real, made]), torch.cat([real_labels, made_labels]))

    def tested(trained_on: str, volumes: int, classifier: Classifier) -> TrainedClassifier:
        probabilities = classifier.probabilities(held_out)
        predicted = probabilities.argmax(1)
        right = (predicted == truth).double()
        return TrainedClassifier(
            trained_on=trained_on,
            volumes=volumes,
            accuracy=float(right.mean()),
            accuracy_interval=bootstrap_interval(right, seed=seed),
            balanced_accuracy=balanced_accuracy(predicted, truth),
            auc=auc(probabilities.double().numpy(), test.labels),
        )

    rows = [tested("real (all)", len(train), learned)]
    for name, (volumes, labels) in sets.items():
        classifier = fit(volumes, labels, train.class_names, steps=learned.steps, seed=seed)
        rows.append(tested(name, len(volumes), classifier))
    return Usefulness(steps=learned.steps, test_volumes=len(test), rows=rows)


def drawn_like(wanted: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Draw indices into ``labels``, of each class as many as there are in ``wanted``.

    Where a class has too few, all of them are taken and others make up the number at random. The
    indices ascend, none occurs twice.
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
