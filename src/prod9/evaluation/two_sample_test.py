"""Whether a network can tell volumes from real ones (Lopez-Paz & Oquab 2017, arXiv 1610.06545).

A 3D network is trained to tell real volumes from others; on volumes that it has not seen, the area
under its ROC curve is 0.5 where nothing tells them apart, and 1 where every volume gives itself
away. It finds what distances between features do not: blur, grids, a missing kind of noise.
"""

import numpy as np
import torch
from torch import Tensor

from prod9.data.volume_sets.volume_set import VolumeSet
from prod9.evaluation.domain_classifier import drawn_like, fit, small_volumes
from prod9.metrics.auc import wins
from prod9.metrics.bootstrap import percentile_interval
from prod9.results.schema import Interval, TestedSet, TwoSampleTest

SEEDS = 3
STEPS = 120
BATCH_SIZE = 32
FEWEST = 16
"""Volumes of each set below which there is no test: half of them train the network."""
_RESAMPLES = 1000


def two_sample_tests(
    real: VolumeSet,
    generated: VolumeSet,
    reconstructed: VolumeSet | None = None,
    *,
    seed: int = 0,
    steps: int = STEPS,
) -> list[TwoSampleTest]:
    """Tell generated volumes, reconstructions and other real volumes from real ones.

    Each time, a random half of ``real`` is the reference. The other half stands for real volumes
    (nothing should tell them apart), and its reconstructions for what the tokenizer leaves, so that
    no volume meets its own reconstruction. All three are as many, of the same classes where there
    are enough. Half of each set trains the network (:func:`fit`), the other half is judged. Each
    set is tested with three seeds: other halves, other first weights.

    Args:
        real: held-out volumes, with their classes.
        generated: of any generator.
        reconstructed: of all of ``real``, in its order; None: that row is left out.
        seed: of everything random.
        steps: that each network is trained for, of 32 volumes each.

    Returns:
        One row a set, `generated` first; none where there are fewer than 16 volumes.
    """
    count = min(len(generated), len(real) // 2)
    if count < FEWEST:
        return []
    if reconstructed is not None and len(reconstructed) != len(real):
        reconstructed = None
    sets: dict[TestedSet, VolumeSet | None] = {
        "generated": generated,
        "reconstructed": reconstructed,
        "real": real,
    }
    volumes: dict[TestedSet, Tensor] = {
        name: small_volumes(found) for name, found in sets.items() if found is not None
    }
    tables: dict[TestedSet, list[Tensor]] = {name: [] for name in volumes}
    for repeat in range(SEEDS):
        own = seed * SEEDS + repeat
        order = np.random.default_rng(own).permutation(len(real))
        reference, others = order[: len(real) // 2], order[len(real) // 2 :]
        picked = reference[:count]
        wanted = real.labels[picked]
        for name, found in volumes.items():
            pool = np.arange(len(generated)) if name == "generated" else others
            labels = generated.labels if name == "generated" else real.labels[others]
            rows = pool[drawn_like(wanted, labels, own)]
            table = _told_apart(volumes["real"][picked], found[rows], steps, own)
            tables[name].append(table)
    return [
        TwoSampleTest(
            volumes_of=name,
            volumes=count,
            seeds=SEEDS,
            auc=float(torch.stack([table.mean() for table in found]).mean()),
            auc_interval=_interval(found, seed),
        )
        for name, found in tables.items()
    ]


def _told_apart(real: Tensor, others: Tensor, steps: int, seed: int) -> Tensor:
    """Return for each held-out (other, real) pair whether the other looks less real; ties 1/2."""
    stream = torch.Generator().manual_seed(seed)
    parts = [rows[torch.randperm(len(rows), generator=stream)] for rows in (real, others)]
    half = len(real) // 2
    train = torch.cat([part[:half] for part in parts])
    labels = torch.arange(2).repeat_interleave(half)
    names = ("real", "other")
    network = fit(train, labels, names, steps=steps, seed=seed, batch_size=BATCH_SIZE)
    scores = [network.log_odds(part[half:]) for part in parts]
    return wins(scores[1], scores[0])


def _interval(tables: list[Tensor], seed: int) -> Interval:
    """Percentile bootstrap of the mean area: over the seeds, and within each over the volumes."""
    stream = torch.Generator().manual_seed(seed)
    means: list[Tensor] = []
    for _ in range(_RESAMPLES):
        chosen = torch.randint(len(tables), (len(tables),), generator=stream)
        areas: list[Tensor] = []
        for index in chosen.tolist():
            table = tables[index]
            rows, columns = (torch.randint(n, (n,), generator=stream) for n in table.shape)
            areas.append(table[rows][:, columns].mean())
        means.append(torch.stack(areas).mean())
    return percentile_interval(torch.stack(means))
