"""A tiny, untrained model that knows two channels of images and one of labels."""

from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from prod9.config.data import FolderPreprocessingConfig
from prod9.config.model import AutoencoderConfig, TransformerConfig
from prod9.inference.model import Model
from prod9.inference.recorded import Recorded
from prod9.label_codes import LabelCodes, part_names
from prod9.model import CovariateSpec, TransformerSpec, untrained
from prod9.model import Model as Network
from prod9.tokenizer import Tokenizer, TokenizerSpec, build_autoencoder

VALUES = (0, 2, 7)
SHAPE = (12, 16, 12)
AFFINE = np.array([[-1.0, 0, 0, 9], [0, 1.0, 0, -4], [0, 0, 1.5, 2], [0, 0, 0, 1]])


def labels(sides: tuple[int, int, int] = SHAPE) -> np.ndarray:
    array = np.zeros(sides, np.uint8)
    array[2:9, 4:12, 3:9] = 2
    array[5:9, 4:9, 3:9] = 7
    return array


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.Nifti1Image(array, affine).to_filename(path)
    return path


def labelled_model(lesion: tuple[int, ...] = ()) -> Model:
    """Return the model; its weights heed what they are told. ``lesion``: a second map's labels."""
    torch.manual_seed(0)
    sizes = AutoencoderConfig(
        levels=(5, 4, 3), num_channels=(8, 8), norm_num_groups=4, stem_stride=2
    )
    maps = {"seg": VALUES} | ({"lesion": lesion} if lesion else {})
    codes = tuple(
        LabelCodes.fit(
            name,
            values,
            range(1),
            lambda _, v=values: np.array(v, np.float32)[np.searchsorted(VALUES, labels())],
            stride=4,
            levels=(5, 4, 3),
        )
        for name, values in maps.items()
    )
    channels = ("T1", "T2", *(part for name in maps for part in part_names(name)))
    tokenizer = Tokenizer(
        TokenizerSpec(
            autoencoder=sizes,
            dataset_name="folder",
            volume_shape=SHAPE,
            spacing_mm=(1.0, 1.0, 1.0),
            class_names=channels,
            preprocessing=FolderPreprocessingConfig(
                shape=SHAPE, channels=("T1", "T2"), labels=maps
            ),
            labels=codes,
            config_yaml="",
        ),
        build_autoencoder(sizes),
    )
    spec = TransformerSpec(
        transformer=TransformerConfig(hidden_dim=16, num_blocks=1, num_heads=2, token_dim=8),
        levels=(5, 4, 3),
        class_names=("all",),
        channels=channels,
        covariates=(
            CovariateSpec(name="age", mean=60.0, std=10.0),
            CovariateSpec(name="sex", categories=("F", "M")),
        ),
        num_sources=len(channels),
        grid=tokenizer.grid(),
        window=tokenizer.grid(),
        tokenizer_digest=tokenizer.digest,
        config_yaml="",
    )
    network = untrained(spec)
    for parameter in network.parameters():  # blocks begin with zeros, and heed no condition
        if not parameter.detach().any():
            parameter.data = 0.3 * torch.randn(parameter.shape)
    recorded = Recorded.model_validate({"sampler": {"steps": 2}, "completion": {"steps": 2}})
    return Model.of(Network(tokenizer, network, spec), recorded)
