import numpy as np
import pytest
import torch

from prod9.data.volume_sets.volume_set import VolumeSet, of_tensor, without_classes
from prod9.errors import Prod9Error
from prod9.evaluation import domain_classifier
from prod9.evaluation.domain_classifier import train_classifier
from prod9.evaluation.usefulness import drawn_like, usefulness
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


def rows(result: Usefulness) -> dict[str, tuple[int, float]]:
    return {row.trained_on: (row.volumes, row.accuracy) for row in result.rows}


def test_good_synthetic_volumes_are_as_good_as_real_ones():
    result = usefulness(TRAIN, toy(32, 2, "generated"), TEST, steps=40)
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
    result = usefulness(TRAIN, generated, TEST, steps=40)
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
    assert rows(usefulness(TRAIN, swapped, TEST, steps=40))["generated"][1] == 0.0


def test_the_same_seed_gives_the_same_figures():
    generated = toy(20, 5, "generated", shuffled=True)
    first, again, other = (
        usefulness(TRAIN, generated, TEST, steps=6, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("count", [6, 48])
def test_the_first_row_is_the_plain_classifier(count):
    """However few were generated."""
    result = usefulness(TRAIN, toy(count, 2, "generated", shuffled=True), TEST, steps=6, seed=4)
    plain = train_classifier(TRAIN, steps=6, seed=4)
    assert result.rows[0].accuracy == plain.right(TEST)


def fits(monkeypatch):
    """Return where the batch and the size of every set that is learned from are put down."""
    seen, real_order = [], domain_classifier._order

    def order(volumes, steps, batch_size, seed):
        seen.append((volumes, batch_size))
        return real_order(volumes, steps, batch_size, seed)

    monkeypatch.setattr(domain_classifier, "_order", order)
    return seen


def test_no_set_is_learned_from_in_the_steps_of_a_smaller_one(monkeypatch):
    seen = fits(monkeypatch)
    usefulness(toy(70, 0, "train"), toy(6, 2, "generated"), TEST, steps=1)
    assert seen == [(70, 64), (6, 6), (6, 6), (76, 64)]


def test_what_was_learned_before_is_not_learned_again(monkeypatch):
    made = toy(20, 5, "generated", shuffled=True)
    wanted = usefulness(TRAIN, made, TEST, steps=6, seed=3)
    learned = train_classifier(TRAIN, steps=6, seed=3)
    seen, told = fits(monkeypatch), []
    found = usefulness(
        TRAIN, made, TEST, steps=6, seed=3, learned=learned, on_step=lambda *n: told.append(n)
    )
    assert found == wanted
    assert [volumes for volumes, _ in seen] == [20, 20, 68]
    assert told == [(i + 1, 18) for i in range(18)]


def test_steps_are_counted_over_all_classifiers():
    seen: list[tuple[int, int]] = []
    usefulness(
        TRAIN, toy(4, 2, "generated"), TEST, steps=3, on_step=lambda *step: seen.append(step)
    )
    assert seen == [(i + 1, 12) for i in range(12)]


def test_classes_are_matched_by_name():
    made = toy(32, 6, "generated")
    renamed = of_tensor(
        made.tensor(), torch.from_numpy(1 - made.labels), ("high", "low"), "generated"
    )
    assert rows(usefulness(TRAIN, renamed, TEST, steps=40))["generated"] == (32, 1.0)


def test_sets_that_cannot_be_used():
    good = toy(8, 2, "generated")
    with pytest.raises(Prod9Error, match="train has volumes of 1 class"):
        usefulness(TRAIN, without_classes(good), TEST, steps=1)
    with pytest.raises(Prod9Error, match="generated has volumes of 1 class"):
        usefulness(TRAIN, good.select([0, 2]), TEST, steps=1)
    with pytest.raises(Prod9Error, match=r"test has 1 volume\(s\)"):
        usefulness(TRAIN, good, TEST.select([0]), steps=1)
    with pytest.raises(Prod9Error, match="8x8x8"):
        usefulness(TRAIN, toy(8, 2, "generated", side=10), TEST, steps=1)


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
