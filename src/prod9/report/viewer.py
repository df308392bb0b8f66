"""The interactive viewer as a piece of HTML: two volumes side by side, their crosshairs linked.

The drawing is NiiVue's, in WebGL. A report carries the volumes inside the page; ``prod9 view``
gives addresses instead (:mod:`prod9.report.server`). Names come from files: all of them pass
through :func:`plain`, and none reaches a script.
"""

import base64
import gzip
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from nibabel.nifti1 import Nifti1Image

LIMIT_BYTES = 32 << 20
"""What the volumes of one page may take by default, in bytes of that page."""

_TITLES = ("Left", "Right")
_LAYOUTS = {
    "planes": "Three planes",
    "axial": "Axial",
    "coronal": "Coronal",
    "sagittal": "Sagittal",
    "render": "3D",
}


@dataclass(frozen=True)
class ViewerVolume:
    """A volume that travels inside the page."""

    group: str
    """What it belongs to, such as ``real``."""
    name: str
    """Unique within its group."""
    nifti: bytes
    """A NIfTI file, gzipped or not; see :func:`nifti_bytes`."""


@dataclass(frozen=True)
class VolumeLink:
    """A volume that the page asks its server for."""

    group: str
    name: str
    url: str
    """Of a NIfTI file, gzipped or not; of the page's own server."""


def asset(name: str) -> str:
    """Return a text file that lies beside this one."""
    return (files("prod9.report") / name).read_text(encoding="utf-8")


@cache
def niivue() -> str:
    """Return the source of the vendored library, JavaScript."""
    return asset("vendor/niivue.umd.js")


def niivue_script() -> str:
    """Return the library as a ``<script>``: once a page, before the first viewer."""
    licence = "NiiVue 0.69.0, BSD 2-Clause License, Copyright (c) 2021, Niivue"
    return f"<script>/*! {licence} */\n{niivue()}</script>"


def nifti_bytes(array: np.ndarray, spacing: tuple[float, float, float] | None = None) -> bytes:
    """Return a volume as the bytes of a ``.nii.gz`` file; the same each time.

    Stored as uint8 with the slope 1/255, shown from 0 to 1 whatever the volume's own range: two of
    them side by side have the same grey for the same intensity. The grid's centre is at 0 mm, so
    that volumes of different grids lie on one another.

    Args:
        array: (D, H, W) in [0, 1], axes RAS+; what is outside is clipped.
        spacing: Voxel size in mm; 1 mm where it is not known.

    Raises:
        ValueError: ``array`` has not three axes.
    """
    if array.ndim != 3:
        raise ValueError(f"a volume has three axes, not {array.ndim}")
    stored = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    size = np.array(spacing or (1.0, 1.0, 1.0), dtype=np.float64)
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = -size * (np.array(array.shape) - 1) / 2
    image = Nifti1Image(stored, affine)
    image.set_sform(affine, code="aligned")
    image.set_qform(affine, code="aligned")
    image.header.set_xyzt_units("mm")
    image.header["cal_min"], image.header["cal_max"] = 0, 1
    image.header.set_slope_inter(1 / 255, 0)
    # Nifti1Image would choose a slope of its own when it writes: put the parts together by hand.
    image.header["vox_offset"] = 352
    content = image.header.binaryblock + bytes(4) + stored.tobytes(order="F")
    buffer = io.BytesIO()
    # Without name and time, the same volume is the same bytes.
    with gzip.GzipFile("", "wb", compresslevel=9, fileobj=buffer, mtime=0) as packed:
        packed.write(content)
    return buffer.getvalue()


