"""``data``: which volumes, and how they become batches."""

from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from prod9.config.base import Section
from prod9.registry import DATASETS, DatasetKind

PositiveFloat = Annotated[float, Field(gt=0)]
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
"""The seven settings of the specification, and the embedded data set that needs no download."""


class AugmentationConfig(Section):
    """Random changes to training volumes. Only changes that keep the class are offered."""

    flip: bool = Field(
        default=False,
        description="Mirror at random along the axes on which a mirror image keeps its class "
        "(never left-right for Organ and the brain regions).",
    )
    intensity_scale: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Multiply intensities by 1 + U(-x, x); 0 switches it off.",
    )
    intensity_shift: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Add U(-x, x) to intensities in [0, 1]; 0 switches it off.",
    )


class SourceConfig(Section):
    """What the section of every data set has; training takes whole volumes.

    A section with the key ``augmentation`` has random changes while training Stage 1, one with
    ``preprocessing`` is brought to a spacing and an intensity range, as the tokenizer records it.
    """

    dataset_name: str = Field(description="Name of the data set.")
    batch_size: int = Field(default=8, ge=1, description="Volumes per training step and device.")
    num_workers: int = Field(
        default=0, ge=0, description="Loader processes; 0 loads in the training process."
    )


class CroppedSourceConfig(SourceConfig):
    """A data set of volumes too large to train on whole: training takes crops of them."""

    crops_per_volume: int = Field(
        default=1, ge=1, description="Training crops of each channel of each volume per epoch."
    )
    foreground_crops: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="Share of training crops centred inside the foreground's box (the brain); the "
        "others lie anywhere.",
    )


class MedMNISTSourceConfig(SourceConfig, title="MedMNIST"):
    """Volumes in MedMNIST's npz layout, as they are (Stage 2: each volume has its own tokens)."""

    dataset_name: MedMNISTName = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        description="One MedMNIST 3D data set, `all` six, or the embedded one."
    )
    size: Literal[28, 64] = Field(default=28, description="Voxels per side: 28 or 64.")
    root: Path = Field(
        default=Path("data/medmnist3d"), description="Folder with (or for) the npz files."
    )
    download: bool = Field(default=True, description="Download a file that is not in `root`.")


class MedMNISTDataConfig(MedMNISTSourceConfig, title="MedMNIST"):
    """Volumes in MedMNIST's npz layout, with random changes while training (Stage 1)."""

    augmentation: AugmentationConfig = AugmentationConfig()


class PreprocessingConfig(Section):
    """How a scan becomes a volume in [0, 1]; the tokenizer records it for Stage 2."""

    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        default=(1.0, 1.0, 1.0), description="Voxel size after resampling (right, front, up), mm."
    )
    percentiles: tuple[Percentile, Percentile] = Field(
        default=(0.1, 99.9),
        description="Percentiles of the foreground (voxels other than 0) that become 0 and 1.",
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.percentiles[0] >= self.percentiles[1]:
            raise ValueError(f"percentiles must rise, not {list(self.percentiles)}")
        return self


class BraTSSourceConfig(CroppedSourceConfig, title="BraTS"):
    """A BraTS folder of any year."""

    dataset_name: Literal["brats"] = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        description="Always `brats`."
    )
    data_dir: Path = Field(
        default=Path("data/BraTS"), description="The folder as it was downloaded; only read."
    )
    on_bad_case: Literal["error", "skip"] = Field(
        default="error",
        description="What a broken case does: stop with a list, or be listed and left out.",
    )
    split_file: Path = Field(
        default=Path("outputs/brats_split.json"),
        description="Who is in train, val and test; drawn once, then read by every later run.",
    )
    split_seed: int = Field(default=0, ge=0, description="Seed of that draw.")
    val_share: float = Field(default=0.1, gt=0, lt=1, description="Share of subjects in val.")
    test_share: float = Field(default=0.1, gt=0, lt=1, description="Share of subjects in test.")
    cache_dir: Path | None = Field(
        default=None,
        description="Folder for preprocessed scans (about 7 MB a modality at 1 mm); the user's "
        "cache folder when left out.",
    )

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.val_share + self.test_share >= 1:
            raise ValueError(
                f"val_share ({self.val_share:g}) and test_share ({self.test_share:g}) must leave "
                "something to train on"
            )
        return self


class BraTSDataConfig(BraTSSourceConfig, title="BraTS"):
    """A BraTS folder of any year, with preprocessing and random changes (Stage 1)."""

    preprocessing: PreprocessingConfig = PreprocessingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()


_MEDMNIST = DatasetKind(
    MedMNISTDataConfig,
    MedMNISTSourceConfig,
    "prod9.data.medmnist:MedMNISTSplits",
    "prod9.data.medmnist:outline_medmnist",
)
for _name in get_args(MedMNISTName):
    DATASETS.register(_name, _MEDMNIST)
DATASETS.register(
    "brats",
    DatasetKind(
        BraTSDataConfig,
        BraTSSourceConfig,
        "prod9.data.brats.dataset:open_brats",
        "prod9.data.brats.dataset:outline_brats",
    ),
)
