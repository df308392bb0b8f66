"""Which reconstruction belongs to which original."""

from dataclasses import replace
from typing import cast

from prod9.data.volume_sets.volume_set import VolumeSet, comparable, without_classes
from prod9.errors import Prod9Error

ENDINGS = ("_reconstructed", "_recon", "_rec")
"""What a reconstruction's name may add to its original's; ``prod9 infer`` adds the first."""


def paired(real: VolumeSet, reconstructed: VolumeSet) -> tuple[VolumeSet, VolumeSet]:
    """Return the originals of the reconstructed volumes, and these, in the same order.

    A reconstruction has its original's name, with or without one of :data:`ENDINGS`. Where only one
    of the two sets lies in class sub-folders, these are no part of the name. A data set's volumes
    have no files: their reconstructions are named by their numbers (``0017_reconstructed``), and
    there must be one for each volume of the split, so that another split's are not mistaken for
    them. Originals without a reconstruction are left out; the reconstructions get the classes of
    their originals.

    Raises:
        Prod9Error: a reconstruction has no original, may have several, shares one with another, or
            is said to be of another class than its original; the shapes differ.
    """
    comparable(without_classes(real), without_classes(reconstructed))
    partners = _by_name(real, reconstructed)
    missing = [name for name, i in zip(reconstructed.names, partners, strict=True) if i is None]
    if missing and real.files is None:
        partners = _by_number(real, reconstructed)
        missing = [] if partners else missing
    if missing:
        raise Prod9Error(
            f"{missing[0]} of {reconstructed.name} has no original in {real.name}"
            f"{_example(real)}; a reconstruction has its original's name, with or without "
            f"{', '.join(ENDINGS)}."
        )
    indices = cast(list[int], partners)
    _require_once(real, reconstructed, indices)
    originals = real.select(indices)
    _require_same_classes(originals, reconstructed)
    return originals, replace(
        reconstructed, labels=originals.labels, class_names=originals.class_names
    )


def _by_name(real: VolumeSet, reconstructed: VolumeSet) -> list[int | None]:
    """Return the index of each reconstruction's original; None where there is none."""
    # A data set's names end in numbers that say nothing without what stands before them.
    loose = real.files is not None and _nested(real) != _nested(reconstructed)
    known: dict[str, list[int]] = {}
    for index, name in enumerate(real.names):
        known.setdefault(_last(name) if loose else name, []).append(index)
    partners: list[int | None] = []
    for name in reconstructed.names:
        own = _last(name) if loose else name
        found = [index for stem in {own, _stem(own)} for index in known.get(stem, ())]
        if len(found) > 1:
            options = " or ".join(real.names[index] for index in sorted(found))
            raise Prod9Error(
                f"{name} of {reconstructed.name} may be the reconstruction of {options} in "
                f"{real.name}; rename the volumes so that only one fits."
            )
        partners.append(found[0] if found else None)
    return partners


def _by_number(real: VolumeSet, reconstructed: VolumeSet) -> list[int | None]:
    """Return the index of each reconstruction's original; empty where numbers do not tell."""
    if len({name.rpartition("/")[0] for name in real.names}) > 1:
        return []  # several data sets, each with its own numbers
    ours = [_number(_last(name)) for name in real.names]
    theirs = [_number(_stem(_last(name))) for name in reconstructed.names]
    if None in ours or None in theirs or sorted(map(str, ours)) != sorted(map(str, theirs)):
        return []
    index = {number: i for i, number in enumerate(ours)}
    return [index[number] for number in theirs]


def _require_once(real: VolumeSet, reconstructed: VolumeSet, indices: list[int]) -> None:
    first: dict[int, str] = {}
    for name, index in zip(reconstructed.names, indices, strict=True):
        if index in first:
            raise Prod9Error(
                f"{first[index]} and {name} of {reconstructed.name} are both reconstructions of "
                f"{real.names[index]} in {real.name}; remove one."
            )
        first[index] = name


def _require_same_classes(originals: VolumeSet, reconstructed: VolumeSet) -> None:
    if not (originals.has_classes and reconstructed.has_classes):
        return
    for index, name in enumerate(reconstructed.names):
        ours = originals.class_names[int(originals.labels[index])]
        theirs = reconstructed.class_names[int(reconstructed.labels[index])]
        if ours != theirs:
            raise Prod9Error(
                f"{name} of {reconstructed.name} is of the class {theirs}, but its original "
                f"{originals.names[index]} in {originals.name} of {ours}; correct the class or the "
                "name."
            )


def _example(real: VolumeSet) -> str:
    if real.files is None:
        return f" (which has {len(real)} volumes, {real.names[0]} and so on)"
    return f" (which has {real.names[0]})" if len(real) else ""


def _nested(collection: VolumeSet) -> bool:
    return any("/" in name for name in collection.names)


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _stem(name: str) -> str:
    for ending in ENDINGS:
        if name.endswith(ending):
            return name.removesuffix(ending)
    return name


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None
