import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prod9.fsq import FSQ
from prod9.metrics.codebook import CodebookUsage, codebook_stats


def test_known_counts():
    # Levels 3 and 4: token = d0 + 3 d1. Tokens 0 (0, 0), 4 (1, 1) twice, 11 (2, 3).
    usage = CodebookUsage((3, 4))
    usage.update(torch.tensor([[0, 4], [4, 11]]))
    stats = usage.compute()
    assert stats.usage == 3 / 12
    assert stats.perplexity == pytest.approx(math.exp(1.5 * math.log(2)))  # H = 1.5 bits
    assert stats.level_shares == ((0.25, 0.5, 0.25), (0.25, 0.5, 0.0, 0.25))


def test_extremes():
    even = codebook_stats(torch.full((512,), 7), (8, 8, 8))
    assert even.usage == 1.0
    assert even.perplexity == pytest.approx(512)
    assert even.level_shares == tuple((0.125,) * 8 for _ in range(3))
    counts = torch.zeros(512, dtype=torch.int64)
    counts[9] = 1000
    collapsed = codebook_stats(counts, (8, 8, 8))
    assert collapsed.usage == 1 / 512
    assert collapsed.perplexity == pytest.approx(1.0)


def test_a_single_channel():
    stats = codebook_stats(torch.tensor([1, 0, 3]), (3,))
    assert stats.level_shares == ((0.25, 0.0, 0.75),)


@given(levels=st.lists(st.integers(3, 6), min_size=1, max_size=4), seed=st.integers(0, 999))
def test_level_shares_agree_with_fsqs_digits(levels, seed):
    fsq = FSQ(levels)
    tokens = torch.randint(
        fsq.codebook_size, (2, 3, 4, 5), generator=torch.Generator().manual_seed(seed)
    )
    usage = CodebookUsage(levels)
    usage.update(tokens)
    stats = usage.compute()
    digits = fsq.indices_to_digits(tokens)
    for channel, level in enumerate(levels):
        counted = torch.bincount(digits[:, channel].flatten(), minlength=level) / tokens.numel()
        assert stats.level_shares[channel] == pytest.approx(counted.tolist(), abs=1e-6)
    assert 1 <= stats.perplexity <= stats.usage * fsq.codebook_size * (1 + 1e-9)


def test_running_counts_add_up_and_reset():
    usage = CodebookUsage((3, 3))
    usage.update(torch.tensor([[0, 1, 1]]))
    usage.update(torch.tensor([[[8, 1]]]))
    assert usage.counts.tolist() == [1, 3, 0, 0, 0, 0, 0, 0, 1]
    usage.reset()
    assert usage.counts.sum() == 0
    with pytest.raises(ValueError, match="no tokens"):
        usage.compute()


def test_the_mask_id_is_no_code():
    usage = CodebookUsage((3, 3))
    with pytest.raises((IndexError, RuntimeError)):
        usage.update(torch.tensor([[9]]))
