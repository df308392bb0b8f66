"""Who is in train, val and test: drawn once by subject, written down, read ever after."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from prod9.errors import Prod9Error
from prod9.files import write_text

Split: TypeAlias = Literal["train", "val", "test"]
HeldOut: TypeAlias = Literal["val", "test"]
"""A split that nothing is learned from."""
SPLITS: tuple[Split, ...] = get_args(Split)
_REMEDY = "restore it, or delete it to draw a new split"


@dataclass(frozen=True)
class SubjectSplit:
    """Subjects, never scans: two scans of one person never lie on both sides."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    seed: int
    val_share: float
    """Of the subjects, 0 up to (without) 1; as asked for, before rounding."""
    test_share: float
    """As ``val_share``."""

    def split_of(self, subject: str) -> Split:
        """Return the split that a subject belongs to.

        Raises:
            Prod9Error: it belongs to none.
        """
        for split in SPLITS:
            if subject in getattr(self, split):
                return split
        raise Prod9Error(f"the subject {subject} is in no split; draw the split anew.")


def open_split(
    path: Path, subjects: Sequence[str], *, seed: int, val_share: float, test_share: float
) -> SubjectSplit:
    """Read the split from ``path``; where there is none yet, draw it and write it there.

    Args:
        path: A JSON file.
        subjects: Those of the data, in any order; a repeated one counts once. The file may name
            more: some data may be missing this time.
        seed: Decides the draw, 0 or more.
        val_share: Of the subjects, 0 up to (without) 1. A share above 0 gets at least one subject.
        test_share: As ``val_share``; the rest is for training and never empty.

    Raises:
        Prod9Error: the file cannot be read or written, was drawn with another seed or share, names
            a subject twice, or lacks one of ``subjects``; or the shares are impossible, or there
            are fewer subjects than splits.
    """
    if not path.exists():
        split = draw_split(subjects, seed=seed, val_share=val_share, test_share=test_share)
        write_text(path, json.dumps(asdict(split), indent=1) + "\n")
    split = _read(path)
    asked_for = {"seed": seed, "val_share": val_share, "test_share": test_share}
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


def draw_split(
    subjects: Sequence[str], *, seed: int, val_share: float, test_share: float
) -> SubjectSplit:
    """Draw a split and write nothing; arguments and mistakes as of :func:`open_split`."""
    train_share = 1 - val_share - test_share
    if not (val_share >= 0 and test_share >= 0 and train_share > 0):
        raise Prod9Error(
            f"the shares of val ({val_share:g}) and test ({test_share:g}) must be 0 or more, and "
            "below 1 together; the rest is for training."
        )
    if seed < 0:
        raise Prod9Error(f"the seed of the split is {seed}; it must be 0 or more.")
    names = sorted(set(subjects))
    counts = split_counts(len(names), (train_share, val_share, test_share))
    order = np.random.default_rng(seed).permutation(len(names))
    ends = np.cumsum(counts)
    train, val, test = (
        tuple(sorted(names[i] for i in order[end - count : end].tolist()))
        for count, end in zip(counts, ends, strict=True)
    )
    return SubjectSplit(train, val, test, seed, val_share, test_share)


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
    while sum(counts) != subjects:  # rounding went astray: let the largest part pay
        counts[counts.index(max(counts))] += 1 if sum(counts) < subjects else -1
    return counts


def _read(path: Path) -> SubjectSplit:
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        lists = {split: tuple(stored[split]) for split in SPLITS}
        every = [name for names in lists.values() for name in names]
        seed, shares = stored["seed"], [stored["val_share"], stored["test_share"]]
        if not all(isinstance(stored[split], list) for split in SPLITS):
            raise TypeError("train, val and test must be lists")
        if not all(isinstance(name, str) for name in every):
            raise TypeError("subjects must be strings")
        if type(seed) is not int or not all(type(share) in (int, float) for share in shares):
            raise TypeError("seed and shares must be numbers")
        val_share, test_share = map(float, shares)  # an OverflowError for whole numbers like 1e400
    except KeyError as error:
        raise Prod9Error(f"{path} is no split: it lacks {error}; {_REMEDY}.") from error
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise Prod9Error(f"{path} is no split ({error}); {_REMEDY}.") from error
    name, count = next(iter(Counter(every).most_common(1)), ("", 0))
    if count > 1:
        where = " and ".join(split for split in SPLITS for n in lists[split] if n == name)
        raise Prod9Error(
            f"{path} names the subject {name} {count} times, in {where}; delete all but one."
        )
    return SubjectSplit(**lists, seed=seed, val_share=val_share, test_share=test_share)
