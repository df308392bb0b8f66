"""A small 3D U-Net that learns to segment from pairs in memory; needs MONAI."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prod9.config.evaluation import SegmentationConfig
from prod9.config.training import SchedulerConfig
from prod9.errors import Prod9Error
from prod9.evaluation.progress import tracked
from prod9.training.optimizer import rate_at

_KEYS = ("image", "label")
_SCHEDULE = SchedulerConfig(name="cosine", warmup_steps=10)


@dataclass(frozen=True)
class Pair:
    """A subject."""

    images: np.ndarray
    """float16 (C, D, H, W) in [0, 1]: every channel of grey values."""
    labels: np.ndarray
    """uint16 (D, H, W): indices into the values of the channel of labels."""


@dataclass(frozen=True)
class Segmenter:
    """A trained network, frozen."""

    network: nn.Module
    """(B, C, d, h, w) in [0, 1] -> logits (B, labels, d, h, w)."""
    window: tuple[int, int, int]
    device: torch.device

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Images (C, D, H, W) of any size -> indices of labels (D, H, W), uint16."""
        from monai.inferers.utils import sliding_window_inference

        volume = torch.from_numpy(images).float()[None].to(self.device)
        found: Any = sliding_window_inference(
            volume, self.window, 1, self.network, overlap=0.5, mode="gaussian"
        )
        return found[0].argmax(0).cpu().numpy().astype(np.uint16)


def require_monai() -> None:
    """Refuse to begin without MONAI."""
    if find_spec("monai") is None:
        raise Prod9Error(
            "segmenters need MONAI, which is not installed: pip install 'prod9[segmentation]'."
        )


def train_segmenter(
    pairs: Sequence[Pair],
    labels: int,
    config: SegmentationConfig,
    *,
    seed: int,
    what: str = "segmenter",
    flips: Sequence[int] = (),
    device: torch.device | None = None,
) -> Segmenter:
    """Train on pairs alone, for ``config.steps`` steps; nothing is chosen on the way.

    Dice and cross-entropy (MONAI's ``DiceCELoss``, the background left out of Dice), AdamW. Crops
    are centred on a label two times of three, turned by up to 10 degrees, scaled by up to 10 %, and
    changed in brightness and noise. The global random state is not changed.

    Args:
        pairs: of one size, at least one.
        labels: number of labels, the background among them.
        config: network and training.
        seed: of first weights, crops and changes.
        what: is learned from, for the progress bar.
        flips: axes along which a mirrored pair is as good as the pair.
        device: of the network; the CPU when left out.
    """
    require_monai()
    from monai.losses.dice import DiceCELoss
    from monai.networks.nets.unet import UNet

    device, factor = device or torch.device("cpu"), 2 ** (len(config.widths) - 1)
    sides = zip(config.patch, pairs[0].labels.shape, strict=True)
    d, h, w = (factor * math.ceil(min(patch, side) / factor) for patch, side in sides)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = UNet(
            spatial_dims=3,
            in_channels=len(pairs[0].images),
            out_channels=labels,
            channels=config.widths,
            strides=(2,) * (len(config.widths) - 1),
            num_res_units=1,
        ).to(device)
    loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate)
    change, random = _changed_crop((d, h, w), flips, seed), np.random.default_rng(seed)
    for step in tracked(range(config.steps), what, "steps"):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * rate_at(step, config.steps, _SCHEDULE)
        crops = [change(pairs[i]) for i in random.integers(len(pairs), size=config.batch_size)]
        images, wanted = (torch.stack([crop[key] for crop in crops]) for key in _KEYS)
        optimizer.zero_grad()
        loss(network(images.to(device)), wanted.to(device)).backward()
        optimizer.step()
    return Segmenter(network.eval().requires_grad_(False), (d, h, w), device)


def _changed_crop(
    sides: tuple[int, int, int], flips: Sequence[int], seed: int
) -> Callable[[Pair], dict[str, Tensor]]:
    """Return a function that draws a changed crop of a pair."""
    from monai import transforms

    both, image = [*_KEYS], ["image"]
    change = transforms.Compose(
        [
            transforms.SpatialPadd(both, sides),
            transforms.RandCropByPosNegLabeld(both, "label", sides, pos=2, neg=1),
            transforms.RandAffined(
                both,
                prob=0.5,
                rotate_range=(math.radians(10),) * 3,
                scale_range=(0.1,) * 3,
                mode=("bilinear", "nearest"),
                padding_mode="border",
            ),
            *(transforms.RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in flips),
            transforms.RandScaleIntensityd(image, factors=0.2, prob=0.5),
            transforms.RandShiftIntensityd(image, offsets=0.1, prob=0.5),
            transforms.RandGaussianNoised(image, prob=0.3, std=0.05),
        ]
    ).set_random_state(seed)

    def draw(pair: Pair) -> dict[str, Tensor]:
        whole = {
            "image": torch.from_numpy(pair.images).float(),
            "label": torch.from_numpy(pair.labels.astype(np.float32))[None],
        }
        found: Any = change(whole)
        return {key: found[0][key].as_tensor() for key in _KEYS}  # no MetaTensor: it is slow

    return draw
