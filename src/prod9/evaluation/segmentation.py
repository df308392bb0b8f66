"""What a model with labels is good for: segmenters learn from its pairs, masks are asked for.

Segmenters are trained before a test subject is read, for a number of steps that is given; nothing
is chosen by looking at the result.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prod9.config.evaluation import SegmentationConfig
from prod9.data.dataset import Dataset, Splits
from prod9.data.volume_files.stored_volume import StoredVolume
from prod9.errors import Prod9Error
from prod9.evaluation.progress import tracked
from prod9.evaluation.segmenter import Pair, Segmenter, require_monai, train_segmenter
from prod9.evaluation.work_cache import WorkCache
from prod9.inference.edit import Grow, edit
from prod9.inference.generate import generation_affine
from prod9.inference.labelled import (
    EncodedMask,
    decoded_maps,
    encode_mask,
    label_codes,
    sample_subjects,
    seed_of,
)
from prod9.label_codes import LabelCodes
from prod9.metrics.bootstrap import subject_interval, table_interval
from prod9.model import Model
from prod9.results.schema import (
    DoseResponse,
    Interval,
    LabelScore,
    LabelVolumes,
    MaskFidelity,
    Segmentation,
    TrainedSegmenter,
)
from prod9.sample_request import SampleRequest

_BATCH = 4
"""Subjects that are sampled together."""


def measure_segmentation(
    model: Model,
    splits: Splits,
    request: SampleRequest,
    config: SegmentationConfig,
    *,
    seed: int = 0,
    kept: WorkCache | None = None,
) -> Segmentation:
    """Train segmenters on real and on generated pairs, test them, and judge images of masks.

    Args:
        model: has learned labels.
        splits: ``train`` is what segmenters learn from; ``test`` is only read when they are done.
        request: how the model samples.
        config: how much of it.
        seed: of everything random.
        kept: of the generated tokens.

    Raises:
        Prod9Error: the model has no such labels; MONAI is missing; the test split has no label.
    """
    require_monai()
    codes, train = label_codes(model, config.channel), splits["train"]
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(len(train))[: config.pairs]).tolist()
    real = [_real(train, item, codes) for item in tracked(chosen, "reading pairs", "subjects")]
    classes = [train.class_of(item) for item in chosen]
    made = generated_pairs(model, request, codes, classes, kept or WorkCache())
    sets = {"real": real, "generated": made, "real + generated": [*real, *made]}
    flips = set.intersection(*({*train.flip_axes(item)} for item in chosen))
    segmenters = {
        name: [
            train_segmenter(
                pairs,
                len(codes.values),
                config,
                seed=seed + number,
                what=f"segmenter {number + 1} of {config.seeds}, {name} ({len(pairs)} pairs)",
                flips=sorted(flips),
                device=model.device,
            )
            for number in range(config.seeds)
        ]
        for name, pairs in sets.items()
    }
    return _measured(model, splits["test"], request, config, codes, sets, segmenters, seed)


def _measured(
    model: Model,
    test: Dataset,
    request: SampleRequest,
    config: SegmentationConfig,
    codes: LabelCodes,
    sets: dict[str, list[Pair]],
    segmenters: dict[str, list[Segmenter]],
    seed: int,
) -> Segmentation:
    spacing = test.spacing_mm or (1.0, 1.0, 1.0)
    scans = first_scans(test)
    subjects = [_real(test, scan, codes) for scan in tracked(scans, "reading test", "subjects")]
    if not any(pair.labels.any() for pair in subjects):
        raise Prod9Error(f"no label map of {test.name} has a label; there is nothing to test.")
    labels = range(1, len(codes.values))

    def scores_of(found: Iterable[Sequence[np.ndarray]], truth: Sequence[Pair]) -> np.ndarray:
        """What segmenters found, subject by subject -> scores (seeds, subjects, labels, 3)."""
        rows = [
            [label_scores(one, pair.labels, len(codes.values), spacing) for one in own]
            for own, pair in zip(found, truth, strict=True)
        ]
        return np.array(rows).swapaxes(0, 1)

    scores: dict[str, np.ndarray] = {}
    for name, each in segmenters.items():
        shown = tracked(subjects, f"testing segmenters of {name} pairs", "subjects")
        scores[name] = scores_of(([own(pair.images) for own in each] for pair in shown), subjects)
    marked = [number for number, pair in enumerate(subjects) if pair.labels.any()]
    asked = np.sort(np.random.default_rng(seed).permutation(marked)[: config.masks]).tolist()
    masks = {scans[number]: subjects[number] for number in asked}
    drawn = list(_drawn(model, test, masks, request, config, codes))
    judges, ml = segmenters["real"], math.prod(spacing) / 1000
    found = [
        [own(each.images) for own in judges]
        for each in tracked(drawn, "segmenting generated images", "images")
    ]
    plain = [n for n, each in enumerate(drawn) if each.dose == 0]
    fidelity = scores_of([found[n] for n in plain], [drawn[n] for n in plain])
    ceiling = scores["real"][:, asked]
    return Segmentation(
        channel=codes.channel,
        steps=config.steps,
        seeds=config.seeds,
        test_subjects=len(scans),
        segmenters=[
            TrainedSegmenter.model_validate(
                {
                    "trained_on": name,
                    "pairs": len(sets[name]),
                    "labels": _records(table, codes, labels, seed),
                }
            )
            for name, table in scores.items()
        ],
        fidelity=[
            each
            for label in labels
            if (each := _fidelity(fidelity, ceiling, codes, label, seed)) is not None
        ],
        volumes=[
            label_volumes(
                codes.values[label],
                [ml * float((pair.labels == label).sum()) for pair in subjects],
                [ml * float((pair.labels == label).sum()) for pair in sets["generated"]],
            )
            for label in labels
        ],
        doses=[
            dose_response(
                codes.values[label],
                [drawn[n].subject for n in own],
                [ml * float((drawn[n].labels == label).sum()) for n in own],
                [ml * float(np.mean([(one == label).sum() for one in found[n]])) for n in own],
                seed,
                real=_slope(
                    [float((pair.labels == label).sum()) for pair in subjects],
                    scores["real"][:, :, label - 1, 2].mean(0),
                ),
            )
            for label in labels
            if (own := _of_label(drawn, label))
        ],
    )


def first_scans(data: Dataset) -> list[int]:
    """Return an item of each subject: several of one would make intervals too narrow."""
    return [*{name: i for i, name in reversed([*enumerate(data.subjects or data.names)])}.values()][
        ::-1
    ]


def _real(data: Dataset, item: int, codes: LabelCodes) -> Pair:
    images = [data.whole(item, channel).astype(np.float16) for channel in data.image_channels]
    names = [channel.name for channel in data.channels]
    stored = data.whole(item, names.index(codes.channel)).astype(np.int64)
    return Pair(np.stack(images), np.searchsorted(codes.values, stored).astype(np.uint16))


def generated_pairs(
    model: Model,
    request: SampleRequest,
    codes: LabelCodes,
    classes: Sequence[int],
    kept: WorkCache,
) -> list[Pair]:
    """Generate a label map, and images of it, for a subject of each of these classes."""
    images, parts = _images(model), len(model.label_channels[codes.channel])
    request = _subjects(model, request, classes)

    def make(number: int) -> np.ndarray:
        tokens, maps = sample_subjects(model, request, number, channel=codes.channel)
        assert maps is not None
        own = tokens.unflatten(0, (len(maps), len(images)))
        return torch.cat([maps, own.cpu()], 1).numpy()

    sides, found = model.tokenizer.spec.volume_shape, list[Pair]()
    names = [
        f"pairs {n} of {codes.channel} {model.digest} {request}" for n in range(request.num_batches)
    ]
    for batch in kept.all_of(names, make, "generating pairs"):
        tokens = torch.from_numpy(batch)
        maps = decoded_maps(codes, tokens[:, :parts], sides)
        for own, labels in zip(tokens[:, parts:], maps, strict=True):
            volumes = model.decode(own.to(model.device), sides, request.windows)[:, 0]
            indices = np.searchsorted(codes.values, labels).astype(np.uint16)
            found.append(Pair(volumes.numpy().astype(np.float16), indices))
    return found


def _images(model: Model) -> list[int]:
    return [model.channels.index(name) for name in model.images]


def _subjects(model: Model, request: SampleRequest, classes: Sequence[int]) -> SampleRequest:
    """Return a request for all images of subjects of these classes."""
    images = _images(model)
    labels = tuple(own * len(model.channels) + channel for own in classes for channel in images)
    return replace(request, labels=labels, shape=None, batch_size=_BATCH * len(images))


@dataclass(frozen=True)
class _Drawn(Pair):
    """A requested mask, and the images drawn from it."""

    subject: int
    label: int
    """That was changed; 0 for none."""
    dose: float


def _drawn(
    model: Model,
    test: Dataset,
    masks: Mapping[int, Pair],
    request: SampleRequest,
    config: SegmentationConfig,
    codes: LabelCodes,
) -> Iterator[_Drawn]:
    """Draw images of each label map, and of it with each label grown and shrunk.

    All images of a subject come from the same random numbers.
    """
    affine = generation_affine(test.shape, model.tokenizer.spec.spacing_mm)
    for number, scan in enumerate(tracked([*masks], "drawing images of masks", "masks")):
        own, pair = replace(request, seed=seed_of(request.seed, number)), masks[scan]
        own = _subjects(model, own, [test.class_of(scan)])
        values = np.array(codes.values)[pair.labels]
        stored = StoredVolume.of(values, Path(test.names[scan]), affine)
        changes = [(0, 0.0)] + [
            (label, dose)
            for label in range(1, len(codes.values))
            if (pair.labels == label).any()
            for dose in config.doses
        ]
        for label, dose in changes:
            asked = stored
            if label:
                try:
                    asked = edit(stored, [Grow(codes.values[label], dose)])
                except Prod9Error:  # too small to shrink, or too large to grow
                    continue
            indices = np.searchsorted(codes.values, asked.array).astype(np.uint16)
            images = drawn_images(model, own, encode_mask(model, asked, codes.channel))
            yield _Drawn(images, indices, number, label, dose)


def drawn_images(model: Model, request: SampleRequest, mask: EncodedMask) -> np.ndarray:
    """Draw the images of a subject from a label map on the model's grid, float16 (C, D, H, W)."""
    tokens, _ = sample_subjects(model, request, mask=mask)
    volumes = model.decode(tokens.to(model.device), mask.placement.shape, request.windows)
    return volumes[:, 0].numpy().astype(np.float16)


