"""The plot of a sweep."""

from typing import Any

import matplotlib.figure

from prod9.registry import ORDERS
from prod9.results.sweep import ALIKE_WITHIN, Sweep, SweepRow

_LINES = ("-", "--", ":", "-.")
_MARKS = "osD^vPX*"


def draw_sweep(sweep: Sweep, best: SweepRow) -> matplotlib.figure.Figure:
    """Show the Frechet distance over temperature, a panel an order, and over MS-SSIM."""
    groups: dict[str, dict[tuple[int, float, float], list[SweepRow]]] = {}
    for row in sweep.rows:
        s = row.sampler
        noise = s.choice_temperature if _noisy(s.order) else 0.0
        key = (s.steps, s.guidance_scale, noise)
        groups.setdefault(s.order, {}).setdefault(key, []).append(row)
    keys = sorted({key for lines in groups.values() for key in lines})
    steps, scales, noises = (sorted({key[part] for key in keys}) for part in range(3))

    def style(key: tuple[int, float, float]) -> dict[str, Any]:
        return {
            "color": f"C{steps.index(key[0])}",
            "linestyle": _LINES[scales.index(key[1]) % len(_LINES)],
            "marker": _MARKS[noises.index(key[2]) % len(_MARKS)],
            "markersize": 4,
            "linewidth": 1.2,
        }

    count = len(groups) + 1
    figure = matplotlib.figure.Figure(figsize=(3.7 * count, 3.9), dpi=120, layout="constrained")
    panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    for axis, (order, lines) in zip(panels, groups.items(), strict=False):
        for key, rows in sorted(lines.items()):
            rows = sorted(rows, key=lambda row: row.sampler.temperature)
            label = f"{key[0]} steps, guidance {key[1]:g}"
            if _noisy(order):
                label += f", noise {key[2]:g}"
            x = [row.sampler.temperature for row in rows]
            axis.plot(x, [row.distance.frechet for row in rows], label=label, **style(key))
        axis.set_title(f"order: {order}", fontsize=9)
        axis.set_xlabel("temperature", fontsize=8)
        axis.legend(fontsize=6)
        if best.sampler.order == order:
            _ring(axis, best.sampler.temperature, best)
    last = panels[-1]
    for lines in groups.values():
        for key, rows in lines.items():
            shown = [row for row in rows if row.msssim is not None]
            x, y = [row.msssim for row in shown], [row.distance.frechet for row in shown]
            last.plot(x, y, **(style(key) | {"linestyle": "none"}))
    if sweep.msssim_real is not None:
        last.axvline(sweep.msssim_real, color="0.5", linewidth=1, label="real volumes")
        bound = sweep.msssim_real + ALIKE_WITHIN
        last.axvline(bound, color="0.5", linewidth=1, linestyle="--", label="most that may win")
        last.legend(fontsize=6)
    if best.msssim is not None:
        _ring(last, best.msssim, best)
    last.set_title("likeness", fontsize=9)
    last.set_xlabel("MS-SSIM within classes", fontsize=8)
    panels[0].set_ylabel("Frechet distance", fontsize=8)
    for axis in panels:
        axis.tick_params(labelsize=7)
    floor = "" if sweep.floor is None else f"; other real volumes: {sweep.floor.frechet:.3g}"
    figure.suptitle(f"{sweep.space}, against {sweep.real}{floor}", fontsize=8, parse_math=False)
    return figure


def _noisy(order: str) -> bool:
    return ORDERS.get(order).uses_choice_temperature


def _ring(axis: Any, x: float, best: SweepRow) -> None:
    """Mark the winner."""
    look = {"markersize": 13, "fillstyle": "none", "color": "black"}
    axis.plot(x, best.distance.frechet, "o", **look)
