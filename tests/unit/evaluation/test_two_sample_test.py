"""A network tells apart what differs, and nothing else."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import mannwhitneyu

from prod9.data.volume_sets.volume_set import VolumeSet, of_tensor
from prod9.evaluation.generation import evaluate_generation
from prod9.evaluation.two_sample_test import FEWEST, two_sample_tests
from prod9.metrics.auc import wins

NAMES = ("dark", "light")


def volumes(count: int, seed: int, labels: torch.Tensor | None = None) -> torch.Tensor:
    """Noise around a brightness that depends on the class."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2 if labels is None else labels
    noise = 0.1 * torch.randn(count, 1, 8, 8, 8, generator=stream)
    return (0.4 + 0.2 * labels.view(-1, 1, 1, 1, 1) + noise).clamp(0, 1)


def made_into_set(values: torch.Tensor, labels: torch.Tensor | None = None) -> VolumeSet:
    labels = torch.arange(len(values)) % 2 if labels is None else labels
    return of_tensor(values, labels, NAMES, "a set")


def blurred(values: torch.Tensor) -> torch.Tensor:
    return F.avg_pool3d(values, 3, stride=1, padding=1, count_include_pad=False)


REAL = made_into_set(volumes(96, 0))


def areas(generated: VolumeSet, reconstructed: VolumeSet | None = None, **options):
    found = two_sample_tests(REAL, generated, reconstructed, **({"steps": 40} | options))
    return {row.volumes_of: row for row in found}


def test_nothing_tells_volumes_of_one_source_apart():
    found = areas(made_into_set(volumes(48, 1)))
    assert [*found] == ["generated", "real"]
    for row in found.values():
        low, high = row.auc_interval
        assert low < 0.5 < high
        assert low < row.auc < high
        assert (row.volumes, row.seeds) == (48, 3)


def test_blur_gives_generated_volumes_and_reconstructions_away():
    found = areas(made_into_set(blurred(volumes(48, 1))), made_into_set(blurred(REAL.tensor())))
    assert [*found] == ["generated", "reconstructed", "real"]
    assert found["generated"].auc > 0.95
    assert found["reconstructed"].auc > 0.95
    assert found["generated"].auc_interval[0] > 0.8
    assert found["real"].auc < 0.7


def test_other_shares_of_the_classes_do_not_count():
    labels = (torch.arange(160) % 5 == 0).long()  # four of five are dark
    generated = made_into_set(volumes(160, 2, labels), labels)
    assert areas(generated)["generated"].auc == pytest.approx(0.5, abs=0.15)


def test_the_same_seed_gives_the_same_figures():
    made = made_into_set(volumes(48, 3))
    first, again, other = (areas(made, steps=4, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_too_few_volumes_are_not_tested_and_the_evaluation_says_so():
    few = made_into_set(volumes(FEWEST - 1, 4))
    assert two_sample_tests(REAL, few) == []
    _, warnings = evaluate_generation(REAL, few, None, [], with_usefulness=False)
    assert any("Fewer than 16 volumes" in warning for warning in warnings)


def test_the_area_is_that_of_mann_and_whitney():
    random = np.random.default_rng(0)
    ours, theirs = random.integers(0, 6, 20) + 1.0, random.integers(0, 6, 15) * 1.0
    area = float(wins(torch.from_numpy(ours), torch.from_numpy(theirs)).mean())
    assert area == pytest.approx(mannwhitneyu(ours, theirs).statistic / (20 * 15))


def test_reconstructions_of_other_volumes_are_left_out_and_the_evaluation_says_so() -> None:
    some = REAL.select(range(90))
    made = made_into_set(volumes(16, 5))
    assert [*areas(made, some, steps=2)] == ["generated", "real"]
    found, warnings = evaluate_generation(
        REAL, made, None, [], reconstructed=some, with_usefulness=False
    )
    assert [row.volumes_of for row in found.two_sample_tests] == ["generated", "real"]
    assert any("90 reconstructions and 96 real" in warning for warning in warnings)
