"""``data``: which volumes, and how they become batches."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from prod9.config.base import Section

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


class _LoaderConfig(Section):
    batch_size: int = Field(default=8, ge=1, description="Volumes per training step and device.")
    num_workers: int = Field(
        default=0, ge=0, description="Loader processes; 0 loads in the training process."
    )


class MedMNISTSourceConfig(_LoaderConfig):
    """Volumes in MedMNIST's npz layout, as they are (Stage 2: each volume has its own tokens)."""

    dataset_name: MedMNISTName = Field(
        description="One MedMNIST 3D data set, `all` six, or the embedded one."
    )
    size: Literal[28, 64] = Field(default=28, description="Voxels per side: 28 or 64.")
    root: Path = Field(
        default=Path("data/medmnist3d"), description="Folder with (or for) the npz files."
    )
    download: bool = Field(default=True, description="Download a file that is not in `root`.")


class MedMNISTDataConfig(MedMNISTSourceConfig):
    """Volumes in MedMNIST's npz layout, with random changes while training (Stage 1)."""

    augmentation: AugmentationConfig = AugmentationConfig()


class BraTSSourceConfig(_LoaderConfig):
    """A BraTS folder of any year."""

    dataset_name: Literal["brats"] = Field(description="Always `brats`.")
    data_dir: Path = Field(
        default=Path("data/BraTS"), description="The folder as it was downloaded."
    )


class BraTSDataConfig(BraTSSourceConfig):
    """A BraTS folder of any year, with random changes while training (Stage 1)."""

    augmentation: AugmentationConfig = AugmentationConfig()


Stage1DataConfig = Annotated[
    MedMNISTDataConfig | BraTSDataConfig, Field(discriminator="dataset_name")
]
Stage2DataConfig = Annotated[
    MedMNISTSourceConfig | BraTSSourceConfig, Field(discriminator="dataset_name")
]
