import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from prod9.networks.condition import Condition
from prod9.networks.rotary import (
    fourier_features,
    grid_coordinates,
    relative_place,
    rotary_angles,
)
from prod9.networks.transformer import Block, MaskedTransformer

LEVELS = (5, 4, 3)
V = 60


def tokens_of(*grid: int, batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randint(V + 1, (batch, *grid), generator=torch.Generator().manual_seed(seed))


def condition(*labels: int) -> Condition:
    return Condition.of(torch.tensor(labels), 1)


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
    assert (network.codebook_size, network.mask_id) == (V, V)


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
    network.channel_embedding = None
    network.modulation = torch.nn.Linear(width, 2 * width)
    network.modulation.weight.data.zero_()
    network.modulation.bias.data.zero_()
    network.blocks = torch.nn.ModuleList()
    network.norm = network.pack_norm = torch.nn.Identity()
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
    embedded = network.token_embedding.table()[tokens]
    # Once through the pack, once beside it.
    assert torch.equal(features, network.out_norm(embedded + embedded))


def test_a_position_holds_the_tokens_of_one_cube(make_transformer: Any) -> None:
    network = transparent(make_transformer(patch_size=2))
    packed: list[Tensor] = []
    network.pack.register_forward_hook(lambda module, args, out: packed.append(out))
    tokens = tokens_of(4, 6, 2, batch=1)
    network.features(tokens, condition(0))
    embedded = network.token_embedding.table()[tokens][0]
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
    assert torch.equal(x[:3, :, :1], network.token_embedding.table()[tokens][0])
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


def test_masked_cells_hear_what_is_visible(transformer: MaskedTransformer) -> None:
    tokens = tokens_of(4, 2, 2, batch=1)
    tokens[:, 1:] = V  # the mask
    base = transformer(tokens, condition(0))
    tokens[0, 0, 1, 1] = (tokens[0, 0, 1, 1] + 7) % V
    difference = (transformer(tokens, condition(0)) - base).abs().amax(-1)
    assert bool((difference[:, 1:] > 0).all())


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


# --- where --------------------------------------------------------------------------------------


def told_places(network: MaskedTransformer, tokens: Tensor, given: Condition) -> Tensor:
    """Return what the network's input layer is told of the positions' places, (B, N, features)."""
    told: list[Tensor] = []
    with network.place.register_forward_pre_hook(lambda module, args: told.append(args[0])):
        network(tokens, given)
    return told[0]


@pytest.mark.parametrize("grid", [(4, 4, 4), (3, 4, 5), (7, 1, 3)])
@pytest.mark.parametrize("patch_size", [1, 2, 3])
def test_a_whole_grid_is_told_its_places_as_ever(
    make_transformer: Any, grid: Any, patch_size: int
) -> None:
    # Models that know only classes must give the numbers that they have always given: sines of
    # (position + 1/2) / positions, written out here.
    network = make_transformer(patch_size=patch_size, grid=grid)
    positions = tuple(-(-side // patch_size) for side in grid)
    place = (grid_coordinates(positions) + 0.5) / torch.tensor(positions)
    turns = (place[:, :, None] * math.pi * 2.0 ** torch.arange(6)).flatten(1)
    expected = torch.cat([turns.sin(), turns.cos()], 1)
    assert torch.equal(told_places(network, tokens_of(*grid), condition(0, 1))[0], expected)
    # And an origin of zero is none.
    at_zero = replace(condition(0, 1), origin=torch.zeros(2, 3))
    for told in told_places(network, tokens_of(*grid), at_zero):
        assert torch.equal(told, expected)


def test_a_window_is_told_its_place_in_the_whole(make_transformer: Any) -> None:
    network = make_transformer(patch_size=2, grid=(9, 8, 11))
    origin = torch.tensor([[1.0, 0.0, 4.0], [3.5, 2.0, 0.0]])
    given = Condition.of(torch.tensor([0, 1]), 1, origin=origin)
    told = told_places(network, tokens_of(3, 4, 5), given)
    assert torch.equal(told, fourier_features(relative_place((2, 2, 3), 2, (9, 8, 11), origin), 6))
    moved = network(tokens_of(3, 4, 5), given)
    assert not torch.allclose(moved, network(tokens_of(3, 4, 5), condition(0, 1)), atol=1e-3)


def test_a_window_hears_its_place_however_loud_its_tokens_are(make_transformer: Any) -> None:
    network = make_transformer(num_channels=2, grid=(12, 12, 12), patch_size=2)
    tokens = torch.full((1, 4, 4, 4), network.mask_id)

    def difference() -> float:
        first, second = (
            network.features(
                tokens, Condition.of(torch.tensor([0]), 1, None, torch.tensor([start]))
            )
            for start in ([0.0, 0.0, 0.0], [6.0, 4.0, 2.0])
        )
        return float((first - second).detach().square().mean().sqrt())

    before = difference()
    with torch.no_grad():  # as local blocks make them while they learn
        network.pack.weight *= 100
    assert difference() > 0.5 * before > 0.01


@pytest.mark.parametrize("patch_size", [1, 2, 3])
def test_a_window_moved_by_whole_positions_is_a_part_of_the_whole(
    make_transformer: Any, patch_size: int
) -> None:
    # Untrained blocks pass everything on: a logit depends on its own position's tokens and place.
    whole = (3 * patch_size, 4 * patch_size, 2 * patch_size + 1)
    network = make_transformer(patch_size=patch_size, grid=whole, live=False, local_blocks=0)
    tokens = tokens_of(*whole)
    p = patch_size
    cells = (slice(p, 3 * p), slice(2 * p, 4 * p), slice(p, 2 * p + 1))
    part = tokens[(slice(None), *cells)]
    logits = network(part, condition(0, 1).window(cells))
    expected = network(tokens, condition(0, 1))[(slice(None), *cells)]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    unmoved = network(part, condition(0, 1))
    assert (unmoved - expected).abs().max() > 0.01


# --- from what ----------------------------------------------------------------------------------


def with_sources(*labels: int, grid: tuple[int, ...] = (3, 4, 2), seed: int = 5) -> Condition:
    stream = torch.Generator().manual_seed(seed)
    sources = torch.randint(V + 1, (len(labels), 3, *grid), generator=stream)
    return Condition.of(torch.tensor(labels), 1, sources)


@pytest.mark.parametrize("patch_size", [1, 2])
def test_sources_change_the_logits_and_absent_ones_do_not(
    make_transformer: Any, patch_size: int
) -> None:
    network = make_transformer(num_channels=3, patch_size=patch_size)
    tokens, given = tokens_of(3, 4, 2), with_sources(0, 1)
    assert given.sources is not None
    none = network(tokens, condition(0, 1))
    assert not torch.allclose(network(tokens, given), none, atol=1e-2)
    absent = given.without_sources(torch.ones(2, 3, dtype=torch.bool), V)
    assert torch.equal(network(tokens, absent), none)
    # The order of the modalities matters, although they share a codebook.
    swapped = replace(given, sources=given.sources.roll(1, dims=1))
    assert not torch.allclose(network(tokens, swapped), network(tokens, given), atol=1e-2)


def test_a_source_speaks_of_its_own_cell(make_transformer: Any) -> None:
    network = make_transformer(num_channels=3, patch_size=1, local_blocks=0, live=False)
    tokens, given = tokens_of(3, 4, 2), with_sources(0, 1)
    assert given.sources is not None
    changed = given.sources.clone()
    changed[1, 2, 2, 0, 1] = (changed[1, 2, 2, 0, 1] + 1) % V
    other = network(tokens, replace(given, sources=changed))
    felt = (other != network(tokens, given)).any(-1).nonzero().tolist()
    assert felt == [[1, 2, 0, 1]]


def test_sources_are_added_to_the_tokens_embedding(make_transformer: Any) -> None:
    network = transparent(make_transformer(num_channels=3, patch_size=2))
    tokens, given = tokens_of(3, 4, 2), with_sources(0, 1)
    table = network.token_embedding.table()
    embedded = table[tokens] + network.source_embedding(given.sources, table)
    # Once through the pack, once beside it.
    assert torch.equal(network.features(tokens, given), network.out_norm(embedded + embedded))


def test_the_weights_of_a_network_do_not_depend_on_its_sources(make_transformer: Any) -> None:
    # One class and four channels, or four classes: the table of the one is that of the other.
    plain = make_transformer(live=False, num_classes=4).state_dict()
    plain["channel_embedding.weight"] = plain.pop("class_embedding.weight")
    sourced = make_transformer(live=False, num_classes=1, num_channels=4).state_dict()
    own = {f"source_embedding.{name}" for name in ("maps", "names")}
    own |= {f"pack_norm.{name}" for name in ("weight", "bias")}
    assert sourced.keys() - plain.keys() == own
    for name, weight in plain.items():
        if name != "head.linear.bias":
            assert torch.equal(weight, sourced[name]), name


def test_every_weight_of_the_sources_learns(make_transformer: Any) -> None:
    network = make_transformer(num_channels=3)
    targets = torch.randint(V, (2, 3, 4, 2), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(targets, dtype=torch.bool)
    masked = targets.masked_fill(mask, V)
    network.loss(masked, mask, targets, with_sources(0, 1), 0.0)[0].backward()
    for weight in (network.source_embedding.maps, network.source_embedding.names):
        assert weight.grad is not None
        assert bool(weight.grad.flatten(1).any(1).all())  # of each modality


# --- conditions ---------------------------------------------------------------------------------


def test_conditions() -> None:
    given = condition(0, 1, 1)
    assert given.dropped(torch.tensor([True, False, True]), V).classes.tolist() == [-1, 1, -1]
    assert given.null(V).classes.tolist() == [-1, -1, -1]
    assert given.joined(given.null(V)).classes.tolist() == [0, 1, 1, -1, -1, -1]
    assert given.classes.tolist() == [0, 1, 1]
    assert given.null(V).sources is given.null(V).origin is None


def test_dropping_takes_class_and_sources_and_leaves_the_place() -> None:
    origin = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    given = replace(with_sources(0, 1), origin=origin)
    assert given.sources is not None
    before = given.sources.clone()
    dropped = given.dropped(torch.tensor([False, True]), V)
    assert dropped.classes.tolist() == [0, -1]
    assert dropped.sources is not None
    assert torch.equal(dropped.sources[0], before[0])
    assert bool((dropped.sources[1] == V).all())
    assert dropped.origin is origin
    assert torch.equal(given.sources, before)
    null = given.null(V)
    assert null.sources is not None
    assert bool((null.sources == V).all())


def test_withheld_modalities() -> None:
    given = with_sources(0, 1)
    assert given.sources is not None
    drop = torch.tensor([[True, False, True], [False, False, True]])
    kept = given.without_sources(drop, V)
    assert kept.sources is not None
    for b in range(2):
        for m in range(3):
            expected = torch.full((3, 4, 2), V) if drop[b, m] else given.sources[b, m]
            assert torch.equal(kept.sources[b, m], expected)
    assert kept.classes is given.classes
    assert condition(0).without_sources(drop[:1], V).sources is None


def test_a_window_of_a_condition() -> None:
    given = with_sources(0, 1)
    cells = (slice(1, 3), slice(0, 4), slice(1, 2))
    window = given.window(cells)
    assert given.sources is not None
    assert window.sources is not None
    assert torch.equal(window.sources, given.sources[:, :, 1:3, :, 1:2])
    assert window.origin is not None
    assert window.origin.tolist() == [[1, 0, 1], [1, 0, 1]]
    assert window.classes is given.classes
    # Of a condition that is a window itself, and of one without sources.
    origin = torch.tensor([[0.5, 2.0, 0.0], [4.0, 0.0, 1.0]])
    moved = Condition.of(given.classes, 1, origin=origin).window(cells)
    assert moved.origin is not None
    assert moved.origin.tolist() == [[1.5, 2, 1], [5, 0, 2]]
    assert moved.sources is None


def test_joined_conditions_keep_sources_and_places_of_both() -> None:
    cells = (slice(0, 2), slice(1, 3), slice(0, 2))
    one, other = with_sources(0, 1).window(cells), with_sources(2, seed=6).window(cells)
    both = one.joined(other)
    assert both.classes.tolist() == [0, 1, 2]
    for joined, first, second in (
        (both.sources, one.sources, other.sources),
        (both.origin, one.origin, other.origin),
    ):
        assert joined is not None
        assert first is not None
        assert second is not None
        assert torch.equal(joined[:2], first)
        assert torch.equal(joined[2:], second)


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
