"""Generated volumes as files: NIfTI, a montage, a manifest."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.write import write_nifti
from prod9.inference.generated_set import MONTAGE, GeneratedSet
from prod9.model import Model
from prod9.montage import by_class, montage, save_figure
from prod9.runtime.distributed import barrier, is_main, share_of
from prod9.runtime.progress import progress_bar
from prod9.sample_request import SampleRequest

_MONTAGE_COLUMNS = 6


def generation_affine(sides: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    """Voxel-to-mm affine of a volume with RAS+ axes, centred on the origin."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * s for n, s in zip(sides, spacing, strict=True)]
    return affine


def generate_files(
    model: Model,
    request: SampleRequest,
    folder: Path,
    *,
    overwrite: bool,
    resume: bool = False,
    on_volume: Callable[[Tensor], None] = lambda volume: None,
) -> None:
    """Generate the volumes of a request and write them to ``folder``.

    Writes ``NNNN_CLASS.nii.gz`` (uint8, axes RAS+, the training data's spacing), ``montage.png``
    and ``manifest.json``. The processes of a distributed run share the batches.

    Args:
        model: the model.
        request: which volumes, and how; its batch size is given.
        folder: for the files.
        overwrite: replace a set that is there.
        resume: only generate those batches of which a volume is missing: the set is the same, to
            the bit.
        on_volume: called with each volume (1, D, H, W) that this process generates now.

    Raises:
        Prod9Error: the folder holds volumes already (with ``resume``: of another set), or cannot be
            written.
    """
    spec = model.tokenizer.spec
    sides = request.shape or spec.volume_shape
    settings = {
        **model.record_of(request),
        "batch_size": request.step,
        "shape": list(sides),
        "transformer_config": model.spec.config_yaml,
        "classes": list(model.class_names),
        "tokens_shape": list(model.tokenizer.grid(sides)),
    }
    wanted = GeneratedSet(folder, settings, request.labels)
    wanted.claim(resume=resume, overwrite=overwrite)
    own = share_of(wanted.missing_batches())
    affine = generation_affine(sides, spec.spacing_mm)
    with progress_bar("generating", "batches") as tell:
        tell(0, len(own))
        for done, number in enumerate(own):
            volumes = model.sample_volumes(
                request, number, lambda n, total, done=done: tell(done + n / total, len(own))
            )
            # Written at once: many whole brains do not fit in memory.
            for path, volume in zip(wanted.files[number * request.step :], volumes, strict=False):
                voxels = (volume[0] * 255).round().to(torch.uint8).numpy()
                write_nifti(path, voxels, affine, np.uint8, overwrite=True)
                on_volume(volume)
    barrier()
    if is_main():
        wanted.require_complete()
        _draw_montage(wanted, model.class_names, request.seed)
        wanted.finish()
    barrier()


def _draw_montage(wanted: GeneratedSet, class_names: tuple[str, ...], seed: int) -> None:
    """Show the first volumes of every class, as they are in the files."""
    shown: list[int] = []
    volumes: list[Tensor] = []
    for path, label in zip(wanted.files, wanted.labels, strict=True):
        if shown.count(label) < _MONTAGE_COLUMNS:
            shown.append(label)
            volumes.append(torch.from_numpy(read_volume(path).array)[None] / 255)
    rows = by_class(torch.stack(volumes), torch.tensor(shown), class_names, _MONTAGE_COLUMNS)
    save_figure(wanted.folder / MONTAGE, montage(rows, title=f"generated, seed {seed}"))
