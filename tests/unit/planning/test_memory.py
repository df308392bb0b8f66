"""The largest batch, and what to lower: against lines whose answers are known."""

from pathlib import Path

from prod9.config.load import load_stage1
from prod9.planning.data_sizes import sizes_of
from prod9.planning.fake_step import StepCost
from prod9.planning.memory import Estimate, Memory, advice

NOTHING = StepCost({}, 0, 0, (0.0, 0.0))


def line(fixed: float, each: float, checkpointed: float) -> Estimate:
    memory = {False: Memory(fixed, each), True: Memory(fixed, checkpointed)}
    return Estimate(NOTHING, 2, memory)


def test_the_largest_batch_is_the_last_that_fits() -> None:
    memory = Memory(1e9, 1e8)
    for limit in (1.85e9, 3.05e9, 1e10 + 1):
        largest = memory.largest(limit)
        assert memory.needed(largest) <= limit < memory.needed(largest + 1)
    assert memory.largest(0.5e9) == 0


def test_what_to_lower_and_by_how_much() -> None:
    config = load_stage1(Path("maskgit/medmnist3d/stage1/ffl.yaml"), ["data.batch_size=64"])
    sizes, found = sizes_of(config), line(1e9, 1e8, 2e7)
    assert advice(config, sizes, found, 1e11) == []
    assert advice(config, sizes, found, 4.05e9) == [
        "lower data.batch_size from 64 to 30",
        "set trainer.activation_checkpointing=true",  # 64 fit then
    ]
    (_, also) = advice(config, sizes, found, 2.05e9)
    assert also == "set trainer.activation_checkpointing=true and data.batch_size=52"


def test_where_nothing_fits_the_sample_or_the_network_must_shrink() -> None:
    config = load_stage1(Path("maskgit/brats/stage1/ffl.yaml"))
    (way,) = advice(config, sizes_of(config), line(1e9, 6e9, 6e9), 4e9)
    assert "data.batch_size=1 sliding_window.roi_size=[48,48,48]" in way
    config = load_stage1(Path("maskgit/medmnist3d/stage1/ffl.yaml"))
    (way,) = advice(config, sizes_of(config), line(1e9, 6e9, 6e9), 4e9)
    assert "model.autoencoder.num_channels" in way
