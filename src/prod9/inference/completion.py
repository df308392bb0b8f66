"""What translation and in-painting share: checks of their files, background, record, picture."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prod9.coarse import empty_cells
from prod9.data.geometry import grid_difference
from prod9.data.native_space import NativeVolume
from prod9.data.volume_files.stored_volume import StoredVolume
from prod9.data.volume_files.write import refuse_overwrite
from prod9.errors import Prod9Error
from prod9.files import write_text
from prod9.model import Model
from prod9.montage import Panel, compare, save_figure
from prod9.own_files import read_record, refuse_foreign
from prod9.sample_request import SampleRequest
from prod9.tokenizer import Tokenizer


@dataclass(frozen=True)
class CompletedFiles:
    """What a translation or an in-painting writes."""

    results: tuple[Path, ...]
    """Each sample; of several translations first their mean and last their standard deviation."""
    picture: Path
    record: Path
    """JSON: inputs, seed, settings and digests."""

    @property
    def all(self) -> list[Path]:
        """Every file."""
        return [*self.results, self.picture, self.record]

    def require_free(self, inputs: Sequence[Path], overwrite: bool) -> None:
        """Refuse to replace a file unless told to, and an input in any case."""
        given = {path.resolve() for path in inputs}
        for path in self.all:
            if path.resolve() in given:
                raise Prod9Error(f"{path} is one of the inputs; choose another --output.")
            refuse_overwrite(path, overwrite)

    def record_of(self, model: Model, request: SampleRequest, **inputs: object) -> dict[str, Any]:
        """Return what it takes to make the results again, as plain data."""
        content = {**model.record_of(request), "samples": len(request.labels), **inputs}
        return json.loads(json.dumps(content))

    def write_record(self, content: Mapping[str, Any]) -> None:
        """Write what :meth:`record_of` returned."""
        write_text(self.record, json.dumps(content, indent=2) + "\n")

    def were_begun(self, content: Mapping[str, Any]) -> bool:
        """Whether the record is there that would be written first.

        Raises:
            Prod9Error: it is of other results; a file is in the way that no record names.
        """
        there = read_record(self.record, {"prod9", "seed", "samples"})
        if there is None:
            refuse_foreign(self.all)
            return False
        for name, value in content.items():
            if there.get(name) != value:
                raise Prod9Error(
                    f"{self.record}: the results were made with another {name.replace('_', ' ')}; "
                    "give what they were begun with, or pass --overwrite or another --output."
                )
        return True

    def draw_picture(
        self, given: Sequence[tuple[str, Tensor]], name: str, samples: Tensor, at: Sequence[int]
    ) -> None:
        """Show the inputs, the result and, of several samples (K, D, H, W), their spread."""
        panels = [Panel(title, volume) for title, volume in given]
        count = len(samples)
        title = f"{name}, generated" if count == 1 else f"{name}, mean of {count}"
        panels.append(Panel(title, samples.mean(0)))
        if count > 1:
            spread = samples.std(0, correction=0)
            panels.append(Panel("uncertainty", spread, max(1e-6, float(spread.max())), "magma"))
        save_figure(self.picture, compare(panels, at))


def to_network(stored: StoredVolume, tokenizer: Tokenizer, channel: str) -> NativeVolume:
    """Bring a volume of a channel to the network's grid and intensities.

    Raises:
        Prod9Error: the tokenizer was not trained on scans; the volume is empty, of one value, or
            has no orientation that can be used.
    """
    if tokenizer.spec.preprocessing is None:
        raise Prod9Error(
            f"the tokenizer was trained on {tokenizer.spec.dataset_name}, whose volumes have no "
            "preprocessing that could be done to another file; choose a model of scans (BraTS)."
        )
    volume = NativeVolume.of(stored, tokenizer.spec.preprocessing, channel)
    if volume.scale.low == volume.scale.high:
        raise Prod9Error(
            f"{stored.path} has no contrast: every voxel that is not 0 is {volume.scale.low:g}; "
            "give a scan."
        )
    return volume


def require_same_grid(first: StoredVolume, other: StoredVolume) -> None:
    """Refuse two volumes whose voxels do not lie in the same places."""
    if difference := grid_difference(first, other):
        raise Prod9Error(
            f"{other.path} is on another grid than {first.path} ({difference}); register and "
            "resample one to the other first."
        )


def background_cells(model: Model, sources: Sequence[Tensor]) -> Tensor:
    """Return the cells, bool (*grid), where neither they nor their neighbours hold anything.

    ``sources`` are volumes (1, 1, D, H, W) that are 0 outside the foreground.
    """
    occupied = torch.stack([source[0, 0] > 0 for source in sources]).any(0)
    return empty_cells(model.tokenizer, occupied[None, None])[0]


def middle_of(volumes: Sequence[Tensor]) -> list[int]:
    """Return the middle of the box of all voxels above 0; of the grid where there are none."""
    occupied = torch.stack(list(volumes)).amax(0) > 0
    if not bool(occupied.any()):
        return [side // 2 for side in occupied.shape]
    places = occupied.nonzero()
    return ((places.amin(0) + places.amax(0)) // 2).tolist()
