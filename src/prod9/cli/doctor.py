"""What a person who helps from afar would ask first."""

import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path

import torch

from prod9 import __version__
from prod9.config import TrainerConfig
from prod9.data import medmnist
from prod9.losses.weights import cache_dir, find_medicalnet, medicalnet_cache_path
from prod9.training.trainer import resolve_precision

_PACKAGES = ("torch", "pytorch-lightning", "numpy", "nibabel", "nilearn", "pydantic")


def findings(root: Path) -> list[tuple[str, str]]:
    """Return (what, finding) pairs; nothing is downloaded or built."""
    memory = f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB free on this disk"
    if hasattr(os, "sysconf"):  # not on Windows
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        memory = f"{total:.1f} GiB memory, {memory}"
    device = f"CPU only ({torch.backends.cpu.get_cpu_capability()})"
    if count := torch.cuda.device_count():
        names = {torch.cuda.get_device_name(i) for i in range(count)}
        device = f"{count} x {', '.join(sorted(names))}"
    weights = find_medicalnet(None, cache_dir())
    missing = f"not at {medicalnet_cache_path(cache_dir())} (prod9 weights fetch medicalnet)"
    rows = [
        ("prod9", __version__),
        ("Python", f"{platform.python_version()} on {platform.platform()}"),
        *((package, version(package)) for package in _PACKAGES),
        ("device", device),
        ("precision auto", resolve_precision(TrainerConfig())),
        ("threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores"),
        ("memory", memory),
        ("cache", str(cache_dir())),
        ("MedicalNet weights", str(weights or missing)),
    ]
    for file in medmnist.describe(root):
        found = file.problem or (str(file.path) if file.present else "not there")
        rows.append((f"{file.flag} {file.size}", found))
    return rows
