"""Who wins a sweep."""

import pytest

from prod9.config.sampler import SamplerConfig
from prod9.results.schema import SetDistance
from prod9.results.sweep import Sweep, SweepRow, winner


def row(frechet, accuracy=1.0, interval=None, msssim=None, **sampler):
    return SweepRow(
        sampler=SamplerConfig(**sampler),
        distance=SetDistance(
            volumes=10,
            reference_volumes=10,
            frechet=frechet,
            frechet_interval=interval,
            kernel=0.0,
            kernel_interval=None,
            precision=None,
            recall=None,
            density=None,
            coverage=None,
        ),
        class_accuracy=accuracy,
        msssim=msssim,
        seconds_per_volume=0.1,
    )


def test_smallest_distance_wins():
    rows = [row(3.0), row(1.0), row(2.0)]
    assert winner(rows) is rows[1]


def test_volumes_of_the_wrong_class_do_not_win():
    rows = [row(1.0, accuracy=0.7), row(2.0, accuracy=0.99), row(3.0, accuracy=1.0)]
    assert winner(rows) is rows[1]


def test_volumes_that_are_all_alike_do_not_win():
    rows = [row(1.0, msssim=0.75), row(2.0, msssim=0.67), row(3.0, msssim=0.5)]
    assert winner(rows, msssim_real=0.6) is rows[1]
    assert winner(rows) is rows[0]
    assert winner(rows[:1], msssim_real=0.6) is rows[0]


def test_without_classes_the_distance_alone_decides():
    rows = [row(2.0, accuracy=None), row(1.0, accuracy=None)]
    assert winner(rows) is rows[1]


@pytest.mark.parametrize(
    ("change", "same"),
    [({}, True), ({"seed": 1}, False), ({"transformer": "y"}, False), ({"rows": [row(1.0)]}, True)],
)
def test_rows_of_another_checkpoint_are_not_taken(change, same):
    base = {
        "real": "brainregionmnist3d/val",
        "space": "toy",
        "floor": None,
        "msssim_real": None,
        "samples_per_class": 4,
        "seed": 0,
        "tokenizer": "t",
        "transformer": "x",
        "rows": [],
        "provenance": {},
    }
    assert Sweep(**base).answers_as(Sweep(**(base | change))) is same
