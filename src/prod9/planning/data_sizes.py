"""What a plan must know of the data and of the tokenizer; no volume is read."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from prod9.config import AutoencoderConfig, Stage1Config, Stage2Config
from prod9.config.data import CroppedSourceConfig
from prod9.config.load import load_stage1
from prod9.data.dataset import Outline, outline
from prod9.errors import Prod9Error
from prod9.tokenizer import Tokenizer

Sides = tuple[int, int, int]


@dataclass(frozen=True)
class Sizes:
    """Sizes of the data and of the tokenizer of one configuration."""

    autoencoder: AutoencoderConfig
    volume: Sides
    """Voxels of a whole volume."""
    assumed: bool
    """Whether ``volume`` is what such data usually has, and no scan was read."""
    sample: Sides
    """Voxels of a training sample: a whole volume or a crop."""
    data: Outline

    @property
    def volumes(self) -> tuple[int, int] | None:
        """Of the training and the validation split, each channel counts; None where unknown."""
        train, val, channels = self.data.train, self.data.val, len(self.data.channels)
        return None if train is None or val is None else (train * channels, val * channels)

    @property
    def stride(self) -> int:
        """Voxels per token and axis."""
        return self.autoencoder.stem_stride * 2 ** (len(self.autoencoder.num_channels) - 1)

    @property
    def grid(self) -> Sides:
        """Tokens of a whole volume."""
        d, h, w = (-(-side // self.stride) for side in self.volume)
        return d, h, w

    @property
    def window(self) -> Sides:
        """Tokens of a training sample."""
        pairs = zip(self.sample, self.grid, strict=True)
        d, h, w = (min(max(1, side // self.stride), cells) for side, cells in pairs)
        return (d, h, w) if self.sample != self.volume else self.grid


def sizes_of(
    config: Stage1Config | Stage2Config, stage1: Path | None = None, cases: int | None = None
) -> Sizes:
    """Return the sizes of a configuration's data.

    Args:
        config: of either stage.
        stage1: Stage 2: the configuration that trains its tokenizer, if that is not trained yet.
        cases: BraTS: how many cases there will be.

    Raises:
        Prod9Error: Stage 2 without a known tokenizer; a folder without cases, or with too few of
            them to split; a split file that does not fit.
    """
    autoencoder, volume, assumed = _tokenizer(config, stage1)
    cropped = isinstance(config.data, CroppedSourceConfig)
    sample = config.sliding_window.roi_size if cropped else volume
    return Sizes(autoencoder, volume, assumed, sample, outline(config.data, cases))


def _tokenizer(
    config: Stage1Config | Stage2Config, stage1: Path | None
) -> tuple[AutoencoderConfig, Sides, bool]:
    """Return the tokenizer's autoencoder, its volumes, and whether those are assumed."""
    if isinstance(config, Stage1Config):
        data = outline(config.data)
        return config.model.autoencoder, data.shape, data.assumed
    if stage1 is not None:
        return _tokenizer(load_stage1(stage1), None)
    if config.autoencoder_path.is_file():
        spec = Tokenizer.load(config.autoencoder_path).spec
        return spec.autoencoder, spec.volume_shape, False
    size = [f"data.size={size}"] if (size := getattr(config.data, "size", None)) else []
    for path in sorted(Path(str(files("prod9") / "configs")).rglob("*.yaml")):
        try:
            if load_stage1(path).autoencoder_export_path == config.autoencoder_path:
                return _tokenizer(load_stage1(path, size), None)
        except Prod9Error:  # of Stage 2
            continue
    raise Prod9Error(
        f"autoencoder_path ({config.autoencoder_path}) does not exist yet, and no shipped "
        "configuration makes it; give the one that does with --stage1 FILE."
    )
