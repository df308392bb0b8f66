"""BraTS of every year: the four modalities, and the segmentation where every case has one."""

from collections.abc import Sequence
from pathlib import Path

from prod9.data.brats.cases import channel_order
from prod9.data.brats.layouts import MODALITIES, find_cases
from prod9.data.folder.layouts.found import Found, Gathering
from prod9.data.volume_files.find import VolumeFile
from prod9.errors import Prod9Error

_SEGMENTATION = "seg"


def recognise(root: Path, volumes: Sequence[VolumeFile]) -> Found | None:
    """Understand a BraTS folder; None where it is none.

    Other data sets have files that end in ``_t1`` and ``_t2`` too: most cases must be whole, or
    carry BraTS in their name.
    """
    if not volumes:
        return None
    try:
        cohort = find_cases(root)
    except Prod9Error:
        return None
    named = any(case.name.lower().startswith("brats") for case in (*cohort.cases, *cohort.bad))
    if not named and len(cohort.cases) < max(1, len(cohort.bad)):
        return None
    gathering = Gathering(root)
    marked = [case for case in cohort.cases if case.segmentation is not None]
    for case in cohort.cases:
        for modality, path in case.files.items():
            file = path.relative_to(root).as_posix()
            if case.release == "msd":
                file += f"[{channel_order(path).index(modality)}]"
            gathering.add(case.name, modality, file, subject=case.subject)
        if case.segmentation is not None and len(marked) == len(cohort.cases):
            # An msd segmentation is named from the absolute path of its image.
            path = root.absolute() / case.segmentation
            file = path.relative_to(root.absolute()).as_posix()
            gathering.add(case.name, _SEGMENTATION, file, subject=case.subject)
    for bad in cohort.bad:
        gathering.bad(bad.name, bad.cause)
    counts = {each: sum(case.release == each for case in cohort.cases) for each in cohort.releases}
    if len(counts) > 1:
        gathering.problems.append(
            f"{root} holds several releases of BraTS ({', '.join(counts)}): they share patients "
            "under other names; train on one."
        )
    tally = ", ".join(f"{each} ({n} case{'s' * (n != 1)})" for each, n in counts.items())
    layout = f"BraTS {tally}"
    if 0 < len(marked) < len(cohort.cases):
        layout += (
            f"; segmentations are left out: {len(marked)} of {len(cohort.cases)} cases have one"
        )
    return gathering.found(layout, MODALITIES)
