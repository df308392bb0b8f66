import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from prod9.evaluation.privacy import closeness
from prod9.metrics.bootstrap import wilson_interval

F = 24


def _sets(n=150, t=200, h=160, d=F, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(rows, d, generator=generator) for rows in (n, t, h))


def _measure(generated, train, held_out, seed=0, resamples=200):
    return closeness(generated, train, held_out, seed=seed, resamples=resamples)


def test_known_distances():
    train = torch.tensor([[0.0], [10.0], [20.0]])
    held_out = torch.tensor([[1.0], [14.0], [23.0]])  # 1, 4, 3 from train
    generated = torch.tensor([[0.4], [10.5], [22.0], [20.0]])  # 0.4, 0.5, 2, 0 from train
    found = _measure(generated, train, held_out)
    assert found.distance_ratio == pytest.approx(0.45 / 3)
    assert found.p05 == pytest.approx(np.quantile([0.4, 0.5, 2, 0], 0.05))
    assert found.p05_held_out == pytest.approx(np.quantile([1, 4, 3], 0.05))  # 1.2
    assert found.share_below_p05 == 3 / 4
    assert found.near_duplicates == 2  # 0.4 and 0, not 0.5: half of 1 is not nearer than half
    # From held-out they are 0.6, 3.5, 1, 3: all but the third are nearer to train.
    assert found.nearer_train_share == 3 / 4
    # Nearest generated: train 0.4, 0.5, 0; held-out 0.6, 3.5, 1: all 9 pairs are won.
    assert found.membership_auc == 1.0
    assert found.membership_interval == (1.0, 1.0)


def test_independent_volumes():
    found = [_measure(*_sets(t=400, seed=seed), seed=seed) for seed in range(12)]
    for name, expected, tolerance in [
        ("distance_ratio", 1.0, 0.02), ("share_below_p05", 0.05, 0.02),
        ("nearer_train_share", 0.5, 0.05), ("membership_auc", 0.5, 0.03),
    ]:  # fmt: skip
        mean = sum(getattr(one, name) for one in found) / 12
        assert mean == pytest.approx(expected, abs=tolerance), name
    assert sum(one.near_duplicates for one in found) == 0
    for name, value in [("nearer_train_interval", 0.5), ("membership_interval", 0.5)]:
        assert sum(getattr(one, name)[0] < value < getattr(one, name)[1] for one in found) >= 10


def test_a_replay_of_the_training_set():
    _, train, held_out = _sets()
    found = _measure(train.clone(), train, held_out)
    assert found.distance_ratio == found.p05 == 0.0
    assert found.share_below_p05 == 1.0
    assert found.near_duplicates == 200
    assert found.membership_auc == 1.0
    # 160 of the 200 are in the equally large choice; those left out are like any other volume.
    assert found.nearer_train_share > 0.85
    assert found.nearer_train_interval[0] > 0.75
    equal = _measure(train[:160], train[:160], held_out)
    assert equal.nearer_train_share == 1.0


def test_replaying_a_tenth_counts_exactly_those():
    generated, train, held_out = _sets()
    generator = torch.Generator().manual_seed(1)
    generated[:15] = train[:15] + 0.05 * torch.randn(15, F, generator=generator)
    found = _measure(generated, train, held_out)
    assert found.near_duplicates == 15
    assert found.share_below_p05 > 0.1
    assert found.distance_ratio > 0.95  # a median does not see a tenth


def test_held_out_volumes_among_the_training_set_do_not_hide_copies():
    generated, train, held_out = _sets()
    held_out[0] = train[7]
    generated[:3] = train[:3]
    assert _measure(generated, train, held_out).near_duplicates == 3


def test_blurring_cries_wolf_in_distances_alone():
    wolf, share, auc = [], [], []
    for seed in range(12):
        generated, train, held_out = _sets(seed=seed)
        found = _measure(0.4 * generated, train, held_out, seed=seed)
        wolf.append(found.share_below_p05)
        share.append(found.nearer_train_share)
        auc.append(found.membership_auc)
        assert found.distance_ratio < 0.9
        assert found.near_duplicates == 0
    assert min(wolf) > 0.3
    assert sum(share) / 12 == pytest.approx(0.5, abs=0.1)
    assert sum(auc) / 12 == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(("blur", "n"), [(1.0, 200), (0.3, 60), (0.1, 200)])
