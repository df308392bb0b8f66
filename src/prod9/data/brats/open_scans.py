"""A BraTS folder from its configuration: found, checked, preprocessed, split by subject."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from rich.progress import Progress

from prod9.config import BraTSSourceConfig, PreprocessingConfig
from prod9.data.brats.cases import MODALITIES, BadCase, Cohort, find_cases
from prod9.data.brats.layouts import subject_of
from prod9.data.brats.scan_cache import Prepared, prepare
from prod9.data.brats.scans import ScanSet, common_grid
from prod9.data.splits import SPLITS, Split, open_split
from prod9.errors import Prod9Error
from prod9.losses.weights import cache_dir
from prod9.runtime.console import say
from prod9.runtime.distributed import main_first
from prod9.tokenizer import Tokenizer

_LISTED = 5
"""Bad cases that an error names; `prod9 data inspect` lists all of them."""


def preprocessing_of(tokenizer: Tokenizer) -> PreprocessingConfig:
    """Return how a tokenizer's scans were preprocessed.

    Raises:
        Prod9Error: it was not trained on scans.
    """
    if tokenizer.spec.preprocessing is None:
        raise Prod9Error(
            f"the tokenizer was trained on {tokenizer.spec.dataset_name}, not on scans; choose the "
            "--config of a BraTS model."
        )
    return tokenizer.spec.preprocessing


def open_scans(data: BraTSSourceConfig, preprocessing: PreprocessingConfig) -> dict[Split, ScanSet]:
    """Find, check, preprocess and split the scans of ``data.data_dir``; say what was found.

    Raises:
        Prod9Error: no folder, or no cases in it; bad cases, unless they are to be skipped; a split
            file that does not fit; a cache that cannot be written.
    """
    if not data.data_dir.exists():
        raise Prod9Error(
            f"{data.data_dir} does not exist; set data.data_dir (BRATS_DATA_DIR, in the shipped "
            "configurations) to a BraTS folder as synapse.org or medicaldecathlon.com have it, or "
            f"make one of drawn cases: prod9 data make-phantom-brats {data.data_dir} --cases 6."
        )
    cohort = find_cases(data.data_dir)
    cache = _cache(data)
    with Progress(transient=True) as bar:
        task = bar.add_task("reading scans", total=len(cohort.cases))
        prepared = prepare(cohort.cases, preprocessing, cache, lambda case: bar.advance(task))
    bad = (*cohort.bad, *prepared.bad)
    say(f"{data.data_dir}: {_found(cohort, prepared)}, in {cache}")
    if len(cohort.releases) > 1:
        say(
            "warning: releases share patients under other names; with several in one folder the "
            "same patient may be in train and test. Split and train on one."
        )
    if bad:
        _report(bad, data, total=len(cohort.cases) + len(cohort.bad))
    if not prepared.scans:
        raise Prod9Error(f"{data.data_dir} has no case that can be used; see the causes above.")
    # Broken cases are dealt out too: mended, they have their place.
    subjects = {*cohort.subjects, *(subject_of(case.name) for case in bad)}
    with main_first():  # it is written where there is none
        split = open_split(
            data.split_file,
            sorted(subjects),
            seed=data.split_seed,
            val_share=data.val_share,
            test_share=data.test_share,
        )
    everything = common_grid(prepared.scans)
    sets: dict[Split, ScanSet] = {
        name: everything.select(lambda scan, name=name: split.split_of(scan.subject) == name)
        for name in SPLITS
    }
    empty = [name for name, scans in sets.items() if not scans]
    if empty:
        raise Prod9Error(
            f"{data.split_file} leaves no scan of {data.data_dir} for {' and '.join(empty)}; "
            "choose another data.split_file to split anew."
        )
    counts = ", ".join(f"{len(scans)} {name}" for name, scans in sets.items())
    say(f"split by subject ({data.split_file}): {counts}")
    return sets


def require_unseen(
    trained_on: Collection[str], scans: Mapping[Split, ScanSet], data: BraTSSourceConfig, what: str
) -> None:
    """Refuse a split whose val or test has subjects that ``what`` was trained on.

    Raises:
        Prod9Error: it names the first.
    """
    seen = sorted({*scans["val"].subjects, *scans["test"].subjects} & {*trained_on})
    if seen:
        raise Prod9Error(
            f"{data.split_file} puts {len(seen)} subjects into val or test that {what} was "
            f"trained on, the first is {seen[0]}; use the data.split_file of that training, or "
            "train it anew."
        )


def _cache(data: BraTSSourceConfig) -> Path:
    cache = data.cache_dir or cache_dir() / "scans"
    inside = cache.resolve()
    if data.data_dir.resolve() in (inside, *inside.parents):
        raise Prod9Error(
            f"data.cache_dir ({cache}) lies inside data.data_dir ({data.data_dir}), which is only "
            "read; choose a folder outside it."
        )
    return cache


def _grids(grids: Iterable[tuple[Sequence[int], Sequence[float]]]) -> str:
    """Say which grids there are, the most frequent first."""
    counts = Counter(
        f"{'x'.join(map(str, shape))} at {' x '.join(f'{mm:.3g}' for mm in spacing)} mm"
        for shape, spacing in grids
    )
    texts = [f"{grid} ({count})" for grid, count in counts.most_common(3)]
    return ", ".join(texts) + (f" and {len(counts) - 3} more grids" if len(counts) > 3 else "")


def _found(cohort: Cohort, prepared: Prepared) -> str:
    scans = prepared.scans
    stored = _grids((scan.stored_shape, scan.stored_spacing_mm) for scan in scans)
    ready = _grids((scan.shape, scan.spacing_mm) for scan in scans)
    bad = len(cohort.bad) + len(prepared.bad)
    return (
        f"release {' and '.join(cohort.releases)}; {len(scans)} usable cases of "
        f"{len({scan.subject for scan in scans})} subjects, {bad} broken; "
        f"{', '.join(MODALITIES)}; {stored or 'no grid'}; preprocessed to {ready or 'no grid'}"
    )


def _report(bad: Sequence[BadCase], data: BraTSSourceConfig, total: int) -> None:
    bad = sorted(bad, key=lambda case: case.name)
    if data.on_bad_case == "skip":
        for case in bad:
            say(f"left out: {case.name} {case.cause}")
        return
    named = "; ".join(f"{case.name} {case.cause}" for case in bad[:_LISTED])
    more = f"; and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
    raise Prod9Error(
        f"{len(bad)} of {total} cases in {data.data_dir} cannot be used: {named}{more}. Repair "
        f"them (all causes: prod9 data inspect {data.data_dir}), or set data.on_bad_case=skip to "
        "leave them out."
    )
