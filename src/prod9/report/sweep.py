"""The plot of a sweep."""

import matplotlib.figure

from prod9.evaluate.sweep import Sweep, SweepRow

_LINES = ("-", "--", ":", "-.")
_MARKS = "osD^vPX*"


def draw_sweep(sweep: Sweep, best: SweepRow) -> matplotlib.figure.Figure:
    """Show the Frechet distance over temperature: a panel an order, a line a setting."""
    groups: dict[str, dict[tuple[int, float, float], list[SweepRow]]] = {}
    for row in sweep.rows:
        s = row.sampler
        choice = s.choice_temperature if s.order == "confidence" else 0.0
        key = (s.steps, s.guidance_scale, choice)
        groups.setdefault(s.order, {}).setdefault(key, []).append(row)
    keys = [key for lines in groups.values() for key in lines]
    steps = sorted({key[0] for key in keys})
    scales = sorted({key[1] for key in keys})
    choices = sorted({key[2] for key in keys})
    figure = matplotlib.figure.Figure(figsize=(1.5 + 4.5 * len(groups), 4.2), dpi=110)
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axis, (order, lines) in zip(panels, groups.items(), strict=True):
        for (n, scale, choice), rows in sorted(lines.items()):
            rows = sorted(rows, key=lambda row: row.sampler.temperature)
            label = f"{n} steps, guidance {scale:g}"
            if order == "confidence":
                label += f", choice {choice:g}"
            axis.plot(
                [row.sampler.temperature for row in rows],
                [row.distance.frechet for row in rows],
                color=f"C{steps.index(n)}",
                linestyle=_LINES[scales.index(scale) % len(_LINES)],
                marker=_MARKS[choices.index(choice) % len(_MARKS)],
                markersize=4,
                label=label,
            )
        if best.sampler.order == order:
            axis.plot(
                best.sampler.temperature,
                best.distance.frechet,
                "o",
                markersize=13,
                fillstyle="none",
                color="black",
                label="winner",
            )
        if sweep.floor is not None:
            axis.axhline(sweep.floor.frechet, color="0.5", linewidth=1, label="other real volumes")
        axis.set_title(f"order: {order}", fontsize=9)
        axis.set_xlabel("temperature", fontsize=8)
        axis.set_yscale("log")
        axis.tick_params(labelsize=7, which="both")
        axis.legend(fontsize=6)
    panels[0].set_ylabel("Frechet distance", fontsize=8)
    figure.suptitle(f"{sweep.space}, against {sweep.real}", fontsize=8)
    figure.tight_layout()
    return figure
