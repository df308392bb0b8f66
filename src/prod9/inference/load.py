"""``prod9.load`` and ``prod9.train``: what was trained, from its files or its configuration."""

import io
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

from prod9 import model as core
from prod9.config import Stage1Config, Stage2Config
from prod9.config.load import load_either
from prod9.errors import Prod9Error
from prod9.inference.hub import fetch, is_hub_name
from prod9.inference.model import Model
from prod9.inference.model_folder import is_model_folder, read_folder
from prod9.inference.recorded import Recorded, device_of
from prod9.inference.shipped import shipped_folder, shipped_names
from prod9.inference.tokenizer import PathLike, Tokenizer
from prod9.torch_files import read_plain
from prod9.training.run_folder import RunFolder


def load(
    path: PathLike,
    *,
    tokenizer: PathLike | None = None,
    device: str | None = None,
    revision: str | None = None,
    download: bool = True,
) -> Model | Tokenizer:
    """Load what was trained.

    Args:
        path: the run folder of Stage 2, its ``transformer.pt``, or an ``autoencoder.pt`` (which
            gives a :class:`Tokenizer`); the configuration, a YAML file, of what was trained; a
            model folder (:meth:`Model.save`); the name of a model inside the package, such as
            ``brain-regions``; or ``user/name``, a model folder on the Hugging Face Hub. A file or
            folder that has such a name comes first.
        tokenizer: the ``autoencoder.pt`` of a transformer; when left out, where its configuration
            says, or a file of that name beside the transformer or one folder above.
        device: such as ``cpu`` or ``cuda:1``; a GPU, where there is one, when left out.
        revision: commit, tag or branch on the hub; when left out, the newest commit, which is said
            on stderr.
        download: False to use no network: of the hub, only what is in its cache.

    Raises:
        Prod9Error: missing, damaged or foreign files; a transformer of another tokenizer; a hub
            that cannot be reached.
    """
    if is_hub_name(path):
        path = fetch(str(path), revision, download=download)
    path, recorded = shipped_folder(path) or Path(path), None
    if is_model_folder(path):
        network, recorded = read_folder(path, device_of(device))
        if isinstance(network, core.Model):
            return Model.of(network, recorded)
        return Tokenizer(network, recorded.sliding_window)
    if path.suffix in (".yaml", ".yml"):
        config = load_either(path, ())
        if isinstance(config, Stage1Config):
            return Tokenizer.load(config.autoencoder_export_path, device)
        recorded = Recorded.model_validate(config.model_dump())
        path = config.output_dir
    if recorded is not None or path.is_dir():
        path = RunFolder(path).transformer
    if not path.is_file():
        raise Prod9Error(
            f"there is no file {path}; train first, correct the path, or name a model inside prod9 "
            f"({', '.join(shipped_names())})."
        )
    content: Any = read_plain(path, "export it again")
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind == "prod9-tokenizer":
        return Tokenizer.load(path, device)
    if recorded is None:
        known = kind == "prod9-transformer" and isinstance(content.get("spec"), dict)
        recorded = Recorded.of(str(content["spec"].get("config_yaml", "")) if known else "")
    own = Tokenizer.load(tokenizer or _tokenizer_beside(path, recorded.autoencoder_path), device)
    return Model.of(core.load_generator(path, own.network, device_of(device)), recorded)


def _tokenizer_beside(transformer: Path, named: Path) -> Path:
    folder = transformer.parent
    for place in (named, folder / named.name, folder.parent / named.name):
        if place.is_file():
            return place
    raise Prod9Error(
        f"the tokenizer of {transformer} is not at {named}; say where it is with tokenizer=PATH."
    )


def train(
    config: PathLike | Stage1Config | Stage2Config,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> Model | Tokenizer:
    """Train a stage, in this process, and return what was learned.

    Args:
        config: a YAML file (or the name of a shipped one) or a configuration object; it says which
            stage is trained.
        overrides: of the file, such as ``data.batch_size=2``.
        resume: continue from the last checkpoint of the run folder.
        overwrite: replace an earlier run.
        progress: write what happens to stderr.

    Returns:
        A :class:`Tokenizer` for Stage 1, a :class:`Model` for Stage 2.

    Raises:
        Prod9Error: any mistake in configuration, data or folders.
    """
    # Lightning: half of the start of a command that only uses a model.
    from prod9.training import stage1, stage2

    if not isinstance(config, Stage1Config | Stage2Config):
        config = load_either(Path(config), overrides)
    elif overrides:
        raise Prod9Error("overrides are of a file; change the configuration object itself.")
    with nullcontext() if progress else redirect_stderr(io.StringIO()):
        if isinstance(config, Stage1Config):
            network = stage1.train(config, resume=resume, overwrite=overwrite)
            return Tokenizer(network, config.sliding_window)
        generator = stage2.train(config, resume=resume, overwrite=overwrite)
    return Model.of(generator, Recorded.model_validate(config.model_dump()))