def embed(volumes: Sequence[ViewerVolume], limit_bytes: int = LIMIT_BYTES) -> list[ViewerVolume]:
    """Return the volumes that fit into a page.

    The first of each group come first, then the second, so that every group keeps its share and
    volumes that stand side by side stay together; it ends with the first that does not fit.

    Args:
        volumes: In the order of the page.
        limit_bytes: Of the volumes as they stand in the page (base64).
    """
    seen: dict[str, int] = {}
    ranks: list[tuple[int, int]] = []
    for position, volume in enumerate(volumes):
        ranks.append((seen.get(volume.group, 0), position))
        seen[volume.group] = ranks[-1][0] + 1
    kept: list[int] = []
    for _, position in sorted(ranks):
        limit_bytes -= 4 * ((len(volumes[position].nifti) + 2) // 3)
        if limit_bytes < 0:
            break
        kept.append(position)
    return [volumes[position] for position in sorted(kept)]


def viewer_fragment(
    volumes: Sequence[ViewerVolume], element_id: str = "viewer", limit_bytes: int = LIMIT_BYTES
) -> str:
    """Return a viewer with its volumes: HTML that fetches nothing.

    The page needs :func:`niivue_script` before it. Where the volumes are too large for a page, it
    holds those of :func:`embed` and says so.

    Raises:
        ValueError: ``element_id`` is not letters, digits, ``-`` and ``_``.
    """
    kept = embed(volumes, limit_bytes)
    note = ""
    if len(kept) < len(volumes):
        counts = [
            f"{_count(kept, group)} of {_count(volumes, group)} {group}"
            for group in dict.fromkeys(volume.group for volume in volumes)
        ]
        note = (
            f"Not all volumes are in this page, which holds at most {limit_bytes / 2**20:.3g} MiB "
            f"of them: {', '.join(counts)}. The command prod9 view FOLDER shows all of a folder."
        )
    links = [
        VolumeLink(volume.group, volume.name, f"#{element_id}-volume-{position}")
        for position, volume in enumerate(kept)
    ]
    # Base64 has no character that could end the script; it is decoded when the volume is chosen.
    data = "\n".join(
        f'<script type="application/json" id="{link.url[1:]}">'
        f'"{base64.b64encode(volume.nifti).decode("ascii")}"</script>'
        for link, volume in zip(links, kept, strict=True)
    )
    return linked_fragment(links, element_id, note=note, data=data)


def linked_fragment(
    links: Sequence[VolumeLink],
    element_id: str = "viewer",
    *,
    note: str = "",
    data: str = "",
    wheel: str = "focused",
) -> str:
    """Return a viewer that asks for its volumes when they are chosen.

    Args:
        links: An address that begins with ``#`` names an element of the page that holds base64.
        element_id: Of the viewer's element.
        note: A sentence of plain text above the volumes.
        data: Trusted HTML that belongs to the viewer.
        wheel: ``focused``: over a volume the wheel scrolls the page until the volume is clicked;
            ``always``: it scrolls slices.

    Raises:
        ValueError: ``element_id`` is not letters, digits, ``-`` and ``_``.
    """
    if not re.fullmatch(r"[A-Za-z][\w-]*", element_id, re.ASCII):
        raise ValueError(f"{element_id!r} is no element id")
    groups = list(dict.fromkeys(link.group for link in links))
    # What is worth comparing at first: the first volumes of two groups, or the first two volumes.
    second = [i for i, link in enumerate(links) if link.group != groups[0]] if links else []
    shown = (0, second[0] if second else min(1, len(links) - 1))
    panes = "\n".join(
        asset("viewer_pane.html").format(title=title, options=_options(links, groups, position))
        for title, position in zip(_TITLES, shown, strict=True)
    )
    layouts = "".join(f'<option value="{key}">{name}</option>' for key, name in _LAYOUTS.items())
    return asset("viewer.html").format(
        id=element_id,
        wheel=wheel,
        note=f'<p class="p9-note">{plain(note)}</p>' if note else "",
        empty="" if links else '<p class="p9-note">There are no volumes to show.</p>',
        hidden="" if links else " hidden",
        layouts=layouts,
        panes=panes,
        data=data,
        style=style(),
        script=f'<script data-viewer="{element_id}">{script()}</script>' if links else "",
    )


@cache
def style() -> str:
    """Return the viewer's CSS."""
    return asset("viewer.css")


@cache
def script() -> str:
    """Return the viewer's own JavaScript; the same for every viewer."""
    return asset("viewer.js")


def _count(volumes: Sequence[ViewerVolume], group: str) -> int:
    return sum(volume.group == group for volume in volumes)


def plain(name: str) -> str:
    """Return a name from outside as harmless HTML text, fit for an attribute too."""
    # A file's name may hold bytes that are no UTF-8 (lone surrogates in Python).
    return html.escape(name.encode("utf-8", "replace").decode("utf-8"))


def _options(links: Sequence[VolumeLink], groups: Sequence[str], chosen: int) -> str:
    """Return the entries of a volume's ``<select>``, group by group."""
    entries: dict[str, list[str]] = {group: [] for group in groups}
    for position, link in enumerate(links):
        mark = " selected" if position == chosen else ""
        entries[link.group].append(
            f'<option value="{plain(link.url)}"{mark}>{plain(link.name)}</option>'
        )
    return "\n".join(
        "\n".join((f'<optgroup label="{plain(group)}">', *options, "</optgroup>"))
        for group, options in entries.items()
    )
