"""The area under the ROC curve against hand results and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from prod9.metrics.auc import auc


def of_two(scores: list[float], labels: list[int]) -> float | None:
    second = np.array(scores)
    return auc(np.stack([1 - second, second], 1), np.array(labels))


def test_by_hand() -> None:
    assert of_two([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]) == 1
    assert of_two([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1]) == 0
    assert of_two([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 1]) == 0.5
    # Pairs (member, other): .4 above .3 and below .6; .7 above both: 3 of 4.
    assert of_two([0.3, 0.6, 0.4, 0.7], [0, 0, 1, 1]) == 0.75
    assert of_two([0.3, 0.6], [1, 1]) is None


def test_as_scikit_learn() -> None:
    random = np.random.default_rng(1)
    scores = random.dirichlet(np.ones(4), 60).round(2)
    labels = random.integers(0, 4, 60)
    wanted = np.mean([roc_auc_score(labels == c, scores[:, c]) for c in range(4)])
    assert auc(scores, labels) == pytest.approx(wanted)
    second = random.random(60).round(1)
    wanted = roc_auc_score(labels > 1, second)
    assert of_two(second.tolist(), (labels > 1).astype(int).tolist()) == pytest.approx(wanted)
