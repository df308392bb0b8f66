"""Fuzz every reader for some seconds each, guided by coverage: ``make fuzz SECONDS=60``.

Each reader runs in a process of its own, with little memory. Inputs that break a promise
(``fuzz_targets.py`` says which) are kept under ``--findings``; ``--summary`` writes the counts.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

LONGEST = 1 << 16
"""Bytes of an input."""
SLOW_S = 10
ROOM = 2 << 30


def fuzz(name: str, seconds: float, folder: Path) -> None:
    """Fuzz one reader in this process; print the counts as JSON and end the process."""
    import atheris

    with atheris.instrument_imports(include=["prod9", "nibabel", "gzip", "zipfile", "yaml", "csv"]):
        from fuzz_mutations import spoil
        from fuzz_promise import address_space, broken_promise
        from fuzz_targets import TARGETS
    target = next(target for target in TARGETS if target.name == name)
    seeds = target.seeds()
    target.store(seeds[0])  # what is made once is made before the clock runs
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + ROOM, hard))
    label, start = name.replace(" ", "_"), time.monotonic()
    findings: dict[str, str] = {}
    inputs, slowest = 0, 0.0

    def give(data: bytes) -> None:
        nonlocal inputs, slowest
        begin = time.monotonic()
        problem = broken_promise(target, data, limited=False)
        took = time.monotonic() - begin
        inputs, slowest = inputs + 1, max(slowest, took)
        if problem is None and took > SLOW_S:
            problem = f"it took more than {SLOW_S} seconds"
        if problem is not None and problem not in findings:
            folder.mkdir(parents=True, exist_ok=True)
            kept = folder / f"{label}-{len(findings)}"
            kept.write_bytes(data)
            findings[problem] = str(kept)
        if time.monotonic() - start > seconds:
            result = {"reader": name, "inputs": inputs, "slowest_seconds": round(slowest, 2)}
            print(json.dumps(result | {"findings": findings}), flush=True)
            os._exit(0)  # libFuzzer would report any other exit as a crash

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if len(data) < 2 or rng.random() < 0.02:
            data = rng.choice(seeds)
        changed = spoil(data, rng, target.fields) if rng.random() < 0.7 else None
        return (atheris.Mutate(data, most) if changed is None else changed)[:most]

    corpus = folder / "corpus" / label
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [f"-max_len={LONGEST}", "-timeout=60", "-rss_limit_mb=0", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], give, custom_mutator=mutate)
    atheris.Fuzz()


def main() -> int:
    """Return 1 if any reader broke its promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for each reader")
    parser.add_argument("--only", action="append", help="a reader, by name; all when left out")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--summary", type=Path)
    parser.add_argument("--here", action="store_true", help="fuzz the one reader in this process")
    options = parser.parse_args()
    if options.here:
        fuzz(options.only[0], options.seconds, options.findings)
    from fuzz_targets import TARGETS

    rows: list[dict[str, object]] = []
    for name in options.only or [target.name for target in TARGETS]:
        arguments = ["--here", "--only", name, "--seconds", str(options.seconds)]
        ended = subprocess.run(
            [sys.executable, __file__, *arguments, "--findings", options.findings],
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
        options.summary.write_text(json.dumps({"readers": rows}, indent=1) + "\n", encoding="utf-8")
    return int(any(row["findings"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
