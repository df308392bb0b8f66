"""A small 3D classifier, trained on real volumes, that judges generated ones."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prod9.config.training import SchedulerConfig
from prod9.data.volumes import VolumeSet
from prod9.training.schedule import rate_at


@dataclass(frozen=True)
class Classifier:
    """The network in evaluation mode, and its accuracy on real volumes that it never saw."""

    network: nn.Module
    real_accuracy: float

    @torch.no_grad()
    def predict(self, volumes: Tensor) -> Tensor:
        """Volumes (N, 1, D, H, W) in [0, 1] -> class indices (N,)."""
        return torch.cat([self.network(part).argmax(1) for part in volumes.split(64)])


def _network(num_classes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv3d(before, after, 3, 2, 1), nn.BatchNorm3d(after), nn.ReLU()]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool3d(2), nn.Flatten(), nn.Linear(8 * 64, num_classes)
    )


def as_tensor(volumes: VolumeSet) -> Tensor:
    """All volumes of a set, float32 (N, 1, D, H, W) in [0, 1]."""
    return torch.from_numpy(volumes.images).float()[:, None] / 255


def train_classifier(
    train: VolumeSet, test: VolumeSet, *, epochs: int = 12, batch_size: int = 64, seed: int = 0
) -> Classifier:
    """Train on real volumes (AdamW, 2e-3, cosine) and measure on held-out real volumes."""
    x, y = as_tensor(train), torch.from_numpy(train.labels)
    stream = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(len(train.class_names))
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    steps = epochs * max(1, len(x) // batch_size)
    shape = SchedulerConfig(name="cosine", warmup_steps=10)
    network.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * rate_at(step, steps, shape)
        picked = torch.randint(len(x), (batch_size,), generator=stream)
        loss = F.cross_entropy(network(x[picked]), y[picked], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval().requires_grad_(False)
    classifier = Classifier(network, 0.0)
    right = classifier.predict(as_tensor(test)) == torch.from_numpy(test.labels)
    return Classifier(network, float(right.float().mean()))
