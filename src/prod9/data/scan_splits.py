"""Scans of any source, preprocessed and split by subject."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from rich.progress import Progress

from prod9.config.data import PreprocessingConfig, ScanSourceConfig
from prod9.data.scan_cache import BadCase, Scan, ScanSource, prepare
from prod9.data.scan_dataset import ScanDataset
from prod9.data.splits import SPLITS, Split, SubjectSplit, open_split
from prod9.errors import Prod9Error
from prod9.runtime.cache import cache_dir
from prod9.runtime.console import say
from prod9.runtime.distributed import main_first

Made = TypeVar("Made", bound=ScanDataset)


def cache_of(config: ScanSourceConfig, root: Path, key: str) -> Path:
    """Return the folder of the preprocessed scans; ``key`` is the key that names ``root``.

    Raises:
        Prod9Error: it lies inside the data.
    """
    cache = config.cache_dir or cache_dir() / "scans"
    inside = cache.resolve()
    if root.resolve() in (inside, *inside.parents):
        raise Prod9Error(
            f"data.cache_dir ({cache}) lies inside {key} ({root}), which is only read; choose a "
            "folder outside it."
        )
    return cache


def read_scans(
    sources: Sequence[ScanSource],
    bad: Sequence[BadCase],
    config: ScanSourceConfig,
    preprocessing: PreprocessingConfig,
    cache: Path,
) -> tuple[tuple[Scan, ...], list[BadCase]]:
    """Preprocess all scans, with a progress bar; return them, and all bad ones by name."""
    with Progress(transient=True) as bar:
        task = bar.add_task("reading scans", total=len(sources))
        scans, unread = prepare(sources, preprocessing, cache, lambda: bar.advance(task))
    return scans, sorted((*bad, *unread), key=lambda case: case.name)


def report_bad(
    bad: Sequence[BadCase], config: ScanSourceConfig, root: Path, total: int, usable: int
) -> None:
    """Say which scans are left out.

    Raises:
        Prod9Error: they must not be (``data.on_bad_case``), or none is left.
    """
    if bad and config.on_bad_case == "skip":
        for case in bad:
            say(f"left out: {case.name} {case.cause}")
    elif bad:
        raise Prod9Error(
            f"{len(bad)} of {total} cases in {root} cannot be used, the first: "
            f"{bad[0].name} {bad[0].cause}. Repair them (all causes: prod9 data inspect "
            f"{root}), or set data.on_bad_case=skip to leave them out."
        )
    if not usable:
        raise Prod9Error(f"{root} has no case that can be used; see the causes above.")


def split_of(
    config: ScanSourceConfig, subjects: Sequence[str], *, write: bool = True
) -> SubjectSplit:
    """Open the split of these subjects; it is drawn and written if there is none."""
    with main_first():
        return open_split(
            config.split_file,
            subjects,
            seed=config.split_seed,
            val_share=config.val_share,
            test_share=config.test_share,
            fold=config.fold,
            folds=config.folds,
            write=write,
        )


def split_scans(
    scans: Sequence[Scan],
    split: SubjectSplit,
    make: Callable[[str, list[Scan]], Made],
    root: Path,
    source: str,
) -> dict[Split, Made]:
    """Return a data set for each split.

    Args:
        scans: those that can be used.
        split: of all subjects.
        make: (name, scans) -> data set.
        root: of the data, for names.
        source: where the split comes from, for messages.

    Raises:
        Prod9Error: a split without a scan.
    """
    splits: dict[Split, Made] = {
        name: make(f"{root}, {name} split", [s for s in scans if split.split_of(s.subject) == name])
        for name in SPLITS
    }
    if empty := [name for name, data in splits.items() if not len(data)]:
        raise Prod9Error(
            f"{source} leaves no scan of {root} for {' and '.join(empty)}; choose another "
            "data.split_file to split anew."
        )
    counts = ", ".join(f"{len(data)} {name}" for name, data in splits.items())
    say(f"split by subject ({source}): {counts}")
    return splits
