"""Whether prod9 computes the same numbers as before, to the bit.

``python -m benchmarks.same_numbers record FILE.json`` runs both demos at a small size and writes
what they compute: the logged values of 20 steps of each stage, the weights of the exports, tokens,
reconstructed, generated, translated and in-painted volumes. ``compare FILE.json`` runs the same
again and prints for each entry whether it is equal; ``compare FILE.json OTHER.json`` compares two
records. The exit code is 1 where an entry differs or is missing. An entry that only the newer
record has is printed and is no difference.

Every step is a console command in a process of its own, with one thread. prod9 is not imported:
the comparison survives modules that are moved and renamed. For the same reason weights are known
by their shape and content, not by their name.

The numbers belong to a processor, an instruction set and a version of PyTorch. On another machine
make a record of the older commit there, and compare with that.
"""

import argparse
import csv
import datetime
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from benchmarks import small_demos

Entry = dict[str, list[str]]
"""``digests``: of each array or tensor. ``values``: floats as hexadecimal text, which rounds
nothing: logged values, or the mean and the standard deviation of each array."""

VOLUMES = 4
"""Generated volumes of each demo in the record."""
INSTRUCTION_SETS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
"""Environment variables that choose an instruction set, and with it the numbers."""


def arrays_entry(arrays: Iterable[np.ndarray]) -> Entry:
    """Return digest (type, shape, content), mean and standard deviation of each array."""
    entry: Entry = {"digests": [], "values": []}
    for array in arrays:
        sha = hashlib.sha256(f"{array.dtype} {array.shape} ".encode() + array.tobytes())
        entry["digests"].append(sha.hexdigest())
        moments = array.mean(dtype=np.float64), array.std(dtype=np.float64)
        entry["values"] += [float(moment).hex() for moment in moments]
    return entry


def export_entry(path: Path) -> Entry:
    """Return the entry of all tensors of an export, in an order that knows no names."""

    def tensors(node: Any) -> Iterator[torch.Tensor]:
        if isinstance(node, torch.Tensor):
            yield node
        elif isinstance(node, dict | list | tuple):
            for part in node.values() if isinstance(node, dict) else node:
                yield from tensors(part)

    arrays = [t.numpy() for t in tensors(torch.load(path, map_location="cpu", weights_only=True))]
    return arrays_entry(
        sorted(arrays, key=lambda a: (a.shape, str(a.dtype), a.mean(), a.tobytes()))
    )


def nifti_entry(paths: Iterable[Path]) -> Entry:
    """Return the entry of NIfTI files: their voxels as they are stored, and their affines."""
    images = [nib.load(path) for path in paths]
    arrays = [part for image in images for part in (np.asanyarray(image.dataobj), image.affine)]
    return arrays_entry(arrays)


def history_entries(run_folder: Path, prefix: str) -> dict[str, Entry]:
    """Return the logged values of training and validation, an entry for each column."""
    with (run_folder / "history" / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        f"{prefix} {name}": {"values": [float(row[name]).hex() for row in rows if row[name]]}
        for name in rows[0]
        if name.startswith(("train/", "val/"))
    }


def collect(work: Path) -> dict[str, Entry]:
    """Read what the commands wrote."""
    with np.load(next((work / "data").glob("*.npz"))) as data:
        entries = {"regions data": arrays_entry(data[name] for name in sorted(data))}
    entries["brats data"] = nifti_entry(sorted((work / small_demos.CASE).parent.glob("*.nii.gz")))
    for demo in small_demos.INPUTS:
        folder = work / demo
        for history in sorted(folder.glob("stage*/history")):
            entries |= history_entries(history.parent, f"{demo} {history.parent.name}")
        for path in sorted([*folder.glob("*.pt"), *folder.glob("stage*/*.pt")]):
            name = path.relative_to(folder).with_suffix("").as_posix()
            entries[f"{demo} weights {name}"] = export_entry(path)
        inferred = folder / "inferred"
        tokens = [np.load(path)["tokens"] for path in sorted(inferred.glob("*.npz"))]
        entries[f"{demo} tokens"] = arrays_entry(grid.astype(np.int64) for grid in tokens)
        if demo == "regions":
            back = [np.load(path) for path in sorted(inferred.glob("*.npy"))]
            entries["regions reconstructed"] = arrays_entry(back)
        else:
            entries["brats reconstructed"] = nifti_entry(sorted(inferred.glob("*.nii.gz")))
        for kind in ("generated", "translated", "inpainted"):
            volumes = sorted((folder / kind).glob("*.nii.gz"))[:VOLUMES]
            entries |= {f"{demo} {kind}": nifti_entry(volumes)} if volumes else {}
    return entries


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=small_demos.ROOT, capture_output=True, text=True)
    return done.stdout.strip()


