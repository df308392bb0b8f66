"""Numbers as a reader wants them, and what stands where there are none; all results are HTML."""

import math
import re
from collections.abc import Sequence

from prod9.report.document import escape
from prod9.results.schema import Interval

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MOST = 6  # digits behind the point


def absent(reason: str = "") -> str:
    """Say that a figure was not measured, and why, where that is known."""
    because = f'<span class="why">{prose(reason)}</span>' if reason else ""
    return f'<span class="absent">not measured</span>{because}'


def prose(words: str) -> str:
    """Return a plain sentence as HTML; what stands between backticks is set as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(words))


def why(warnings: Sequence[str], *words: str) -> str:
    """Return the first warning that names one of ``words``, or nothing."""
    lowered = [word.lower() for word in words]
    return next((line for line in warnings if any(w in line.lower() for w in lowered)), "")


def _plain(value: float, decimals: int) -> str:
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    return f"{value:,.{decimals}f}".replace("-", "−") if round(value, decimals) else "0"


def _order(value: float) -> int:
    """Return the power of ten of a number's first digit; 0 for what has none."""
    return math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0


def _decimals(value: float, interval: Interval | None, digits: int) -> int:
    """Return how many digits behind the point tell something.

    With an interval: down to the first digit of its half width (the second where that is below
    2.5), but at least one digit of the value. Otherwise ``digits`` digits of the value.
    """
    places = digits - 1 - _order(value)
    if interval is not None and 0 < interval[1] - interval[0] < math.inf:
        half = (interval[1] - interval[0]) / 2
        places = max(-_order(half) + (half < 2.5 * 10.0 ** _order(half)), -_order(value))
    return min(max(places, 0), _MOST)


def number(
    value: float | None, interval: Interval | None = None, unit: str = "", digits: int = 3
) -> str:
    """Return a number with sensible digits, its unit, and its interval: ``25.4 dB [25.1, 25.7]``.

    ``None`` is "not measured". Without an interval, ``digits`` digits are shown.
    """
    if value is None:
        return absent()
    if interval is None and 0 < abs(value) < 10.0 ** (digits - 1 - _MOST):
        order = _order(value)
        power = str(order).translate(_SUPERSCRIPT)
        shown = f"{_plain(value / 10.0**order, 1)} × 10{power}"
    else:
        shown = _plain(value, _decimals(value, interval, digits))
    shown += f" {escape(unit)}" if unit else ""
    if interval is not None:
        places = _decimals(value, interval, digits)
        low, high = (_plain(end, places) for end in interval)
        shown += f' <span class="interval">[{low}, {high}]</span>'
    return shown


def times(value: float, decimals: int = 1) -> str:
    """Return how many times something is as large: ``2.5 ×``."""
    return f"{_plain(value, decimals if value < 100 else 0)} ×"


def share(value: float | None, interval: Interval | None = None) -> str:
    """Return a share as per cent: ``97.3 % [95.9, 98.3]``."""
    if value is None:
        return absent()
    scaled = None if interval is None else (100 * interval[0], 100 * interval[1])
    if scaled is None:
        return f"{_plain(100 * value, 1)} %"
    return number(100 * value, scaled, "%")


def digest(sha256: str) -> str:
    """Return the beginning of a digest; all of it on hovering."""
    return f'<code title="{escape(sha256)}">{escape(sha256[:12])}</code>'
