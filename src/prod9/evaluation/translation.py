"""How near a channel that is drawn from others comes to the real one, beside what costs nothing.

Rivals: the source itself with its histogram matched to the truth's own (more than a user could do,
who has no truth), and the mean of the training split's target channel.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from prod9.data.dataset import Dataset
from prod9.evaluation.feature_spaces import NO_CACHE
from prod9.evaluation.progress import tracked
from prod9.evaluation.work_cache import WorkCache
from prod9.inference.translate import translated_tokens
from prod9.metrics.psnr import psnr
from prod9.metrics.ssim import ssim
from prod9.model import Model
from prod9.sample_request import SampleRequest
from prod9.sliding_window import decode, encode


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


def evaluate_translation(
    train: Dataset,
    test: Dataset,
    items: Sequence[int],
    target: int,
    source_sets: Sequence[Sequence[int]],
    draw: Callable[[int, Sequence[int]], np.ndarray],
    reconstruct: Callable[[np.ndarray], np.ndarray],
) -> TranslationMetrics:
    """Measure the channel ``target`` on items of ``test``, drawn from each set of channels.

    Args:
        train: whose mean is a rival.
        test: what no training has seen.
        items: of ``test``.
        target: the channel that is drawn.
        source_sets: sets of channels that it is drawn from.
        draw: (item, channels that are known) -> the target channel (D, H, W).
        reconstruct: volume (D, H, W) -> the same, encoded and decoded.
    """
    names = [channel.name for channel in test.channels]
    drawn = {"+".join(names[m] for m in sources): sources for sources in source_sets}
    singles = {names[m]: m for m in sorted({m for sources in source_sets for m in sources})}
    template = mean_volume(train, target)
    rows: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for item in tracked(items, f"translation to {names[target]}"):
        truth, inside = test.whole(item, target), foreground_of(test, item)
        outputs = {("drawn", name): draw(item, sources) for name, sources in drawn.items()}
        for name, channel in singles.items():
            output = outputs["matched", name] = np.zeros_like(truth)
            source = test.whole(item, channel)
            output[inside] = matched_histogram(source[inside], truth[inside])
        outputs |= {("mean", ""): template, ("ceiling", ""): reconstruct(truth)}
        for key, output in outputs.items():
            rows[key].append(_compared(output, truth, inside))

    def score(rival: str, name: str = "") -> Score:
        psnrs, ssims = zip(*rows[rival, name], strict=True)
        return Score(float(np.mean(psnrs)), float(np.mean(ssims)), psnrs, ssims)

    return TranslationMetrics(
        target=names[target],
        scans=len(items),
        drawn={name: score("drawn", name) for name in drawn},
        matched={name: score("matched", name) for name in singles},
        mean=score("mean"),
        ceiling=score("ceiling"),
    )


def _compared(output: np.ndarray, truth: np.ndarray, inside: np.ndarray) -> tuple[float, float]:
    """Return PSNR and SSIM over the foreground; what is outside is known from the sources."""
    x, y, mask = (torch.from_numpy(v)[None, None] for v in (output * inside, truth, inside))
    return float(psnr(x, y, mask=mask)), float(ssim(x, y, mask=mask))


def source_sets(data: Dataset) -> tuple[int, list[list[int]]]:
    """Return the target channel that ``test`` measures, and growing sets of sources.

    The order is the data set's ``translation_order``, or that of its channels.
    """
    *sources, target = data.translation_order or range(len(data.channels))
    return target, [sorted(sources[:count]) for count in range(1, len(sources) + 1)]


def measure_translation(
    model: Model,
    train: Dataset,
    test: Dataset,
    how: SampleRequest,
    *,
    kept: WorkCache = NO_CACHE,
    count: int | None = None,
) -> TranslationMetrics:
    """Draw one channel of the items of ``test`` from each set of sources, and measure.

    One sample is measured, not a mean: the mean of many is smoother than any scan. The tokens are
    ``kept``; the processes of a distributed run share the sampling. The labels of ``how`` are not
    looked at. The first ``count`` items are measured; all when left out.
    """
    target, sets = source_sets(test)
    one = replace(how, labels=(model.label_of_channel(target),))
    items = range(len(test) if count is None else count)
    wanted = [(item, tuple(sources)) for item in items for sources in sets]

    def make(number: int) -> np.ndarray:
        item, sources = wanted[number]
        volumes = {m: torch.from_numpy(test.whole(item, m))[None, None] for m in sources}
        return translated_tokens(model, volumes, one).cpu().numpy()

    decided_by = f"of {test.digest} by {model.digest}, {one}"
    names = [f"{target} from {each} {decided_by}" for each in wanted]
    drawn = dict(zip(wanted, kept.all_of(names, make, "translation"), strict=True))

    def draw(item: int, sources: Sequence[int]) -> np.ndarray:
        tokens = torch.from_numpy(drawn[item, tuple(sources)]).to(model.device)
        return model.decode(tokens, test.shape, one.windows)[0, 0].numpy()

    def reconstruct(volume: np.ndarray) -> np.ndarray:
        tokens = encode(model.tokenizer, torch.from_numpy(volume)[None, None], how.windows)
        return decode(model.tokenizer, tokens, test.shape, how.windows)[0, 0].numpy()

    return evaluate_translation(train, test, items, target, sets, draw, reconstruct)
