"""What Stage 2 trains on: a tokenizer, and the training data as its tokens."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from prod9.config import (
    BraTSSourceConfig,
    MedMNISTSourceConfig,
    Stage2Config,
)
from prod9.data import medmnist
from prod9.data.batches import BatchKey, BatchSource
from prod9.data.brats.cases import MODALITIES
from prod9.data.brats.open_scans import open_scans, preprocessing_of, require_unseen
from prod9.data.brats.scans import ScanSet
from prod9.data.splits import Split
from prod9.data.tokens.build import Encode, open_or_build
from prod9.data.tokens.crops import TokenCrops, token_crop_loader
from prod9.data.tokens.store import (
    TokenBatch,
    TokenStore,
    TokenStoreKey,
    fingerprint,
    token_loader,
)
from prod9.data.volumes import VolumeDataset
from prod9.errors import Prod9Error
from prod9.runtime.console import say
from prod9.runtime.distributed import main_first
from prod9.runtime.progress import progress_bar
from prod9.sliding_window import encode
from prod9.tokenizer import Tokenizer
from prod9.training.run_folder import RunFolder
from prod9.training.trainer import resolve_device


@dataclass(frozen=True)
class TrainingTokens:
    """Batches of tokens of both splits, and what the transformer must know of them."""

    train: DataLoader[TokenBatch]
    val: DataLoader[TokenBatch]
    class_names: tuple[str, ...]
    num_sources: int
    """Modalities that may be given as sources."""
    window: tuple[int, int, int]
    """Cells per sample."""
    subjects: tuple[str, ...]
    """Of the training split, where it is by subject."""
    summary: str

    def examples(self, count: int) -> TokenBatch:
        """Return ``count`` validation samples, always the same, spread over the split."""
        source = self.val.dataset
        assert isinstance(source, BatchSource)
        total = len(source)
        chosen = np.linspace(0, total - 1, min(count, total)).round().astype(int)
        return source[BatchKey(0, chosen.tolist())]


def load_tokenizer(config: Stage2Config) -> Tokenizer:
    """Read the tokenizer of a Stage 2 configuration and check that it fits the data.

    Raises:
        Prod9Error: no such file, or made for another kind of data or another size.
    """
    data, path = config.data, config.autoencoder_path
    tokenizer = Tokenizer.load(path, resolve_device(config.trainer.accelerator))
    spec = tokenizer.spec
    if (spec.preprocessing is None) != isinstance(data, MedMNISTSourceConfig):
        raise Prod9Error(
            f"{path} was trained on {spec.dataset_name}, but data.dataset_name is "
            f"{data.dataset_name}; scans and MedMNIST cubes are preprocessed differently, so point "
            "autoencoder_path at a tokenizer of the same kind."
        )
    if isinstance(data, MedMNISTSourceConfig) and spec.volume_shape != (data.size,) * 3:
        raise Prod9Error(
            f"{path} was trained on volumes of {spec.volume_shape[0]}^3, but data.size is "
            f"{data.size}; set data.size={spec.volume_shape[0]} or train Stage 1 anew."
        )
    if spec.dataset_name != data.dataset_name:
        say(
            f"note: the tokenizer was trained on {spec.dataset_name}, the transformer learns "
            f"{data.dataset_name}"
        )
    return tokenizer


def scans_of(config: Stage2Config, tokenizer: Tokenizer) -> dict[Split, ScanSet]:
    """Open the scans of a BraTS configuration, preprocessed as the tokenizer wants them."""
    assert isinstance(config.data, BraTSSourceConfig)
    scans = open_scans(config.data, preprocessing_of(tokenizer))
    require_unseen(tokenizer.spec.train_subjects, scans, config.data, "the tokenizer")
    return scans


def open_tokens(
    config: Stage2Config, tokenizer: Tokenizer, split: Split, scans: ScanSet | None
) -> tuple[TokenStore, DataLoader[TokenBatch]]:
    """Open the token store of a split (encode the split first if there is none) and its batches.

    ``scans`` are the split's, for BraTS.
    """
    match config.data:
        case MedMNISTSourceConfig():
            return _medmnist(config, config.data, tokenizer, split)
        case BraTSSourceConfig():
            assert scans is not None
            return _brats(config, config.data, tokenizer, scans, split)


def training_tokens(config: Stage2Config, tokenizer: Tokenizer) -> TrainingTokens:
    """Open the training and validation split of a configuration.

    Raises:
        Prod9Error: data that is missing or cannot be read; a folder that cannot be written.
    """
    match config.data:
        case MedMNISTSourceConfig():
            train_store, train = _medmnist(config, config.data, tokenizer, "train")
            _, val = _medmnist(config, config.data, tokenizer, "val")
            num_sources, window, subjects = 0, tokenizer.grid(), ()
            summary = f"{len(train_store)} training volumes of {_by(window)} tokens"
        case BraTSSourceConfig():
            scans = scans_of(config, tokenizer)
            train_store, train = _brats(config, config.data, tokenizer, scans["train"], "train")
            _, val = _brats(config, config.data, tokenizer, scans["val"], "val")
            num_sources, window = len(MODALITIES), _window(config, tokenizer)
            subjects = scans["train"].subjects
            summary = (
                f"{len(train_store)} training volumes of {_by(tokenizer.grid())} tokens, in crops "
                f"of {_by(window)}"
            )
    return TrainingTokens(
        train, val, train_store.class_names, num_sources, window, subjects, summary
    )


def _store(
    config: Stage2Config,
    tokenizer: Tokenizer,
    key: TokenStoreKey,
    *,
    names: Sequence[str],
    labels: np.ndarray,
    class_names: tuple[str, ...],
    encoded: Encode,
) -> TokenStore:
    with progress_bar(f"encoding {key.split}") as tell:
        return open_or_build(
            RunFolder(config.output_dir).tokens,
            key,
            names=names,
            labels=labels,
            class_names=class_names,
            grid=tokenizer.grid(),
            codebook_size=tokenizer.codebook_size,
            encode=encoded,
            progress=tell,
            say=say,
        )


def _by(sides: tuple[int, ...]) -> str:
    return "x".join(map(str, sides))


def _window(config: Stage2Config, tokenizer: Tokenizer) -> tuple[int, int, int]:
    """Cells per crop: ``roi_size``, or the whole grid where that is smaller."""
    stride, roi = tokenizer.autoencoder.stride, config.sliding_window.roi_size
    d, h, w = (
        min(max(1, side // stride), cells)
        for side, cells in zip(roi, tokenizer.grid(), strict=True)
    )
    return d, h, w


def _medmnist(
    config: Stage2Config, data: MedMNISTSourceConfig, tokenizer: Tokenizer, split: Split
) -> tuple[TokenStore, DataLoader[TokenBatch]]:
    with main_first():  # it may have to be downloaded
        volumes = medmnist.load(data, split)
    device = next(tokenizer.parameters()).device
    source = VolumeDataset(volumes)

    def encoded(start: int, stop: int) -> Iterator[Tensor]:
        for first in range(start, stop, data.batch_size):
            part = range(first, min(first + data.batch_size, stop))
            yield tokenizer.encode(source[BatchKey(0, [*part])].volumes.to(device))

    store = _store(
        config,
        tokenizer,
        TokenStoreKey(tokenizer.digest, fingerprint(volumes), split),
        names=volumes.names,
        labels=volumes.labels,
        class_names=volumes.class_names,
        encoded=encoded,
    )
    loader = token_loader(
        store,
        data.batch_size,
        train=split == "train",
        seed=config.seed,
        num_workers=data.num_workers,
    )
    return store, loader


def _brats(
    config: Stage2Config,
    data: BraTSSourceConfig,
    tokenizer: Tokenizer,
    scans: ScanSet,
    split: Split,
) -> tuple[TokenStore, DataLoader[TokenBatch]]:
    if scans.shape != tokenizer.spec.volume_shape:
        raise Prod9Error(
            f"the scans of {data.data_dir} are {_by(scans.shape)} after preprocessing, the "
            f"tokenizer was trained on {_by(tokenizer.spec.volume_shape)}; train Stage 1 anew on "
            "this folder."
        )
    names = [f"{scan.name}/{modality}" for scan in scans.scans for modality in MODALITIES]
    windows = config.sliding_window

    def encoded(start: int, stop: int) -> Iterator[Tensor]:
        for row in range(start, stop):
            array = scans.whole(*divmod(row, len(MODALITIES)))
            yield encode(tokenizer, torch.from_numpy(array)[None, None], windows)

    settings = windows.model_dump_json(exclude={"sw_batch_size"})
    content = hashlib.sha256(f"{scans.digest} {settings}".encode()).hexdigest()
    store = _store(
        config,
        tokenizer,
        TokenStoreKey(tokenizer.digest, content, split),
        names=names,
        labels=np.tile(np.arange(len(MODALITIES)), len(scans)),
        class_names=MODALITIES,
        encoded=encoded,
    )
    crops = TokenCrops(
        store,
        scans,
        stride=tokenizer.autoencoder.stride,
        window=_window(config, tokenizer),
        config=data,
        train=split == "train",
        seed=config.seed,
    )
    return store, token_crop_loader(crops)
