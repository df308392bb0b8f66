"""``data``: which volumes, and how they become batches."""

from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from prod9.config.base import BelowOne, Section, Share
from prod9.registry import DATASETS, DatasetKind

Percentile = Annotated[float, Field(ge=0, le=100)]

MedMNISTName = Literal[
    "organmnist3d",
    "nodulemnist3d",
    "adrenalmnist3d",
    "fracturemnist3d",
    "vesselmnist3d",
    "synapsemnist3d",
    "brainregionmnist3d",
    "all",
]
"""The seven settings of the specification, and the brain regions, which need no download."""


class AugmentationConfig(Section):
    """Random changes to training volumes. Only changes that keep the class are offered."""

    flip: bool = False
    """Mirror at random along the axes on which a mirror image keeps its class (never left-right for
    Organ and the brain regions)."""
    intensity_scale: BelowOne = 0.0
    """Multiply intensities by 1 + U(-x, x); 0 switches it off."""
    intensity_shift: BelowOne = 0.0
    """Add U(-x, x) to intensities in [0, 1]; 0 switches it off."""


class SpatialAugmentationConfig(AugmentationConfig):
    """The same, and random changes of shape."""

    rotation_deg: NonNegativeFloat = 0.0
    """Rotate by U(-x, x) degrees about each axis; 0 switches it off."""
    zoom: BelowOne = 0.0
    """Scale each axis by 1 + U(-x, x); 0 switches it off."""
    deformation_mm: NonNegativeFloat = 0.0
    """Move the points of a coarse grid by normal steps of this standard deviation, and everything
    between them smoothly; 0 switches it off."""


class SourceConfig(Section):
    """The section of a data set; training takes whole volumes.

    With a key ``augmentation``, Stage 1 changes training volumes at random. With a key
    ``preprocessing``, volumes are resampled and scaled; the tokenizer records how.
    """

    dataset_name: str
    """Name of the data set."""
    batch_size: PositiveInt = 8
    """Volumes per training step and device."""
    num_workers: NonNegativeInt = 0
    """Loader processes; 0 loads in the training process."""


class CoarseConfig(Section):
    """Whole volumes on a coarse grid: sampled first, they tell each window what is where."""

    factor: NonNegativeInt = 0
    """A coarse voxel has so many times the side of a fine one; 0: no coarse grid. The transformer
    sees the coarse grid at once, the tokenizer must keep its anatomy: 2 or 3."""
    share: BelowOne = 0.3
    """Of training: of the crops in Stage 1, of the batches (whole coarse volumes, with as many
    tokens as a batch of windows) in Stage 2."""

    @model_validator(mode="after")
    def _is_coarser(self) -> Self:
        if self.factor == 1:
            raise ValueError("factor must be at least 2, or 0 for no coarse grid")
        return self


class CroppedSourceConfig(SourceConfig):
    """A data set of volumes too large to train on whole: training takes crops of them."""

    crops_per_volume: PositiveInt = 1
    """Training crops of each channel of each volume per epoch."""
    foreground_crops: Share = 0.9
    """Share of training crops centred inside the foreground's box (the brain); the others lie
    anywhere."""
    coarse: CoarseConfig = CoarseConfig()


def coarse_of(config: SourceConfig) -> CoarseConfig:
    """Return the coarse grid of a section ``data``; volumes that are taken whole have none."""
    return config.coarse if isinstance(config, CroppedSourceConfig) else CoarseConfig()


class MedMNISTSourceConfig(SourceConfig, title="MedMNIST"):
    """Volumes in MedMNIST's npz layout, as they are (Stage 2: each volume has its own tokens)."""

    dataset_name: MedMNISTName  # pyright: ignore[reportIncompatibleVariableOverride]
    """One MedMNIST 3D data set, `all` six, or the embedded one."""
    size: Literal[28, 64] = 28
    """Voxels per side: 28 or 64."""
    root: Path = Path("data/medmnist3d")
    """Folder with (or for) the npz files."""
    download: bool = True
    """Download a file that is not in `root`."""


class MedMNISTDataConfig(MedMNISTSourceConfig, title="MedMNIST"):
    """Volumes in MedMNIST's npz layout, with random changes while training (Stage 1)."""

    augmentation: AugmentationConfig = AugmentationConfig()


