"""Many subjects: find the channels that each has, and sample those that it lacks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import torch

from prod9.config.channels import meaning_of, synonyms_of
from prod9.data.volume_files.find import walk
from prod9.data.volume_files.stored_volume import SUFFIXES
from prod9.errors import Prod9Error
from prod9.files import require_writable
from prod9.inference.translate import files_beside, translate_files
from prod9.model import Model
from prod9.sample_request import SampleRequest

_SEPARATORS = "_-. "


@dataclass(frozen=True)
class Subject:
    """The scans of a subject: the volumes of one folder, or of one name in it."""

    name: str
    """The folder, relative to the one that was searched; of several subjects in it, with the part
    of the files' names that they share."""
    files: Mapping[str, Path] = field(hash=False)
    """By channel of the model."""
    problem: str = ""
    """A sentence on why it cannot be used."""


@dataclass(frozen=True)
class TranslatedSubject:
    """What became of a subject."""

    name: str
    made: Mapping[str, Path] = field(hash=False)
    """The results by channel; none where no channel is missing."""
    problem: str = ""
    """A sentence on why there is not every result."""


OnSubject: TypeAlias = Callable[[TranslatedSubject, int, int], object]


def find_subjects(folder: Path, channels: Sequence[str]) -> list[Subject]:
    """Find volumes that are named after a channel, or end in its name, at any depth.

    ``sub-01/T1.nii.gz``, ``sub-01/anat/sub-01_T1w.nii.gz``, ``CASE/CASE-t1n.nii.gz`` and (several
    subjects in one folder) ``CASE_t1.nii.gz`` are known; other files are ignored. BraTS's names of
    a channel are synonyms.

    Raises:
        Prod9Error: the folder is missing or holds no subject.
    """
    if not folder.is_dir():
        raise Prod9Error(f"{folder} does not exist or is no folder; give a folder of subjects.")
    names = _names_of(channels)
    places: dict[Path, list[tuple[str, str, Path]]] = {}
    for path in (file for _, files in walk(folder) for file in files):
        if (found := _parts(path.name, names)) is not None:
            places.setdefault(path.parent, []).append((*found, path))
    subjects: dict[str, dict[str, list[Path]]] = {}
    for place, files in places.items():
        own = place.relative_to(folder)
        starts = {start for start, _, _ in files if start}
        # "sub-01_acq-2_T2w" lies beside "sub-01_T1w": the shortest beginning is the subject's.
        firsts = {s for s in starts if not any(s != o and s.startswith(o) for o in starts)}
        for start, channel, path in files:
            first = next((first for first in firsts if start.startswith(first)), "")
            several = len(firsts) > 1 or place == folder
            name = (own / first.rstrip(_SEPARATORS) if several else own).as_posix()
            name = folder.resolve().name if name == "." else name
            subjects.setdefault(name, {}).setdefault(channel, []).append(path)
    found = [_subject(name, files) for name, files in sorted(subjects.items())]
    with_some = {place.relative_to(folder).parts[:1] for place in places}
    for each in sorted(folder.iterdir()):
        if each.is_dir() and (each.name,) not in with_some and each.name[0] not in "._":
            known = f"no volume in it is named after a channel ({', '.join(channels)})"
            found.append(Subject(each.name, {}, f"{each}: {known}; rename its files."))
    if not found:
        raise Prod9Error(
            f"{folder} holds no volume that is named after a channel of the model "
            f"({', '.join(channels)}), such as SUBJECT/{channels[0]}.nii.gz; rename the files."
        )
    return found


def _names_of(channels: Sequence[str]) -> dict[str, str]:
    """Return the channel of each name, in lower case, the longest names first."""
    meanings = [meaning_of(channel).lower() for channel in channels]
    names = {
        name: channel
        for channel, meaning in zip(channels, meanings, strict=True)
        for name in (synonyms_of(channel) if meanings.count(meaning) == 1 else ())
    }
    names |= {channel.lower(): channel for channel in channels}
    return dict(sorted(names.items(), key=lambda item: -len(item[0])))


