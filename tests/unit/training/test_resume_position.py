import pytest

from prod9.training.resume_position import KEY, Position


def test_what_a_checkpoint_says() -> None:
    fields = {"epochs": 3, "batches": 7, "batch_items": 8, "steps": 37}
    assert Position.of({KEY: fields}) == Position(3, 7, 8, 37)


def test_one_without_a_record_was_made_at_an_epochs_end() -> None:
    progress = {"total": {"completed": 30}}
    loops = {"fit_loop": {"epoch_loop.batch_progress": progress}}
    assert Position.of({"epoch": 2, "loops": loops}) == Position(epochs=3, steps=30)


@pytest.mark.parametrize(("items", "batches"), [(4, 7), (2, 14), (8, 3), (28, 1), (29, 0)])
def test_other_batches_begin_at_the_first_unseen_item(items: int, batches: int) -> None:
    assert Position(epochs=1, batches=7, batch_items=4, steps=17).batches_of(items) == batches


def test_in_words() -> None:
    assert str(Position(epochs=2)) == "after epoch 2"
    assert str(Position(epochs=2, batches=5, batch_items=4)) == "in epoch 3 after batch 5"