class PreprocessingConfig(Section):
    """How a scan becomes a volume in [0, 1]; the tokenizer records it for Stage 2."""

    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1.0, 1.0, 1.0)
    """Voxel size after resampling (right, front, up), mm."""
    percentiles: tuple[Percentile, Percentile] = (0.1, 99.9)
    """Percentiles of the foreground (voxels other than 0) that become 0 and 1."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.percentiles[0] >= self.percentiles[1]:
            raise ValueError(f"percentiles must rise, not {list(self.percentiles)}")
        return self


class FolderPreprocessingConfig(PreprocessingConfig):
    """How a scan of a folder becomes a volume in [0, 1] on the common grid."""

    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    """Voxels of the common grid (right, front, up)."""
    channels: tuple[str, ...] = Field(min_length=1)
    """Names of the channels, in order."""
    windows: dict[str, tuple[float, float]] = Field(default={})
    """Channel -> stored values that become 0 and 1 in every scan; all others use `percentiles`."""
    labels: dict[str, tuple[int, ...]] = Field(default={}, exclude_if=lambda found: not found)
    """Channel of labels that is learned -> its values, 0 first. These come after `channels`."""


class ScanSourceConfig(CroppedSourceConfig):
    """Scans in files of their own, split by subject."""

    on_bad_case: Literal["error", "skip"] = "error"
    """What a broken case does: stop with a list, or be listed and left out."""
    split_file: Path
    """Who is in train, val and test; drawn once, then read by every later run."""
    split_seed: NonNegativeInt = 0
    """Seed of that draw."""
    val_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of subjects in val."""
    test_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of subjects in test."""
    fold: NonNegativeInt | None = None
    """For cross-validation: which of `folds` parts of the subjects is the test split, in place of
    `test_share`."""
    folds: int = Field(default=5, ge=2)
    """Parts of the cross-validation."""
    cache_dir: Path | None = None
    """Folder for preprocessed scans (about 7 MB a modality at 1 mm); the user's cache folder when
    left out."""

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.val_share + self.test_share >= 1:
            raise ValueError("val_share and test_share must leave something to train on")
        if self.fold is not None and self.fold >= self.folds:
            raise ValueError(f"fold must be below folds ({self.folds}), not {self.fold}")
        return self


class BraTSSourceConfig(ScanSourceConfig, title="BraTS"):
    """A BraTS folder of any year."""

    dataset_name: Literal["brats"]  # pyright: ignore[reportIncompatibleVariableOverride]
    """Always `brats`."""
    data_dir: Path = Path("data/BraTS")
    """The folder as it was downloaded; only read."""
    split_file: Path = Path("outputs/brats_split.json")
    """Who is in train, val and test; drawn once, then read by every later run."""


class BraTSDataConfig(BraTSSourceConfig, title="BraTS"):
    """A BraTS folder of any year, with preprocessing and random changes (Stage 1)."""

    preprocessing: PreprocessingConfig = PreprocessingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()


class FolderSourceConfig(ScanSourceConfig, title="Folder"):
    """Any folder of scans."""

    dataset_name: Literal["folder"]  # pyright: ignore[reportIncompatibleVariableOverride]
    """Always `folder`."""
    path: Path
    """The folder, only read; or its `dataset.yaml` (`prod9 data inspect`), a CSV table or a data
    list (JSON)."""
    split_file: Path = Path("outputs/folder_split.json")
    """Who is in train, val and test; drawn once, then read by every later run."""
    augmentation: SpatialAugmentationConfig = SpatialAugmentationConfig()


class FolderDataConfig(FolderSourceConfig, title="Folder"):
    """Any folder of scans, with random changes while training (Stage 1)."""

    preprocessing: FolderPreprocessingConfig | None = None
    """How scans become volumes; as `dataset.yaml` says, or chosen from the scans, when left out."""


class FolderTokensConfig(FolderSourceConfig, title="Folder"):
    """Any folder of scans, as tokens of changed copies (Stage 2)."""

    encodings: PositiveInt = 1
    """Versions of each training scan that become tokens: the scan itself, and copies changed by
    `augmentation`. Few subjects need many."""


_MEDMNIST = DatasetKind(
    MedMNISTDataConfig,
    MedMNISTSourceConfig,
    "prod9.data.medmnist:MedMNISTSplits",
    "prod9.data.medmnist:outline_medmnist",
)
_BRATS = DatasetKind(
    BraTSDataConfig,
    BraTSSourceConfig,
    "prod9.data.brats.dataset:open_brats",
    "prod9.data.brats.dataset:outline_brats",
)
_FOLDER = DatasetKind(
    FolderDataConfig,
    FolderTokensConfig,
    "prod9.data.folder.dataset:open_folder",
    "prod9.data.folder.dataset:outline_folder",
)
for _name in get_args(MedMNISTName):
    DATASETS.register(_name, _MEDMNIST)
DATASETS.register("brats", _BRATS)
DATASETS.register("folder", _FOLDER)
