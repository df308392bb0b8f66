"""The Stage 2 step is compared with networks that do what their names say."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import stage2_step
from benchmarks.rivals.maskgit_networks import (
    EncoderNetwork,
    Size,
    UVitNetwork,
    decoder_only,
    mask_some,
    masked_loss,
    next_token_loss,
    rectangle,
    training_step,
)

pytestmark = pytest.mark.slow


SMALL = Size(
    tokens=12, codes=10, classes=3, width=32, blocks=2, heads=2, mlp_ratio=4.0, token_dim=8
)


def test_sizes_are_those_of_the_shipped_configuration() -> None:
    size = stage2_step.size_of(8, 1)
    assert (size.width, size.blocks, size.heads, size.mlp_ratio) == (512, 12, 8, 4.0)
    assert (size.tokens, size.codes, size.mask_id) == (512, 512, 512)
    assert stage2_step.shipped(1).model.transformer.patch_size == 1


def test_equal_positions_need_equal_arithmetic() -> None:
    size = stage2_step.size_of(8, 1)
    encoder = stage2_step.rival_flops(EncoderNetwork, size, batch=2)
    n, c = 512, 512
    per_position = 12 * (2 * 12 * c * c + 4 * n * c) + 2 * c * 512  # products of blocks and head
    assert encoder == 3 * 2 * n * per_position  # backward is twice forward
    assert stage2_step.prod9_flops(1, 8, batch=2) == pytest.approx(encoder, rel=0.02)
    assert stage2_step.prod9_flops(2, 8, batch=2) < encoder / 7.5
    uvit = stage2_step.rival_flops(UVitNetwork, size, batch=2)
    assert 1 < uvit / encoder < 1.25  # cross-attention to its one vector is what it has besides


@pytest.mark.parametrize(
    ("cells", "sides"), [(512, (16, 32)), (1728, (36, 48)), (4096, (64, 64)), (7, (1, 7))]
)
def test_rectangle_is_nearest_to_a_square(cells: int, sides: tuple[int, int]) -> None:
    assert rectangle(cells) == sides


def test_masks_have_maskgits_distribution() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(10, (4000, 50))
    given, targets = mask_some(tokens, mask_id=10)
    mask = given == 10
    assert torch.equal(targets[mask], tokens[mask])
    assert torch.equal(given[~mask], tokens[~mask])
    assert (targets[~mask] == -100).all()
    share = mask.float().mean(1)
    assert share.min() >= 1 / 50
    assert share.mean().item() == pytest.approx(2 / math.pi, abs=0.01)
    # P(cos(pi r / 2) > 1/2) = 2/3
    assert (share > 0.5).float().mean().item() == pytest.approx(2 / 3, abs=0.03)


def test_loss_counts_masked_tokens_only() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(10, (6, 12))

    class Oracle(nn.Module):
        """Right where it has to guess, wrong (or right) where it is told."""

        def __init__(self, shift: int) -> None:
            super().__init__()
            self.shift = shift

        def forward(self, given: Tensor, labels: Tensor) -> Tensor:
            said = torch.where(given == 10, (tokens + self.shift) % 10, (tokens + 1) % 10)
            return 30.0 * nn.functional.one_hot(said, 10)

    labels = torch.zeros(6, dtype=torch.int64)
    assert masked_loss(Oracle(0), tokens, labels, 10).item() < 1e-6
    assert masked_loss(Oracle(1), tokens, labels, 10).item() == pytest.approx(30, abs=1e-3)


def test_next_token_loss_gives_each_token_those_before_it() -> None:
    tokens = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, given: Tensor) -> Tensor:
            seen.append(given)
            return 30.0 * nn.functional.one_hot(tokens, 11)

    assert next_token_loss(Spy(), tokens, begin=10).item() < 1e-6
    assert seen[0].tolist() == [[10, 3, 1, 4], [10, 5, 9, 2]]


@pytest.mark.parametrize("kind", [EncoderNetwork, UVitNetwork])
def test_masked_rivals_learn(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = kind(SMALL)
    tokens, labels = torch.randint(10, (8, 12)), torch.zeros(8, dtype=torch.int64)
    tokens[:] = tokens[:1]  # one volume to learn by heart
    assert network(tokens, labels).shape == (8, 12, 10)

    def loss() -> Tensor:
        return masked_loss(network, tokens, labels, SMALL.mask_id)

    before = loss().item()
    step = training_step(network, loss, learning_rate=3e-3)
    for _ in range(100):
        step()
    assert loss().item() < 0.6 * before


def test_uvit_answers_in_the_order_of_the_tokens() -> None:
    network = UVitNetwork(SMALL)
    asked: dict[str, Tensor] = {}

    class Echo(nn.Module):
        def forward(self, given: Tensor, **told: Tensor) -> Tensor:
            asked.update(told)
            return nn.functional.one_hot(given, 10).float().permute(0, 3, 1, 2)

    network.network = Echo()
    tokens = torch.randint(10, (2, 12))
    logits = network(tokens, torch.tensor([1, 2]))
    assert torch.equal(logits.argmax(-1), tokens)
    assert torch.equal(asked["pooled_text_emb"], network.classes.weight[1:3])
    assert torch.equal(asked["encoder_hidden_states"][:, 0], network.classes.weight[1:3])


def test_monais_network_is_causal_and_its_fused_attention_the_same() -> None:
    from monai.networks.nets import DecoderOnlyTransformer

    torch.manual_seed(0)
    network = decoder_only(SMALL).eval()
    plain = DecoderOnlyTransformer(
        num_tokens=11, max_seq_len=12, attn_layers_dim=32, attn_layers_depth=2, attn_layers_heads=2
    ).eval()
    plain.load_state_dict(network.state_dict())
    tokens = torch.randint(10, (2, 12))
    torch.testing.assert_close(network(tokens), plain(tokens), rtol=1e-4, atol=1e-5)
    changed = tokens.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 10
    torch.testing.assert_close(network(tokens)[:, :7], network(changed)[:, :7])


def test_prod9_takes_real_steps(small_config: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import prod9.runtime.allocator as memory
    import prod9.training.stage2_module as training

    calls: list[str] = []
    modules: list[nn.Module] = []
    real = training.Stage2Module

    def spy(*arguments: Any, **named: Any) -> Any:
        modules.append(real(*arguments, **named))
        return modules[-1]

    monkeypatch.setattr(memory, "keep_freed_memory", lambda: calls.append("kept"))
    monkeypatch.setattr(training, "Stage2Module", spy)
    work = stage2_step.prod9(side=4, batch=2, patch_size=2, seed=0)
    (module,) = modules
    before = [p.detach().clone() for p in module.transformer.parameters()]
    work.run()
    work.run()
    after = list(module.transformer.parameters())
    moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert sum(moved) > len(moved) / 2
    assert module.global_step == 2
    assert int(module.ema.updates) >= 1
    assert calls == ["kept"]
    assert work.parameters == sum(p.numel() for p in after)
    assert work.flops == stage2_step.prod9_flops(2, 4, 2)


def test_rivals_set_up(small_config: None) -> None:
    for kind in (stage2_step.ENCODER, stage2_step.UVIT):
        work = stage2_step.masked_rival(kind, side=2, batch=2, seed=0)
        assert math.isfinite(work.run())
        assert work.flops is not None
    assert math.isfinite(stage2_step.monai_rival(side=2, batch=2, seed=0).run())


def test_cases_and_goals() -> None:
    cases = {case.name: case for case in stage2_step.cases()}
    assert list(cases) == [
        "stage2_step_512",
        "stage2_step_1728",
        "stage2_step_4096",
        "stage2_step_packed_512",
        "stage2_step_packed_4096",
    ]
    for name, case in cases.items():
        packed = "packed" in name
        assert case.contenders[0].name == "prod9"
        assert [c.arguments["side"] ** 3 for c in case.contenders] == [
            case.sizes["tokens_per_volume"]
        ] * len(case.contenders)
        assert case.goals[0].ratio == (5.0 if packed else 1.15)
        share = case.sizes["positions_rivals"] / case.sizes["positions_prod9"]
        assert share == (8 if packed else 1)
