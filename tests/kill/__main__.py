"""Kill everything, and write the figures: ``python tests/kill docs/reliability.json [CASE]...``.

With names only these cases are run, and replace their rows in the file.
"""

import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kill_cases import Trained, commands, writers
from kill_site import DIGEST, site
from kill_trials import Case, Trials
from nursery import SCRIPTS, Nursery

CALLS_OF_A_COMMAND = 12
"""About how many of its calls a whole command is killed before; single writers: before each."""


def row_of(case: Case, nursery: Nursery, place: Path, *, single: bool) -> dict[str, Any]:
    """Kill a case wherever it is to be; return its figures."""
    start = time.monotonic()
    trial = Trials(case, nursery, place)
    calls, few = trial.every_call(), 10
    if not single:
        calls, few = calls[:: 1 + len(calls) // CALLS_OF_A_COMMAND], 4
    for kill in [*calls, *trial.some_bytes(few), *trial.some_moments(few)]:
        trial.kill(kill)
    print(case.name, trial.tally.kills, *trial.tally.faults, sep="\n    ", flush=True)
    seconds = round(time.monotonic() - start)
    return {**asdict(trial.tally), "calls": len(trial.survey.calls), "seconds": seconds}


def main(output: Path, chosen: list[str]) -> int:
    """Kill, tell, write; return how many faults there are."""
    rows: dict[str, dict[str, Any]] = {}
    if chosen and output.exists():
        rows = {row["case"]: row for row in json.loads(output.read_text())["cases"]}
    nursery = Nursery("kill_targets", "kill_phantoms", "kill_runs", *SCRIPTS.values())
    with tempfile.TemporaryDirectory() as folder, site() as url:
        place = Path(folder)
        cases = writers(url, DIGEST)
        names = [case.name for case in cases]
        if not chosen or set(chosen) - set(names):
            cases += commands(Trained(nursery, place / "trained"))
        for number, case in enumerate(cases):
            if not chosen or case.name in chosen:
                single = case.name in names
                rows[case.name] = row_of(case, nursery, place / str(number), single=single)
    nursery.close()
    kept = list(rows.values())
    kills = sum(sum(row["kills"].values()) for row in kept)
    faults = sum(len(row["faults"]) for row in kept)
    content = {"kills": kills, "faults": faults, "cases": kept}
    output.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{kills} kills, {faults} faults")
    return faults


if __name__ == "__main__":
    sys.exit(min(1, main(Path(sys.argv[1]), sys.argv[2:])))
