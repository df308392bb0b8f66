"""What a person who helps from afar would ask first."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from prod9 import __version__
from prod9.config import TrainerConfig
from prod9.data import medmnist
from prod9.losses.weights import cache_dir, find_medicalnet, medicalnet_cache_path
from prod9.training.trainer import resolve_precision

_PACKAGES = ("torch", "pytorch-lightning", "numpy", "nibabel", "nilearn", "pydantic")


def _memory() -> str:
    disk = f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB free on this disk"
    if not hasattr(os, "sysconf"):  # Windows
        return disk
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{total:.1f} GiB memory, {disk}"


def _device() -> str:
    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        return f"{torch.cuda.device_count()} x {', '.join(sorted(names))}"
    if torch.backends.mps.is_available():
        return "Apple GPU (mps)"
    return f"CPU only ({torch.backends.cpu.get_cpu_capability()})"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def findings(root: Path) -> list[tuple[str, str]]:
    """Return (what, finding) pairs; nothing is downloaded or built."""
    rows = [
        ("prod9", __version__),
        ("Python", f"{platform.python_version()} on {platform.platform()}"),
        *((package, _version(package)) for package in _PACKAGES),
        ("device", _device()),
        ("precision auto", resolve_precision(TrainerConfig())),
        ("threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores"),
        ("memory", _memory()),
        ("cache", str(cache_dir())),
    ]
    weights = find_medicalnet(None, cache_dir())
    missing = f"not at {medicalnet_cache_path(cache_dir())} (prod9 weights fetch medicalnet)"
    rows.append(("MedicalNet weights", str(weights) if weights else missing))
    for file in medmnist.describe(root):
        found = file.problem or (str(file.path) if file.present else "not there")
        rows.append((f"{file.flag} {file.size}", found))
    return rows
