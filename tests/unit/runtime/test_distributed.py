"""Two processes with half a batch each compute what one does with the whole."""

from typing import Any

import pytest
import torch
from torch.multiprocessing.spawn import spawn
from two_processes import BATCH, adaptive, focal, masked_loss, normalized_gradient, volumes, work

from prod9.losses.perceptual import normalize_intensity
from prod9.masking import mask_tokens
from prod9.runtime import distributed

Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("two")
    spawn(work, (2, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def interleaved(found: Found, name: str) -> torch.Tensor:
    """Sample i belongs to process i mod 2."""
    return torch.stack([found[0][name], found[1][name]], 1).flatten(0, 1)


def test_who_is_who(found: Found) -> None:
    assert [f["rank"] for f in found] == [0, 1]
    assert [f["main"] for f in found] == [True, False]
    assert [f["share"] for f in found] == [[0, 2, 4, 6], [1, 3, 5]]
    assert [f["found"] for f in found] == [False, True]  # the main process went first


def test_sums_and_means(found: Found) -> None:
    for f in found:
        assert f["total"].tolist() == [2, 10]
        assert f["mean"].tolist() == [1, 5]
        assert f["any"] == [True, True, False, True]
        assert [t.tolist() for t in f["average"]] == [[0.5] * 2, [0.5] * 3]
        assert [t.dtype for t in f["average"]] == [torch.float32, torch.float64]
        assert f["from_main"].tolist() == [7, 7]
        assert float(f["means"]) == 15 / 4  # the mean of the two means would be 31 / 6


def test_draws_and_masks_are_those_of_the_whole_batch(found: Found) -> None:
    whole = torch.rand(BATCH, 6, generator=torch.Generator().manual_seed(5))
    assert torch.equal(interleaved(found, "rand"), whole)
    tokens = torch.arange(BATCH * 6).view(BATCH, 6)
    share = torch.tensor([0.2, 0.4, 0.6, 0.8])
    expected = mask_tokens(tokens, share, 99, torch.Generator().manual_seed(5)).mask
    assert torch.equal(interleaved(found, "mask"), expected)


def test_intensities_are_normalised_over_the_whole_batch(found: Found) -> None:
    normalized, gradient = normalized_gradient(volumes())
    torch.testing.assert_close(interleaved(found, "normalized"), normalized)
    torch.testing.assert_close(normalized, normalize_intensity(volumes()))
    # Each process's loss is a mean over half the batch: the gradients are to be averaged.
    torch.testing.assert_close(interleaved(found, "gradient") / 2, gradient, rtol=1e-4, atol=1e-6)


def test_the_adaptive_weight_is_that_of_the_whole_batch(found: Found) -> None:
    expected = adaptive(volumes())
    for f in found:
        torch.testing.assert_close(f["adaptive"], expected)


def test_the_masked_loss_is_a_mean_over_the_tokens_of_all(found: Found) -> None:
    loss, accuracy, gradient, factor = masked_loss(7, 0)
    assert float(factor) == 1
    assert float(loss) == 3  # of 0 .. 6
    assert float(gradient) == pytest.approx(3)
    for f in found:
        assert float(f["masked"][0]) == pytest.approx(3)
        assert float(f["masked"][1]) == pytest.approx(float(accuracy)) == pytest.approx(3 / 7)
    assert float(found[0]["masked"][2] + found[1]["masked"][2]) / 2 == pytest.approx(3)


@pytest.mark.parametrize("switch", ["ave_spectrum", "batch_matrix"])
def test_the_focal_frequency_loss_looks_at_the_whole_batch(found: Found, switch: str) -> None:
    loss, gradient = focal(volumes(), switch)
    losses, gradients = zip(*(f["focal"][switch] for f in found), strict=True)
    torch.testing.assert_close(torch.stack(losses).mean(), loss)
    together = torch.stack(gradients, 1).flatten(0, 1) / 2
    torch.testing.assert_close(together, gradient, rtol=1e-4, atol=1e-7)


def test_the_volumes_that_are_named_are_those_of_the_process_that_found_it(found: Found) -> None:
    for f in found:
        assert f["bad term"].startswith(
            "the loss term 'perceptual' became nan at step 0 on the batch case 1; the batch is "
            "saved in "
        )
        assert "step-00000000-rank1.npz; look" in f["bad term"]
        assert "rank0" not in f["bad term"]
        norm = "the gradient's norm became nan at step 1 on the batch case 0, case 1; the batch"
        assert f["bad norm"].startswith(norm)
        assert "step-00000001-rank0.npz" in f["bad norm"]
        assert "step-00000001-rank1.npz" in f["bad norm"]


def test_one_process_is_alone() -> None:
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    value = torch.tensor([3.0])
    assert distributed.total(value) is value
    assert distributed.any_of([True, False]) == [True, False]
    assert distributed.any_of([]) == []
    assert distributed.mean(value) is value
    assert distributed.total_with_gradient(value) is value
