"""The figures of the kill suite as the table of docs/reliability.md."""

from typing import Any

_HEAD = (
    "| what was written | before a call | in mid-write | at a moment | lost, torn or different |",
    "|---|---|---|---|---|",
)


def table(content: dict[str, Any]) -> str:
    """Return Markdown: a row a case, and the sum."""
    kinds = ("call", "byte", "moment")
    rows: list[str] = []
    for case in content["cases"]:
        counts = " | ".join(str(case["kills"].get(kind, 0)) for kind in kinds)
        rows.append(f"| {case['case']} | {counts} | {len(case['faults'])} |")
    sums = [sum(case["kills"].get(kind, 0) for case in content["cases"]) for kind in kinds]
    faults = sum(len(case["faults"]) for case in content["cases"])
    rows.append(f"| **all: {sum(sums)}** | {' | '.join(map(str, sums))} | {faults} |")
    return "\n".join([*_HEAD, *rows]) + "\n"
