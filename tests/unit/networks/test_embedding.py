import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prod9.fsq import FSQ
from prod9.networks.embedding import SourceEmbedding, TokenEmbedding


@pytest.mark.parametrize("levels", [(3, 4), (5, 4, 3), (8, 8, 6, 5)])
def test_a_rows_is_the_sum_of_its_levels_and_its_own(levels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    embedding = TokenEmbedding(6, levels).double()
    torch.nn.init.normal_(embedding.codes.weight)
    table = embedding.table()
    fsq = FSQ(levels)
    assert table.shape == (fsq.codebook_size + 1, 6)
    for token in range(0, fsq.codebook_size, 7):
        digits = fsq.indices_to_digits(torch.tensor([token])[None])[0, :, 0].tolist()
        row = embedding.codes.weight[token].clone()
        for channel, digit in enumerate(digits):
            row += embedding.levels.weight[sum(levels[:channel]) + digit]
        torch.testing.assert_close(table[token], row)
    assert torch.equal(table[-1], embedding.codes.weight[-1])  # the mask has no levels


def test_at_the_start_neighbours_are_near_and_codes_have_nothing_of_their_own() -> None:
    torch.manual_seed(0)
    embedding = TokenEmbedding(64, (8, 8, 8))
    assert not embedding.codes.weight[:-1].any()
    assert embedding.codes.weight[-1].any()
    table = embedding.table()
    assert len(torch.unique(table, dim=0)) == 513
    # One level apart: two of three level rows are shared.
    apart_by_one, apart_by_three = table[0] - table[1], table[0] - table[1 + 8 + 64]
    assert apart_by_one.norm() < apart_by_three.norm()


def test_each_batch_teaches_all_levels_it_meets_and_no_other_code() -> None:
    embedding = TokenEmbedding(4, (3, 4))
    embedding.table()[5].sum().backward()  # digits 2 and 1
    assert embedding.levels.weight.grad is not None
    assert embedding.codes.weight.grad is not None
    assert embedding.levels.weight.grad.any(1).nonzero()[:, 0].tolist() == [2, 4]
    assert embedding.codes.weight.grad.any(1).nonzero()[:, 0].tolist() == [5]


SOURCES = torch.randint(13, (2, 3, 2, 3, 2), generator=torch.Generator().manual_seed(1))
"""Three modalities, codebook of 12, the mask id 12 among them."""


def source_embedding() -> tuple[SourceEmbedding, Tensor]:
    torch.manual_seed(0)
    embedding = SourceEmbedding(5, 3).double()
    torch.nn.init.normal_(embedding.names)
    return embedding, torch.randn(13, 5, dtype=torch.float64, requires_grad=True)


def test_sources_add_what_a_loop_over_modalities_and_cells_adds() -> None:
    embedding, table = source_embedding()
    assert bool((SOURCES == 12).any())
    expected = torch.zeros(2, 2, 3, 2, 5, dtype=torch.float64)
    for b, m, d, h, w in itertools.product(*map(range, SOURCES.shape)):
        token = int(SOURCES[b, m, d, h, w])
        if token != 12:
            expected[b, d, h, w] += table[token] @ embedding.maps[m] + embedding.names[m, 0]
    torch.testing.assert_close(embedding(SOURCES, table), expected, rtol=0, atol=1e-12)


def test_unknown_sources_add_exactly_nothing() -> None:
    embedding, table = source_embedding()
    unknown = torch.full_like(SOURCES, 12)
    assert not embedding(unknown, table).any()
    # Cell by cell: a modality that is known nowhere might as well not be there.
    one = unknown.clone()
    one[:, 1] = SOURCES[:, 1]
    added = embedding(one, table)
    absent = SOURCES[:, 1] == 12
    assert not added[absent].any()
    assert bool(added[~absent].any(-1).all())


def test_sources_teach_their_map_their_name_and_the_shared_table() -> None:
    embedding, table = source_embedding()
    sources = torch.full((1, 3, 1, 1, 3), 12)
    sources[0, 0, 0, 0, :2] = torch.tensor([4, 7])
    sources[0, 2, 0, 0, 1] = 7
    weights = torch.randn(5, generator=torch.Generator().manual_seed(2)).double()
    (embedding(sources, table) @ weights).sum().backward()
    maps, names = embedding.maps.grad, embedding.names.grad
    assert maps is not None
    assert names is not None
    assert table.grad is not None
    # d/dmap of x @ map @ w is the outer product of x and w, summed over the cells that are known.
    torch.testing.assert_close(maps[0], (table[4] + table[7]).detach()[:, None] * weights)
    torch.testing.assert_close(maps[2], table[7].detach()[:, None] * weights)
    assert not maps[1].any()
    torch.testing.assert_close(names[:, 0], torch.tensor([[2.0], [0.0], [1.0]]) * weights)
    # Both modalities teach the one row that they share; the mask's learns nothing.
    maps = embedding.maps.detach()
    torch.testing.assert_close(table.grad[7], maps[0] @ weights + maps[2] @ weights)
    assert table.grad.any(1).nonzero()[:, 0].tolist() == [4, 7]


def test_sources_keep_the_scale_of_the_tokens() -> None:
    # A map of variance 1 / dim: what a source says is about as loud as a token itself.
    torch.manual_seed(0)
    embedding = SourceEmbedding(64, 1)
    table = torch.randn(501, 64)
    assert not embedding.names.any()
    added = embedding(torch.arange(500).view(1, 1, 1, 1, 500), table).detach()
    assert float(added.std()) == pytest.approx(1, abs=0.05)


def test_the_gradient_is_the_same_each_time_on_two_threads() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        embedding = TokenEmbedding(64, (8, 8, 8))
        tokens = torch.randint(0, 512, (12, 7, 7, 7))
        wanted = torch.randn(12, 7, 7, 7, 64)
        found: list[torch.Tensor] = []
        for _ in range(20):
            (gradient,) = torch.autograd.grad(
                (F.embedding(tokens, embedding.table()) * wanted).sum(), embedding.levels.weight
            )
            found.append(gradient)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(gradient, found[0]) for gradient in found)
    # Each code's gradient goes to the rows of its digits.
    of_codes = torch.zeros(512, 64).index_add_(0, tokens.flatten(), wanted.flatten(0, -2))
    expected = torch.zeros(24, 64)
    for column, digits in enumerate(embedding._rows.T):
        expected.index_add_(0, digits, of_codes)
        assert int(digits.min()) == 8 * column
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-4)
