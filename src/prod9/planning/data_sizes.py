"""What a plan must know of the data and of the tokenizer; no volume is read."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from prod9.config import (
    AutoencoderConfig,
    BraTSSourceConfig,
    MedMNISTSourceConfig,
    Stage1Config,
    Stage2Config,
)
from prod9.config.load import load_stage1
from prod9.data.brats.cases import MODALITIES, find_cases
from prod9.data.brats.layouts import subject_of
from prod9.data.medmnist_table import class_names, members
from prod9.data.splits import draw_split, open_split, split_counts
from prod9.errors import Prod9Error
from prod9.tokenizer import Tokenizer

Sides = tuple[int, int, int]
_BRATS_MM = (240, 240, 155)
"""The grid of BraTS releases, voxels of 1 mm."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of the data and of the tokenizer of one configuration."""

    autoencoder: AutoencoderConfig
    volume: Sides
    """Voxels of a whole volume."""
    assumed: bool
    """Whether ``volume`` is the grid of BraTS releases, and no scan was read."""
    sample: Sides
    """Voxels of a training sample: a whole volume or a crop."""
    classes: int
    sources: int
    """Source channels that Stage 2 may be given."""
    train: int | None
    """Volumes, each channel of a scan counted as one; None where the folder does not exist."""
    val: int | None
    samples_per_volume: int
    note: str

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
    tokenizer = _tokenizer(config, stage1)
    data = config.data
    if isinstance(data, MedMNISTSourceConfig):
        counts = [each.split_sizes for each in members(data.dataset_name)]
        train, val = sum(each[0] for each in counts), sum(each[1] for each in counts)
        classes = len(class_names(data.dataset_name))
        return Sizes(*tokenizer, tokenizer[1], classes, 0, train, val, 1, "")
    train, val, note = _scans(data, cases)
    channels, roi = len(MODALITIES), config.sliding_window.roi_size
    crops = data.crops_per_volume
    return Sizes(*tokenizer, roi, channels, channels, train, val, crops, note)


def _scans(data: BraTSSourceConfig, cases: int | None) -> tuple[int | None, int | None, str]:
    """Return (training volumes, validation volumes, how they were counted)."""
    seed, val, test = data.split_seed, data.val_share, data.test_share
    if cases is not None:
        train, held, _ = split_counts(cases, (1 - val - test, val, test))
        return train * len(MODALITIES), held * len(MODALITIES), "as --cases says"
    if not data.data_dir.exists():
        return None, None, "unknown: the data folder does not exist yet (give --cases N)"
    found = find_cases(data.data_dir)
    # As in training: cases that cannot be read take part in the split too.
    subjects = sorted({*found.subjects, *(subject_of(case.name) for case in found.bad)})
    if data.split_file.exists():
        split = open_split(data.split_file, subjects, seed=seed, val_share=val, test_share=test)
    else:
        split = draw_split(subjects, seed=seed, val_share=val, test_share=test)
    dealt = [split.split_of(case.subject) for case in found.cases for _ in MODALITIES]
    note = f"of {len(subjects)} subjects in {data.data_dir}, not read"
    return dealt.count("train"), dealt.count("val"), note


def _tokenizer(
    config: Stage1Config | Stage2Config, stage1: Path | None
) -> tuple[AutoencoderConfig, Sides, bool]:
    """Return the tokenizer's autoencoder, its volumes, and whether those are assumed."""
    if isinstance(config, Stage1Config):
        data = config.data
        if isinstance(data, MedMNISTSourceConfig):
            return config.model.autoencoder, (data.size, data.size, data.size), False
        spacing = zip(_BRATS_MM, data.preprocessing.spacing_mm, strict=True)
        d, h, w = (round(mm / each) for mm, each in spacing)
        return config.model.autoencoder, (d, h, w), True
    if stage1 is not None:
        return _tokenizer(load_stage1(stage1), None)
    if config.autoencoder_path.is_file():
        spec = Tokenizer.load(config.autoencoder_path).spec
        return spec.autoencoder, spec.volume_shape, False
    data = config.data
    size = [f"data.size={data.size}"] if isinstance(data, MedMNISTSourceConfig) else []
    for path in sorted(Path(str(files("prod9") / "configs")).rglob("*.yaml")):
        try:
            other = load_stage1(path)
            if other.autoencoder_export_path == config.autoencoder_path:
                return _tokenizer(load_stage1(path, size), None)
        except Prod9Error:  # of Stage 2
            continue
    raise Prod9Error(
        f"autoencoder_path ({config.autoencoder_path}) does not exist yet, and no shipped "
        "configuration makes it; give the one that does with --stage1 FILE."
    )
