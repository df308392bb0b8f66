"""What Stage 2 trains on: a tokenizer, and the data as its tokens."""

import hashlib
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from prod9.coarse import coarse_sides, coarse_tokens, shown_by, source_of
from prod9.config import Stage2Config
from prod9.config.data import CroppedSourceConfig, FolderTokensConfig, coarse_of
from prod9.data.augmented import AugmentedDataset
from prod9.data.batches import batches_of
from prod9.data.dataset import Dataset, Splits, open_splits, outline, require_unseen
from prod9.data.splits import Split
from prod9.data.tokens.build import Encode, open_or_build
from prod9.data.tokens.crops import CoarseTokens, TokenCrops
from prod9.data.tokens.store import TokenBatch, TokenStore, TokenStoreKey
from prod9.errors import Prod9Error
from prod9.label_codes import part_names
from prod9.registry import DATASETS
from prod9.runtime.console import say
from prod9.runtime.device import resolve_device
from prod9.runtime.progress import progress_bar
from prod9.sliding_window import encode
from prod9.tokenizer import Tokenizer, TokenizerSpec
from prod9.training.run_folder import RunFolder
from prod9.training.trainer import TrainingData


def load_tokenizer(config: Stage2Config) -> Tokenizer:
    """Read the tokenizer of a Stage 2 configuration and check that it fits the data.

    Raises:
        Prod9Error: no such file, or made for another kind of data.
    """
    name, path = config.data.dataset_name, config.autoencoder_path
    tokenizer = Tokenizer.load(path, resolve_device(config.trainer.accelerator))
    spec, kind = tokenizer.spec, DATASETS.get(name)
    preprocessed = "preprocessing" in kind.stage1.model_fields
    if preprocessed != (spec.preprocessing is not None):
        raise Prod9Error(
            f"{path} was trained on {spec.dataset_name}, but data.dataset_name is {name}, whose "
            "volumes are preprocessed differently; point autoencoder_path at a tokenizer of the "
            "same kind of data."
        )
    if kind.outline is not None and not preprocessed:
        _require_shape(spec, name, outline(config.data).shape)
    if spec.dataset_name != name:
        say(f"note: the tokenizer was trained on {spec.dataset_name}, the transformer on {name}")
    return tokenizer


def _require_shape(spec: TokenizerSpec, name: str, shape: tuple[int, int, int]) -> None:
    if shape != spec.volume_shape:
        raise Prod9Error(
            f"the volumes of {name} have the shape {_by(shape)}, the tokenizer was trained on "
            f"{_by(spec.volume_shape)}; train Stage 1 anew on this data, or choose data of that "
            "shape (data.size, data.data_dir)."
        )


def open_data(config: Stage2Config, tokenizer: Tokenizer) -> Splits:
    """Open the data set, preprocessed as the tokenizer wants it.

    Raises:
        Prod9Error: as :func:`open_splits`; a held-out subject that the tokenizer was trained on.
    """
    splits = open_splits(config.data, tokenizer.spec.preprocessing)
    require_unseen(tokenizer.spec.train_subjects, splits, "the tokenizer")
    return splits


def training_tokens(config: Stage2Config, tokenizer: Tokenizer) -> TrainingData:
    """Open the training and validation split of a configuration.

    Raises:
        Prod9Error: data that is missing or cannot be read; a folder that cannot be written.
    """
    splits = open_data(config, tokenizer)
    data, section = splits["train"], config.data
    if isinstance(section, FolderTokensConfig) and section.encodings > 1:
        data = AugmentedDataset(data, section.augmentation, section.encodings, config.seed)
    store, train = open_tokens(config, tokenizer, data, "train")
    _, val = open_tokens(config, tokenizer, splits["val"], "val")
    summary = f"{len(store)} training volumes of {_by(tokenizer.grid())} tokens"
    if isinstance(config.data, CroppedSourceConfig):
        summary += f", in crops of {_by(window_of(config, tokenizer))}"
    return TrainingData(train, val, data, summary)


