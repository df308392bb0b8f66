import math
from typing import Any

import pytest
import torch
from torch import Tensor

from prod9.models.condition import Condition
from prod9.models.rotary import rotary_angles
from prod9.models.transformer import Block, MaskedTransformer

LEVELS = (5, 4, 3)
V = 60


def tokens_of(*grid: int, batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randint(V + 1, (batch, *grid), generator=torch.Generator().manual_seed(seed))


def condition(*labels: int) -> Condition:
    return Condition(torch.tensor(labels), 2)


@pytest.fixture
def transformer(make_transformer: Any) -> MaskedTransformer:
    return make_transformer(patch_size=2)


def test_blocks_start_as_identity() -> None:
    torch.manual_seed(0)
    block = Block(16, 2, 2.0, 0.0)
    x, c = torch.randn(2, 12, 16), torch.randn(2, 16)
    angles = rotary_angles((2, 3, 2), 8)
    assert torch.equal(block(x, c, angles.cos(), angles.sin()), x)
    # The first step moves the gates alone; their gradient is not zero.
    block(x, c, angles.cos(), angles.sin()).square().sum().backward()
    moved = {name for name, p in block.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"modulation.weight", "modulation.bias"}


def test_a_block_is_gated_modulated_attention_and_mlp() -> None:
    torch.manual_seed(0)
    block = Block(16, 2, 2.0, 0.0).double()
    torch.nn.init.normal_(block.modulation.weight, std=0.3)
    torch.nn.init.normal_(block.modulation.bias, std=0.3)
    x, c = torch.randn(2, 12, 16).double(), torch.randn(2, 16).double()
    angles = rotary_angles((2, 3, 2), 8).double()
    cos, sin = angles.cos(), angles.sin()

    def norm(y: Tensor) -> Tensor:
        centred = y - y.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    m = (c @ block.modulation.weight.T + block.modulation.bias).view(2, 6, 1, 16)
    shift1, scale1, gate1, shift2, scale2, gate2 = m.unbind(1)
    h = x + gate1 * block.attention(norm(x) * (1 + scale1) + shift1, cos, sin)
    expected = h + gate2 * block.mlp(norm(h) * (1 + scale2) + shift2)
    torch.testing.assert_close(block(x, c, cos, sin), expected, rtol=0, atol=1e-12)


def test_an_untrained_network_ignores_context_and_condition(make_transformer: Any) -> None:
    network = make_transformer(live=False, local_blocks=0, patch_size=1)
    a = tokens_of(3, 3, 3)
    b = a.clone()
    b[:, 0, 0, 0] = (b[:, 0, 0, 0] + 1) % V
    one, other = network(a, condition(0, 1)), network(b, condition(1, 0))
    assert torch.equal(one[:, 1:], other[:, 1:])
    assert not torch.equal(one[:, 0, 0, 0], other[:, 0, 0, 0])


@pytest.mark.parametrize("patch_size", [1, 2])
def test_an_empty_grid_is_not_the_same_everywhere(make_transformer: Any, patch_size: int) -> None:
    # Rotary positions alone would predict the same for every masked cell.
    network = make_transformer(patch_size=patch_size)
    logits = network(torch.full((1, 4, 4, 4), V), condition(0))[0].flatten(0, 2)
    distance = torch.cdist(logits, logits) + torch.eye(64) * 1e9
    assert distance.min() > 1e-3


@pytest.mark.parametrize("head", ["full", "factorized"])
@pytest.mark.parametrize("grid", [(1, 1, 1), (3, 4, 5), (2, 2, 2), (5, 1, 3)])
@pytest.mark.parametrize("patch_size", [1, 2, 3])
def test_any_grid(make_transformer: Any, grid: Any, patch_size: int, head: str) -> None:
    network = make_transformer(patch_size=patch_size, head=head)
    logits = network(tokens_of(*grid), condition(0, 2))
    assert logits.shape == (2, *grid, V)
    assert bool(logits.isfinite().all())
    assert (network.codebook_size, network.mask_id, network.null_label) == (V, V, 2)


def transparent(network: MaskedTransformer) -> MaskedTransformer:
    """Make pack and unpack identities without positions: a token's feature must come home."""
    width = network.pack.in_features
    network.pack = torch.nn.Linear(width, width)
    network.unpack = torch.nn.Linear(width, width)
    for layer in (network.pack, network.unpack):
        layer.weight.data = torch.eye(width)
        layer.bias.data.zero_()
    network.place = torch.nn.Linear(network.place.in_features, width)
    network.place.weight.data.zero_()
    network.place.bias.data.zero_()
    network.class_embedding = torch.nn.Embedding(3, width)
    network.modulation = torch.nn.Linear(width, 2 * width)
    network.modulation.weight.data.zero_()
    network.modulation.bias.data.zero_()
    network.blocks = torch.nn.ModuleList()
    network.norm = torch.nn.Identity()
    network.local_in = network.local_out = torch.nn.Sequential()
    return network


@pytest.mark.parametrize("grid", [(4, 6, 2), (3, 4, 5), (7, 1, 3)])
@pytest.mark.parametrize("patch_size", [1, 2, 3])
def test_each_tokens_feature_returns_to_its_cell(
    make_transformer: Any, grid: Any, patch_size: int
) -> None:
    network = transparent(make_transformer(patch_size=patch_size))
    tokens = tokens_of(*grid)
    features = network.features(tokens, condition(0, 0))
    embedded = network.token_embedding(tokens)
    # Once through the pack, once beside it.
    assert torch.equal(features, network.out_norm(embedded + embedded))


def test_a_position_holds_the_tokens_of_one_cube(make_transformer: Any) -> None:
    network = transparent(make_transformer(patch_size=2))
    packed: list[Tensor] = []
    network.pack.register_forward_hook(lambda module, args, out: packed.append(out))
    tokens = tokens_of(4, 6, 2, batch=1)
    network.features(tokens, condition(0))
    embedded = network.token_embedding(tokens)[0]
    position = 0
    for d in range(2):
        for h in range(3):
            cube = embedded[2 * d : 2 * d + 2, 2 * h : 2 * h + 2, 0:2]
            assert torch.equal(packed[0][0, position], cube.flatten())
            position += 1
    assert packed[0].shape == (1, position, 8 * 8)


def test_padding_cells_carry_no_token(make_transformer: Any) -> None:
    network = make_transformer(patch_size=2)
    network.local_in = torch.nn.Sequential()
    packed: list[Tensor] = []
    network.pack.register_forward_hook(lambda module, args, out: packed.append(args[0]))
    tokens = tokens_of(3, 2, 1, batch=1)
    network(tokens, condition(0))
    (x,) = packed
    x = x.view(2, 1, 1, 2, 2, 2, 8).permute(0, 3, 1, 4, 2, 5, 6).reshape(4, 2, 2, 8)
    assert torch.equal(x[:3, :, :1], network.token_embedding(tokens)[0])
    assert not x[3].any()
    assert not x[:, :, 1].any()


def test_the_mask_is_the_embeddings_last_row(transformer: MaskedTransformer) -> None:
    tokens = tokens_of(2, 2, 2)
    tokens[:, 0] = V
    before = transformer(tokens, condition(0, 1))
    with torch.no_grad():
        transformer.token_embedding.codes.weight[V] += 1
    after = transformer(tokens, condition(0, 1))
    assert not torch.allclose(before, after)
    plain = tokens.where(tokens != V, 0)
    kept = transformer(plain, condition(0, 1))
    with torch.no_grad():
        transformer.token_embedding.codes.weight[V] += 1
    assert torch.equal(transformer(plain, condition(0, 1)), kept)


def test_every_cell_sees_every_other(transformer: MaskedTransformer) -> None:
    # Bidirectional: a change anywhere is felt everywhere.
    tokens = tokens_of(4, 2, 2, batch=1)
    base = transformer(tokens, condition(0))
    for cell in ((0, 0, 0), (3, 1, 1)):
        changed = tokens.clone()
        changed[(0, *cell)] = (changed[(0, *cell)] + 7) % V
        difference = (transformer(changed, condition(0)) - base).abs().amax(-1)
        assert bool((difference > 0).all())


def test_samples_do_not_meet(transformer: MaskedTransformer) -> None:
    tokens = tokens_of(3, 2, 2, batch=3)
    together = transformer(tokens, condition(0, 1, 2))
    for row in range(3):
        alone = transformer(tokens[row : row + 1], condition((0, 1, 2)[row]))
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)


