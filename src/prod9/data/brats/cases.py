"""The voxels of BraTS cases. A folder of scans is only ever read."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from prod9.config.channels import meaning_of
from prod9.config.data import PreprocessingConfig
from prod9.data import scan_cache
from prod9.data.brats.layouts import DECATHLON_CHANNELS, MODALITIES, Case
from prod9.data.scan_cache import BadCase, Scan, ScanSource, faults_of, require_one_grid
from prod9.data.volume_files.read import open_nifti, read_nifti, read_volume
from prod9.data.volume_files.stored_volume import StoredVolume, times
from prod9.errors import Prod9Error
from prod9.shapes import MAX_VOXELS


class CaseSource(ScanSource):
    """The files of a case."""

    channels = MODALITIES

    def __init__(self, case: Case) -> None:
        self.case, self.name, self.subject = case, case.name, case.subject

    @property
    def paths(self) -> list[Path]:
        return list(dict.fromkeys(self.case.files[modality] for modality in MODALITIES))

    @property
    def layout(self) -> str:
        """Release, and the order of the channels in a Decathlon file."""
        order = channel_order(self.paths[0]) if self.case.release == "msd" else ()
        return " ".join([self.case.release, *order])

    def read(self) -> list[StoredVolume]:
        return read_case(self.case)


def prepare(
    cases: Sequence[Case],
    preprocessing: PreprocessingConfig,
    cache: Path,
    on_case: Callable[[], object] = lambda: None,
) -> tuple[tuple[Scan, ...], tuple[BadCase, ...]]:
    """Preprocess cases, see :func:`prod9.data.scan_cache.prepare`."""
    sources = [CaseSource(case) for case in cases]
    return scan_cache.prepare(sources, preprocessing, cache, on_case)


def read_case(case: Case) -> list[StoredVolume]:
    """Read the four modalities of a case, in the order of ``MODALITIES``.

    Raises:
        BadCase: a file is missing, damaged, of another kind, or has NaN or infinite voxels; all
            voxels of a modality are equal; the modalities lie on different grids; the affine gives
            voxels no volume; the channels of a Decathlon file are not the four modalities.
    """
    with faults_of(case.name):
        if case.release == "msd":
            volumes = _read_4d(case.files[MODALITIES[0]])
        else:
            volumes = [read_volume(case.files[modality]) for modality in MODALITIES]
        require_one_grid(case.name, MODALITIES, volumes)
    return volumes


def _read_4d(path: Path) -> list[StoredVolume]:
    order = channel_order(path)
    image = open_nifti(path)
    shape = tuple(int(side) for side in image.shape)
    if len(shape) < 4 or shape[3] != 4 or min(shape) < 1 or set(shape[4:]) - {1}:
        raise Prod9Error(
            f"{path} has the shape {times(shape)}; a Decathlon file has four axes, the last of "
            f"length 4 for {', '.join(order)}."
        )
    stored, affine = read_nifti(path, image, 4 * MAX_VOXELS)
    stored = stored.reshape(shape[:4])
    return [
        StoredVolume.of(stored[..., order.index(modality)], path, affine, image.header)
        for modality in MODALITIES
    ]


def channel_order(image: Path) -> tuple[str, ...]:
    """Return the modality of each channel of a Decathlon file.

    ``dataset.json`` decides it, else the published order, so it is part of what the voxels depend
    on.

    Raises:
        Prod9Error: ``dataset.json`` cannot be used.
    """
    path = image.absolute().parent.parent / "dataset.json"
    try:
        names = json.loads(path.read_text(encoding="utf-8")).get("modality", {})
        if isinstance(names, dict):  # {"0": "FLAIR", "1": "T1w", ...}
            numbered = {int(key): name for key, name in cast("dict[str, str]", names).items()}
            names = [numbered[channel] for channel in range(len(numbered))]
        order = tuple(meaning_of(name) for name in cast("list[str]", names))
    except FileNotFoundError:
        return DECATHLON_CHANNELS
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise Prod9Error(
            f"{path} does not say which modality each channel is ({error!r}); repair or remove it."
        ) from error
    if order and sorted(order) != sorted(MODALITIES):
        raise Prod9Error(
            f"{path} names the channels {', '.join(order)}; needed are {', '.join(MODALITIES)}, "
            "each once."
        )
    return order or DECATHLON_CHANNELS
