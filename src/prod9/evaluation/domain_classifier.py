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


def small_volumes(collection: VolumeSet) -> Tensor:
    """Return all volumes in memory, pooled by :func:`small`: float32 (N, 1, d, h, w)."""
    d, h, w = (min(side, LARGEST_SIDE) for side in collection.shape)
    volumes = torch.empty(len(collection), 1, d, h, w)
    for index, volume in enumerate(collection.batches(1)):
        volumes[index] = small(volume)[0]
    return volumes


@dataclass(frozen=True)
class Classifier:
    """A trained network, frozen and in evaluation mode."""

    body: nn.Module
    """(B, 1, D, H, W) in [0, 1], no side above 64 -> features (B, 128)."""
    head: nn.Module
    """Features (B, 128) -> logits (B, classes)."""
    class_names: tuple[str, ...]
    weights_sha256: str
    """Over the names and numbers of its state."""

    def features(self, collection: VolumeSet) -> Tensor:
        """Return what the last layer sees: float32 (N, 128), non-negative."""
        return self.features_in(small_volumes(collection))

    def probabilities(self, collection: VolumeSet) -> Tensor:
        """Return the probability of each class: float32 (N, classes)."""
        with torch.no_grad():
            return self.head(self.features(collection)).softmax(1)

    def predict(self, collection: VolumeSet) -> Tensor:
        """Return the likeliest class of each volume: int64 (N,), indices into ``class_names``."""
        return self.predict_in(small_volumes(collection))

    @torch.no_grad()
    def features_in(self, volumes: Tensor) -> Tensor:
        """Return the features (N, 128) of volumes (N, 1, d, h, w) from :func:`small_volumes`."""
        parts = [self.body(part) for part in volumes.split(BATCH_SIZE)]
        return torch.cat(parts) if parts else torch.empty(0, FEATURES)

    @torch.no_grad()
    def predict_in(self, volumes: Tensor) -> Tensor:
        """Return the likeliest class (N,) of volumes from :func:`small_volumes`."""
        return self.head(self.features_in(volumes)).argmax(1)


def _body() -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv3d(before, after, 3, 2, 1), nn.BatchNorm3d(after), nn.ReLU()]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool3d(2), nn.Flatten(), nn.Linear(8 * 64, FEATURES), nn.ReLU()
    )


def default_steps(volumes: int) -> int:
    """Return the training steps for a set: 12 passes over it, but from 120 to 1200."""
    return min(_MOST_STEPS, max(_FEWEST_STEPS, math.ceil(_EPOCHS * volumes / BATCH_SIZE)))


def nothing() -> None:
    """Report to nobody."""


def train_classifier(
    train: VolumeSet,
    *,
    steps: int | None = None,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    on_step: Callable[[], None] = nothing,
) -> Classifier:
    """Train on the volumes and classes of a collection, in at most 64 voxels a side.

    Three strided 3^3 convolutions with batch norm (16, 32, 64 channels), mean over 2^3 blocks, 128
    features, one linear layer. Cross-entropy with label smoothing 0.1, each volume counted once:
    rare classes are neither weighted nor drawn more often, so look at the balanced accuracy where
    classes differ in size. AdamW, 2e-3, ten steps of warm-up, then cosine. The same seed gives the
    same network to the bit (on the same machine with the same number of threads); the global
    random state is left alone.

    Args:
        train: at least two volumes of at least two classes.
        steps: optimizer steps; :func:`default_steps` when left out.
        batch_size: at most; never more than there are volumes.
        seed: of the first weights and the order of the volumes.
        on_step: called after each step.

    Raises:
        Prod9Error: fewer than two classes occur.
    """
    labels = torch.from_numpy(train.labels)
    require_classes(train.name, labels)
    return fit(
        small_volumes(train),
        labels,
        train.class_names,
        steps=default_steps(len(train)) if steps is None else steps,
        batch_size=batch_size,
        seed=seed,
        on_step=on_step,
    )


def require_classes(name: str, labels: Tensor) -> None:
    """Refuse a training set in which there is nothing to tell apart.

    Raises:
        Prod9Error: fewer than two classes occur in ``labels``; the sentence names the set.
    """
    found = len(labels.unique())
    if found < 2:
        raise Prod9Error(
            f"{name} has volumes of {found} class{'es' * (found != 1)}, and a classifier needs two "
            "to tell apart; name the classes in the manifest, or leave this part out."
        )


def fit(
    volumes: Tensor,
    labels: Tensor,
    class_names: tuple[str, ...],
    *,
    steps: int,
    batch_size: int,
    seed: int,
    on_step: Callable[[], None] = nothing,
) -> Classifier:
    """Train as :func:`train_classifier` on volumes (N, 1, d, h, w) and labels int64 (N,)."""
    batch_size = min(batch_size, len(volumes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body, head = _body(), nn.Linear(FEATURES, len(class_names))
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
    return Classifier(body, head, class_names, _digest(network))


def _order(volumes: int, steps: int, batch_size: int, seed: int) -> Tensor:
    """Return which volumes each step sees: (steps, batch_size), all of them before any again."""
    stream = torch.Generator().manual_seed(seed)
    passes = math.ceil(steps * batch_size / volumes)
    order = torch.cat([torch.randperm(volumes, generator=stream) for _ in range(passes)])
    return order[: steps * batch_size].view(steps, batch_size)


def _digest(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode() + b"\0" + value.numpy().tobytes())
    return digest.hexdigest()


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Share of volumes (N,) whose class was recognised.

    Raises:
        ValueError: no volumes.
    """
    if len(labels) == 0:
        raise ValueError("accuracy of no volumes")
    return float((predicted == labels).double().mean())


def balanced_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Mean over the classes that occur in ``labels`` (N,) of the accuracy on that class.

    Raises:
        ValueError: no volumes.
    """
    shares = [accuracy(predicted[labels == c], labels[labels == c]) for c in labels.unique()]
    if not shares:
        raise ValueError("accuracy of no volumes")
    return sum(shares) / len(shares)


def classifier_space(classifier: Classifier, trained_on: str, accuracy: float) -> FeatureSpace:
    """Return the classifier's features as a space: it sees what tells these classes apart.

    Args:
        classifier: of these volumes.
        trained_on: the set, for the name.
        accuracy: share that it recognises of real volumes that it never saw, for the name.
    """
    return FeatureSpace(
        key="classifier",
        name=f"3D CNN trained on {trained_on} to tell {len(classifier.class_names)} classes apart "
        f"({accuracy:.1%} right on held-out real volumes), whole volume",
        dimensions=FEATURES,
        weights_sha256=classifier.weights_sha256,
        embed=one_by_one(lambda volume: classifier.features_in(small(volume))),
    )
