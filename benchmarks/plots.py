"""Results as pictures: every ratio with its spread and goal, and costs over sizes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.figure
from matplotlib.ticker import NullFormatter

from benchmarks.registry import in_order, number
from benchmarks.results import Result

# Legible on a white page and on a black one: the figures are transparent.
_GREY = "#7d838a"
_COLOURS = ("#3b82b8", "#d1782b", "#4f9a6b", "#a06bb5", "#b8a03b", "#c05a66", "#5f8f95")
_GOAL = "#c05a66"
_MARKERS = "osD^vP*"


def _dress(axis: Any, grid: str) -> None:
    axis.tick_params(which="both", labelsize=8, colors=_GREY, width=0.6)
    axis.grid(axis=grid, color=_GREY, alpha=0.22, linewidth=0.6)
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_GREY)
        spine.set_linewidth(0.6)


def _goal_of(result: Result, rival: str) -> float | None:
    """Return the ratio that the case claims against this rival."""
    for goal in result.goals:
        if goal.unit == "x" and goal.what.endswith(f" {rival}") and isinstance(goal.needed, float):
            return goal.needed
    return None


def ratios_figure(results: Mapping[str, Result]) -> matplotlib.figure.Figure | None:
    """Draw a dot for every ratio to a rival: right of 1 prod9 is ahead; a bar marks the goal."""
    dots = [(r, rival) for r in in_order(results) if r.counts for rival in r.ratio]
    if not dots:
        return None
    figure = matplotlib.figure.Figure(figsize=(8.5, 1.3 + 0.27 * len(dots)), layout="constrained")
    axis: Any = figure.subplots()
    for row, (result, rival) in enumerate(dots):
        ratio = result.ratio[rival]
        low, high = result.spread.get(rival, (ratio, ratio))
        axis.plot([low, high], [row, row], color=_COLOURS[0], linewidth=2.2, alpha=0.55)
        axis.plot([ratio], [row], "o", color=_COLOURS[0], markersize=5)
        axis.annotate(
            f"{number(ratio)}x",
            (max(high, ratio), row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            color=_GREY,
        )
        goal = _goal_of(result, rival)
        if goal is not None:
            axis.plot([goal, goal], [row - 0.36, row + 0.36], color=_GOAL, linewidth=1.6)
    axis.axvline(1.0, color=_GREY, linewidth=0.8, linestyle="--")
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axis.xaxis.set_minor_formatter(NullFormatter())
    low, high = axis.get_xlim()
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if low <= t <= high]
    axis.set_xticks(ticks)
    axis.set_xlim(low, high * 1.25)  # room for the last number
    axis.set_yticks(range(len(dots)), [f"{result.name}: {rival}" for result, rival in dots])
    axis.set_ylim(len(dots) - 0.4, -0.6)  # the first on top
    text = "times as good as the rival (median of the repeats, with spread; red: goal)"
    axis.set_xlabel(text, fontsize=8, color=_GREY)
    _dress(axis, "x")
    return figure


def cost_figure(cost: Mapping[str, Any]) -> matplotlib.figure.Figure:
    """Draw a cost over a size, both axes logarithmic: a straight line is a power law."""
    figure = matplotlib.figure.Figure(figsize=(5.6, 3.6), layout="constrained")
    axis: Any = figure.subplots()
    for index, (name, points) in enumerate(cost["series"].items()):
        colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]
        x, y = zip(*points, strict=True)
        axis.plot(x, y, "-", marker=marker, color=colour, markersize=4, linewidth=1.4, label=name)
    axis.set_xscale("log")
    axis.set_yscale("log")
    sizes = sorted({x for points in cost["series"].values() for x, _ in points})
    if len(sizes) <= 10:  # the sizes that were measured say more than powers of ten
        axis.set_xticks(sizes, [f"{size:,.10g}" for size in sizes])
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.tick_params(axis="x", which="minor", length=0)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.set_title(cost.get("title", ""), fontsize=9, color=_GREY, loc="left")
    axis.set_xlabel(cost["x_label"], fontsize=8, color=_GREY)
    unit = cost.get("unit", "")
    label = f"{cost['y_label']}, {unit}" if unit else cost["y_label"]
    axis.set_ylabel(label, fontsize=8, color=_GREY)
    axis.legend(fontsize=8, frameon=False, labelcolor=_GREY)
    _dress(axis, "y")
    return figure


def draw(results: Mapping[str, Result], folder: Path) -> list[Path]:
    """Write the pictures as PNG; return their paths. Results that do not count are left out."""
    figures: dict[str, matplotlib.figure.Figure] = {}
    if (ratios := ratios_figure(results)) is not None:
        figures["performance_ratios"] = ratios
    for result in results.values():
        if result.counts and "cost_over_size" in result.figures:
            figures[result.name] = cost_figure(result.figures["cost_over_size"])
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name, figure in figures.items():
        written.append(folder / f"{name}.png")
        figure.savefig(written[-1], dpi=120, transparent=True)
    return written
