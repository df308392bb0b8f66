"""Generated volumes as files: NIfTI, a montage, a manifest."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prod9 import __version__
from prod9.config import SamplerConfig, SlidingWindowConfig
from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.write import write_nifti
from prod9.inference.generated_set import GeneratedSet
from prod9.model import Model
from prod9.montage import by_class, montage, save_figure
from prod9.runtime.distributed import barrier, is_main, share_of
from prod9.runtime.progress import progress_bar

_MONTAGE_COLUMNS = 6


def generation_affine(sides: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    """Voxel-to-mm affine of a volume with RAS+ axes, centred on the origin."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * s for n, s in zip(sides, spacing, strict=True)]
    return affine


def generate_files(
    generator: Model,
    labels: Tensor,
    config: SamplerConfig,
    folder: Path,
    *,
    seed: int,
    batch_size: int,
    overwrite: bool,
    resume: bool = False,
    windows: SlidingWindowConfig | None = None,
    shape: tuple[int, int, int] | None = None,
    on_volume: Callable[[Tensor], None] = lambda volume: None,
) -> None:
    """Draw a volume for each label and write them to ``folder``; give each to ``on_volume`` too.

    Writes ``NNNN_CLASS.nii.gz`` (uint8, axes RAS+, the training data's spacing), ``montage.png``
    and ``manifest.json``. The processes of a distributed run share the batches. With ``resume``
    only those batches are drawn of which a volume is missing: the set is the same, to the bit.
    ``on_volume`` sees what this process draws now.

    Raises:
        Prod9Error: the folder holds volumes already (with ``resume``: of another set), or cannot be
            written.
    """
    names, spec = generator.class_names, generator.tokenizer.spec
    sides = shape or spec.volume_shape
    settings = {
        "prod9": __version__,
        "seed": seed,
        "batch_size": batch_size,
        "sampler": config.model_dump(mode="json"),
        "sliding_window": (windows or SlidingWindowConfig()).model_dump(mode="json"),
        "shape": list(sides),
        "tokenizer": generator.tokenizer.digest,
        "transformer": generator.digest,
        "transformer_config": generator.spec.config_yaml,
        "classes": list(names),
        "tokens_shape": list(generator.tokenizer.grid(sides)),
    }
    wanted = GeneratedSet(folder, settings, labels.tolist(), names, batch_size)
    wanted.claim(resume=resume, overwrite=overwrite)
    own = share_of(wanted.missing_batches())
    files, affine = wanted.files, generation_affine(sides, spec.spacing_mm)
    done = 0.0
    with progress_bar("generating", "batches") as tell:
        tell(0, len(own))

        def on_window(share: float) -> None:
            nonlocal done
            done += share
            tell(done, len(own))

        batches = generator.generate(
            labels,
            config,
            seed,
            batch_size=batch_size,
            batches=own,
            windows=windows,
            shape=shape,
            on_window=on_window,
        )
        for number, (_, volumes) in zip(own, batches, strict=True):
            # Written at once: many whole brains do not fit in memory.
            for path, volume in zip(files[number * batch_size :], volumes, strict=False):
                voxels = (volume[0] * 255).round().to(torch.uint8).numpy()
                write_nifti(path, voxels, affine, np.uint8, overwrite=True)
                on_volume(volume)
    barrier()
    if is_main():
        wanted.require_complete()
        _show(wanted, seed)
        wanted.finish()
    barrier()


def _show(wanted: GeneratedSet, seed: int) -> None:
    """Draw the first volumes of every class, as they are in the files."""
    shown: list[int] = []
    kept: list[Tensor] = []
    for path, label in zip(wanted.files, wanted.labels, strict=True):
        if shown.count(label) < _MONTAGE_COLUMNS:
            shown.append(label)
            kept.append(torch.from_numpy(read_volume(path).array)[None] / 255)
    rows = by_class(torch.stack(kept), torch.tensor(shown), wanted.class_names, _MONTAGE_COLUMNS)
    save_figure(wanted.folder / "montage.png", montage(rows, title=f"generated, seed {seed}"))
