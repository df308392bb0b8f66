"""Fuzz every reader for some seconds each: ``make fuzz SECONDS=60``.

Each reader runs in a process of its own, with little memory. Inputs that break a promise
(``fuzz_targets.py`` says which) are kept under ``--findings``; ``--summary`` writes the counts.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

CHILD = Path(__file__).with_name("fuzz_campaign.py")


def main() -> int:
    """Return 1 if any reader broke its promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for each reader")
    parser.add_argument("--only", action="append", help="a reader, by name; all when left out")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--engine", choices=["atheris", "blind"])
    parser.add_argument("--summary", type=Path)
    options = parser.parse_args()
    there = importlib.util.find_spec("atheris") is not None
    engine = options.engine or ("atheris" if there else "blind")
    names = subprocess.run(
        [sys.executable, CHILD, "--list"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    rows: list[dict[str, object]] = []
    for name in options.only or names:
        arguments = ["--only", name, "--seconds", str(options.seconds), "--engine", engine]
        ended = subprocess.run(
            [sys.executable, CHILD, *arguments, "--findings", options.findings],
            capture_output=True,
            text=True,
            timeout=options.seconds + 300,
            check=False,
        )
        lines = [line for line in ended.stdout.splitlines() if line.startswith("{")]
        died: dict[str, object] = {"reader": name, "findings": {"it died": ended.stderr[-2000:]}}
        rows.append(json.loads(lines[-1]) if lines else died)
        print(json.dumps(rows[-1]), flush=True)
    if options.summary is not None:
        summary = {"engine": engine, "readers": rows}
        options.summary.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return int(any(row["findings"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