def _of_label(drawn: Sequence[_Drawn], label: int) -> list[int]:
    """Return the images in which a label was changed, and the unchanged ones of these subjects."""
    changed = {each.subject for each in drawn if each.label == label}
    return [n for n, own in enumerate(drawn) if own.subject in changed and own.label in (0, label)]


def label_scores(
    found: np.ndarray, truth: np.ndarray, labels: int, spacing: Sequence[float]
) -> np.ndarray:
    """Return Dice, HD95 (mm) and voxels found of each label but the background, (labels - 1, 3).

    The first two are NaN where the truth has none of it. Where nothing is found, HD95 is the
    volume's diagonal.
    """
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.meandice import compute_dice
    from monai.networks.utils import one_hot

    both = [
        one_hot(torch.from_numpy(each.astype(np.int64))[None, None], labels)
        for each in (found, truth)
    ]
    result = np.full((labels - 1, 3), np.nan)
    result[:, 2] = [(found == label).sum() for label in range(1, labels)]
    result[:, 0] = compute_dice(*both, include_background=False)[0].numpy()
    diagonal = math.dist((0.0,) * 3, [n * mm for n, mm in zip(truth.shape, spacing, strict=True)])
    for label in range(1, labels):
        if not (truth == label).any():
            continue
        one = [each[:, label : label + 1] for each in both]
        distance = diagonal
        if (found == label).any():
            distance = float(
                compute_hausdorff_distance(
                    *one, include_background=True, percentile=95, spacing=[*spacing]
                )
            )
        result[label - 1, 1] = distance
    return result


