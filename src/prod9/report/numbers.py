"""Numbers as a reader wants them, and what stands where there are none: HTML, escaped."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from markupsafe import Markup, escape

from prod9.results.schema import FeatureSpaceFigures, Interval

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MOST_DECIMALS = 6


def prose(words: str) -> Markup:
    """Return a plain sentence as HTML; what stands between backticks is set as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(words))))


def absent(warnings: Sequence[str] = (), *words: str) -> Markup:
    """Say that a figure was not measured, and the first warning that names one of ``words``."""
    said = Markup('<span class="absent">not measured</span>')
    for line in warnings:
        if any(word in line.lower() for word in words):
            return said + Markup('<span class="why">{}</span>').format(prose(line))
    return said


def _plain(value: float, decimals: int) -> str:
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    return f"{value:,.{decimals}f}".replace("-", "−") if round(value, decimals) else "0"


def _order(value: float) -> int:
    """Return the power of ten of a number's first digit; 0 for what has none."""
    return math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0


def _decimals(value: float, interval: Interval | None, digits: int) -> int:
    """Return how many decimals tell something.

    With an interval: down to the first digit of its half width (the second where that is below
    2.5), but at least one digit of the value. Otherwise ``digits`` digits of the value.
    """
    places = digits - 1 - _order(value)
    if interval is not None and 0 < interval[1] - interval[0] < math.inf:
        half = (interval[1] - interval[0]) / 2
        places = max(-_order(half) + (half < 2.5 * 10.0 ** _order(half)), -_order(value))
    return min(max(places, 0), _MOST_DECIMALS)


def number(
    value: float | None, interval: Interval | None = None, unit: str = "", digits: int = 3
) -> Markup:
    """Return a number with sensible digits, its unit, and its interval: ``25.4 dB [25.1, 25.7]``.

    ``None`` is "not measured". Without an interval, ``digits`` digits are shown.
    """
    if value is None:
        return absent()
    decimals = _decimals(value, interval, digits)
    shown = _plain(value, decimals)
    if interval is None and 0 < abs(value) < 10.0 ** (digits - 1 - _MOST_DECIMALS):
        order = _order(value)
        shown = f"{_plain(value / 10.0**order, 1)} × 10{str(order).translate(_SUPERSCRIPT)}"
    text = escape(f"{shown} {unit}" if unit else shown)
    if interval is None:
        return text
    low, high = (_plain(end, decimals) for end in interval)
    return text + Markup(' <span class="interval">[{}, {}]</span>').format(low, high)


def share(value: float | None, interval: Interval | None = None) -> Markup:
    """Return a share as per cent: ``97.3 % [95.9, 98.3]``."""
    if value is None:
        return absent()
    if interval is None:
        return escape(f"{_plain(100 * value, 1)} %")
    return number(100 * value, (100 * interval[0], 100 * interval[1]), "%")


def digest(sha256: str) -> Markup:
    """Return the beginning of a digest; all of it on hovering."""
    return Markup('<code title="{}">{}</code>').format(sha256, sha256[:12])


def ratio(figures: FeatureSpaceFigures, key: str = "frechet") -> str:
    """Return how many times its floor a figure is; a dash where the floor is, or may be, 0."""
    floor = figures.floor
    if key != "frechet":
        mine, base = getattr(figures.at_floor, key, None), getattr(floor, key, None)
        return f"{_plain(mine / base, 2)} ×" if mine is not None and base else "–"
    times = figures.frechet_ratio
    if times is None or floor is None:
        return "–"
    if floor.frechet_interval is not None and floor.frechet_interval[0] <= 0:
        return "–"
    return f"{_plain(times, 1 if times < 100 else 0)} ×"


def measured(columns: Sequence[Any], parts: Sequence[Any]) -> list[Any]:
    """Return those columns, each a tuple that begins with a field's name, that have any value."""
    return [c for c in columns if any(getattr(part, c[0]) is not None for part in parts)]


def flat(figures: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (name, value as it is shown) of nested figures, their names joined by slashes.

    Of one figure for each scan, the range is shown.
    """
    for key, value in figures.items():
        name = f"{above}{key}"
        if isinstance(value, dict):
            yield from flat(cast(dict[str, Any], value), f"{name} / ")
        elif isinstance(value, list | tuple) and value:
            values = cast(Sequence[float], value)
            low, high = (number(end, digits=4) for end in (min(values), max(values)))
            yield name, f"{low} to {high} ({len(values)} values)"
        elif isinstance(value, float) or value is None:
            yield name, number(value, digits=4)
        else:
            yield name, value
