import pytest

from prod9.training.checkpoint_files import Position


@pytest.mark.parametrize(("items", "batches"), [(4, 7), (2, 14), (8, 3), (28, 1), (29, 0)])
def test_other_batches_begin_at_the_first_unseen_item(items: int, batches: int) -> None:
    assert Position(epochs=1, batches=7, batch_items=4, steps=17).batches_of(items) == batches


def test_in_words() -> None:
    assert str(Position(epochs=2)) == "after epoch 2"
    assert str(Position(epochs=2, batches=5, batch_items=4)) == "in epoch 3 after batch 5"
