"""Writers of phantoms and of what is made of scans, each called with a folder.

Whoever imports this draws two coarse cases, once, for all processes forked from there.
"""

from functools import cache
from pathlib import Path

from prod9.config import PreprocessingConfig
from prod9.data.brats.cases import prepare
from prod9.data.brats.layouts import find_cases
from prod9.data.brats.phantom import cohort as cohort_module
from prod9.data.brats.phantom.cohort import make_phantom

_SEED, _VOXEL_MM = 3, 8.0
cohort_module.draw_case = cache(cohort_module.draw_case)
for index in range(2):
    cohort_module.draw_case(_SEED, index, voxel_mm=_VOXEL_MM)


def phantom(folder: Path, release: str) -> None:
    """Write a cohort of two coarse cases."""
    kind = "msd" if release == "msd" else "2021"
    make_phantom(folder, cases=2, release=kind, seed=_SEED, overwrite=True, voxel_mm=_VOXEL_MM)


def cohort(folder: Path) -> None:
    """Write what is preprocessed."""
    phantom(folder / "cohort", "2021")


def scan_cache(folder: Path) -> None:
    """Preprocess two scans."""
    cases = find_cases(folder / "cohort").cases
    settings = PreprocessingConfig.model_validate({"spacing_mm": (8.0, 8.0, 8.0)})
    scans, bad = prepare(cases, settings, folder / "cache")
    assert len(scans) == 2
    assert not bad
