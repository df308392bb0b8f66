"""Whether a generator gives its training volumes back."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from prod9.data.volume_sets.volume_set import VolumeSet
from prod9.errors import Prod9Error
from prod9.evaluation.closeness import closeness
from prod9.evaluation.diversity import flat_voxels
from prod9.metrics.bootstrap import wilson_interval
from prod9.metrics.neighbours import nearest_neighbours
from prod9.results.schema import Closeness, ClosePair, Privacy

PAIRS = 8
"""Closest pairs that are shown."""


def privacy(
    generated: VolumeSet,
    train: VolumeSet,
    vectors: Mapping[str, tuple[Tensor, Tensor, Tensor]],
    seed: int,
) -> Privacy:
    """Compare how near generated volumes come to training volumes and to held-out ones.

    Args:
        generated: their names.
        train: the generator's training volumes.
        vectors: for each space, voxels first, the vectors (N, F) of the generated, the training
            and the held-out volumes.
        seed: of random subsets.

    Raises:
        Prod9Error: the held-out volumes are training volumes.
    """
    try:
        spaces = [closeness(*three, seed=seed, space=name) for name, three in vectors.items()]
    except ValueError as error:
        raise Prod9Error(
            f"copies cannot be looked for: {error}; give more volumes, and --real held out from "
            f"{train.name}."
        ) from error
    verdict, reasons = _verdict(spaces, len(generated))
    ours, known, _ = next(iter(vectors.values()))
    distance, index = nearest_neighbours(ours, known)
    return Privacy(
        verdict=verdict,
        reasons=reasons,
        spaces=spaces,
        closest=[
            ClosePair(
                generated=generated.names[i],
                train=train.names[int(index[i])],
                distance=float(distance[i]),
            )
            for i in torch.argsort(distance, stable=True)[:PAIRS].tolist()
        ],
    )


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


def _verdict(
    spaces: list[Closeness], count: int
) -> tuple[Literal["no sign of copying", "suspicious", "copies"], list[str]]:
    """Judge; a share counts only where chance (5 %, or a half) lies outside its interval.

    One share alone is no sign: for an honest generator each is beyond chance in one space of forty.
    """
    copies, suspicious, harmless = list[str](), list[str](), list[str]()
    for index, space in enumerate(spaces):
        below = wilson_interval(space.share_below_p05 * count, count)[0] > 0.05
        nearer = space.nearer_train_interval[0] > 0.5
        told = space.membership_interval[0] > 0.5
        shares = (
            f"{space.share_below_p05:.0%} of the generated volumes are nearer to a training volume "
            f"than 95 % of held-out volumes are (5 % by chance)"
        )
        side = (
            f"{space.nearer_train_share:.0%} are nearer to the training volumes than to as many "
            f"held-out ones (50 % by chance)"
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
    if not harmless:
        harmless = ["In no space are generated volumes nearer to training volumes than chance."]
    return "no sign of copying", harmless
