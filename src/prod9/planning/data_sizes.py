"""What a plan must know of the data: how many volumes, how large, of how many tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from prod9.config import (
    AutoencoderConfig,
    BraTSSourceConfig,
    MedMNISTSourceConfig,
    PreprocessingConfig,
    Stage1Config,
    Stage2Config,
)
from prod9.config.load import load_stage1, load_stage2
from prod9.data.brats.cases import MODALITIES, find_cases
from prod9.data.brats.layouts import subject_of
from prod9.data.medmnist_table import class_names, members
from prod9.data.splits import SubjectSplit, draw_split, open_split, split_counts
from prod9.errors import Prod9Error
from prod9.planning.fake_steps import Sides, TokenSizes
from prod9.tokenizer import Tokenizer

_BRATS_MM = (240, 240, 155)
"""The grid of BraTS releases, voxels of 1 mm."""


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
    data = config.data
    if isinstance(data, MedMNISTSourceConfig):
        counts = [set_.split_sizes for set_ in members(data.dataset_name)]
        return Volumes(sum(c[0] for c in counts), sum(c[1] for c in counts))
    if cases is not None:
        shares = (1 - data.val_share - data.test_share, data.val_share, data.test_share)
        train, val, _ = split_counts(cases, shares)
        return Volumes(train * len(MODALITIES), val * len(MODALITIES), "as --cases says")
    if not data.data_dir.exists():
        return None
    found = find_cases(data.data_dir)
    # As training does it: broken cases are dealt out too.
    subjects = sorted({*found.subjects, *(subject_of(case.name) for case in found.bad)})
    split = _split(data, subjects)
    in_splits = [split.split_of(case.subject) for case in found.cases]
    note = f"of {len(subjects)} subjects in {data.data_dir}, unread"
    train, val = (in_splits.count(name) * len(MODALITIES) for name in ("train", "val"))
    return Volumes(train, val, note)


def _split(data: BraTSSourceConfig, subjects: Sequence[str]) -> SubjectSplit:
    """Return the split that training reads, or will draw; nothing is written."""
    seed, val, test = data.split_seed, data.val_share, data.test_share
    if data.split_file.exists():
        return open_split(data.split_file, subjects, seed=seed, val_share=val, test_share=test)
    return draw_split(subjects, seed=seed, val_share=val, test_share=test)


def samples_per_epoch(config: Stage1Config | Stage2Config, volumes: Volumes) -> int:
    """Return how many training samples an epoch has."""
    data = config.data
    crops = data.crops_per_volume if isinstance(data, BraTSSourceConfig) else 1
    return volumes.train * crops


def sample_sides(config: Stage1Config) -> Sides:
    """Voxels of a training sample of Stage 1: a whole volume, or a crop of a scan."""
    if isinstance(config.data, MedMNISTSourceConfig):
        side = config.data.size
        return side, side, side
    d, h, w = config.sliding_window.roi_size
    return d, h, w


def sizes_of_stage1(config: Stage1Config) -> TokenizerSizes:
    """Return the sizes of the tokenizer that a configuration trains."""
    data, path = config.data, str(config.autoencoder_export_path)
    if isinstance(data, MedMNISTSourceConfig):
        volume: Sides = (data.size, data.size, data.size)
        return TokenizerSizes(config.model.autoencoder, volume, path)
    return TokenizerSizes(config.model.autoencoder, _scan(data.preprocessing), path, assumed=True)


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
    if isinstance(config.data, MedMNISTSourceConfig):
        return load_stage1(path, [f"data.size={config.data.size}"])
    return stage1


def token_sizes(config: Stage2Config, tokenizer: TokenizerSizes) -> TokenSizes:
    """Return what the transformer of a configuration is built from."""
    if isinstance(config.data, MedMNISTSourceConfig):
        classes, sources, window = (
            len(class_names(config.data.dataset_name)),
            0,
            tokenizer.grid,
        )
    else:
        classes = sources = len(MODALITIES)
        d, h, w = (
            min(max(1, side // tokenizer.stride), cells)
            for side, cells in zip(config.sliding_window.roi_size, tokenizer.grid, strict=True)
        )
        window = d, h, w
    return TokenSizes(tokenizer.network.levels, tokenizer.grid, window, classes, sources)


def _scan(preprocessing: PreprocessingConfig) -> Sides:
    d, h, w = (
        round(mm / spacing) for mm, spacing in zip(_BRATS_MM, preprocessing.spacing_mm, strict=True)
    )
    return d, h, w