def open_tokens(
    config: Stage2Config, tokenizer: Tokenizer, data: Dataset, split: Split
) -> tuple[TokenStore, DataLoader[TokenBatch]]:
    """Open the token store of a split (encode the split first if there is none) and its batches.

    Raises:
        Prod9Error: volumes of another shape than the tokenizer's; labels together with a coarse
            grid; a folder that cannot be written.
    """
    _require_shape(tokenizer.spec, data.name, data.shape)
    channels, windows = len(data.channels), config.sliding_window
    cropped, factor = isinstance(config.data, CroppedSourceConfig), coarse_of(config.data).factor
    if factor and tokenizer.spec.labels:
        raise Prod9Error(
            "labels cannot be averaged on a coarse grid; set data.coarse.factor: 0, or "
            "learn_labels: false in dataset.yaml."
        )

    coded = {
        part: (codes, number)
        for codes in tokenizer.spec.labels
        for number, part in enumerate(part_names(codes.channel))
    }

    @lru_cache(maxsize=1)  # the parts of a map follow one another
    def parts_of(item: int, channel: int) -> Tensor:
        codes, _ = coded[data.channels[channel].name]
        return torch.from_numpy(codes.encode(data.whole(item, channel)))

    def encoded(start: int, stop: int) -> Iterator[Tensor]:
        # Whole volumes many at a time; those that training crops one by one, through windows.
        step = 1 if cropped else config.data.batch_size
        for first in range(start, stop, step):
            rows = range(first, min(first + step, stop))
            item, channel = divmod(first, channels)
            if data.channels[channel].name in coded:  # only of folders: one row at a time
                _, number = coded[data.channels[channel].name]
                yield parts_of(item, channel - number)[None, number]
                continue
            arrays = np.stack([data.whole(*divmod(row, channels)) for row in rows])
            volumes = torch.from_numpy(arrays)[:, None]
            if cropped:
                yield encode(tokenizer, volumes, windows)
            else:
                yield tokenizer.encode(volumes.to(tokenizer.device))

    def coarse(start: int, stop: int) -> Iterator[Tensor]:
        for row in range(start, stop):
            volume = torch.from_numpy(data.whole(*divmod(row, channels)))[None, None]
            yield coarse_tokens(tokenizer, volume, factor, windows)

    def shown(start: int, stop: int) -> Iterator[Tensor]:
        for row in range(start, stop):
            tokens = torch.from_numpy(whole.take(slice(row, row + 1)))
            volume = shown_by(tokenizer, tokens, factor, data.shape, windows)
            yield source_of(tokenizer, volume, windows)

    content = data.digest
    if cropped:
        settings = windows.model_dump_json(exclude={"sw_batch_size"})
        content = hashlib.sha256(f"{content} {settings}".encode()).hexdigest()
    pairs = [(item, channel) for item in range(len(data)) for channel in range(channels)]

    def opened(encode: Encode, content: str, grid: tuple[int, int, int], what: str) -> TokenStore:
        with progress_bar(f"encoding {what}") as tell:
            return open_or_build(
                RunFolder(config.output_dir).tokens,
                TokenStoreKey(tokenizer.digest, content, split),
                names=[data.name_of(*pair) for pair in pairs],
                labels=np.array([data.label_of(*pair) for pair in pairs]),
                class_names=data.label_names,
                grid=grid,
                codebook_size=tokenizer.codebook_size,
                encode=encode,
                progress=tell,
            )

    train, grid, both = split == "train", tokenizer.grid(), None
    store = opened(encoded, content, grid, split)
    if factor:
        small = tokenizer.grid(coarse_sides(data.shape, factor))
        whole = opened(coarse, f"{content} coarse {factor}", small, f"coarse {split}")
        fine = opened(shown, f"{content} shown {factor}", grid, f"what coarse {split} shows")
        both = CoarseTokens(whole, fine, coarse_of(config.data).share)
    crops = TokenCrops(
        store,
        data,
        config.data,
        stride=tokenizer.autoencoder.stride,
        window=window_of(config, tokenizer),
        train=train,
        seed=config.seed,
        coarse=both,
    )
    return store, batches_of(crops, config.data, train=train, seed=config.seed)


def _by(sides: tuple[int, ...]) -> str:
    return "x".join(map(str, sides))


def window_of(config: Stage2Config, tokenizer: Tokenizer) -> tuple[int, int, int]:
    """Cells per sample: ``roi_size`` where training crops, but not more than the grid has."""
    grid = tokenizer.grid()
    if not isinstance(config.data, CroppedSourceConfig):
        return grid
    stride, roi = tokenizer.autoencoder.stride, config.sliding_window.roi_size
    d, h, w = (min(max(1, s // stride), cells) for s, cells in zip(roi, grid, strict=True))
    return d, h, w
