"""Generated volumes as files: NIfTI, a montage, a manifest."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from prod9 import __version__
from prod9.config import SamplerConfig, SlidingWindowConfig
from prod9.data.volume_io import write_nifti
from prod9.errors import UserError
from prod9.files import require_writable, write_text
from prod9.generator import Generator
from prod9.montage import by_class, montage, save_figure

MANIFEST = "manifest.json"
_MONTAGE_COLUMNS = 6


def generation_affine(sides: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    """Voxel-to-mm affine of a volume with RAS+ axes, centred on the origin."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * s for n, s in zip(sides, spacing, strict=True)]
    return affine


def generate_files(
    generator: Generator,
    labels: Tensor,
    config: SamplerConfig,
    folder: Path,
    *,
    seed: int,
    batch_size: int,
    overwrite: bool,
    windows: SlidingWindowConfig | None = None,
    shape: tuple[int, int, int] | None = None,
    on_volume: Callable[[Tensor], None] = lambda volume: None,
) -> None:
    """Draw a volume for each label and write them to ``folder``; give each to ``on_volume`` too.

    Writes ``NNNN_CLASS.nii.gz`` (uint8, axes RAS+, the training data's spacing), ``montage.png``
    and ``manifest.json``.

    Raises:
        UserError: the folder holds generated volumes already, or cannot be written.

    """
    _clear(folder, overwrite)
    names, spec = generator.class_names, generator.tokenizer.spec
    sides = shape or spec.volume_shape
    affine = generation_affine(sides, spec.spacing_mm)
    digits = max(4, math.ceil(math.log10(len(labels) + 1)))
    samples: list[dict[str, object]] = []
    shown: list[int] = []
    kept: list[Tensor] = []
    with Progress(transient=True) as bar:
        task = bar.add_task("generating", total=math.ceil(len(labels) / batch_size))
        batches = generator.generate(
            labels,
            config,
            seed,
            batch_size=batch_size,
            windows=windows,
            shape=shape,
            on_window=lambda share: bar.advance(task, share),
        )
        for _, volumes in batches:
            for volume in volumes:  # written at once: many whole brains do not fit in memory
                index, label = len(samples), int(labels[len(samples)])
                file = f"{index:0{digits}d}_{names[label].replace('/', '-')}.nii.gz"
                voxels = (volume[0] * 255).round().to(torch.uint8).numpy()
                write_nifti(folder / file, voxels, affine, np.uint8, overwrite=overwrite)
                samples.append(
                    {"file": file, "class": names[label], "label": label, "index": index}
                )
                on_volume(volume)
                if shown.count(label) < _MONTAGE_COLUMNS:
                    shown.append(label)
                    kept.append(volume)
    rows = by_class(torch.stack(kept), torch.tensor(shown), names, _MONTAGE_COLUMNS)
    save_figure(folder / "montage.png", montage(rows, title=f"generated, seed {seed}"))
    manifest = {
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
        "samples": samples,
    }
    # Last: a folder with a manifest is complete.
    write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def _clear(folder: Path, overwrite: bool) -> None:
    """Make room in ``folder``: only for an empty one, or with leave to replace."""
    require_writable(folder)
    old = [*folder.glob("*.nii.gz"), *folder.glob(MANIFEST)]
    if old and not overwrite:
        raise UserError(
            f"{folder} already holds generated volumes; pass --overwrite or another --output."
        )
    # The manifest first: without one, nobody takes what is left for a whole set.
    for path in sorted(old, key=lambda path: path.name != MANIFEST):
        path.unlink()
