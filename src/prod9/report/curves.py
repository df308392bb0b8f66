"""Curves: what training logged, the Frechet distance over the number of volumes, label volumes."""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from prod9.results.schema import DoseResponse, FeatureSpaceFigures, LabelVolumes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

History: TypeAlias = dict[str, list[tuple[float, float]]]
"""For each value that was logged: its (step, value) pairs, in order."""

# Legible on a white page and on a black one: the figures are transparent.
_GREY = "#7d838a"
_COLOURS = ("#3b82b8", "#d1782b", "#4f9a6b", "#a06bb5", "#b8a03b", "#c05a66", "#5f8f95")
_DASHES = ("-", "--", ":", "-.")
_COLUMNS = 3

# Title, columns (a regular expression each), whether the axis is logarithmic.
_PANELS: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("Loss", ("train/loss", "val/loss"), False),
    (
        "Loss terms, training",
        ("train/l1", "train/(perceptual|focal_frequency)", "train/(adversarial|discriminator)"),
        True,
    ),
    ("Loss terms, validation", ("val/loss_l1", "val/loss_(?!l1$).*"), True),
    ("L1, validation", ("val/l1",), False),
    ("PSNR, dB, validation", ("val/psnr.*",), False),
    ("SSIM, validation", ("val/ssim.*",), False),
    ("Codebook: share of codes used", (".*/codebook_usage",), False),
    ("Codebook: perplexity", (".*/codebook_perplexity",), False),
    ("Masked tokens predicted", ("train/masked_accuracy", "val/masked_accuracy"), False),
    ("The same by mask ratio, validation", (r"val/masked_accuracy_\d.*",), False),
    ("The same by mask ratio, training", (r"train/masked_accuracy_\d.*",), False),
    ("Gradient norm before clipping", ("train/grad_norm.*",), True),
    ("Adaptive weight", ("train/adaptive_weight",), False),
    ("Learning rate", (".*/learning_rate.*",), False),
)


def read_history(folder: Path) -> History:
    """Read a run's ``metrics*.csv``: for each value its (step, value) pairs.

    A resumed run has one file per part; ``metrics.csv`` is the newest. Steps that were lost with an
    interruption and done again are those of the newer part. What is no number, and a line torn by a
    crash, is left out; a folder without history gives none.
    """
    series: History = {}
    # (A run of a few batches may have logged nothing.)
    for path in (*sorted(folder.glob("metrics-until-*.csv")), *folder.glob("metrics.csv")):
        part = _read_part(path)
        begin = min((pairs[0][0] for pairs in part.values()), default=math.inf)
        for name, pairs in series.items():
            # (A step and the validation after it bear the same number.)
            own = part[name][0][0] if name in part else math.inf
            series[name] = [pair for pair in pairs if pair[0] <= begin and pair[0] < own]
        for name, pairs in part.items():
            series.setdefault(name, []).extend(pairs)
    return series


def _read_part(path: Path) -> History:
    series: History = {}
    opened = path.open(encoding="utf-8", errors="replace", newline="")
    # csv.Error: the file is damaged; what comes before stays.
    with opened as file, suppress(csv.Error):
        # A line without its end is torn: a part of a number is a number too.
        for row in csv.DictReader(line for line in file if line.endswith("\n")):
            step = _number(row.get("step"))
            if step is None or not math.isfinite(step):
                continue
            for name, text in row.items():
                value = _number(text)
                if value is not None and name not in ("step", "epoch"):
                    series.setdefault(name, []).append((step, value))
    return series


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def _chosen(history: Mapping[str, Any], patterns: tuple[str, ...]) -> list[str]:
    """Return the columns that match, in the order of the patterns, then of their names."""
    return [name for pattern in patterns for name in sorted(history) if re.fullmatch(pattern, name)]


def training_figure(history: History) -> "Figure | None":
    """Draw all that is known of a run, a panel each; None where nothing is."""
    from matplotlib.figure import Figure  # half a second, when the run is over
    from matplotlib.ticker import MaxNLocator

    panels = [(t, _chosen(history, p), logarithmic) for t, p, logarithmic in _PANELS]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        return None
    count = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(3.4 * _COLUMNS, 2.55 * count), layout="constrained")
    grid = figure.subplots(count, _COLUMNS, squeeze=False).ravel()
    for axis, (title, names, logarithmic) in zip(grid, panels, strict=False):
        for index, name in enumerate(names):
            steps, values = zip(*history[name], strict=True)
            few = {"marker": "o", "markersize": 3} if len(steps) < 12 else {}
            style = {"color": _COLOURS[index % len(_COLOURS)], "linewidth": 1.4}
            dashes = _DASHES[index % len(_DASHES)]
            axis.plot(steps, values, dashes, label=_label(name, names), **style, **few)
        _dress(axis, title, "step")
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        if logarithmic and any(value > 0 for name in names for _, value in history[name]):
            axis.set_yscale("log", nonpositive="mask")
        if len(names) > 1:
            axis.legend(fontsize=7, frameon=False, labelcolor=_GREY, handlelength=2.2)
    for axis in grid[len(panels) :]:
        axis.set_axis_off()
    return figure


