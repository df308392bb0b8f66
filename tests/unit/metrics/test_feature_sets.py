import math

import pytest
import torch

from prod9.metrics import feature_sets
from prod9.metrics.feature_sets import as_pair, distance_blocks


def test_fp64_whatever_comes_in():
    x, y = as_pair(torch.rand(3, 2), torch.rand(4, 2, dtype=torch.float16), least=3)
    assert x.dtype == y.dtype == torch.float64


def test_bad_sets_are_refused():
    x = torch.rand(4, 3)
    with pytest.raises(ValueError, match="at least 5 vectors a set are needed, not 4 and 9"):
        as_pair(x, torch.rand(9, 3), least=5)
    with pytest.raises((ValueError, TypeError)):  # TypeError where jaxtyping checks first
        as_pair(x, torch.rand(4, 2), least=1)
    with pytest.raises(ValueError, match="do not compare"):
        as_pair(x[:, :0], x[:, :0], least=1)
    for bad in (math.nan, math.inf):
        y = x.clone()
        y[2, 1] = bad
        with pytest.raises(ValueError, match="NaN or infinite"):
            as_pair(x, y, least=1)


@pytest.mark.parametrize("entries", [1, 20, 1 << 22])
def test_blocks_make_up_the_matrix_and_copies_are_at_zero(entries, monkeypatch):
    monkeypatch.setattr(feature_sets, "_BLOCK_ENTRIES", entries)
    generator = torch.Generator().manual_seed(0)
    y = 1000 + torch.rand(7, 5, generator=generator, dtype=torch.float64)
    x = torch.cat([y[[3, 1]], torch.rand(9, 5, generator=generator, dtype=torch.float64)])
    seen, blocks = zip(*distance_blocks(x, y), strict=True)
    assert [row for rows in seen for row in range(11)[rows]] == list(range(11))
    matrix = torch.cat(blocks)
    assert matrix[0, 3] == matrix[1, 1] == 0
    expected = (x[:, None] - y).square().sum(2).sqrt()
    torch.testing.assert_close(matrix, expected, rtol=1e-13, atol=0)
