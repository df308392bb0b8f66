import numpy as np
import pytest
import torch

from prod9.data.volume_sets.volume_set import VolumeSet, of_tensor
from prod9.evaluation.domain_classifier import drawn_like, train_classifier, usefulness
from prod9.results.schema import Usefulness

CLASSES = ("low", "high")


def toy(count: int, seed: int, name: str, shuffled: bool = False, side: int = 8) -> VolumeSet:
    """Noise with a bright half, whose place is the class (or says nothing of it)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    volumes = 0.5 * torch.rand(count, 1, side, side, side, generator=generator)
    half = side // 2
    shown = labels[torch.randperm(count, generator=generator)] if shuffled else labels
    volumes[shown == 0, :, :half] += 0.3
    volumes[shown == 1, :, half:] += 0.3
    return of_tensor(volumes, labels, CLASSES, name)


TRAIN, TEST = toy(48, 0, "train"), toy(60, 1, "test")


def judged(generated: VolumeSet, train: VolumeSet = TRAIN, steps: int = 40, seed: int = 0):
    learned = train_classifier(train, steps=steps, seed=seed)
    return usefulness(learned, train, generated, TEST, seed)


def rows(result: Usefulness) -> dict[str, tuple[int, float]]:
    return {row.trained_on: (row.volumes, row.accuracy) for row in result.rows}


def test_good_synthetic_volumes_are_as_good_as_real_ones():
    result = judged(toy(32, 2, "generated"))
    assert (result.steps, result.test_volumes) == (40, 60)
    assert rows(result) == {
        "real (all)": (48, 1.0),
        "real, as many as generated": (32, 1.0),
        "generated": (32, 1.0),
        "real + generated": (80, 1.0),
    }
    assert all(row.accuracy_interval == (1.0, 1.0) for row in result.rows)
    assert all(row.balanced_accuracy == 1.0 for row in result.rows)


def test_volumes_that_do_not_show_their_class_teach_nothing():
    generated = toy(48, 3, "generated", shuffled=True)
    result = judged(generated)
    found = rows(result)
    assert list(found) == ["real (all)", "generated", "real + generated"]  # as many would be all
    row = result.rows[1]
    assert 0.25 < row.accuracy < 0.75
    low, high = row.accuracy_interval
    assert low < row.accuracy < high
    assert found["real (all)"][1] == 1.0


def test_wrong_labels_teach_the_wrong_thing():
    made = toy(48, 4, "generated")
    swapped = of_tensor(made.tensor(), torch.from_numpy(1 - made.labels), CLASSES, "generated")
    assert rows(judged(swapped))["generated"][1] == 0.0


def test_the_same_seed_gives_the_same_figures():
    generated = toy(20, 5, "generated", shuffled=True)
    first, again, other = (judged(generated, steps=6, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("count", [6, 48])
def test_each_row_is_a_classifier_of_its_set_trained_as_long(count):
    """However few were generated."""
    made = toy(count, 2, "generated", shuffled=True)
    found = judged(made, steps=6, seed=4)
    for row, volumes in ((found.rows[0], TRAIN), (found.rows[-2], made)):
        plain = train_classifier(volumes, steps=6, seed=4)
        assert (row.volumes, row.accuracy) == (len(volumes), plain.right(TEST))


def test_a_subset_has_the_classes_of_what_was_generated():
    labels = np.array([0] * 50 + [1] * 30 + [2] * 5)
    wanted = np.array([0] * 10 + [1] * 20)
    chosen = drawn_like(wanted, labels, seed=0)
    assert np.bincount(labels[chosen], minlength=3).tolist() == [10, 20, 0]
    assert len(set(chosen.tolist())) == 30
    assert (np.diff(chosen) > 0).all()
    assert (chosen == drawn_like(wanted, labels, seed=0)).all()
    assert (chosen != drawn_like(wanted, labels, seed=1)).any()


def test_where_a_class_is_too_small_others_make_up_the_number():
    labels = np.array([0] * 50 + [1] * 30 + [2] * 5)
    chosen = drawn_like(np.full(40, 2), labels, seed=0)
    assert len(set(chosen.tolist())) == 40
    assert (labels[chosen] == 2).sum() == 5
    assert drawn_like(np.zeros(100, int), labels, seed=0).tolist() == [*range(85)]
