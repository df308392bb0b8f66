"""Fuzz one reader for some seconds, in this process; ``run_fuzz.py`` starts it for each.

With ``--engine atheris`` inputs that reach new code are kept and changed on; ``blind`` changes
whole files at random.
"""

import argparse
import json
import os
import random
import resource
import sys
import time
from pathlib import Path
from typing import Any

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--list", action="store_true", help="print the readers' names")
parser.add_argument("--only", default="", help="the reader, by name")
parser.add_argument("--seconds", type=float, default=60)
parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
parser.add_argument("--engine", choices=["atheris", "blind"], default="blind")
options = parser.parse_args()

atheris: Any = None
if options.engine == "atheris":
    import atheris

    followed = ["prod9", "nibabel", "gzip", "zipfile", "yaml", "csv", "pickletools"]
    with atheris.instrument_imports(include=followed):
        import fuzz_targets  # noqa: F401

from fuzz_mutations import spoil  # noqa: E402
from fuzz_promise import address_space, broken_promise  # noqa: E402
from fuzz_targets import TARGETS, Target  # noqa: E402

LONGEST = 1 << 16
"""Bytes of an input."""
SLOW_S = 10
ROOM = 2 << 30


class Campaign:
    """Inputs given to one reader, and what came of it."""

    def __init__(self, target: Target, seconds: float, folder: Path) -> None:
        self.target, self.seconds, self.folder = target, seconds, folder
        self.inputs, self.slowest, self.findings = 0, 0.0, dict[str, str]()
        self.start = time.monotonic()

    def give(self, data: bytes) -> None:
        begin = time.monotonic()
        problem = broken_promise(self.target, data, limited=False)
        took = time.monotonic() - begin
        self.inputs += 1
        self.slowest = max(self.slowest, took)
        if problem is None and took > SLOW_S:
            problem = f"it took more than {SLOW_S} seconds"
        if problem is not None and problem not in self.findings:
            self.folder.mkdir(parents=True, exist_ok=True)
            kept = self.folder / f"{self.target.name.replace(' ', '_')}-{len(self.findings)}"
            kept.write_bytes(data)
            self.findings[problem] = str(kept)
        if time.monotonic() - self.start > self.seconds:
            self.end()

    def end(self) -> None:
        result = {
            "reader": self.target.name,
            "inputs": self.inputs,
            "seconds": round(time.monotonic() - self.start, 1),
            "slowest_seconds": round(self.slowest, 2),
            "findings": self.findings,
        }
        print(json.dumps(result), flush=True)
        os._exit(0)  # libFuzzer would report any other exit as a crash


def blindly(campaign: Campaign) -> None:
    rng, seeds = random.Random(0), campaign.target.seeds()
    while True:
        campaign.give(spoil(rng.choice(seeds), rng, campaign.target.fields))


def guided(campaign: Campaign) -> None:
    seeds, target = campaign.target.seeds(), campaign.target

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if len(data) < 2 or rng.random() < 0.02:
            data = rng.choice(seeds)
        changed = spoil(data, rng, target.fields) if rng.random() < 0.7 else None
        return (atheris.Mutate(data, most) if changed is None else changed)[:most]

    corpus = campaign.folder / "corpus" / target.name.replace(" ", "_")
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [f"-max_len={LONGEST}", "-timeout=60", "-rss_limit_mb=0", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], campaign.give, custom_mutator=mutate)
    atheris.Fuzz()


def main() -> None:
    if options.list:
        print("\n".join(target.name for target in TARGETS))
        return
    target = next(target for target in TARGETS if target.name == options.only)
    target.store(target.seeds()[0])  # what is made once is made before the clock runs
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + ROOM, hard))
    campaign = Campaign(target, options.seconds, options.findings)
    (guided if atheris else blindly)(campaign)


if __name__ == "__main__":
    main()
