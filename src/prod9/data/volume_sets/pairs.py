"""Which reconstruction belongs to which original."""

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
        Prod9Error: a reconstruction has no original, several, or another's; or the
            shapes differ.
    """
    comparable(without_classes(real), without_classes(reconstructed))
    found = _by_name(real, reconstructed)
    if None in found and real.files is None:
        found = _by_number(real, reconstructed) or found
    taken: dict[int, str] = {}
    for name, index in zip(reconstructed.names, found, strict=True):
        if index is None:
            raise Prod9Error(
                f"{name} of {reconstructed.name} has no original in {real.name} (which has "
                f"{len(real)} volumes, such as {real.names[0]}); a reconstruction has its "
                f"original's name, with or without {', '.join(ENDINGS)}."
            )
        if index in taken:
            raise Prod9Error(
                f"{taken[index]} and {name} of {reconstructed.name} are both reconstructions of "
                f"{real.names[index]} in {real.name}; remove one."
            )
        taken[index] = name
    originals = real.select(list(taken))
    return originals, replace(
        reconstructed, labels=originals.labels, class_names=originals.class_names
    )


def _by_name(real: VolumeSet, reconstructed: VolumeSet) -> list[int | None]:
    """Return the index of each reconstruction's original; None where there is none."""
    nested = [any("/" in name for name in volumes.names) for volumes in (real, reconstructed)]
    # Names of a data set end in numbers, which mean nothing without what stands before them.
    loose = real.files is not None and nested[0] != nested[1]
    known: dict[str, list[int]] = {}
    for index, name in enumerate(real.names):
        known.setdefault(_last(name) if loose else name, []).append(index)
    partners: list[int | None] = []
    for name in reconstructed.names:
        own = _last(name) if loose else name
        found = [index for stem in {own, _stem(own)} for index in known.get(stem, ())]
        if len(found) > 1:
            raise Prod9Error(
                f"{name} of {reconstructed.name} may be the reconstruction of "
                f"{' or '.join(real.names[index] for index in sorted(found))} in {real.name}; "
                "rename the volumes so that only one fits."
            )
        partners.append(found[0] if found else None)
    return partners


def _by_number(real: VolumeSet, reconstructed: VolumeSet) -> list[int] | None:
    """Return the index of each reconstruction's original; None if numbers do not tell."""
    if len({name.rpartition("/")[0] for name in real.names}) > 1:
        return None  # several data sets, each with its own numbers
    own = [_last(name) for name in real.names]
    others = [_stem(_last(name)) for name in reconstructed.names]
    if not all(name.isascii() and name.isdigit() for name in (*own, *others)):
        return None
    ours, theirs = {int(name): index for index, name in enumerate(own)}, [*map(int, others)]
    if set(theirs) != set(ours) or len(theirs) != len(real):
        return None
    return [ours[number] for number in theirs]


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _stem(name: str) -> str:
    return next((name.removesuffix(e) for e in ENDINGS if name.endswith(e)), name)
