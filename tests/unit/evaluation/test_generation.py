"""The whole judgement of generated volumes tells the story of sets whose fault is known."""

import numpy as np
import pytest
import torch

from prod9.data.volume_sets.volume_set import of_tensor
from prod9.evaluation import generation
from prod9.evaluation.generation import evaluate_generation
from prod9.runtime.clock import Clock

SIDE = 10
NAMES = ("dark", "light")


def draw(count, seed, classes=2, noise=0.1):
    """Return a collection of volumes that differ in brightness, by class and by chance."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centre = 0.3 + 0.4 * labels + 0.05 * torch.randn(count, generator=stream)
    texture = noise * torch.randn(count, 1, SIDE, SIDE, SIDE, generator=stream)
    volumes = (centre.view(-1, 1, 1, 1, 1) + texture).clamp(0, 1)
    return of_tensor(volumes, labels, NAMES, f"set {seed}")


TRAIN, REAL = draw(60, 0), draw(40, 1)
QUICK = {"with_usefulness": False, "with_two_sample_test": False}


def judged(generated, train=TRAIN, **options):
    return evaluate_generation(REAL, generated, train, [], **(QUICK | options))


def test_honest_volumes_are_recognised_varied_and_new():
    found, warnings = judged(draw(30, 2), with_usefulness=True)
    assert found.class_accuracy == found.classifier_real_accuracy == 1.0
    assert found.privacy.verdict == "no sign of copying"
    assert found.usefulness.rows[-2].accuracy == 1.0
    assert found.msssim == pytest.approx(found.msssim_real, abs=0.05)
    assert not any("Privacy" in warning for warning in warnings)


def test_the_classifier_of_all_real_volumes_is_the_judge_too():
    found, _ = judged(draw(30, 2), with_usefulness=True)
    assert [row.volumes for row in found.usefulness.rows] == [60, 30, 30, 90]
    assert found.usefulness.rows[0].accuracy == found.classifier_real_accuracy


def test_swapped_classes_are_not_recognised():
    swapped = draw(30, 2)
    turned = of_tensor(swapped.tensor(), torch.from_numpy(1 - swapped.labels), NAMES, "swapped")
    found, _ = judged(turned, with_usefulness=True)
    assert found.class_accuracy == 0.0
    assert all(figures.class_accuracy == 0 for figures in found.per_class.values())
    generated = next(row for row in found.usefulness.rows if row.trained_on == "generated")
    assert generated.accuracy < 0.2  # what it teaches is wrong


def test_a_missing_class_is_said_and_seen():
    found, warnings = judged(draw(30, 2, classes=1), with_usefulness=True)
    assert any("mixed otherwise" in warning for warning in warnings)
    assert any("one class: usefulness" in warning for warning in warnings)
    assert found.usefulness is None
    (space,) = found.spaces
    assert space.generated.recall < 0.7 * space.floor.recall
    assert space.generated.frechet > 3 * space.floor.frechet


def test_copies_are_the_first_warning():
    found, warnings = judged(TRAIN.select(range(20)))
    assert found.privacy.verdict == "copies"
    assert warnings[0].startswith("Privacy: copies.")
    assert found.nearest_train_p05 == 0 < found.nearest_train_p05_real


def test_without_training_volumes_it_says_what_is_missing():
    found, warnings = judged(draw(30, 2), train=None)
    assert (found.privacy, found.class_accuracy, found.usefulness) == (None, None, None)
    assert any("--train" in warning for warning in warnings)


def test_large_training_sets_are_sampled_but_searched_whole(monkeypatch):
    monkeypatch.setattr(generation, "MOST_TRAIN", 20)
    left_out = sorted(
        set(range(60)) - set(np.random.default_rng(0).choice(60, 20, replace=False).tolist())
    )
    found, warnings = judged(TRAIN.select(left_out[:10]))
    assert any("20 of the 60 training volumes" in warning for warning in warnings)
    assert found.privacy.spaces[0].near_duplicates == 10  # of volumes that no network saw
    assert found.privacy.verdict == "copies"


def test_other_voxel_sizes_are_said():
    volumes = draw(30, 2)
    real = of_tensor(REAL.tensor(), torch.from_numpy(REAL.labels), NAMES, "real", (1.0, 1.0, 1.0))
    small = of_tensor(
        volumes.tensor(), torch.from_numpy(volumes.labels), NAMES, "small", (0.5, 0.5, 0.5)
    )
    _, warnings = evaluate_generation(real, small, None, [])
    assert any("0.5 x 0.5 x 0.5 mm" in warning for warning in warnings)


def test_a_classifiers_own_training_volumes_are_no_floor():
    """What it has learned by heart lies elsewhere: a perfect generator would beat such a floor."""
    stream = torch.Generator().manual_seed(0)

    def noise(name):
        labels = torch.arange(60) % 2  # that nothing in the volumes tells
        volumes = torch.rand(60, 1, SIDE, SIDE, SIDE, generator=stream)
        return of_tensor(volumes, labels, NAMES, name)

    train, real, twin = noise("train"), noise("real"), noise("twin")
    found, _ = evaluate_generation(real, twin, train, [], with_usefulness=False)
    (space,) = found.spaces
    assert "others of the same set" in space.floor_of
    assert 0.4 < space.frechet_ratio < 2.5
    assert [part.space for part in found.privacy.spaces] == [generation.VOXELS]


def test_blank_volumes_are_said():
    volumes = draw(10, 2).tensor()
    volumes[:3] = 0
    blank = of_tensor(volumes, torch.arange(10) % 2, NAMES, "blank")
    _, warnings = judged(blank, train=None)
    assert any("3 of 10 generated volumes are blank" in warning for warning in warnings)


def test_the_clock_knows_what_the_time_went_into():
    clock = Clock(quiet=True)
    judged(draw(30, 2), with_usefulness=True, clock=clock)
    parts = {"classifier", "voxels", "features (classifier)", "distances", "privacy", "usefulness"}
    assert parts < {*clock.seconds}
    apart = sum(value for name, value in clock.seconds.items() if name != "total")
    assert apart == pytest.approx(clock.seconds["total"], abs=0.5)
