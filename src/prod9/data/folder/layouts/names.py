"""Channels and cases from the names of files."""

import os
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from prod9.data.folder.layouts.found import kind_of

_SEPARATORS = "_-. "
_VOLUMES = (".nii.gz", ".nii", ".npy", ".npz", ".nrrd", ".nhdr", ".mha", ".mhd")
_KNOWN = re.compile(
    r"t1(w|n|c|ce|gd)?|t2(w|f|star)?|t2\*|pd(w)?|flair|adc|dwi|swi|fa|md|ct|cta|pet|mri?|image|img|"
    r"volume|scan|brain",
    re.IGNORECASE,
)


def is_volume(name: object) -> bool:
    """Say whether something is the name of a volume's file."""
    return isinstance(name, str) and name.lower().endswith(_VOLUMES)


def stem_of(file: str) -> str:
    """Return a file's name without folders, also Windows ones, and without the suffix."""
    name = re.split(r"[/\\]", file)[-1]
    ending = next((ending for ending in _VOLUMES if name.lower().endswith(ending)), "")
    return name.removesuffix(name[len(name) - len(ending) :])


def posix(file: str) -> str:
    """Return a file's name without ``./``; one with backslashes stays, to be refused."""
    return file if "\\" in file else PurePosixPath(file).as_posix()


def is_channel(word: str) -> bool:
    """Say whether a word is what files of one channel are usually called."""
    return _KNOWN.fullmatch(word) is not None or kind_of(word) == "labels"


def split_name(stem: str) -> tuple[str, str]:
    """Split ``CASE_t1`` into case and channel; the channel is "" where it is no known word."""
    match = re.fullmatch(r"(.+?)[_\-. ]([^_\-. ]+)", stem)
    return (match[1], match[2]) if match and is_channel(match[2]) else (stem, "")


def channels_of(stems: Sequence[str], folder: str) -> list[str]:
    """Return what is left of names in one folder without what they share at their start.

    That is the folder's own name (``CASE/CASE_flair`` is ``flair``), or whatever goes before the
    last separator that all have in common. A name that is nothing else is ``image``.
    """
    if any(stem.lower().startswith(folder.lower()) for stem in stems):
        rest = [s[len(folder) :] if s.lower().startswith(folder.lower()) else s for s in stems]
    elif len(stems) > 1:
        shared = os.path.commonprefix(stems)  # noqa: RUF071 (letters, not paths)
        cut = max(shared.rfind(separator) for separator in _SEPARATORS) + 1
        rest = [stem[cut:] for stem in stems]
    else:
        rest = [split_name(stem)[1] or stem for stem in stems]
    return [word.strip(_SEPARATORS) or "image" for word in rest]
