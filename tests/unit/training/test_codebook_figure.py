import torch

from prod9.metrics.codebook import codebook_stats
from prod9.training.previews import level_bars


def test_a_bar_is_a_levels_share_of_the_tokens() -> None:
    # Channel 0 has 3 levels and is the fastest digit of a token; channel 1 has 2.
    counts = torch.tensor([1, 2, 3, 0, 4, 0])
    figure = level_bars(codebook_stats(counts, (3, 2)), "after 7 batches")
    heights = [[bar.get_height() for bar in axis.patches] for axis in figure.axes]
    assert [[round(h, 12) for h in bars] for bars in heights] == [[0.1, 0.6, 0.3], [0.6, 0.4]]
    even = [float(axis.lines[0].get_ydata()[0]) for axis in figure.axes]
    assert even == [1 / 3, 1 / 2]
    assert [axis.get_title() for axis in figure.axes] == ["channel 1", "channel 2"]
    # exp(-(.1 ln .1 + .2 ln .2 + .3 ln .3 + .4 ln .4)) = 3.6
    said = "after 7 batches: 67% of the codes used, perplexity 3.6"
    assert figure.get_suptitle() == said
