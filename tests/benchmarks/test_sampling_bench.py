"""The loops that draw tokens do what is claimed of them, and their figures add up."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import profile

from benchmarks import sampling
from benchmarks.rivals import autoregressive
from benchmarks.rivals.amused import amused_loop
from benchmarks.rivals.maskgit_networks import Size, decoder_only
from prod9.guidance import guided
from prod9.networks.cpu_kernels import library
from prod9.networks.transformer import MaskedTransformer

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def memory_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prod9.runtime.allocator.keep_freed_memory", lambda: True)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_amused_loop_returns_what_an_oracle_says(guidance_scale: float) -> None:
    codes, truth = 20, torch.randint(20, (3, 64), generator=torch.Generator().manual_seed(1))
    passes: list[int] = []
    left: list[int] = []

    def oracle(tokens: Tensor) -> Tensor:
        passes.append(len(tokens))
        left.append(int((tokens[:3] == codes).sum()))
        sure = 50.0 * torch.nn.functional.one_hot(truth, codes)
        # What is said to those that are told nothing must be subtracted, not added.
        wrong = 50.0 * torch.nn.functional.one_hot((truth + 1) % codes, codes)
        return torch.cat([wrong, sure]) if len(tokens) == 6 else sure

    drawn = amused_loop(
        oracle,
        torch.full((3, 64), codes),
        mask_id=codes,
        steps=8,
        guidance_scale=guidance_scale,
        generator=torch.Generator().manual_seed(0),
    )
    assert torch.equal(drawn, truth)
    assert passes == [6 if guidance_scale > 1 else 3] * 8
    # cos(pi (i + 1) / 16) of 64 tokens stays masked, rounded down
    assert left == [3 * n for n in (64, 62, 59, 53, 45, 35, 24, 12)]


def test_amused_loop_keeps_what_is_known() -> None:
    initial = torch.full((1, 16), 5)
    initial[0, :4] = torch.tensor([1, 2, 3, 4])
    drawn = amused_loop(
        lambda tokens: torch.zeros(*tokens.shape, 5),
        initial,
        mask_id=5,
        steps=4,
        guidance_scale=2.0,
        generator=torch.Generator().manual_seed(0),
    )
    assert drawn[0, :4].tolist() == [1, 2, 3, 4]
    assert (drawn < 5).all()


def test_both_loops_ask_the_same_of_the_same_network(
    small_config: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def spy(logits_of: Any, initial: Tensor, **settings: Any) -> Tensor:
        asked.update(settings, logits_of=logits_of)
        return initial

    monkeypatch.setattr(sampling, "amused_loop", spy)
    sampling.amused(patch_size=2, steps=5, batch=2, plain=False, seed=0).run()
    config = sampling.settings(2, 5)
    network, condition, empty, _ = sampling._prepared(config, batch=2, seed=0)
    tokens = torch.randint(network.mask_id + 1, (2, 512), generator=asked["generator"])
    with torch.no_grad():
        untold, told = asked["logits_of"](torch.cat([tokens, tokens])).chunk(2)
        ours = guided(network, condition, asked["guidance_scale"])(tokens.view_as(empty), 0.5)
    assert asked["guidance_scale"] == config.sampler.guidance_scale == 3.0
    assert not torch.allclose(untold, told)  # the class says something
    theirs = untold + 3.0 * (told - untold)
    torch.testing.assert_close(theirs, ours.flatten(1, 3), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("contender", ["prod9", "amused"])
def test_as_many_grids_are_forwarded_as_the_result_says(
    small_config: None, monkeypatch: pytest.MonkeyPatch, contender: str
) -> None:
    forwarded: list[int] = []
    real = MaskedTransformer.features

    def count(self: MaskedTransformer, tokens: Tensor, condition: Any) -> Tensor:
        if tokens.device.type != "meta":
            forwarded.append(len(tokens))
        return real(self, tokens, condition)

    monkeypatch.setattr(MaskedTransformer, "features", count)
    own = {"patch_size": 2, "steps": 5, "batch": 3, "seed": 0}
    if contender == "prod9":
        work = sampling.prod9(**own)
        expected = sampling.volumes_forwarded(sampling.settings(2, 5).sampler, 3)
        # The first of five steps is not guided; two of the other four run both passes.
        assert expected == 3 * (5 + 2)
    else:
        work, expected = sampling.amused(**own, plain=True), 30
    drawn = work.run()
    assert sum(forwarded) == expected
    assert drawn.shape == (3, 8, 8, 8)
    assert drawn.min() >= 0
    assert drawn.max() < 512
    assert work.flops == expected * sampling.forward_flops(sampling.settings(2, 5))


@pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN linear layer"
)
@pytest.mark.parametrize("plain", [True, False])
def test_the_plain_rival_has_plain_layers(
    small_config: None, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"output": True, "weight": True, "convolution": False}
    monkeypatch.setattr(library, "choice", lambda: chosen)
    work = sampling.amused(patch_size=1, steps=2, batch=1, seed=0, plain=plain)
    with profile() as profiled:
        work.run()
    names = {event.key for event in profiled.key_averages()}
    assert plain == ("mkldnn::_linear_pointwise" not in names)


def test_nothing_is_zero_in_the_network_that_draws(small_config: None) -> None:
    network = sampling._prepared(sampling.settings(2, 5), batch=1, seed=0)[0]
    assert all(parameter.any() for parameter in network.parameters())
    assert not network.training


def test_single_tokens_are_monais_sequence() -> None:
    """One token after the other, through MONAI's inferer, is what it draws by itself."""
    from monai.inferers import VQVAETransformerInferer
    from monai.utils import OrderingType
    from monai.utils.ordering import Ordering

    size = Size(8, codes=7, classes=1, width=16, blocks=2, heads=2, mlp_ratio=4.0, token_dim=4)
    torch.manual_seed(3)
    network = decoder_only(size).eval()
    begin = torch.full((2, 1), size.mask_id)
    torch.manual_seed(0)
    whole = VQVAETransformerInferer().sample(
        (2, 2, 2),
        begin,
        autoregressive._Codebook(7),
        network,
        Ordering(OrderingType.RASTER_SCAN.value, 3, (1, 2, 2, 2)),
        verbose=False,
    )
    torch.manual_seed(0)
    draw, sequence = autoregressive.next_token(network, size.mask_id), begin
    for _ in range(8):
        sequence = torch.cat([sequence, draw(sequence)], 1)
    assert torch.equal(sequence[:, 1:], whole.flatten(1))
    assert sequence[:, 1:].max() < 7


