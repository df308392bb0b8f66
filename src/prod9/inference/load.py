"""``prod9.load``: what was trained, from its files."""

from pathlib import Path
from typing import Any

from prod9.config import Stage1Config
from prod9.config.load import load_either
from prod9.errors import Prod9Error
from prod9.inference.model import Model
from prod9.inference.recorded import Recorded, device_of
from prod9.inference.tokenizer import PathLike, Tokenizer
from prod9.model import load_generator
from prod9.torch_files import read_plain
from prod9.training.run_folder import RunFolder


def load(
    path: PathLike, *, tokenizer: PathLike | None = None, device: str | None = None
) -> Model | Tokenizer:
    """Load what was trained.

    Args:
        path: the run folder of Stage 2, its ``transformer.pt``, or an ``autoencoder.pt`` (which
            gives a :class:`Tokenizer`); or the configuration, a YAML file, of what was trained.
        tokenizer: the ``autoencoder.pt`` of a transformer; when left out, where its configuration
            says, or a file of that name beside the transformer or one folder above.
        device: such as ``cpu`` or ``cuda:1``; a GPU, where there is one, when left out.

    Raises:
        Prod9Error: missing, damaged or foreign files; a transformer of another tokenizer.
    """
    path, recorded = Path(path), None
    if path.suffix in (".yaml", ".yml"):
        config = load_either(path, ())
        if isinstance(config, Stage1Config):
            return Tokenizer.load(config.autoencoder_export_path, device)
        recorded = Recorded.model_validate(config.model_dump())
        path = config.output_dir
    if recorded is not None or path.is_dir():
        path = RunFolder(path).transformer
    if not path.is_file():
        raise Prod9Error(f"there is no file {path}; train first, or correct the path.")
    content: Any = read_plain(path, "export it again")
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind == "prod9-tokenizer":
        return Tokenizer.load(path, device)
    if recorded is None:
        known = kind == "prod9-transformer" and isinstance(content.get("spec"), dict)
        recorded = Recorded.of(str(content["spec"].get("config_yaml", "")) if known else "")
    own = Tokenizer.load(tokenizer or _tokenizer_beside(path, recorded.autoencoder_path), device)
    return Model.of(load_generator(path, own.network, device_of(device)), recorded)


def _tokenizer_beside(transformer: Path, named: Path) -> Path:
    folder = transformer.parent
    for place in (named, folder / named.name, folder.parent / named.name):
        if place.is_file():
            return place
    raise Prod9Error(
        f"the tokenizer of {transformer} is not at {named}; say where it is with tokenizer=PATH."
    )
