"""Results as markdown tables, one for each benchmark module."""

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.registry import found_text, in_order, number
from benchmarks.results import Result


def seconds_text(seconds: float) -> str:
    """Write a time: ``1.23 s``, ``45.6 ms``, ``789 µs``."""
    # Just below a unit's end three digits would round to 1000 of the smaller one.
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= 0.9995 * scale or unit == "µs":
            return f"{number(seconds / scale)} {unit}"
    raise AssertionError


def amount(value: float, unit: str) -> str:
    """Write a figure with its unit."""
    return seconds_text(value) if unit == "s" else f"{number(value)} {unit}".rstrip()


def _ours(result: Result) -> str:
    if result.ours is None:
        return ""
    rates = [
        f"{number(count / result.ours)} {what}/s"
        for what, count in result.per_repeat.items()
        if result.unit == "s"
    ]
    text = amount(result.ours, result.unit)
    return f"{text} ({', '.join(rates)})" if rates else text


def ratio_text(result: Result, rival: str) -> str:
    """Write a ratio with its spread: ``3.94x (3.70-4.10)``."""
    text = f"{number(result.ratio[rival])}x"
    if rival in result.spread:
        low, high = result.spread[rival]
        text += f" ({number(low)}-{number(high)})"
    return text


def _memory(result: Result, rivals: Sequence[str]) -> str:
    """Write prod9's peak and the rivals', in the order of the columns."""
    if not result.memory_mib:
        return ""
    peaks = [result.memory_mib.get(name) for name in (result.ours_name, *rivals)]
    return " / ".join("-" if peak is None else f"{peak:,.0f}" for peak in peaks)


def _share(result: Result) -> str:
    if result.ceiling is None or result.ceiling.share is None:
        return ""
    rate = f"{number(result.ceiling.gflops_per_second)} GFLOP/s"
    return f"{result.ceiling.share:.0%} of {rate} ({result.ceiling.kind})"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def table(results: Sequence[Result]) -> str:
    """Write one module's results: a table, then what each case is and its goals."""
    rivals = list(dict.fromkeys(rival for result in results for rival in result.rivals))
    rows = [result for result in results if result.ours is not None]
    lines: list[str] = []
    if rows:
        compared = [rival for rival in rivals if any(rival in result.ratio for result in rows)]
        head = ["case", "prod9", *rivals, *(f"ratio to {rival}" for rival in compared)]
        optional = {
            "memory, MiB (in this order)": [_memory(result, rivals) for result in rows],
            "share of the ceiling": [_share(result) for result in rows],
        }
        optional = {name: cells for name, cells in optional.items() if any(cells)}
        lines += [_row([*head, *optional]), _row(["---"] * (len(head) + len(optional)))]
        for index, result in enumerate(rows):
            times = [
                amount(result.rivals[rival], result.unit) if rival in result.rivals else ""
                for rival in rivals
            ]
            won = [ratio_text(result, rival) if rival in result.ratio else "" for rival in compared]
            case = result.name if result.counts else f"{result.name} (does not count)"
            cells = [column[index] for column in optional.values()]
            lines.append(_row([f"`{case}`", _ours(result), *times, *won, *cells]))
        lines.append("")
    for result in results:
        lines.append(f"- `{result.name}`: {result.title}")
        for goal in result.goals:
            state = "met" if goal.met else "**not met**"
            state = state if result.counts else "does not count"
            lines.append(f"  - {state}: {goal.what}: {found_text(goal)}")
    return "\n".join(lines)


def tables(results: Mapping[str, Result]) -> str:
    """Write all results, grouped by module in the order of the registry."""
    groups: dict[str, list[Result]] = {}
    for result in in_order(results):
        groups.setdefault(result.module or "other", []).append(result)
    parts = [f"### {name}\n\n{table(group)}" for name, group in groups.items()]
    return "\n\n".join(parts) + "\n" if parts else "No results yet: python -m benchmarks\n"
