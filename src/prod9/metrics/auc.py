"""Area under the ROC curve."""

import numpy as np
from jaxtyping import Float
from torch import Tensor


def wins(members: Float[Tensor, " n"], others: Float[Tensor, " m"]) -> Float[Tensor, "n m"]:
    """Return 1 where a member scores above a non-member, 1/2 where equal; the mean is the area."""
    apart = members.double()[:, None] - others.double()
    return (apart.sign() + 1) / 2


def auc(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the area under the ROC curve, the mean over classes of one against the rest.

    The area is the chance that a member scores above a non-member, ties counted half
    (Mann-Whitney U). For two classes both areas are equal where the scores sum to 1.

    Args:
        scores: of each class, (N, classes).
        labels: (N,), indices into the classes.

    Returns:
        The mean over the classes that occur; None where only one does.
    """
    occurring = np.unique(labels)
    if len(occurring) < 2:
        return None
    from scipy.stats import rankdata  # half a second

    areas: list[float] = []
    for label in occurring:
        inside = labels == label
        members, others = int(inside.sum()), int((~inside).sum())
        ranks = rankdata(scores[:, label])[inside].sum()
        areas.append(float(ranks - members * (members + 1) / 2) / (members * others))
    return sum(areas) / len(areas)