def test_the_interval_allows_for_the_few_volumes_nearest_to_all(blur, n):
    # In 200 dimensions the share of a single data set may be anything, without copying.
    holds = naive = 0
    for seed in range(80):
        generated, train, held_out = _sets(n, 40, 40, d=200, seed=seed)
        found = _measure(blur * generated, train, held_out, seed=seed, resamples=1)
        lower, upper = found.nearer_train_interval
        holds += lower <= 0.5 <= upper
        lower, upper = wilson_interval(found.nearer_train_share * n, n)
        naive += lower <= 0.5 <= upper
    assert holds >= 72  # of 80; 76 expected
    assert naive < 50  # what independent votes would claim


def test_spread_copies_are_worth_as_many_votes_as_there_are():
    # Each training volume copied once, each held-out one the nearest to none.
    _, train, held_out = _sets(t=100, h=100)
    found = _measure(train + 0.01, train, held_out)
    assert found.nearer_train_interval == pytest.approx(wilson_interval(100, 100), abs=1e-9)
    # One volume copied a hundred times is a single vote (though a hundred near duplicates).
    found = _measure(train[:1] + 0.01 * torch.randn(100, F), train, held_out)
    assert found.nearer_train_share == 1.0
    assert found.nearer_train_interval == pytest.approx(wilson_interval(1, 1), abs=0.01)
    assert found.near_duplicates == 100


def test_ties_are_halves():
    # A training volume that is a held-out one as well.
    train, held_out = torch.tensor([[0.0], [50.0], [60.0]]), torch.tensor([[0.0], [70.0], [80.0]])
    found = _measure(torch.tensor([[0.1], [0.2], [50.0]]), train, held_out)
    assert found.nearer_train_share == pytest.approx((0.5 + 0.5 + 1) / 3)


@pytest.mark.parametrize("size", [2, 100])
def test_votes_by_hand(size):
    # 40 volumes nearest to one training volume, 40 to one held-out volume, none to all others.
    far = 1000 + torch.arange(size - 1.0)[:, None]
    train = torch.cat([torch.zeros(1, 1), far])
    held_out = torch.cat([torch.full((1, 1), 9.0), far + 0.5])
    generated = torch.cat([torch.full((40, 1), 1.0), torch.full((40, 1), 8.0)])
    # Sum of squares about the mean, over 2 size - 1; half the size, over the volumes squared.
    variance = (2 * 40**2 - 80**2 / (2 * size)) / (2 * size - 1) * size / 2 / 80**2
    total = 0.25 / variance
    assert 2 < total < 3.01  # two volumes' worth, were there no end of others
    for seed in range(8):  # in whatever order the volumes are chosen
        found = _measure(generated, train, held_out, seed=seed, resamples=10)
        assert found.nearer_train_share == 0.5
        assert found.nearer_train_interval == pytest.approx(wilson_interval(total / 2, total))


@settings(max_examples=30)
@given(t=st.integers(2, 20), h=st.integers(2, 20), seed=st.integers(0, 999))
def test_auc_as_scikit_learn_with_ties(t, h, seed):
    stream = torch.Generator().manual_seed(seed)
    members, others = (1.0 + torch.randint(5, (n,), generator=stream) for n in (t, h))
    # One generated volume at 0: each distance is the number itself.
    found = _measure(torch.zeros(2, 1), members[:, None], others[:, None], resamples=2)
    expected = roc_auc_score([1] * t + [0] * h, -torch.cat([members, others]).numpy())
    assert found.membership_auc == pytest.approx(expected, rel=1e-12)


def test_auc_interval_holds_the_truth():
    # Normal scores one standard deviation apart: area Phi(1 / sqrt(2)).
    truth, hits = 0.5 * (1 + math.erf(0.5)), 0
    for seed in range(200):
        scores = 10 + torch.randn(2, 50, generator=torch.Generator().manual_seed(seed))
        train, held_out = scores[0, :, None], scores[1, :40, None] + 1
        found = closeness(torch.zeros(2, 1), train, held_out, seed=seed, resamples=300)
        lower, upper = found.membership_interval
        hits += lower <= truth <= upper
    assert 0.9 < hits / 200 < 0.985


def test_seeded():
    sets = _sets()
    assert _measure(*sets) == _measure(*sets)
    other = _measure(*sets, seed=1)
    assert other.nearer_train_share != _measure(*sets).nearer_train_share
    assert other.distance_ratio == _measure(*sets).distance_ratio
