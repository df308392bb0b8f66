"""What a person who helps from afar would ask first."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from prod9 import __version__
from prod9.data import medmnist
from prod9.losses.weights import find_medicalnet, medicalnet_cache_path
from prod9.runtime.cache import cache_dir
from prod9.runtime.device import resolve_precision
from prod9.runtime.machine_speed import machine_speed
from prod9.runtime.progress import duration

_PACKAGES = ("torch", "pytorch-lightning", "numpy", "nibabel", "pydantic")
_OPTIONAL = {
    "nilearn": "demo",
    "SimpleITK": "itk",
    "huggingface_hub": "hub",
}
"""Packages that are not always there, and the extra that brings each."""


def _optional(package: str, extra: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return f"not installed (pip install 'prod9[{extra}]')"


def findings(root: Path) -> list[tuple[str, str]]:
    """Return (what, finding) pairs; nothing is downloaded or built. Measures for half a second."""
    memory = f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB free on this disk"
    if hasattr(os, "sysconf"):  # not on Windows
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        memory = f"{total:.1f} GiB memory, {memory}"
    speed = machine_speed()
    device = f"CPU only ({speed.instructions})"
    if count := torch.cuda.device_count():
        names = {torch.cuda.get_device_name(i) for i in range(count)}
        device = f"{count} x {', '.join(sorted(names))}"
    weights = find_medicalnet(None, cache_dir())
    missing = f"not at {medicalnet_cache_path(cache_dir())} (prod9 weights fetch medicalnet)"
    rows = [
        ("prod9", __version__),
        ("Python", f"{platform.python_version()} on {platform.platform()}"),
        *((package, version(package)) for package in _PACKAGES),
        *((package, _optional(package, extra)) for package, extra in _OPTIONAL.items()),
        ("device", device),
        ("precision auto", resolve_precision("auto", "auto")),
        ("threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores"),
        ("memory", memory),
        ("matrix product", f"{speed.matmul:,.0f} GFLOP/s (fp32, 1024 x 1024)"),
        ("conv3d", f"{speed.conv3d:,.0f} GFLOP/s (fp32, 8 x 96 channels of 14^3, 3^3 kernel)"),
        ("copy", f"{speed.copy:,.1f} GB/s, read and written"),
        ("cache", str(cache_dir())),
        ("MedicalNet weights", str(weights or missing)),
    ]
    if speed.device == "cpu":
        rows.append(("prod9 demo", f"takes about {duration(speed.demo_seconds)} here"))
    for file in medmnist.describe(root):
        found = file.problem or (str(file.path) if file.present else "not there")
        rows.append((f"{file.flag} {file.size}", found))
    return rows