def test_the_condition_changes_the_output(transformer: MaskedTransformer) -> None:
    tokens = tokens_of(3, 2, 2, batch=1).expand(3, -1, -1, -1)
    logits = transformer(tokens, condition(0, 1, 2))
    assert not torch.allclose(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2])  # the null class is one of its own
    # Only through the embedding of the class:
    transformer.class_embedding.weight.data[:] = transformer.class_embedding.weight.data[:1].clone()
    logits = transformer(tokens, condition(0, 1, 2))
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logits[0], logits[2], rtol=1e-5, atol=1e-6)


def test_conditions() -> None:
    given = condition(0, 1, 1)
    assert given.dropped(torch.tensor([True, False, True])).labels.tolist() == [2, 1, 2]
    assert given.null().labels.tolist() == [2, 2, 2]
    assert given.joined(given.null()).labels.tolist() == [0, 1, 1, 2, 2, 2]
    assert given.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("head", ["full", "factorized"])
def test_the_loss_is_cross_entropy_of_the_masked_cells(
    make_transformer: Any, head: str, smoothing: float
) -> None:
    network = make_transformer(patch_size=2, head=head)
    targets = torch.randint(V, (2, 3, 4, 2), generator=torch.Generator().manual_seed(2))
    mask = torch.rand(targets.shape, generator=torch.Generator().manual_seed(3)) < 0.4
    masked = targets.masked_fill(mask, V)
    loss, hits = network.loss(masked, mask, targets, condition(0, 1), smoothing)
    log_p = torch.log_softmax(network(masked, condition(0, 1))[mask].double(), -1)
    right = log_p.gather(1, targets[mask][:, None])[:, 0]
    expected = -((1 - smoothing) * right + smoothing * log_p.mean(1)).mean()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(hits, log_p.argmax(1) == targets[mask])

    elsewhere = torch.where(mask, targets, (targets + 1) % V)
    same, _ = network.loss(masked, mask, elsewhere, condition(0, 1), smoothing)
    assert torch.equal(same, loss)
    other, _ = network.loss(masked, mask, (targets + 1) % V, condition(0, 1), smoothing)
    assert not torch.equal(other, loss)


def test_local_blocks_mix_neighbours_alone(make_transformer: Any) -> None:
    block = make_transformer(local_blocks=1).local_in[0]
    x = torch.randn(1, 7, 6, 5, 8, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[0, 3, 0, 4, 2] += 1
    felt = (block(changed) - block(x)).abs().amax(-1)[0] > 0
    near = torch.zeros_like(felt)
    near[1:6, 0:3, 2:5] = True  # two convolutions reach two cells
    assert torch.equal(felt, near)


def test_local_blocks_start_without_mixing(make_transformer: Any) -> None:
    block = make_transformer(local_blocks=1, live=False).local_in[0]
    x = torch.randn(1, 3, 4, 5, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(x), x + block.conv2.bias)


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_half_precision_logits_are_near(transformer: MaskedTransformer) -> None:
    tokens = tokens_of(3, 3, 3)
    exact = transformer(tokens, condition(0, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = transformer(tokens, condition(0, 1))
    assert (rough.float() - exact).abs().max() < 0.1 * exact.std() * math.sqrt(V)
