"""Whether a generator gives its training volumes back.

Distances are root mean squared differences of voxels or of features. Each is compared with that of
real volumes that were not trained on. Three questions, because one answer is not enough:

* How near are generated volumes to training volumes, compared with held-out ones? A blurred volume
  is nearer to *everything*, so this alone gives false alarms.
* Are they nearer to training than to held-out volumes? Blurring changes both distances alike.
* Does the distance to the generated set tell training from held-out volumes?
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor

from prod9.data.volume_sets.volume_set import VolumeSet
from prod9.errors import Prod9Error
from prod9.evaluation.diversity import flat_voxels
from prod9.metrics.bootstrap import percentile_interval, wilson_interval
from prod9.metrics.feature_sets import nearest_neighbours
from prod9.results.schema import Closeness, ClosePair, Interval, Privacy, Verdict

_PAIRS = 8
"""Closest pairs that are shown."""
_RESAMPLES_AT_ONCE = 64


def privacy(
    generated: VolumeSet,
    train: VolumeSet,
    vectors: Mapping[str, tuple[Tensor, Tensor, Tensor]],
    seed: int,
) -> Privacy:
    """Compare how near generated volumes come to training volumes and to held-out ones.

    ``vectors`` has for each space, voxels first, the vectors (N, F) of the generated, the training
    and the held-out volumes.
    """
    spaces = [closeness(*three, seed=seed, space=name) for name, three in vectors.items()]
    verdict, reasons = judge(spaces, len(generated))
    ours, known, _ = next(iter(vectors.values()))
    distance, index = nearest_neighbours(ours, known)
    closest = [
        ClosePair(
            generated=generated.names[i],
            train=train.names[int(index[i])],
            distance=float(distance[i]),
        )
        for i in torch.argsort(distance, stable=True)[:_PAIRS].tolist()
    ]
    return Privacy(verdict=verdict, reasons=reasons, spaces=spaces, closest=closest)


def held_out(real: VolumeSet, train: VolumeSet) -> tuple[VolumeSet, list[str]]:
    """Return the real volumes that are not in the training set, and a warning if some were.

    A training volume among the held-out ones would hide copies, and flatter every classifier.

    Raises:
        Prod9Error: half of them or more are training volumes.
    """
    distance, _ = nearest_neighbours(flat_voxels(real), flat_voxels(train))
    known = torch.nonzero(distance == 0)[:, 0].tolist()
    if not known:
        return real, []
    if 2 * len(known) >= len(real):
        raise Prod9Error(
            f"{len(known)} of the {len(real)} volumes of {real.name} are training volumes (such as "
            f"{real.names[known[0]]}); --real must be held out from {train.name}."
        )
    some = ", ".join([*(real.names[i] for i in known[:3]), *(["..."] if len(known) > 3 else [])])
    return real.select(np.flatnonzero(distance.numpy() > 0)), [
        f"{len(known)} of the {len(real)} real volumes are training volumes too and were left out "
        f"({some})."
    ]


def short_name(space: str) -> str:
    """Return the name of a space without what stands behind a comma or in brackets."""
    return space.split(",")[0].split(" (")[0]


def judge(spaces: Sequence[Closeness], count: int) -> tuple[Verdict, list[str]]:
    """Return the verdict on ``count`` generated volumes, and its reasons.

    A share counts only where chance (5 %, or a half) lies outside its interval. One share alone is
    no sign: for an honest generator each is beyond chance in one space of forty.
    """
    copies, suspicious, harmless = list[str](), list[str](), list[str]()
    for index, space in enumerate(spaces):
        below = wilson_interval(space.share_below_p05 * count, count)[0] > 0.05
        nearer = space.nearer_train_interval[0] > 0.5
        told = space.membership_interval[0] > 0.5
        shares = (
            f"{space.share_below_p05:.0%} of the generated volumes are nearer to a training volume "
            "than 95 % of held-out volumes are (5 % by chance)"
        )
        side = (
            f"{space.nearer_train_share:.0%} are nearer to the training volumes than to as many "
            "held-out ones (50 % by chance)"
        )
        auc = (
            "the distance to the nearest generated volume tells training from held-out volumes "
            f"(AUC {space.membership_auc:.2f}; 0.5 by chance)"
        )
        name = short_name(space.space)
        where = f"{name[0].upper()}{name[1:]}: "
        if space.near_duplicates:
            # In a feature space of few dimensions, one may come about by chance.
            certain = index == 0 or space.near_duplicates > max(1, count / 100)
            (copies if certain else suspicious).append(
                f"{where}{space.near_duplicates} of {count} generated volumes are nearer to a "
                "training volume than half the smallest distance of any held-out volume."
            )
        if below and nearer:
            copies.append(f"{where}{shares}, and {side}.")
        elif nearer and told:
            suspicious.append(f"{where}{side}, and {auc}.")
        elif below:
            harmless.append(
                f"{where}{shares}, but no nearer to the training than to held-out volumes: "
                "averaged or blurred volumes are near to everything."
            )
        elif nearer or told:
            harmless.append(f"{where}{side if nearer else auc}; by itself, that may be chance.")
    if copies:
        return "copies", copies + suspicious
    if suspicious:
        return "suspicious", suspicious + harmless
    none = "In no space are generated volumes nearer to training volumes than chance."
    return "no sign of copying", harmless or [none]


def closeness(
    generated: Float[Tensor, "n f"],
    train: Float[Tensor, "t f"],
    held_out: Float[Tensor, "h f"],
    *,
    seed: int,
    space: str = "voxels",
    resamples: int = 2000,
) -> Closeness:
    """Measure how near generated volumes come to training volumes; full search, in fp64.

    Rows are voxels or features of a volume. Even a volume blurred to the mean comes no nearer to a
    training volume than 1/sqrt(2) of the usual distance where dimensions are many: near duplicates
    (half of the smallest) are copies.
    """
    random = torch.Generator().manual_seed(seed)
    distance, usual = (nearest_neighbours(rows, train)[0] for rows in (generated, held_out))
    p05_held_out = usual.quantile(0.05)
    share, share_interval = _nearer_share(generated, train, held_out, random)
    members, others = (nearest_neighbours(rows, generated)[0].cpu() for rows in (train, held_out))
    auc = float(_shares_farther(members, others, torch.ones_like(others)[None]).mean())
    return Closeness(
        space=space,
        # quantile, not median(): torch's is the lower of the two in the middle.
        distance_ratio=float(distance.quantile(0.5) / usual.quantile(0.5)),
        p05=float(distance.quantile(0.05)),
        p05_held_out=float(p05_held_out),
        share_below_p05=float((distance < p05_held_out).double().mean()),
        nearer_train_share=share,
        nearer_train_interval=share_interval,
        membership_auc=auc,
        membership_interval=_auc_interval(members, others, random, resamples),
        near_duplicates=int(((distance < usual.min() / 2) | (distance == 0)).sum()),
    )


def _nearer_share(
    generated: Tensor, train: Tensor, held_out: Tensor, random: torch.Generator
) -> tuple[float, Interval]:
    """Return the share of generated rows nearer to training than to equally many held-out rows.

    In many dimensions a few real volumes (those nearest to the mean) are the nearest to most
    generated ones, above all to blurred ones. On which side these few lie is chance, and counts
    once, not once for each generated volume. If training and held-out volumes are alike, any half
    of them might have been the training half: over such halves, drawn without replacement, the
    share has the variance below. Independent votes, n of them, would have 1 / 4n.
    """
    n, size = len(generated), min(len(train), len(held_out))
    (to_train, of_train), (to_held_out, of_held_out) = (
        nearest_neighbours(generated, rows[torch.randperm(len(rows), generator=random)[:size]])
        for rows in (train, held_out)
    )
    gap = to_held_out - to_train
    nearer = (gap > 0).double() + 0.5 * (gap == 0).double()
    votes = torch.zeros(2 * size, dtype=torch.float64)
    votes.index_add_(0, of_train, nearer)
    votes.index_add_(0, size + of_held_out, 1 - nearer)
    variance = float(votes.var()) * size / 2 / n**2
    total = n / max(1.0, 4 * n * variance)
    share = float(nearer.mean())
    return share, wilson_interval(share * total, total)


def _shares_farther(
    members: Float64[Tensor, " t"], others: Float64[Tensor, " h"], counts: Float64[Tensor, "b h"]
) -> Float64[Tensor, "b t"]:
    """For each member the share of the others that are farther, ties half.

    Row by row for weights ``counts`` of the others. The mean is the exact area under the curve.
    """
    ordered, order = others.sort()
    nearer = F.pad(counts[:, order].cumsum(1), (1, 0))
    first = torch.searchsorted(ordered, members)
    last = torch.searchsorted(ordered, members, right=True)
    return 1 - (nearer[:, first] + nearer[:, last]) / (2 * nearer[:, -1:])


def _auc_interval(
    members: Float64[Tensor, " t"],
    others: Float64[Tensor, " h"],
    random: torch.Generator,
    resamples: int,
) -> Interval:
    """Percentile bootstrap over both sets."""
    found: list[Tensor] = []
    for part in torch.arange(resamples).split(_RESAMPLES_AT_ONCE):
        drawn = torch.randint(len(others), (len(part), len(others)), generator=random)
        counts = torch.zeros(drawn.shape, dtype=torch.float64)
        counts.scatter_add_(1, drawn, torch.ones_like(counts))
        drawn = torch.randint(len(members), (len(part), len(members)), generator=random)
        found.append(_shares_farther(members, others, counts).gather(1, drawn).mean(1))
    return percentile_interval(torch.cat(found))
