from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from prod9.inference.low_rank import with_small_modulation
from prod9.model import Model
from prod9.networks.condition import NOT_GIVEN, Condition


def test_it_computes_the_same_for_every_class_and_for_none(
    make_generator: Callable[..., Any],
) -> None:
    model: Model = make_generator()
    small = with_small_modulation(model)
    tokens = torch.randint(model.transformer.mask_id + 1, (3, *model.spec.grid))
    condition = Condition.of(torch.tensor([0, 1, NOT_GIVEN]), 1)
    expected, found = (each.transformer(tokens, condition) for each in (model, small))
    assert (expected[0] - expected[1]).abs().max() > 0.01  # classes differ
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_modulation_has_the_rank_of_the_conditions(make_generator: Callable[..., Any]) -> None:
    model: Model = make_generator()
    small = with_small_modulation(model)
    sizes = model.spec.transformer
    assert small.spec.transformer.modulation_rank == 3  # two classes, and no class
    before, after = (
        sum(p.numel() for name, p in each.transformer.named_parameters() if "modulation" in name)
        for each in (model, small)
    )
    width, layers = sizes.hidden_dim, sizes.num_blocks + 1
    outputs = (6 * sizes.num_blocks + 2) * width
    assert before == outputs * (width + 1)
    assert after == outputs * (3 + 1) + layers * 3 * width
    assert with_small_modulation(small) is small


def test_a_model_with_more_conditions_than_classes_stays_as_it_is(
    make_generator: Callable[..., Any], make_transformer: Callable[..., Any]
) -> None:
    model: Model = make_generator()
    network = make_transformer(grid=model.spec.grid, coarse=True)
    model = replace(model, transformer=network)
    assert with_small_modulation(model) is model