def _records(
    table: np.ndarray, codes: LabelCodes, labels: Sequence[int], seed: int
) -> list[LabelScore]:
    """Scores (seeds, subjects, labels, 3) -> one record a label that some subject has."""
    found: list[LabelScore] = []
    for label in labels:
        own = table[:, :, label - 1]
        own = own[:, ~np.isnan(own[0, :, 0])]
        if not own.shape[1]:
            continue
        found.append(
            LabelScore(
                label=codes.values[label],
                subjects=own.shape[1],
                dice=float(own[..., 0].mean()),
                dice_interval=_interval(own[..., 0], seed),
                dice_of_seeds=own[..., 0].mean(1).tolist(),
                hd95_mm=float(own[..., 1].mean()),
                hd95_interval=_interval(own[..., 1], seed),
                missed=float((own[..., 0] == 0).mean()),
            )
        )
    return found


def _interval(table: np.ndarray, seed: int) -> Interval | None:
    return table_interval(torch.from_numpy(np.ascontiguousarray(table)), seed=seed)


def _fidelity(
    drawn: np.ndarray, real: np.ndarray, codes: LabelCodes, label: int, seed: int
) -> MaskFidelity | None:
    """Scores (seeds, subjects, labels, 3) of drawn and of real images of the same masks."""
    there = ~np.isnan(real[0, :, label - 1, 0])
    if not there.any():
        return None
    ours, theirs = (each[:, there, label - 1, 0] for each in (drawn, real))
    return MaskFidelity(
        label=codes.values[label],
        subjects=int(there.sum()),
        dice=float(ours.mean()),
        dice_interval=_interval(ours, seed),
        ceiling=float(theirs.mean()),
        ceiling_interval=_interval(theirs, seed),
        lost=float((theirs - ours).mean()),
        lost_interval=_interval(theirs - ours, seed),
    )