def describe() -> dict[str, Any]:
    """Return what decides the numbers besides the code."""
    cpuinfo, processor = Path("/proc/cpuinfo"), platform.processor()
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        processor = next(names, processor)
    return {
        "processor": processor,
        "system": f"{platform.system()} {platform.machine()}",
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "environment": {name: os.environ[name] for name in INSTRUCTION_SETS if name in os.environ},
        "threads": 1,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def record() -> dict[str, Any]:
    """Run everything in a temporary folder and return the record."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        small_demos.run_all(work)
        entries = collect(work)
    commands = (*small_demos.MAKE_DATA, *small_demos.model_commands())
    changed = "+changes" if git("status", "--porcelain", "--", "src") else ""
    return {
        "kind": "prod9-same-numbers",
        "note": "These numbers are those of this machine and these versions; others differ.",
        "commit": git("rev-parse", "HEAD") + changed,
        "date": datetime.date.today().isoformat(),
        "machine": describe(),
        "seed": small_demos.SEED,
        "seconds": round(time.monotonic() - start),
        "commands": [" ".join(command) for command in commands],
        "entries": entries,
    }


def difference(old: Entry, new: Entry) -> str:
    """Say how two entries differ; nothing where they are equal to the bit."""
    if old == new:
        return ""
    found: list[str] = []
    before, after = Counter(old.get("digests", ())), Counter(new.get("digests", ()))
    if before or after:
        found.append(f"{(before - after).total()} of {before.total()} arrays differ")
        if before.total() != after.total():
            found.append(f"now {after.total()} arrays")
    if len(old["values"]) != len(new["values"]):
        found.append(f"{len(old['values'])} values before, {len(new['values'])} now")
    gaps = [
        abs(float.fromhex(b) - float.fromhex(a))
        for a, b in zip(old["values"], new["values"], strict=False)
    ]
    what = "of mean or deviation " if before or after else ""
    return "; ".join([*found, f"largest absolute difference {what}{max(gaps, default=0.0):.3g}"])


def compare(old: dict[str, Any], new: dict[str, Any]) -> int:
    """Print for each entry whether it is equal; return the exit code."""
    if old["machine"] != new["machine"]:
        print(
            "warning: another machine or other versions: the numbers may differ without a mistake\n"
            f"  before: {old['machine']}\n  now:    {new['machine']}",
            file=sys.stderr,
        )
    bad = 0
    for name in sorted(old["entries"].keys() | new["entries"].keys()):
        before, after = old["entries"].get(name), new["entries"].get(name)
        if before is None or after is None:
            state, text = ("new", "") if before is None else ("missing", "")
        else:
            text = difference(before, after)
            state = "different" if text else "equal"
        bad += state in ("different", "missing")
        print(f"{state:<10} {name}{': ' if text else ''}{text}")
    print(f"{bad} of {len(old['entries'])} entries differ from {old['commit']}")
    return 1 if bad else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.same_numbers", description=__doc__)
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("file", type=Path, help="the record")
    parser.add_argument("other", type=Path, nargs="?", help="compare with this record; run nothing")
    options = parser.parse_args(arguments)
    if options.action == "record":
        options.file.write_text(json.dumps(record(), indent=1) + "\n")
        return 0
    old = json.loads(options.file.read_text())
    new = json.loads(options.other.read_text()) if options.other else record()
    return compare(old, new)


if __name__ == "__main__":
    sys.exit(main())
