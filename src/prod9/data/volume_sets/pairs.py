"""Which reconstruction belongs to which original."""

from collections.abc import Sequence
from dataclasses import replace

from prod9.data.volume_sets.volume_set import VolumeSet, comparable, without_classes
from prod9.errors import Prod9Error

ENDINGS = ("_reconstructed", "_recon", "_rec")
"""What the name of a reconstruction may add to its original's; ``prod9 infer`` adds the first."""


def paired(real: VolumeSet, reconstructed: VolumeSet) -> tuple[VolumeSet, VolumeSet]:
    """Return the originals of the reconstructed volumes, and these, in the same order.

    A reconstruction has its original's name, with or without one of :data:`ENDINGS`. If only one of
    the two sets lies in class sub-folders, the sub-folder is not part of the name. Volumes of a
    data set have no files: their reconstructions may be named by their numbers
    (``0017_reconstructed``) if there is one for each volume of the split. Originals without a
    reconstruction are left out; reconstructions get the classes of their originals.

    Raises:
        Prod9Error: a reconstruction has no original, several, or another's; or the shapes differ.
    """
    comparable(without_classes(real), without_classes(reconstructed))
    ours, theirs = [*real.names], [*reconstructed.names]
    nested = [any("/" in name for name in names) for names in (ours, theirs)]
    numbers = [_numbers(ours), _numbers([_stem(name) for name in theirs])]
    if real.files is None:
        # Numbers of a data set mean nothing without what stands before them, unless all are there.
        if set(numbers[0]) == set(numbers[1]) != {None}:
            ours, theirs = [str(n) for n in numbers[0]], [str(n) for n in numbers[1]]
    elif nested[0] != nested[1]:
        ours, theirs = [_last(name) for name in ours], [_last(name) for name in theirs]
    known: dict[str, list[int]] = {}
    for index, name in enumerate(ours):
        known.setdefault(name, []).append(index)
    taken: dict[int, str] = {}
    for name, shown in zip(theirs, reconstructed.names, strict=True):
        found = [index for key in {name, _stem(name)} for index in known.get(key, ())]
        if not found:
            raise Prod9Error(
                f"{shown} of {reconstructed.name} has no original in {real.name} (which has "
                f"{len(real)} volumes, such as {real.names[0]}); a reconstruction has its "
                f"original's name, with or without {', '.join(ENDINGS)}."
            )
        if len(found) > 1:
            raise Prod9Error(
                f"{shown} of {reconstructed.name} may be the reconstruction of "
                f"{' or '.join(real.names[index] for index in sorted(found))} in {real.name}; "
                "rename the volumes so that only one fits."
            )
        if found[0] in taken:
            raise Prod9Error(
                f"{taken[found[0]]} and {shown} of {reconstructed.name} are both reconstructions "
                f"of {real.names[found[0]]} in {real.name}; remove one."
            )
        taken[found[0]] = shown
    originals = real.select(list(taken))
    return originals, replace(
        reconstructed, labels=originals.labels, class_names=originals.class_names
    )


def _numbers(names: Sequence[str]) -> list[int | None]:
    """Return the number in which each name of one folder ends; None for each if one has none."""
    one_folder = len({name.rpartition("/")[0] for name in names}) == 1
    last = [_last(name) for name in names]
    if not one_folder or not all(name.isascii() and name.isdigit() for name in last):
        return [None] * len(names)
    return [int(name) for name in last]


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _stem(name: str) -> str:
    return next((name.removesuffix(e) for e in ENDINGS if name.endswith(e)), name)
