import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from prod9.config.sampler import SamplerConfig
from prod9.guidance import guidance_at, guided, parts_of
from prod9.model import CovariateSpec
from prod9.networks.condition import Condition
from prod9.sampling import sample

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


# --- a scale for each part ----------------------------------------------------------------------


def told(covariates: bool = True) -> Condition:
    """Two channels of images and two of labels are sources; of two samples all is given."""
    sources = torch.randint(60, (2, 4, 3, 2, 2), generator=torch.Generator().manual_seed(1))
    values = torch.tensor([[70.0, 3.0], [50.0, 1.0]]) if covariates else None
    return Condition.of(torch.tensor([0, 5]), 4, sources, covariates=values)


def network_of(make_transformer: Any) -> Any:
    covariates = (CovariateSpec(name="age", mean=60, std=10), CovariateSpec(name="volume:1"))
    return make_transformer(num_channels=4, covariates=covariates)


def test_one_scale_samples_what_it_always_sampled(make_transformer: Any) -> None:
    """The formula of one scale, written out, gives the same tokens for the same seed."""
    network, given = network_of(make_transformer), told()
    config = SamplerConfig(guidance_scale=2.5, guidance_every=2)
    both = given.joined(given.null(60))
    kept: list[Any] = []

    def written_out(tokens: Any, progress: float) -> Any:
        s = 1 + 1.5 * progress
        if s == 1:
            return network(tokens, given)
        if len(kept) % 2 == 0:
            c, u = network.features(torch.cat([tokens, tokens]), both).float().chunk(2)
            kept.append(c - u)
        else:
            c = network.features(tokens, given).float()
            kept.append(kept[-1])
        return network.head(c + (s - 1) * kept[-1])

    def drawn(logits_fn: Any) -> Any:
        options: dict[str, Any] = {"order": "confidence", "steps": 5, "schedule": "cosine"}
        stream = torch.Generator().manual_seed(0)
        empty = torch.full((2, 3, 2, 2), 60)
        return sample(logits_fn, empty, mask_id=60, generator=stream, **options)

    same = config.model_copy(update={"guidance_labels": 2.5, "guidance_class": 2.5})
    for each in (config, same):
        parts = parts_of(given, each, 60, labels=(2, 3))
        assert len(parts) == 1
        kept.clear()
        found = drawn(guided(network, given, parts, "linear", 2))
        assert torch.equal(found, drawn(written_out))


def test_each_part_has_its_own_scale(make_transformer: Any) -> None:
    network, given = network_of(make_transformer), told()
    config = SamplerConfig(
        guidance_scale=1.5, guidance_class=2, guidance_labels=4, guidance_covariates=0.5
    )
    nothing = given.null(60)
    hidden = given.sources.clone()
    hidden[:, 2:] = 60
    rest = replace(nothing, channels=given.channels, sources=hidden)
    classes = replace(rest, classes=given.classes)
    labels = replace(classes, sources=given.sources)
    chain = [network(TOKENS, each) for each in (nothing, rest, classes, labels, given)]
    expected = chain[0]
    for scale, before, after in zip((1.5, 2, 4, 0.5), chain, chain[1:], strict=False):
        expected = expected + scale * (after - before)
    found = guided(network, given, parts_of(given, config, 60, labels=(2, 3)))(TOKENS, 0.3)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_parts_of_which_nothing_is_given_cost_no_pass(make_transformer: Any) -> None:
    network, given = listened_to(network_of(make_transformer)), told(covariates=False)
    config = SamplerConfig(guidance_scale=1.5, guidance_labels=3, guidance_covariates=9)
    parts = parts_of(given, config, 60, labels=(2, 3))
    assert [scale for scale, _ in parts] == [1.5, 3]
    guided(network, given, parts)(TOKENS, 0.3)
    assert [len(classes) for classes in network.asked] == [6]
    nothing = given.null(60)
    assert [scale for scale, _ in parts_of(nothing, config, 60, labels=(2, 3))] == [1.5]


def test_the_differences_of_all_parts_are_reused(make_transformer: Any) -> None:
    network, given = listened_to(network_of(make_transformer)), told()
    config = SamplerConfig(guidance_scale=1.5, guidance_labels=3)
    logits_fn = guided(network, given, parts_of(given, config, 60, (2, 3)), "constant", 2)
    first = logits_fn(TOKENS, 0.3)
    torch.testing.assert_close(logits_fn(TOKENS, 0.3), first, rtol=1e-4, atol=1e-4)
    assert [len(classes) for classes in network.asked] == [8, 2]