def _label(name: str, names: list[str]) -> str:
    """Return a column's name without what all the panel's columns share."""
    split, _, rest = name.partition("/")
    several = len({other.partition("/")[0] for other in names}) > 1
    if several:
        return {"train": "training", "val": "validation"}.get(split, split)
    ratio = re.fullmatch(r"masked_accuracy_(.*)-(.*)", rest)
    return f"{ratio[1]} to {ratio[2]}" if ratio else rest.removeprefix("loss_").replace("_", " ")


def _dress(axis: Any, title: str, below: str) -> None:
    """Give an axis the page's quiet look."""
    if title:
        axis.set_title(title, fontsize=9, color=_GREY, loc="left")
    axis.set_xlabel(below, fontsize=8, color=_GREY)
    axis.tick_params(which="both", labelsize=7.5, colors=_GREY, width=0.6)
    axis.grid(axis="y", color=_GREY, alpha=0.22, linewidth=0.6)
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_GREY)
        spine.set_linewidth(0.6)


def frechet_figure(space: FeatureSpaceFigures) -> "Figure | None":
    """Draw the Frechet distance over the number of volumes, its floor and its limit."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, NullLocator

    points = sorted(space.curve, key=lambda point: point.volumes)
    if not points:
        return None
    figure = Figure(figsize=(6.4, 3.3), layout="constrained")
    axis: Any = figure.subplots()
    sizes = [point.volumes for point in points]
    means = [point.generated for point in points]
    low = [point.generated - point.generated_sd for point in points]
    high = [point.generated + point.generated_sd for point in points]
    axis.fill_between(sizes, low, high, color=_COLOURS[0], alpha=0.2, linewidth=0)
    axis.plot(sizes, means, "o-", color=_COLOURS[0], markersize=4, label="generated (± 1 SD)")
    floor = [(point.volumes, point.floor) for point in points if point.floor is not None]
    if floor:
        style = {"color": _COLOURS[1], "markersize": 4, "label": "floor: other real volumes"}
        axis.plot(*zip(*floor, strict=True), "s--", **style)
    if space.frechet_limit is not None and math.isfinite(space.frechet_limit):
        name = "generated, fitted limit for many volumes"
        axis.axhline(space.frechet_limit, color=_COLOURS[0], linestyle=":", label=name)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(NullLocator())
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_ylim(bottom=min(0.0, space.frechet_limit or 0.0))
    _dress(axis, "", "volumes of each set (logarithmic)")
    axis.set_ylabel("Fréchet distance", fontsize=8, color=_GREY)
    axis.legend(fontsize=8, frameon=False, labelcolor=_GREY)
    return figure


def _panels(count: int) -> "tuple[Figure, list[Any]]":
    from matplotlib.figure import Figure

    rows = -(-count // _COLUMNS)
    figure = Figure(figsize=(3.4 * _COLUMNS, 2.9 * rows), layout="constrained")
    grid = list(figure.subplots(rows, _COLUMNS, squeeze=False).ravel())
    for axis in grid[count:]:
        axis.set_axis_off()
    return figure, grid[:count]


def dose_figure(doses: Sequence[DoseResponse]) -> "Figure":
    """Draw the volume found over the volume requested, a panel for each label."""
    figure, grid = _panels(len(doses))
    for axis, dose in zip(grid, doses, strict=True):
        axis.plot(dose.requested, dose.found, "o", color=_COLOURS[0], markersize=3)
        ends = [min(dose.requested), max(dose.requested)]
        axis.plot(ends, ends, ":", color=_GREY, label="found as requested")
        if dose.slope is not None:
            x, y = (sum(each) / len(each) for each in (dose.requested, dose.found))
            fitted = [y + dose.slope * (end - x) for end in ends]
            axis.plot(ends, fitted, color=_COLOURS[1], label=f"slope {dose.slope:.2f}")
        _dress(axis, f"Label {dose.label}", "requested, ml")
        axis.set_ylabel("found, ml", fontsize=8, color=_GREY)
        axis.legend(fontsize=7, frameon=False, labelcolor=_GREY)
    return figure


def volumes_figure(volumes: Sequence[LabelVolumes]) -> "Figure":
    """Draw the cumulative distributions of label volumes, a panel for each label."""
    figure, grid = _panels(len(volumes))
    for axis, each in zip(grid, volumes, strict=True):
        sets = {"real": each.real, "generated": each.generated}
        for (name, values), colour in zip(sets.items(), _COLOURS, strict=False):
            axis.ecdf(values, color=colour, label=f"{name} ({len(values)})")
        _dress(axis, f"Label {each.label}", "volume, ml")
        axis.set_ylabel("share below", fontsize=8, color=_GREY)
        axis.legend(fontsize=7, frameon=False, labelcolor=_GREY)
    return figure
