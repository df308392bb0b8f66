"""What a folder of scans holds, in words."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nibabel.affines import voxel_sizes

from prod9.config.dataset import ChannelEntry, DatasetDescription
from prod9.data.folder.choices import completed, resampled_shapes
from prod9.data.folder.fingerprint import ChannelPrint, Fingerprint, take_fingerprint
from prod9.data.folder.understand import understand
from prod9.data.volume_files.stored_volume import times
from prod9.errors import Prod9Error

_CASE = "case "
"""What the sentence about a case begins with; each case that cannot be used has one."""
_MOST = 8
"""Different texts that are told apart in a line."""


@dataclass(frozen=True)
class Inspection:
    """A folder whose files have all been read."""

    description: DatasetDescription
    """With all that was chosen from the scans."""
    lines: tuple[tuple[str, str], ...]
    """What was found, as (what, found); each problem has a line of its own."""
    problems: tuple[str, ...]
    """A sentence each."""
    usable: int
    """Cases that can be trained on."""
    broken: int
    """Cases that cannot."""


def inspect_folder(
    path: str | os.PathLike[str], on_scan: Callable[[int, int], None] | None = None
) -> Inspection:
    """Understand a folder, or a file that describes one, read every file once and say it all.

    ``on_scan`` is called after each scan with the number of scans read so far, and of all. A broken
    case is a problem in the result, not an error.

    Raises:
        Prod9Error: nothing there is known; see :func:`prod9.data.folder.understand.understand`.
    """
    description, problems = understand(Path(path))
    fingerprint = take_fingerprint(description, on_scan or (lambda done, count: None))
    problems += fingerprint.problems
    grid: list[tuple[str, str]] = []
    try:
        description = completed(description, fingerprint)
        grid = _grid(description, fingerprint)
    except Prod9Error as error:
        if fingerprint.scans:
            problems += (str(error),)
    usable = len(fingerprint.scans)
    broken = sum(problem.startswith(_CASE) for problem in problems)
    lines = [
        *_about(description, fingerprint, f"{usable} usable, {broken} broken"),
        *grid,
        *(("problem", problem) for problem in problems),
    ]
    return Inspection(description, tuple(lines), problems, usable, broken)


def _about(
    description: DatasetDescription, fingerprint: Fingerprint, cases: str
) -> list[tuple[str, str]]:
    """Return what is known of the scans that can be used."""
    entries = [description.scans[name] for name in fingerprint.scans]
    prints = list(fingerprint.scans.values())
    scans = Counter(entry.subject for entry in entries)
    lines = [
        ("folder", str(description.root)),
        ("layout", description.layout),
        ("cases", cases),
        ("subjects", str(len(scans))),
        ("timepoints", _tally((f"{n} a subject" for n in scans.values()), "subject")),
    ]
    for name, channel in description.channels.items():
        about = _channel(channel, [scan.channels[name] for scan in prints])
        lines.append((f"channel {name}", about))
    if description.classes:
        lines.append(("classes", _tally(entry.class_name or "" for entry in entries)))
    if any(entry.split for entry in entries):
        lines.append(("splits", _tally(entry.split or "to be drawn" for entry in entries)))
    for key in dict.fromkeys(key for entry in entries for key in entry.covariates):
        lines.append((f"covariate {key}", _covariate([e.covariates.get(key) for e in entries])))
    placements = [scan.placement for scan in prints]
    spacings = (f"{times(voxel_sizes(each.source_affine).round(3))} mm" for each in placements)
    lines += [
        ("shapes", _shapes([placement.source_shape for placement in placements])),
        ("spacings", _tally(spacings)),
        ("orientations", _tally(scan.orientation for scan in prints)),
    ]
    if description.licence:
        lines.append(("licence", description.licence))
    return lines


def _channel(channel: ChannelEntry, prints: Sequence[ChannelPrint]) -> str:
    if channel.kind == "labels":
        return f"labels {', '.join(map(str, channel.values)) or 'not known'}"
    text = f"grey values, {_tally(each.dtype for each in prints)}"
    if prints:
        lows, highs = [each.low for each in prints], [each.high for each in prints]
        text += f", minima {min(lows):g} to {max(lows):g}, maxima {min(highs):g} to {max(highs):g}"
        first, last = zip(*(each.percentiles for each in prints), strict=True)
        text += f", 0.5 to 99.5 % of the foreground in {min(first):g} to {max(last):g}"
    window = channel.window
    within = f" {window[0]:g} to {window[1]:g}" if window else ""
    return f"{text}; scaling: {channel.scaling or 'not chosen'}{within}"


def _shapes(shapes: Sequence[tuple[int, int, int]]) -> str:
    if len({*shapes}) <= _MOST:
        return _tally(map(times, shapes))
    low, high = (times(map(end, zip(*shapes, strict=True))) for end in (min, max))
    return f"{low} to {high}, {len({*shapes})} different ones"


def _covariate(values: Sequence[float | str | None]) -> str:
    known = [value for value in values if value is not None]
    numbers = [value for value in known if not isinstance(value, str)]
    if numbers and len(numbers) == len(known):
        text = f"{min(numbers):g} to {max(numbers):g}"
    else:
        text = _tally(str(value) for value in known)
    return f"{text}; known of {len(known)} of {len(values)} cases"


def _grid(description: DatasetDescription, fingerprint: Fingerprint) -> list[tuple[str, str]]:
    """Say what becomes of the scans on the common grid."""
    grid, spacing = description.shape or (), description.spacing_mm or ()
    shapes = resampled_shapes(description, fingerprint)
    padded, cropped = (
        [name for name, shape in shapes.items() if any(map(test, shape, grid))]
        for test in (int.__lt__, int.__gt__)
    )
    text = f"{times(grid)} voxels of {times(spacing)} mm (right, front, up)"
    text += f"; {len(padded)} of {len(shapes)} cases are padded by repeating their border"
    text += f", {len(cropped)} cropped around their middle"
    if cropped:
        largest = max(cropped, key=lambda name: shapes[name])
        text += f", the largest is {largest} with {times(shapes[largest])} voxels"
    return [("training grid", text)]


def _tally(found: Iterable[str], noun: str = "case") -> str:
    """Return each different text with its number, the most frequent first."""
    counts = sorted(Counter(found).items(), key=lambda item: (-item[1], item[0]))
    texts = [f"{text} ({n} {noun}{'s' * (n != 1)})" for text, n in counts[:_MOST]]
    if len(counts) > _MOST:
        texts.append(f"{len(counts) - _MOST} others")
    return ", ".join(texts) or "none"
