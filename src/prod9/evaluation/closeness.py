"""Whether generated volumes come nearer to training volumes than chance would bring them.

Distances are root mean squared differences of voxels or of features. Each is compared with that of
real volumes that were not trained on. Three questions, because one answer is not enough:

* How near are generated volumes to training volumes, compared with held-out ones? A blurred volume
  is nearer to *everything*, so this alone gives false alarms.
* Are they nearer to training than to held-out volumes? Blurring changes both distances alike.
* Does the distance to the generated set tell training from held-out volumes?
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor

from prod9.metrics.bootstrap import percentile_interval, wilson_interval
from prod9.metrics.neighbours import nearest_neighbours
from prod9.results.record import Interval
from prod9.results.schema import Closeness

_PERCENTILE = 0.05
_RESAMPLES_AT_ONCE = 64


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

    Even a volume blurred to the mean comes no nearer to a training volume than 1/sqrt(2) of the
    usual distance where dimensions are many: near duplicates (half of the smallest) are copies.

    Args:
        generated: voxels or features, one row a volume.
        train: what the generator was trained on.
        held_out: other volumes of the same source, none of them in ``train``.
        seed: of the choice of equally many training and held-out volumes, and of the bootstrap.
        space: name of the space, for the result.
        resamples: of the bootstrap.

    Raises:
        ValueError: fewer than two volumes in a set, rows of different lengths, NaN or infinite
            values, or a held-out set half of which is in ``train``.
    """
    for name, rows in (("generated", generated), ("training", train), ("held-out", held_out)):
        if len(rows) < 2:
            raise ValueError(f"at least 2 {name} volumes are needed, not {len(rows)}")
        if not rows.isfinite().all():
            raise ValueError(f"{name} volumes have NaN or infinite values")
    random = torch.Generator().manual_seed(seed)
    distance, usual = (nearest_neighbours(rows, train)[0] for rows in (generated, held_out))
    if usual.median() == 0:
        raise ValueError("half the held-out volumes or more equal training volumes")
    p05_held_out = usual.quantile(_PERCENTILE)
    share, share_interval = _nearer_share(generated, train, held_out, random)
    members, others = (nearest_neighbours(rows, generated)[0] for rows in (train, held_out))
    return Closeness(
        space=space,
        # quantile, not median(): torch's is the lower of the two in the middle.
        distance_ratio=float(distance.quantile(0.5) / usual.quantile(0.5)),
        p05=float(distance.quantile(_PERCENTILE)),
        p05_held_out=float(p05_held_out),
        share_below_p05=float((distance < p05_held_out).double().mean()),
        nearer_train_share=share,
        nearer_train_interval=share_interval,
        membership_auc=_auc(members, others),
        membership_interval=_auc_interval(members, others, random, resamples),
        near_duplicates=int(((distance < usual.min() / 2) | (distance == 0)).sum()),
    )


def _nearer_share(
    generated: Tensor, train: Tensor, held_out: Tensor, random: torch.Generator
) -> tuple[float, Interval]:
    """Return the share of generated rows nearer to training than to equally many held-out rows."""
    size = min(len(train), len(held_out))
    (to_train, of_train), (to_held_out, of_held_out) = (
        nearest_neighbours(
            generated, rows[torch.randperm(len(rows), generator=random)[:size].to(rows.device)]
        )
        for rows in (train, held_out)
    )
    gap = to_held_out - to_train
    nearer = (gap > 0).double() + 0.5 * (gap == 0).double()
    total = _independent_votes(nearer, of_train, of_held_out, size)
    share = float(nearer.mean())
    return share, wilson_interval(share * total, total)


def _independent_votes(
    nearer: Float64[Tensor, " n"], of_train: Tensor, of_held_out: Tensor, size: int
) -> float:
    """Return the number of independent generated volumes that the share is worth: at most n.

    In many dimensions a few real volumes (those nearest to the mean) are the nearest to most
    generated ones, above all to blurred ones. On which side these few lie is chance, and counts
    once, not once for each generated volume. If training and held-out volumes are alike, any half
    of them might have been the training half: over such halves, drawn without replacement, the
    share has the variance below. n independent votes would have 1 / 4n.
    """
    votes = torch.zeros(2 * size, dtype=torch.float64, device=nearer.device)
    votes.index_add_(0, of_train, nearer)
    votes.index_add_(0, size + of_held_out, 1 - nearer)
    n = len(nearer)
    variance = float(votes.var()) * size / 2 / n**2
    return n / max(1.0, 4 * n * variance)


def _shares_farther(
    members: Float64[Tensor, " t"], others: Float64[Tensor, " h"], counts: Float64[Tensor, "b h"]
) -> Float64[Tensor, "b t"]:
    """For each member the share of the others that are farther, ties half.

    Row by row for weights ``counts`` of the others.
    """
    ordered, order = others.sort()
    nearer = F.pad(counts[:, order].cumsum(1), (1, 0))
    first = torch.searchsorted(ordered, members)
    last = torch.searchsorted(ordered, members, right=True)
    return 1 - (nearer[:, first] + nearer[:, last]) / (2 * nearer[:, -1:])


def _auc(members: Float64[Tensor, " t"], others: Float64[Tensor, " h"]) -> float:
    """Share of pairs in which the member is nearer, ties half: exact area under the curve."""
    return float(_shares_farther(members, others, torch.ones_like(others)[None]).mean())


def _auc_interval(
    members: Float64[Tensor, " t"],
    others: Float64[Tensor, " h"],
    random: torch.Generator,
    resamples: int,
) -> Interval:
    """Percentile bootstrap over both sets."""
    members, others = members.cpu(), others.cpu()
    found: list[Tensor] = []
    for part in torch.arange(resamples).split(_RESAMPLES_AT_ONCE):
        drawn = torch.randint(len(others), (len(part), len(others)), generator=random)
        counts = torch.zeros(drawn.shape, dtype=torch.float64)
        counts.scatter_add_(1, drawn, torch.ones_like(counts))
        drawn = torch.randint(len(members), (len(part), len(members)), generator=random)
        found.append(_shares_farther(members, others, counts).gather(1, drawn).mean(1))
    return percentile_interval(torch.cat(found))
