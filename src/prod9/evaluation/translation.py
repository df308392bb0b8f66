"""How near a drawn channel comes to the real one, beside what costs nothing.

Rivals: the source itself with its histogram matched to the truth's own (more than a user could do,
who has no truth), and the mean of the training split's target channel.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prod9.data.dataset import Dataset
from prod9.metrics.psnr import psnr
from prod9.metrics.ssim import ssim


@dataclass(frozen=True)
class Score:
    """Means over scans of figures over the foreground, intensities in [0, 1]."""

    psnr: float
    """dB."""
    ssim: float
    psnr_per_scan: tuple[float, ...]
    ssim_per_scan: tuple[float, ...]


@dataclass(frozen=True)
class TranslationMetrics:
    """One target channel, from growing sets of sources, beside its rivals."""

    target: str
    scans: int
    drawn: dict[str, Score]
    """By the sources' names, such as ``T1+T2``."""
    matched: dict[str, Score]
    """Each source by itself, its histogram matched to the truth's."""
    mean: Score
    """The mean of the training scans."""
    ceiling: Score
    """The truth, encoded and decoded: nothing drawn as tokens can be expected to be nearer."""


def matched_histogram(source: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return ``source`` (n,) with the values of ``reference`` (m,), rank by rank."""
    ranks = np.empty(len(source))
    ranks[np.argsort(source, kind="stable")] = (np.arange(len(source)) + 0.5) / len(source)
    # Hazen: rank (i + 1/2) / m is exactly the i-th of m values.
    return np.quantile(reference, ranks, method="hazen").astype(source.dtype)


def mean_volume(data: Dataset, channel: int) -> np.ndarray:
    """Return the mean of one channel over all items, float32 (D, H, W)."""
    total = np.zeros(data.shape, np.float64)
    for item in range(len(data)):
        total += data.whole(item, channel)
    return (total / len(data)).astype(np.float32)


def foreground_of(data: Dataset, item: int) -> np.ndarray:
    """Return where any channel of an item is not background, bool (D, H, W)."""
    return np.logical_or.reduce([data.whole(item, m) > 0 for m in range(len(data.channels))])


class _Scores:
    """Collects figures, scan by scan."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float]] = []

    def add(self, output: np.ndarray | Tensor, truth: np.ndarray, inside: np.ndarray) -> None:
        x, y = torch.as_tensor(output)[None, None], torch.from_numpy(truth)[None, None]
        mask = torch.from_numpy(inside)[None, None]
        self.rows.append((float(psnr(x, y, mask=mask)), float(ssim(x, y, mask=mask))))

    def score(self) -> Score:
        psnrs, ssims = zip(*self.rows, strict=True)
        return Score(float(np.mean(psnrs)), float(np.mean(ssims)), psnrs, ssims)


def evaluate_translation(
    train: Dataset,
    test: Dataset,
    items: Sequence[int],
    target: int,
    source_sets: Sequence[Sequence[int]],
    draw: Callable[[dict[int, Tensor], int], Tensor],
    reconstruct: Callable[[Tensor], Tensor],
    on_scan: Callable[[], None] = lambda: None,
) -> TranslationMetrics:
    """Measure one target channel on items of ``test``.

    Args:
        train: whose mean is a rival.
        test: what no training has seen.
        items: of ``test``.
        target: the channel that is drawn.
        source_sets: sets of channels that it is drawn from.
        draw: (volumes (1, 1, D, H, W) by channel, target) -> volume (1, 1, D, H, W).
        reconstruct: volume -> the same, encoded and decoded.
        on_scan: called after each item.
    """
    names = [channel.name for channel in test.channels]
    template = mean_volume(train, target)
    drawn = {"+".join(names[m] for m in sources): _Scores() for sources in source_sets}
    matched = {m: _Scores() for m in sorted({m for sources in source_sets for m in sources})}
    mean, ceiling = _Scores(), _Scores()
    for item in items:
        truth, inside = test.whole(item, target), foreground_of(test, item)
        volumes = {m: test.whole(item, m) for m in matched}
        for (_, scores), sources in zip(drawn.items(), source_sets, strict=True):
            given = {m: torch.from_numpy(volumes[m])[None, None] for m in sources}
            # What is outside the foreground is known from the sources, for everybody.
            scores.add(draw(given, target)[0, 0] * torch.from_numpy(inside), truth, inside)
        for m, scores in matched.items():
            output = np.zeros_like(truth)
            output[inside] = matched_histogram(volumes[m][inside], truth[inside])
            scores.add(output, truth, inside)
        mean.add(template * inside, truth, inside)
        again = reconstruct(torch.from_numpy(truth)[None, None])[0, 0]
        ceiling.add(again * torch.from_numpy(inside), truth, inside)
        on_scan()
    return TranslationMetrics(
        target=names[target],
        scans=len(items),
        drawn={name: scores.score() for name, scores in drawn.items()},
        matched={names[m]: scores.score() for m, scores in matched.items()},
        mean=mean.score(),
        ceiling=ceiling.score(),
    )
