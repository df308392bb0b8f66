import pytest
import torch

from prod9.fsq import FSQ
from prod9.models.embedding import TokenEmbedding


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


def test_lookup() -> None:
    torch.manual_seed(0)
    embedding = TokenEmbedding(6, (3, 4))
    tokens = torch.tensor([[[0, 12], [5, 11]]])
    assert torch.equal(embedding(tokens), embedding.table()[tokens])
    with pytest.raises(IndexError):
        embedding(torch.tensor([[13]]))


def test_each_batch_teaches_all_levels_it_meets_and_no_other_code() -> None:
    embedding = TokenEmbedding(4, (3, 4))
    embedding(torch.tensor([[5]])).sum().backward()  # digits 2 and 1
    assert embedding.levels.weight.grad is not None
    assert embedding.codes.weight.grad is not None
    assert embedding.levels.weight.grad.any(1).nonzero()[:, 0].tolist() == [2, 4]
    assert embedding.codes.weight.grad.any(1).nonzero()[:, 0].tolist() == [5]
