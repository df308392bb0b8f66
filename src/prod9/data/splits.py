"""Which subjects are in train, val and test: drawn once, then read from a file."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from prod9.errors import Prod9Error
from prod9.files import write_text

Split: TypeAlias = Literal["train", "val", "test"]
HeldOut: TypeAlias = Literal["val", "test"]
"""A split that nothing is learned from."""
SPLITS: tuple[Split, ...] = get_args(Split)


class SubjectSplit(BaseModel):
    """Subjects, never scans: two scans of one person are never in two splits."""

    model_config = ConfigDict(frozen=True, strict=True)

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    seed: int
    val_share: float
    """Of the subjects, as asked for, before rounding."""
    test_share: float
    fold: int | None = None
    """Which of ``folds`` parts is for testing, in cross-validation."""
    folds: int = 1

    def split_of(self, subject: str) -> Split:
        """Return the split that a subject belongs to."""
        return next(split for split in SPLITS if subject in getattr(self, split))


def open_split(
    path: Path,
    subjects: Sequence[str],
    *,
    seed: int,
    val_share: float,
    test_share: float,
    fold: int | None = None,
    folds: int = 1,
    write: bool = True,
) -> SubjectSplit:
    """Read the split from ``path``; if there is none yet, draw it and write it there.

    Args:
        path: a JSON file.
        subjects: those of the data; a repeated one counts once. The file may name more.
        seed: of the draw, 0 or more.
        val_share: of the subjects, 0 up to (without) 1. A share above 0 gets at least one subject.
        test_share: as ``val_share``; the rest is for training and never empty.
        fold: for cross-validation: which of ``folds`` parts is for testing, in place of
            ``test_share``; each subject is in one of them.
        folds: their number.
        write: whether a drawn split is written.

    Raises:
        Prod9Error: the file cannot be read or written, was drawn with another seed or share, names
            a subject twice, or lacks one of ``subjects``; or there are fewer subjects than splits.
    """
    if path.exists():
        split = _read(path)
    else:
        split = _draw(subjects, seed, val_share, test_share, fold, folds)
        if write:
            written = split.model_dump(exclude_defaults=True)
            write_text(path, json.dumps(written, indent=1) + "\n")
    asked_for = {"seed": seed, "val_share": val_share, "test_share": test_share, "fold": fold}
    asked_for |= {"folds": folds} if fold is not None else {}
    for name, asked in asked_for.items():
        stored, key = getattr(split, name), f"data.{name.replace('seed', 'split_seed')}"
        if stored != asked:
            raise Prod9Error(
                f"{path} was drawn with {key} {stored}, not {asked}; set {key} to {stored}, or "
                "name another data.split_file for a new split."
            )
    known = {*split.train, *split.val, *split.test}
    new = sorted(set(subjects) - known)
    if new:
        raise Prod9Error(
            f"{path} lacks {len(new)} of the {len(set(subjects))} subjects in the data, the first "
            f"is {new[0]}; name another data.split_file for a new split, or take those away."
        )
    return split


def split_counts(subjects: int, shares: tuple[float, float, float]) -> list[int]:
    """Return the number of subjects for each share: rounded, at least 1 where it is not 0.

    Raises:
        Prod9Error: fewer subjects than shares that are not 0.
    """
    needed = sum(share > 0 for share in shares)
    if subjects < needed:
        raise Prod9Error(
            f"too few subjects to split: there are {subjects}, at least {needed} are needed, one "
            "for each split whose share is not 0; add cases or set a share to 0."
        )
    counts = [max(1, int(subjects * share + 0.5)) if share > 0 else 0 for share in shares]
    while sum(counts) != subjects:  # the largest part takes what rounding left
        counts[counts.index(max(counts))] += 1 if sum(counts) < subjects else -1
    return counts


def _draw(
    subjects: Sequence[str],
    seed: int,
    val_share: float,
    test_share: float,
    fold: int | None,
    folds: int,
) -> SubjectSplit:
    names = sorted(set(subjects))
    order = np.random.default_rng(seed).permutation(len(names)).tolist()
    shares = (1 - val_share - test_share, val_share, test_share)
    counts = split_counts(len(names), shares)
    if fold is not None:  # its part goes to the end, and is for testing
        if len(names) < folds:
            raise Prod9Error(f"{len(names)} subjects make no {folds} folds; lower data.folds.")
        start, stop = (part * len(names) // folds for part in (fold, fold + 1))
        rest = order[:start] + order[stop:]
        order = rest + order[start:stop]
        counts = [*split_counts(len(rest), (1 - val_share, val_share, 0.0))[:2], stop - start]
    train, val, test = (
        tuple(sorted(names[i] for i in order[end - count : end]))
        for count, end in zip(counts, np.cumsum(counts).tolist(), strict=True)
    )
    return SubjectSplit(
        train=train,
        val=val,
        test=test,
        seed=seed,
        val_share=val_share,
        test_share=test_share,
        fold=fold,
        folds=folds,
    )


def _read(path: Path) -> SubjectSplit:
    try:
        split = SubjectSplit.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise Prod9Error(
            f"{path} is no split ({reason}); restore it, or delete it to draw a new split."
        ) from error
    every = Counter((*split.train, *split.val, *split.test))
    if twice := [name for name, count in every.items() if count > 1]:
        raise Prod9Error(
            f"{path} names the subject {twice[0]} more than once; delete all entries but one."
        )
    return split
