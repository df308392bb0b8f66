"""Every key of a configuration is read by training, sampling or measuring: none is inert.

The keys follow from the models. Both stages are trained and measured on tiny data of every kind,
while each read of a key, outside of the configuration's own code, is noted.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import nibabel as nib
import numpy as np
import pytest

from prod9.config import (
    LossSection,
    MedMNISTDataConfig,
    MedMNISTSourceConfig,
    Stage1Config,
    Stage1LossConfig,
    Stage2Config,
)
from prod9.config.base import Section, leaves
from prod9.config.dataset import write_description
from prod9.config.loss import FocalFrequencyLossConfig
from prod9.config.model import AutoencoderConfig, TransformerConfig
from prod9.data.brats.phantom.cohort import make_phantom
from prod9.data.dataset import open_splits
from prod9.data.folder.dataset import described
from prod9.errors import Prod9Error
from prod9.evaluation.test_metrics import measure_stage1, measure_stage2
from prod9.losses.feature_loss import build_feature_loss
from prod9.registry import LOSSES, Loss
from prod9.sample_request import SampleRequest
from prod9.training import processes, stage1, stage2

Read = set[tuple[type, str]]
"""The section a key is of, and its name there."""

KEYWORDS = {AutoencoderConfig, FocalFrequencyLossConfig, TransformerConfig}
"""Sections that are dumped into keyword arguments, which a function refuses if it knows none."""

COMMON: dict[str, Any] = {
    "trainer": {"max_epochs": 2, "limit_train_batches": 2, "limit_val_batches": 1},
    "callbacks": {"preview": {"every_n_steps": 1, "num_volumes": 2}},
}
AUTOENCODER = {"num_channels": (8, 8), "norm_num_groups": 4, "levels": (5, 4, 3)}
MODEL1 = {"autoencoder": AUTOENCODER, "discriminator": {"channels": 4, "num_layers_d": 1}}
MODEL2 = {"transformer": {"hidden_dim": 32, "num_blocks": 1, "num_heads": 2, "token_dim": 8}}
MEDMNIST = {"dataset_name": "adrenalmnist3d", "download": False, "batch_size": 2}
BRATS = {
    "dataset_name": "brats",
    "batch_size": 2,
    "on_bad_case": "skip",
    "coarse": {"factor": 2, "share": 0.5},
}
FOLDER = {
    "dataset_name": "folder",
    "batch_size": 2,
    "test_share": 0.3,
    "val_share": 0.25,
    "on_bad_case": "skip",
    "augmentation": {"flip": True, "rotation_deg": 5.0, "intensity_scale": 0.1},
}
SPACING = {"preprocessing": {"spacing_mm": (12.0, 12.0, 12.0)}}
MUON = {"optimizer": {"name": "muon", "muon_learning_rate": 1e-3}}
CHANGES = {"augmentation": {"flip": True, "intensity_scale": 0.1}}


@contextmanager
def recorded(read: Read) -> Iterator[None]:
    """Note in ``read`` every key that is read outside of ``prod9.config``."""

    def get(section: Section, name: str) -> Any:
        fields = type(section).model_fields
        if name in fields and not sys._getframe(1).f_globals["__name__"].startswith("prod9.config"):
            read.add((type(section), name))
        if name == "model_dump" and type(section) in KEYWORDS:
            read.update((type(section), field) for field in fields)
        return object.__getattribute__(section, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Section, "__getattribute__", get)
        yield


def write_medmnist(folder: Path) -> None:
    random, content = np.random.default_rng(0), dict[str, np.ndarray]()
    for split, count in (("train", 6), ("val", 4), ("test", 4)):
        content[f"{split}_images"] = random.integers(0, 256, (count, 28, 28, 28), np.uint8)
        content[f"{split}_labels"] = np.arange(count)[:, None] % 2
    folder.mkdir()
    np.savez(folder / "adrenalmnist3d.npz", **content)


def write_scans(folder: Path) -> None:
    folder.mkdir()
    for index in range(10):
        scan = np.random.default_rng(index).integers(1, 900, (16, 16, 16)).astype(np.int16)
        if index == 0:
            scan[scan != 0] = 5  # one that is left out: it has no contrast
            scan[0] = 0
        nib.Nifti1Image(scan, np.eye(4)).to_filename(folder / f"{index}.nii.gz")


def write_labelled(folder: Path) -> Path:
    """Write scans with label maps; return their description, by which labels are learned."""
    for index in range(8):
        scan = np.random.default_rng(index).integers(1, 900, (16, 16, 16)).astype(np.int16)
        labels = np.zeros((16, 16, 16), np.uint8)
        labels[4:9, 5:12, 3 : 9 + index % 3] = 1
        for name, array in (("T1", scan), ("seg", labels)):
            path = folder / f"s{index}" / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.Nifti1Image(array, np.eye(4)).to_filename(path)
    update = {"learn_labels": True, "label_volumes": (1,)}
    write_description(Path("dataset.yaml"), described(folder).model_copy(update=update))
    return Path("dataset.yaml")


def train_and_measure(
    folder: Path,
    data1: dict[str, Any],
    data2: dict[str, Any],
    read: dict[int, Read],
    evaluation: dict[str, Any] | None = None,
) -> None:
    export, sampler = folder / "one.pt", {"steps": 2, "guidance_scale": 1.5}
    one: dict[str, Any] = {
        "output_dir": folder / "one",
        "autoencoder_export_path": export,
        "data": data1,
        "model": MODEL1,
        "loss": {"loss_type": "ffl", "discriminator_iter_start": 0},
        "training": MUON,
    }
    two: dict[str, Any] = {
        "output_dir": folder / "two",
        "autoencoder_path": export,
        "data": data2,
        "model": MODEL2,
        "training": MUON,
        "sampler": sampler,
        "completion": sampler,
        "evaluation": {"samples_per_class": 2, "feature_spaces": ("classifier",)}
        | (evaluation or {}),
    }
    config1, config2 = (
        Stage1Config.model_validate(COMMON | one),
        Stage2Config.model_validate(COMMON | two),
    )
    with recorded(read[1]):
        processes.gather(config1.trainer)
        stage1.train(config1)
        measure_stage1(config1, "test")
    with recorded(read[2]):
        processes.gather(config2.trainer)
        model = stage2.train(config2)
        model.sample_volumes(SampleRequest.completion_of(config2, (0,)))
        measure_stage2(config2, "test")


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Read]:
    """Return what Stage 1 and Stage 2 have read, of both kinds of data."""
    found: dict[int, Read] = {1: set(), 2: set()}
    root = tmp_path_factory.mktemp("every_key")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROD9_CACHE", str(root / "cache"))
        patch.chdir(root)
        write_medmnist(Path("npz"))
        medmnist = MEDMNIST | {"root": Path("npz")}
        train_and_measure(Path("medmnist"), medmnist | CHANGES, medmnist, found)
        make_phantom(Path("cohort"), cases=6, release="2021", seed=0, voxel_mm=8.0)
        next(Path("cohort").rglob("*_t2.nii.gz")).unlink()
        brats = BRATS | {"data_dir": Path("cohort"), "split_file": Path("split.json")}
        train_and_measure(Path("brats"), brats | SPACING | CHANGES, brats, found)
        write_scans(Path("scans"))
        folder = FOLDER | {"path": Path("scans"), "split_file": Path("folder.json")}
        train_and_measure(Path("folder"), folder, folder | {"encodings": 2}, found)
        labelled = {"path": write_labelled(Path("labelled")), "split_file": Path("labelled.json")}
        small = {"pairs": 2, "seeds": 1, "steps": 1, "masks": 1, "widths": (4, 8)}
        train_and_measure(
            Path("labels"),
            FOLDER | labelled,
            FOLDER | labelled | {"encodings": 2},
            found,
            {"samples_per_class": 0, "segmenters": True, "segmentation": small},
        )
        # What only a run without its files asks for.
        for section in (MedMNISTDataConfig, MedMNISTSourceConfig):
            stage = 1 if section is MedMNISTDataConfig else 2
            with recorded(found[stage]), pytest.raises(Prod9Error):
                open_splits(section.model_validate(MEDMNIST))["train"]
        perceptual = Stage1LossConfig.model_validate({"perceptual": {"download": False}})
        with recorded(found[1]), pytest.raises(Prod9Error):
            build_feature_loss(perceptual)
    return found


def one_value(annotation: object) -> bool:
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1


def unread(model: type[Stage1Config | Stage2Config], read: Read) -> set[str]:
    """Return the keys, with more than one value, that were not read."""
    return {
        key
        for key, section, field in leaves(model)
        if (section, key.split(".")[-1]) not in read and not one_value(field.annotation)
    }


@pytest.mark.parametrize(("stage", "model"), [(1, Stage1Config), (2, Stage2Config)])
def test_every_key_is_read(stage: int, model: Any, read: dict[int, Read]) -> None:
    missing = sorted(unread(model, read[stage]))
    assert not missing, f"nothing reads {', '.join(missing)}"


def test_a_key_that_nothing_reads_is_found(read: dict[int, Read]) -> None:
    class Inert(LossSection):
        nothing_reads_this: int = 3

    LOSSES.register("inert", Loss(Inert, "builtins:print"))
    try:
        assert "loss.inert.nothing_reads_this" in unread(Stage1Config, read[1])
    finally:
        LOSSES.remove("inert")
