"""What a plan must know of the data: how many volumes, how large, of how many tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from prod9.config import AutoencoderConfig, Stage1Config, Stage2Config
from prod9.config.data import CroppedSourceConfig
from prod9.config.load import load_stage1, load_stage2
from prod9.data.dataset import outline
from prod9.errors import Prod9Error
from prod9.planning.fake_steps import Sides, TokenSizes
from prod9.tokenizer import Tokenizer


@dataclass(frozen=True)
class Volumes:
    """How many volumes there are, each modality of a scan counting as one."""

    train: int
    val: int
    note: str = ""


@dataclass(frozen=True)
class TokenizerSizes:
    """What a plan of Stage 2 must know of Stage 1."""

    network: AutoencoderConfig
    volume: Sides
    source: str
    assumed: bool = False
    """Whether ``volume`` is what BraTS releases have, and no scan was looked at."""

    @property
    def stride(self) -> int:
        """Voxels per token and axis."""
        return self.network.stem_stride * 2 ** (len(self.network.num_channels) - 1)

    @property
    def grid(self) -> Sides:
        """Tokens of a volume per axis."""
        d, h, w = (-(-side // self.stride) for side in self.volume)
        return d, h, w


def load_either(path: Path, overrides: Sequence[str]) -> Stage1Config | Stage2Config:
    """Read a configuration of either stage.

    Raises:
        Prod9Error: all that is wrong with it.
    """
    try:
        return load_stage1(path, overrides)
    except Prod9Error as error:
        if "is a Stage 2 configuration" not in str(error):
            raise
    return load_stage2(path, overrides)


def volumes_of(config: Stage1Config | Stage2Config, cases: int | None) -> Volumes | None:
    """Count the volumes without reading one; None where nobody knows.

    Args:
        config: of either stage.
        cases: of a BraTS folder that is not there.

    Raises:
        Prod9Error: a folder without cases, or too few of them to split; a split file that does not
            fit.
    """
    data = outline(config.data, cases)
    if data.train is None or data.val is None:
        return None
    count = len(data.channels)
    return Volumes(data.train * count, data.val * count, data.note)


def samples_per_epoch(config: Stage1Config | Stage2Config, volumes: Volumes) -> int:
    """Return how many training samples an epoch has."""
    data = config.data
    crops = data.crops_per_volume if isinstance(data, CroppedSourceConfig) else 1
    return volumes.train * crops


def sample_sides(config: Stage1Config) -> Sides:
    """Voxels of a training sample of Stage 1: a whole volume, or a crop of a scan."""
    if not isinstance(config.data, CroppedSourceConfig):
        return outline(config.data).shape
    d, h, w = config.sliding_window.roi_size
    return d, h, w


def sizes_of_stage1(config: Stage1Config) -> TokenizerSizes:
    """Return the sizes of the tokenizer that a configuration trains."""
    data, path = outline(config.data), str(config.autoencoder_export_path)
    return TokenizerSizes(config.model.autoencoder, data.shape, path, data.assumed)


def find_tokenizer(config: Stage2Config, stage1: Path | None) -> TokenizerSizes:
    """Return the sizes of a Stage 2 configuration's tokenizer: trained, planned or shipped.

    Args:
        config: of Stage 2.
        stage1: the configuration that the tokenizer is trained with, where it is not yet.

    Raises:
        Prod9Error: none of the three.
    """
    if stage1 is not None:
        return sizes_of_stage1(load_stage1(stage1))
    if config.autoencoder_path.is_file():
        spec = Tokenizer.load(config.autoencoder_path).spec
        return TokenizerSizes(spec.autoencoder, spec.volume_shape, str(config.autoencoder_path))
    for path in sorted(Path(str(files("prod9") / "configs")).rglob("*.yaml")):
        try:
            other = load_stage1(path)
        except Prod9Error:  # of Stage 2
            continue
        if other.autoencoder_export_path == config.autoencoder_path:
            sizes = sizes_of_stage1(_of_same_size(other, path, config))
            return replace(sizes, source=f"the shipped {path.stem}.yaml")
    raise Prod9Error(
        f"autoencoder_path ({config.autoencoder_path}) does not exist yet, and no shipped "
        "configuration makes it; give the one that does with --stage1 FILE."
    )


def _of_same_size(stage1: Stage1Config, path: Path, config: Stage2Config) -> Stage1Config:
    if (size := getattr(config.data, "size", None)) is not None:
        return load_stage1(path, [f"data.size={size}"])
    return stage1


def token_sizes(config: Stage2Config, tokenizer: TokenizerSizes) -> TokenSizes:
    """Return what the transformer of a configuration is built from."""
    data, window = outline(config.data), tokenizer.grid
    if isinstance(config.data, CroppedSourceConfig):
        d, h, w = (
            min(max(1, side // tokenizer.stride), cells)
            for side, cells in zip(config.sliding_window.roi_size, tokenizer.grid, strict=True)
        )
        window = d, h, w
    classes, channels = len(data.class_names), len(data.channels)
    return TokenSizes(tokenizer.network.levels, tokenizer.grid, window, classes, channels)
