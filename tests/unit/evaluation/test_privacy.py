"""A generator that replays its training set fails loudly; an honest one does not."""

from typing import Any

import pytest
import torch

from prod9.data.volume_sets.volume_set import of_tensor
from prod9.errors import Prod9Error
from prod9.evaluation.privacy import held_out, judge, privacy, short_name
from prod9.results.schema import Closeness

SIDE = 6


def volumes(count, seed):
    stream = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, SIDE, SIDE, SIDE, generator=stream)


def collection(tensor, name):
    return of_tensor(tensor, torch.zeros(len(tensor), dtype=torch.int64), ("all",), name)


TRAIN, HELD_OUT = volumes(80, 1), volumes(60, 2)


def judged(generated, held_out=HELD_OUT):
    vectors = {"voxels (RMSE)": tuple(t.flatten(1) for t in (generated, TRAIN, held_out))}
    return privacy(collection(generated, "generated"), collection(TRAIN, "train"), vectors, 0)


def test_replaying_the_training_set_is_found():
    found = judged(TRAIN[:50].clone())
    assert found.verdict == "copies"
    space = found.spaces[0]
    assert (space.share_below_p05, space.near_duplicates, space.distance_ratio) == (1.0, 50, 0.0)
    assert any("50 of 50" in reason for reason in found.reasons)
    assert found.closest[0].distance == 0


def test_each_copy_is_named_with_its_original():
    mixed = volumes(50, 3)
    mixed[7], mixed[30] = TRAIN[11], TRAIN[70]
    found = judged(mixed)
    assert found.verdict == "copies"
    assert found.spaces[0].near_duplicates == 2
    pairs = {(pair.generated, pair.train) for pair in found.closest if pair.distance == 0}
    assert pairs == {("07_all", "11_all"), ("30_all", "70_all")}


def test_copies_with_noise_are_found():
    noise = 0.02 * torch.randn(50, 1, SIDE, SIDE, SIDE, generator=torch.Generator().manual_seed(4))
    assert judged((TRAIN[:50] + noise).clamp(0, 1)).verdict == "copies"


def test_new_volumes_pass():
    found = judged(volumes(50, 5))
    assert found.verdict == "no sign of copying"
    assert found.reasons


def test_blurred_new_volumes_are_not_called_copies():
    """They are nearer to everything, not to the training set in particular."""
    flat = 0.5 + 0.3 * (volumes(50, 6) - 0.5)
    found = judged(flat)
    assert found.spaces[0].share_below_p05 == 1.0
    assert found.verdict == "no sign of copying"
    assert "averaged or blurred" in found.reasons[0]


def test_short_name():
    assert short_name("EfficientNet-Lite0 (ImageNet), 7 slices") == "EfficientNet-Lite0"
    assert short_name("voxels") == "voxels"


def space(name="voxels", **change: Any):
    """Return figures that show nothing."""
    nothing = {
        "distance_ratio": 1.0,
        "p05": 0.1,
        "p05_held_out": 0.1,
        "share_below_p05": 0.05,
        "nearer_train_share": 0.5,
        "nearer_train_interval": (0.4, 0.6),
        "membership_auc": 0.5,
        "membership_interval": (0.47, 0.53),
        "near_duplicates": 0,
    }
    return Closeness(space=name, **(nothing | change))


NEAR = {"nearer_train_share": 0.7, "nearer_train_interval": (0.6, 0.8)}
TOLD = {"membership_auc": 0.6, "membership_interval": (0.55, 0.65)}


@pytest.mark.parametrize(
    ("spaces", "verdict"),
    [
        ([space()], "no sign of copying"),
        ([space(share_below_p05=0.5)], "no sign of copying"),
        ([space(**NEAR)], "no sign of copying"),
        ([space(**TOLD)], "no sign of copying"),
        ([space(**NEAR, **TOLD)], "suspicious"),
        ([space(**NEAR, share_below_p05=0.5)], "copies"),
        ([space(near_duplicates=1)], "copies"),
        ([space(), space("features", near_duplicates=1)], "suspicious"),
        ([space(), space("features", near_duplicates=5)], "copies"),
        ([space(**NEAR), space("features", **TOLD)], "no sign of copying"),
        ([space(), space("features", **NEAR, share_below_p05=0.5)], "copies"),
    ],
)
def test_verdict(spaces, verdict):
    found, reasons = judge(spaces, 200)
    assert found == verdict
    assert reasons


@pytest.mark.parametrize("leaked", [1, 4])
def test_training_volumes_among_the_held_out_ones_are_left_out(leaked):
    """One of them would make every copy but an exact one look far enough."""
    mixed = torch.cat([HELD_OUT, TRAIN[:leaked]])
    kept, (warning,) = held_out(collection(mixed, "real"), collection(TRAIN, "train"))
    assert torch.equal(kept.tensor(), HELD_OUT)
    assert f"{leaked} of the {60 + leaked} real volumes" in warning
    stream = torch.Generator().manual_seed(4)
    noise = 0.02 * torch.randn(50, 1, SIDE, SIDE, SIDE, generator=stream)
    noisy = (TRAIN[:50] + noise).clamp(0, 1)
    assert judged(noisy, kept.tensor()).spaces[0].near_duplicates == 50


def test_held_out_volumes_stay():
    real = collection(HELD_OUT, "real")
    assert held_out(real, collection(TRAIN, "train")) == (real, [])


def test_a_real_set_of_training_volumes_is_refused():
    mixed = collection(torch.cat([HELD_OUT[:5], TRAIN[:5]]), "real")
    with pytest.raises(Prod9Error, match="5 of the 10 volumes of real are training volumes"):
        held_out(mixed, collection(TRAIN, "train"))