def test_whole_sequence_is_the_sum_of_its_tokens() -> None:
    lengths = sampling.LENGTHS
    assert (lengths[0], lengths[-1]) == (1, 512)
    line = autoregressive.whole_sequence(lengths, [3.0 + 2 * n for n in lengths], 512)
    assert line == pytest.approx(3 * 512 + 2 * 512 * 513 / 2)
    # Attention as costly as all the rest at the last token: twice what this network has.
    curve = autoregressive.whole_sequence(lengths, [n + n * n / 512 for n in lengths], 512)
    true = sum(n + n * n / 512 for n in range(1, 513))
    assert 1 <= curve / true < 1.01


def test_token_seconds_times_every_length() -> None:
    size = Size(8, codes=7, classes=1, width=16, blocks=2, heads=2, mlp_ratio=4.0, token_dim=4)
    seconds = autoregressive.token_seconds((1, 4, 8), size, batch=2, seed=0)
    assert len(seconds) == 3
    assert min(seconds) > 0


@pytest.mark.parametrize(("draw", "met"), [(1.0, True), (2.0, False)])
def test_summary_takes_ratios_turn_by_turn(draw: float, met: bool) -> None:
    tokens = [[speed * 0.05] * len(sampling.LENGTHS) for speed in (1.0, 2.0, 1.0, 1.0)]
    result = sampling.summary(2, [draw, 2 * draw, draw, draw / 2], tokens)
    name = sampling.MONAI
    assert result.rivals[name] == pytest.approx(25.6)  # 512 tokens of 0.05 s
    assert result.ours == draw
    assert result.ratio[name] == pytest.approx(25.6 / draw)
    assert result.spread[name] == pytest.approx((25.6 / draw, 51.2 / draw))
    assert result.met is met
    assert result.goals[0].found == result.ratio[name]
    assert sampling.summary(1, [draw] * 4, tokens).met is None  # nothing is claimed of it


def test_cases_and_goals() -> None:
    cases = {case.name: case for case in sampling.cases()}
    assert list(cases) == ["sampling_8", "sampling_12", "sampling_16", "sampling_packed_12"]
    for case in cases.values():
        assert case.goals[0].rival == case.contenders[1].name
        assert case.contenders[1].arguments["plain"] is True
        assert case.goals[0].ratio == 1.5
        steps = case.sizes["steps"]
        assert {c.arguments["steps"] for c in case.contenders} == {steps}
        assert case.sizes["grids_forwarded_rivals"] == 8 * steps
        both = math.ceil((steps - 1) / 3)  # of the guided steps: all but the first
        assert case.sizes["grids_forwarded_prod9"] == 4 * (steps + both)
