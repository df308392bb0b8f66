import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from prod9.guidance import guidance_at, guided
from prod9.networks.condition import Condition

TOKENS = torch.randint(61, (2, 3, 2, 2), generator=torch.Generator().manual_seed(0))
CONDITION = Condition.of(torch.tensor([0, 1]), 1)


def listened_to(network: Any) -> Any:
    """Let a transformer note each batch's labels in ``asked``."""
    network.asked = []
    features = network.features

    def noted(tokens: Any, condition: Condition) -> Any:
        network.asked.append(condition.classes.tolist())
        return features(tokens, condition)

    network.features = noted
    return network


def test_schedules() -> None:
    assert [guidance_at(3.0, "constant", p) for p in (0.0, 0.5, 0.99)] == [3, 3, 3]
    assert [guidance_at(3.0, "linear", p) for p in (0.0, 0.25, 0.5)] == [1, 1.5, 2]
    cosine = [guidance_at(3.0, "cosine", p) for p in (0.0, 0.5, 0.25)]
    assert cosine == pytest.approx([1, 2, 2 - math.sqrt(0.5)])


@pytest.mark.parametrize("head", ["full", "factorized"])
@pytest.mark.parametrize("scale", [0.0, 1.5, 4.0])
def test_the_formula_in_one_pass(make_transformer: Any, scale: float, head: str) -> None:
    network = listened_to(make_transformer(head=head))
    logits = guided(network, CONDITION, scale)(TOKENS, 0.3)
    assert network.asked == [[0, 1, -1, -1]]
    conditional = network(TOKENS, CONDITION)
    unconditional = network(TOKENS, CONDITION.null(60))
    expected = unconditional + scale * (conditional - unconditional)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits, conditional, atol=1e-2)


def test_without_guidance_there_is_no_unconditional_pass(make_transformer: Any) -> None:
    network = listened_to(make_transformer())
    logits = guided(network, CONDITION, 1.0)(TOKENS, 0.3)
    assert network.asked.pop() == [0, 1]
    assert torch.equal(logits, network(TOKENS, CONDITION))
    # The rising schedules begin at 1.
    logits = guided(network, CONDITION, 5.0, "linear")(TOKENS, 0.0)
    assert torch.equal(logits, network(TOKENS, CONDITION))
    assert network.asked == [[0, 1]] * 3


def test_the_unconditional_pass_knows_no_sources_but_the_place(make_transformer: Any) -> None:
    network = make_transformer(num_channels=2)
    sources = torch.randint(60, (2, 2, 3, 2, 2), generator=torch.Generator().manual_seed(1))
    origin = torch.tensor([[1.0, 0.0, 2.0], [0.0, 2.0, 0.5]])
    given = replace(CONDITION, sources=sources, origin=origin)
    conditional = network(TOKENS, given)
    place_alone = replace(given.null(60), sources=None)
    unconditional = network(TOKENS, place_alone)
    expected = unconditional + 3.0 * (conditional - unconditional)
    torch.testing.assert_close(
        guided(network, given, 3.0)(TOKENS, 0.3), expected, rtol=1e-4, atol=1e-3
    )


def test_between_two_unconditional_passes_their_difference_is_reused(make_transformer: Any) -> None:
    network = listened_to(make_transformer())
    logits_fn = guided(network, CONDITION, 3.0, every=3)
    steps = [TOKENS.roll(shift, 1) for shift in range(5)]
    found = [logits_fn(tokens, 0.5) for tokens in steps]
    assert network.asked == [[0, 1, -1, -1], [0, 1], [0, 1], [0, 1, -1, -1], [0, 1]]
    exact = [guided(network, CONDITION, 3.0)(tokens, 0.5) for tokens in steps]
    alone = [network(tokens, CONDITION) for tokens in steps]
    for step, renewed in enumerate([0, 0, 0, 3, 3]):
        expected = alone[step] + exact[renewed] - alone[renewed]
        torch.testing.assert_close(found[step], expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found[1], exact[1], atol=1e-2)


def test_the_first_guided_step_is_told_nothing_too(make_transformer: Any) -> None:
    network = listened_to(make_transformer())
    logits_fn = guided(network, CONDITION, 3.0, "linear", every=2)
    for progress in (0.0, 0.25, 0.5, 0.75):
        logits_fn(TOKENS, progress)
    assert [len(labels) for labels in network.asked] == [2, 4, 2, 4]
