"""A picture of how the codebook is used: the levels of each channel."""

import matplotlib.figure

from prod9.metrics.codebook import CodebookStats


def level_bars(stats: CodebookStats, title: str = "") -> matplotlib.figure.Figure:
    """Draw, for each latent channel, the share of tokens on each of its levels.

    The dashed line is an even spread: a channel with a single tall bar carries nothing.
    """
    channels = len(stats.level_shares)
    figure = matplotlib.figure.Figure(figsize=(0.4 + 1.9 * channels, 2.2), dpi=100)
    for axis, (channel, shares) in zip(
        figure.subplots(1, channels, sharey=True, squeeze=False)[0],
        enumerate(stats.level_shares),
        strict=True,
    ):
        axis.bar(range(len(shares)), shares, width=0.8)
        axis.axhline(1 / len(shares), color="black", linewidth=0.8, linestyle="--")
        axis.set_ylim(0, 1)
        axis.set_xticks(range(len(shares)))
        axis.tick_params(labelsize=7)
        axis.set_xlabel("level", fontsize=7)
        axis.set_title(f"channel {channel + 1}", fontsize=8)
    figure.axes[0].set_ylabel("share of tokens", fontsize=7)
    codes = f"{stats.usage:.0%} of the codes used, perplexity {stats.perplexity:.1f}"
    figure.suptitle(f"{title}: {codes}" if title else codes, fontsize=8)
    figure.tight_layout(pad=0.4)
    return figure