def label_volumes(label: int, real: list[float], generated: list[float]) -> LabelVolumes:
    """Compare the volumes of a label, ml, in real and in generated label maps."""
    from scipy import stats  # half a second

    test: Any = stats.ks_2samp(real, generated)
    return LabelVolumes(
        label=label,
        real=real,
        generated=generated,
        kolmogorov_smirnov=float(test.statistic),
        p_value=float(test.pvalue),
    )


def dose_response(
    label: int,
    subjects: Sequence[int],
    requested: Sequence[float],
    found: Sequence[float],
    seed: int = 0,
    real: float | None = None,
) -> DoseResponse:
    """Fit a line to the volumes found over those requested, ml, of images of some subjects.

    Subjects are drawn with all their images for the intervals. The line within subjects is fitted
    to what is left when the mean of each subject is taken away: differences between subjects, which
    an image may show for other reasons, do not enter.
    """
    x, y, owner = (np.array(each, np.float64) for each in (requested, found, subjects))
    sums: list[list[Any]] = []
    for each in np.unique(owner):
        a, b = x[owner == each], y[owner == each]
        u, v = a - a.mean(), b - b.mean()
        between = [len(a), a.sum(), b.sum(), a @ a, a @ b, b @ b]
        sums.append([*between, len(a), 0, 0, u @ u, u @ v, v @ v])
    table = torch.tensor(sums, dtype=torch.float64)
    part = {"slope": (slice(6), 0), "r2": (slice(6), 1), "slope_within": (slice(6, 12), 0)}
    figures: dict[str, Any] = {}
    for name, (columns, which) in part.items():

        def figure(drawn: Tensor, own: Tensor = table[:, columns], which: int = which) -> Tensor:
            return _line(drawn @ own)[which]

        value = float(figure(torch.ones(1, len(sums), dtype=torch.float64)))
        figures[name] = value if math.isfinite(value) else None
        figures[f"{name}_interval"] = subject_interval(figure, len(sums), seed=seed)
    return DoseResponse(
        label=label,
        subjects=len(sums),
        requested=x.tolist(),
        found=y.tolist(),
        slope_of_real=real,
        **figures,
    )


def _slope(x: Sequence[float], y: Sequence[float] | np.ndarray) -> float | None:
    a, b = (torch.tensor(np.array(each, np.float64)) for each in (x, y))
    sums = [torch.ones_like(a), a, b, a * a, a * b, b * b]
    slope = float(_line(torch.stack(sums, -1).sum(0))[0])
    return slope if math.isfinite(slope) else None


def _line(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Return slope and R2 of lines of least squares, NaN where all x are alike.

    ``sums`` (..., 6) are over the points of a line: of 1, x, y, x x, x y, y y.
    """
    n, x, y, xx, xy, yy = sums.unbind(-1)
    xx, xy, yy = xx - x * x / n, xy - x * y / n, yy - y * y / n
    slope = torch.where(xx > 1e-9, xy / xx, torch.nan)
    return slope, torch.where(yy > 1e-9, slope * xy / yy, 0 * slope)
