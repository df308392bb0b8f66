"""Volumes for the interactive viewer: two of them side by side, their crosshairs linked.

The drawing is NiiVue's, in WebGL. A report carries the volumes inside the page; ``prod9 view``
gives addresses instead (:mod:`prod9.report.server`).
"""

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Image

from prod9.report.page import asset, render


@dataclass(frozen=True)
class ViewerVolume:
    """A volume to choose in the viewer."""

    group: str
    """What it belongs to, such as ``real``."""
    name: str
    source: bytes | str
    """A NIfTI file, gzipped or not, that travels inside the page; or its address at the server."""


def scripts() -> list[str]:
    """Return the vendored library and the viewer's own JavaScript, in the order of the page."""
    return [niivue(), asset("viewer.js")]


@cache
def niivue() -> str:
    """Return the vendored library, with its licence."""
    licence = "NiiVue 0.69.0, BSD 2-Clause License, Copyright (c) 2021, Niivue"
    return f"/*! {licence} */\n{asset('vendor/niivue.umd.js')}"


def nifti_bytes(array: np.ndarray, spacing: tuple[float, float, float] | None = None) -> bytes:
    """Return a volume as the bytes of a ``.nii.gz`` file; the same each time.

    Stored as uint8 with the slope 1/255, shown from 0 to 1 whatever the volume's own range: two of
    them side by side have the same grey for the same intensity. The grid's centre is at 0 mm, so
    that volumes of different grids lie on one another.

    Args:
        array: (D, H, W) in [0, 1], axes RAS+; what is outside is clipped.
        spacing: Voxel size in mm; 1 mm where it is not known.
    """
    stored = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    size = np.array(spacing or (1.0, 1.0, 1.0))
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = -size * (np.array(array.shape) - 1) / 2
    image = Nifti1Image(stored, affine)
    image.header.set_xyzt_units("mm")
    image.header["cal_min"], image.header["cal_max"] = 0, 1
    image.header.set_slope_inter(1 / 255, 0)
    return gzip.compress(image.to_bytes(), mtime=0)  # without the time, the same bytes


def embed(volumes: Sequence[ViewerVolume], limit_bytes: int) -> list[ViewerVolume]:
    """Return the volumes that fit into a page, as base64 takes ``limit_bytes``.

    The first of each group come first, then the second, so that every group keeps its share and
    volumes that stand side by side stay together; it ends with the first that does not fit.
    """
    seen: dict[str, int] = {}
    ranks: list[tuple[int, int]] = []
    for position, volume in enumerate(volumes):
        seen[volume.group] = seen.get(volume.group, 0) + 1
        ranks.append((seen[volume.group], position))
    kept: list[int] = []
    for _, position in sorted(ranks):
        limit_bytes -= 4 * ((len(volumes[position].source) + 2) // 3)
        if limit_bytes < 0:
            break
        kept.append(position)
    return [volumes[position] for position in sorted(kept)]


def viewer_values(volumes: Sequence[ViewerVolume]) -> dict[str, Any]:
    """Return what the template of the viewer shows of at least one volume.

    An address that begins with ``#`` names an element of the page that holds base64.
    """
    groups: dict[str, list[dict[str, str]]] = {}
    for position, volume in enumerate(volumes):
        entry = {"name": volume.name, "url": f"#volume-{position}", "base64": ""}
        if isinstance(volume.source, str):
            entry["url"] = volume.source
        else:
            entry["base64"] = base64.b64encode(volume.source).decode("ascii")
        groups.setdefault(volume.group, []).append(entry)
    # What is worth comparing at first: the first volumes of two groups, or the first two volumes.
    first, *more = groups.values()
    second = more[0][0] if more else first[min(1, len(first) - 1)]
    return {"groups": groups, "shown": [first[0]["url"], second["url"]]}


def viewer_section(offered: Sequence[ViewerVolume], limit_bytes: int, chosen: str) -> str:
    """Return the HTML of a viewer with those volumes that fit into ``limit_bytes``, if any does.

    ``chosen`` says in plain words which volumes were ``offered``.
    """
    kept = embed(offered, limit_bytes)
    if not kept:
        return ""
    return render(
        "look.html",
        **viewer_values(kept),
        chosen=chosen,
        count=len(kept),
        left_out=len(offered) - len(kept),
        megabytes=f"{limit_bytes / 1e6:.3g}",
    )