def _parts(file: str, names: Mapping[str, str]) -> tuple[str, str] | None:
    """Split the name of a volume into what comes before the channel, and the channel."""
    suffix = next((end for end in SUFFIXES if file.lower().endswith(end)), None)
    if suffix is None:
        return None
    stem = file[: -len(suffix)]
    for name, channel in names.items():
        start = stem[: len(stem) - len(name)]
        if stem.lower().endswith(name) and (not start or start[-1] in _SEPARATORS):
            return start, channel
    return None


def _subject(name: str, files: Mapping[str, Sequence[Path]]) -> Subject:
    problem = ""
    for channel, paths in files.items():
        if len(paths) > 1:
            problem = f"{paths[0]} and {paths[1]} are both {channel}; keep one of them."
    return Subject(name, {channel: paths[0] for channel, paths in files.items()}, problem)


def translate_folder(
    model: Model,
    folder: Path,
    output: Path,
    request: SampleRequest,
    *,
    target: str | None = None,
    samples: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    on_subject: OnSubject = lambda done, number, total: None,
) -> list[TranslatedSubject]:
    """Sample the channels that the subjects of a folder lack.

    Writes ``OUTPUT/SUBJECT/CHANNEL.nii.gz``, and beside it what :func:`translate_files` writes. A
    channel is sampled from the files of the subject alone, never from another sampled channel. A
    subject that cannot be used does not stop the others.

    Args:
        model: a model of scans of several channels.
        folder: see :func:`find_subjects`.
        output: folder for the results, outside ``folder``.
        request: how; its labels are not used.
        target: the only channel to sample; all that are missing when left out.
        samples: of each channel.
        resume: skip what is complete.
        overwrite: replace what is there.
        on_subject: called with each subject that is done, its number from 1 and their count.

    Raises:
        Prod9Error: an unknown target; a model of one channel; no subject; results in the way.
    """
    if len(model.channels) < 2:
        raise Prod9Error(
            "this model has one channel, and nothing to translate from; give a model of several."
        )
    known = (*model.images, *model.label_channels)
    targets = known if target is None else [model.channels[model.channel_of(target)]]
    if output.resolve().is_relative_to(folder.resolve()):
        raise Prod9Error(
            f"--output {output} is inside {folder}, where results would be taken for scans; "
            "choose another folder."
        )
    subjects = find_subjects(folder, known)
    if not (resume or overwrite):
        _refuse_results(output, subjects, targets, samples)
    require_writable(output)
    results: list[TranslatedSubject] = []
    for number, subject in enumerate(subjects, 1):
        made, problem = {}, subject.problem
        for channel in targets if not problem else ():
            if channel in subject.files:
                continue
            asked = replace(request, labels=model.labels_of([channel], samples))
            path = _result(output, subject, channel)
            try:
                translate_files(
                    model, subject.files, path, asked, overwrite=overwrite, resume=resume
                )
                made[channel] = path
            except Prod9Error as error:
                problem = str(error)
            except (MemoryError, torch.OutOfMemoryError):
                problem = f"{channel} does not fit in memory; free some, or use a larger machine."
        results.append(TranslatedSubject(subject.name, made, problem))
        on_subject(results[-1], number, len(subjects))
    return results


def _result(output: Path, subject: Subject, channel: str) -> Path:
    return output / subject.name / f"{channel.replace('/', '-')}.nii.gz"


def _refuse_results(
    output: Path, subjects: Iterable[Subject], targets: Sequence[str], samples: int
) -> None:
    for subject in subjects:
        for channel in targets:
            files = files_beside(_result(output, subject, channel), samples).all
            there = next((path for path in files if path.exists()), None)
            if there is not None and channel not in subject.files:
                raise Prod9Error(
                    f"{there} exists; go on with --resume, replace what is there with --overwrite, "
                    "or choose another --output."
                )
