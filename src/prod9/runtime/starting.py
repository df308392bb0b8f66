"""The start of a long command: its first word, and fast imports of PyTorch and Lightning."""

import gc
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module, metadata
from typing import Any

from prod9.runtime.console import say
from prod9.runtime.processes import placed

_NOT_USED = ("matplotlib", "scipy")
"""torchmetrics, which Lightning imports, would import them to plot and to measure sound."""


@contextmanager
def starting(what: str) -> Generator[None]:
    """Say that ``what`` starts; the imports of the block take half the time. For console scripts.

    Nothing is garbage in what is being imported, so that nobody looks for it; and torchmetrics,
    which prod9 does not use, takes two of its optional packages for not installed.
    """
    if placed() is None:  # else there are several processes, or one has said so and started them
        say(f"{what}: starting")
    gc.disable()
    try:
        with _taken_for_absent(_NOT_USED):
            yield
    finally:
        gc.freeze()  # what was imported stays
        gc.enable()


@contextmanager
def _taken_for_absent(packages: tuple[str, ...]) -> Generator[None]:
    """Let Lightning's checks of optional packages, by its helper library, not find some."""
    checks: Any = import_module("lightning_utilities.core.imports")
    known = {"find_spec", "_version"} <= vars(checks).keys()
    if not known or not hasattr(checks.package_available, "cache_clear"):
        yield  # another version of that library: a slower start
        return
    find_spec, version = checks.find_spec, checks._version

    def find_others(name: str) -> Any:
        return None if name in packages else find_spec(name)

    def version_of_others(name: str) -> str:
        if name in packages:
            raise metadata.PackageNotFoundError(name)
        return version(name)

    checks.find_spec, checks._version = find_others, version_of_others
    try:
        yield
    finally:
        checks.find_spec, checks._version = find_spec, version
        checks.package_available.cache_clear()
