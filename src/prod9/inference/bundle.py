"""A trained model as a MONAI bundle: a model folder, and configurations that MONAI runs.

Nothing here imports MONAI; the last two functions are what the configurations call.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prod9 import __version__
from prod9.errors import Prod9Error
from prod9.files import write_text
from prod9.inference.extras import CARD, Extras, description_of
from prod9.inference.generate import generate_files
from prod9.inference.model import Model
from prod9.inference.tokenizer import Tokenizer, reconstruct_file
from prod9.own_files import read_record, refuse_foreign, remove_own

_METADATA, _README = "configs/metadata.json", "docs/README.md"
_GENERATE, _RECONSTRUCT = "configs/inference.json", "configs/reconstruct.json"
_RUN = """
## As a MONAI bundle

In this folder, with `prod9`, `monai` and `fire` installed:

```bash
{commands}
```

Results are written to `eval`. Keys of the configurations can be given, such as `--output_dir out`.
"""


def save_bundle(
    model: Model | Tokenizer, folder: Path, extras: Extras, *, overwrite: bool = False
) -> None:
    """Write a bundle: ``configs``, ``models`` (a model folder), ``docs``.

    Args:
        model: what was trained; a tokenizer alone has no ``configs/inference.json``.
        folder: made where it is not there; its other files stay.
        extras: see :class:`prod9.inference.model_folder.Extras`.
        overwrite: replace a bundle that is there.

    Raises:
        Prod9Error: as :func:`prod9.inference.model_folder.save_folder`.
    """
    wanted = [_METADATA, *[_GENERATE] * isinstance(model, Model), _RECONSTRUCT, _README]
    record = read_record(folder / _METADATA, {"prod9_bundle"})
    own = {_METADATA, _GENERATE, _RECONSTRUCT, _README} if record else set[str]()
    refuse_foreign(folder / name for name in wanted if name not in own)
    if record and not overwrite:
        raise Prod9Error(
            f"{folder} already holds a bundle; replace it (--overwrite), or choose another folder."
        )
    models = folder / "models"
    model.save(models, overwrite=overwrite, **extras)
    write_text(folder / _METADATA, json.dumps(_metadata(model, extras), indent=4) + "\n")
    remove_own(folder, [folder / name for name in own if name not in wanted])
    for name in (_GENERATE, _RECONSTRUCT):
        if name in wanted:
            write_text(folder / name, _template(Path(name).name))
    names = [name for name in (_GENERATE, _RECONSTRUCT) if name in wanted]
    commands = "\n".join(f"python -m monai.bundle run --config_file {name}" for name in names)
    card = (models / CARD).read_text(encoding="utf-8")
    write_text(folder / _README, card + _RUN.format(commands=commands))


def _template(name: str) -> str:
    path = files("prod9.inference") / "templates" / "bundle" / name
    return path.read_text(encoding="utf-8")


def _metadata(model: Model | Tokenizer, extras: Extras) -> dict[str, Any]:
    """Return ``metadata.json``; MONAI's schema names the keys."""
    generates = isinstance(model, Model)
    spec = (model.tokenizer if isinstance(model, Model) else model).network.spec
    dataset = description_of(extras)
    name = dataset.name if dataset else spec.dataset_name
    volume = {
        "type": "image",
        "format": "magnitude",
        "modality": "n/a",
        "num_channels": 1,
        "spatial_shape": list(spec.volume_shape),
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
        "channel_def": {"0": "image"},
    }
    task = "generation of 3D volumes" if generates else "tokens of 3D volumes, and back"
    about = "An FSQ autoencoder" + " and a MaskGIT transformer" * generates
    return {
        **json.loads(_template("metadata.json")),
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"prod9": __version__},
        "name": name,
        "task": task,
        "description": f"{about}, trained on {name}; see docs/README.md.",
        "copyright": extras.get("licence") or "not stated",
        "intended_use": extras.get("intended_use") or "research on methods only",
        "network_data_format": {"inputs": {"image": volume}, "outputs": {"pred": volume}},
        "prod9_bundle": 1,
    }


def generate(
    model: Model,
    folder: str,
    label: str | Sequence[str] = "all",
    count: int = 1,
    seed: int | None = None,
    overwrite: bool = False,
) -> None:
    """Generate ``count`` volumes of each label as NIfTI files, as the command ``generate`` does."""
    names = [label] if isinstance(label, str) else [*label]
    request = replace(
        model.generation,
        labels=model.network.labels_of(names, count),
        seed=model.generation.seed if seed is None else seed,
    )
    generate_files(model.network, request, Path(folder), overwrite=overwrite)


def reconstruct(
    tokenizer: Tokenizer, files: Sequence[str], folder: str, overwrite: bool = False
) -> None:
    """Encode and decode volumes; write ``NAME_reconstructed`` files.

    Raises:
        Prod9Error: there are no files, or one cannot be read.
    """
    if not files:
        raise Prod9Error("there is no volume to reconstruct; name a folder with dataset_dir.")
    for path in files:
        reconstruct_file(
            tokenizer, Path(path), Path(folder), save_tokens=False, overwrite=overwrite
        )
