"""A small 3D classifier, trained on the volumes at hand: judge of classes, and a feature space."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prod9.config.training import SchedulerConfig
from prod9.data.volume_sets.volume_set import VolumeSet
from prod9.errors import Prod9Error
from prod9.evaluation.features.spaces import FeatureSpace, one_by_one
from prod9.training.optimizer import rate_at

FEATURES = 128
LARGEST_SIDE = 64
BATCH_SIZE = 64
_PEAK_RATE = 2e-3
_SCHEDULE = SchedulerConfig(name="cosine", warmup_steps=10)
_EPOCHS = 12
_FEWEST_STEPS, _MOST_STEPS = 120, 1200


def small(volumes: Tensor) -> Tensor:
    """Average-pool volumes (B, 1, D, H, W) so that no side is above 64; smaller ones stay."""
    d, h, w = (min(side, LARGEST_SIDE) for side in volumes.shape[2:])
    return F.adaptive_avg_pool3d(volumes, (d, h, w))


def small_volumes(volumes: VolumeSet) -> Tensor:
    """Return all volumes in memory, pooled by :func:`small`: float32 (N, 1, d, h, w)."""
    d, h, w = (min(side, LARGEST_SIDE) for side in volumes.shape)
    pooled = torch.empty(len(volumes), 1, d, h, w)
    for index, volume in enumerate(volumes.batches(1)):
        pooled[index] = small(volume)[0]
    return pooled


@dataclass(frozen=True)
class Classifier:
    """A trained network, frozen and in evaluation mode."""

    body: nn.Module
    """(B, 1, D, H, W) in [0, 1], no side above 64 -> non-negative features (B, 128)."""
    head: nn.Module
    """Features (B, 128) -> logits (B, classes)."""
    class_names: tuple[str, ...]
    weights_sha256: str
    """Of the names and numbers of its state."""

    def predict(self, volumes: VolumeSet) -> Tensor:
        """Return the most probable class of each volume: int64 (N,), into ``class_names``."""
        return self.predict_in(small_volumes(volumes))

    def right(self, volumes: VolumeSet) -> float:
        """Return the share of the volumes whose class is recognised."""
        return float((self.predict(volumes).numpy() == volumes.labels).mean())

    @torch.no_grad()
    def predict_in(self, volumes: Tensor) -> Tensor:
        """Return the most probable class (N,) of volumes from :func:`small_volumes`."""
        features = [self.body(part) for part in volumes.split(BATCH_SIZE)]
        return self.head(torch.cat(features)).argmax(1)


def default_steps(volumes: int) -> int:
    """Return the training steps for a set: 12 epochs, but from 120 to 1200 steps."""
    return min(_MOST_STEPS, max(_FEWEST_STEPS, math.ceil(_EPOCHS * volumes / BATCH_SIZE)))


def train_classifier(train: VolumeSet, *, steps: int | None = None, seed: int = 0) -> Classifier:
    """Train on the volumes and classes of a set (:func:`fit`), with :func:`default_steps`.

    Raises:
        Prod9Error: fewer than two classes occur.
    """
    require_classes(train)
    steps = default_steps(len(train)) if steps is None else steps
    labels = torch.from_numpy(train.labels)
    return fit(small_volumes(train), labels, train.class_names, steps=steps, seed=seed)


def require_classes(volumes: VolumeSet) -> None:
    """Refuse a training set of fewer than two classes.

    Raises:
        Prod9Error: fewer than two classes occur.
    """
    found = len(volumes.counts)
    if found < 2:
        raise Prod9Error(
            f"{volumes.name} has volumes of {found} class{'es' * (found != 1)}, and a classifier "
            "needs at least two; name the classes in the manifest, or leave this part out."
        )


def fit(
    volumes: Tensor,
    labels: Tensor,
    class_names: tuple[str, ...],
    *,
    steps: int,
    seed: int,
    on_step: Callable[[], None] = lambda: None,
) -> Classifier:
    """Train a classifier on volumes in memory.

    Three strided 3^3 convolutions with batch norm (16, 32, 64 channels), mean over 2^3 blocks, 128
    features, one linear layer. Cross-entropy with label smoothing 0.1, in batches of 64 volumes or
    of the whole set, classes not weighted. AdamW, 2e-3, ten steps of warm-up, then cosine. The same
    seed gives bit-identical weights (on the same machine with the same number of threads); the
    global random state is not changed.

    Args:
        volumes: (N, 1, d, h, w) from :func:`small_volumes`, at least two.
        labels: int64 (N,), indices into ``class_names``.
        class_names: of the labels.
        steps: optimizer steps.
        seed: of the initial weights and the order of the volumes.
        on_step: called after each step.
    """
    batch_size = min(BATCH_SIZE, len(volumes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for before, after in ((1, 16), (16, 32), (32, 64)):
            layers += [nn.Conv3d(before, after, 3, 2, 1), nn.BatchNorm3d(after), nn.ReLU()]
        layers += [nn.AdaptiveAvgPool3d(2), nn.Flatten(), nn.Linear(8 * 64, FEATURES), nn.ReLU()]
        body, head = nn.Sequential(*layers), nn.Linear(FEATURES, len(class_names))
    network = nn.Sequential(body, head).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=_PEAK_RATE, weight_decay=1e-2)
    for step, picked in enumerate(_order(len(volumes), steps, batch_size, seed)):
        for group in optimizer.param_groups:
            group["lr"] = _PEAK_RATE * rate_at(step, steps, _SCHEDULE)
        loss = F.cross_entropy(network(volumes[picked]), labels[picked], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        on_step()
    network.eval().requires_grad_(False)
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode() + b"\0" + value.numpy().tobytes())
    return Classifier(body, head, class_names, digest.hexdigest())


def _order(volumes: int, steps: int, batch_size: int, seed: int) -> Tensor:
    """Return the volumes of each step: (steps, batch_size), all of them before any again."""
    stream = torch.Generator().manual_seed(seed)
    epochs = math.ceil(steps * batch_size / volumes)
    order = torch.cat([torch.randperm(volumes, generator=stream) for _ in range(epochs)])
    return order[: steps * batch_size].view(steps, batch_size)


def balanced_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Mean over the classes that occur in ``labels`` (N,), N > 0, of the accuracy on that class."""
    shares = [float((predicted[labels == c] == c).double().mean()) for c in labels.unique()]
    return sum(shares) / len(shares)


def classifier_space(classifier: Classifier, train: VolumeSet, real: VolumeSet) -> FeatureSpace:
    """Return the classifier's features as a space: it sees what distinguishes these classes.

    Args:
        classifier: network.
        train: what it was trained on, for the name.
        real: volumes that it never saw; how many it recognises is part of the name.
    """
    return FeatureSpace(
        key="classifier",
        name=f"3D CNN trained on {train.name} to tell {len(classifier.class_names)} classes apart "
        f"({classifier.right(real):.1%} right on held-out real volumes), whole volume",
        dimensions=FEATURES,
        weights_sha256=classifier.weights_sha256,
        embed=one_by_one(lambda volume: classifier.body(small(volume))),
    )
