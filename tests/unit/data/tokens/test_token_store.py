import json
import pickle
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from prod9.config import SourceConfig
from prod9.data.array_dataset import ArrayDataset
from prod9.data.batches import batches_of, set_epoch
from prod9.data.tokens.build import open_or_build
from prod9.data.tokens.crops import TokenCrops
from prod9.data.tokens.store import TokenStore, TokenStoreKey, reopen
from prod9.errors import Prod9Error

KEY = TokenStoreKey(tokenizer_digest="aaa", data_digest="bbb", split="train")
GRID = (2, 3, 4)
TOKENS = torch.arange(7 * 24).reshape(7, *GRID) * 3
LABELS = torch.tensor([0, 1, 0, 1, 1, 0, 1])
NAMES = [f"toy/{i}" for i in range(7)]


class Encoder:
    """Gives the tokens in batches of 3, and counts how often it was asked."""

    def __init__(self, tokens: Tensor = TOKENS) -> None:
        self.tokens, self.runs = tokens, 0

    def __call__(self, start: int, stop: int) -> Iterable[Tensor]:
        self.runs += 1
        return self.tokens[start:stop].split(3)


def build(root: Path, encoder: Encoder, key: TokenStoreKey = KEY, **change: Any) -> TokenStore:
    settings: dict[str, Any] = {
        "names": NAMES,
        "labels": LABELS.numpy(),
        "class_names": ("a", "b"),
        "grid": GRID,
        "codebook_size": 512,
        "encode": encoder,
    }
    return open_or_build(root, key, **(settings | change))


def test_a_store_gives_back_what_was_put_in(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    store = build(tmp_path / "new", Encoder(), progress=lambda *told: done.append(told))
    assert np.array_equal(store.tokens, TOKENS)
    assert isinstance(store.tokens, np.memmap)
    assert store.tokens.dtype == np.uint16
    assert store.labels.dtype == np.int64
    assert store.labels.tolist() == LABELS.tolist()
    assert (store.names, store.class_names) == (NAMES, ("a", "b"))
    assert (store.key, store.codebook_size, len(store)) == (KEY, 512, 7)
    assert done == [(0, 1), (1, 1)]
    assert [path.name for path in (tmp_path / "new").iterdir()] == [KEY.folder_name]


@pytest.mark.parametrize(
    ("codebook_size", "dtype"),
    [(256, np.uint8), (257, np.uint16), (65536, np.uint16), (65537, np.uint32)],
)
def test_the_smallest_type_that_holds_every_code(
    tmp_path: Path, codebook_size: int, dtype: Any
) -> None:
    tokens = TOKENS % codebook_size
    tokens[0, 0, 0, 0] = codebook_size - 1
    store = build(tmp_path, Encoder(tokens), codebook_size=codebook_size)
    assert store.tokens.dtype == dtype
    assert np.array_equal(store.tokens, tokens)


def test_a_complete_store_is_not_built_again(tmp_path: Path) -> None:
    encoder = Encoder()
    first, second = build(tmp_path, encoder), build(tmp_path, encoder)
    assert encoder.runs == 1
    assert np.array_equal(first.tokens, second.tokens)


@pytest.mark.parametrize("part", ["tokenizer_digest", "data_digest", "split"])
def test_another_key_is_another_store(tmp_path: Path, part: str) -> None:
    build(tmp_path, Encoder())
    other = Encoder(TOKENS + 1)
    key = replace(KEY, **{part: "other"})
    assert key.folder_name != KEY.folder_name
    assert np.array_equal(build(tmp_path, other, key).tokens, TOKENS + 1)
    assert other.runs == 1


def test_the_folder_name_does_not_change_between_versions() -> None:
    assert KEY.folder_name == "train-0406c76b506cbbdca705"


def test_a_store_of_other_sizes_is_built_again(tmp_path: Path) -> None:
    build(tmp_path, Encoder())
    fewer = Encoder(TOKENS[:5])
    assert len(build(tmp_path, fewer, names=NAMES[:5], labels=LABELS.numpy()[:5])) == 5
    wider = Encoder()
    assert build(tmp_path, wider, codebook_size=1000).codebook_size == 1000
    assert (fewer.runs, wider.runs) == (1, 1)


def damage_tokens(path: Path) -> None:
    content = bytearray((path / "tokens.npy").read_bytes())
    content[-1] ^= 1
    (path / "tokens.npy").write_bytes(content)


def cut_tokens(path: Path) -> None:
    content = (path / "tokens.npy").read_bytes()
    (path / "tokens.npy").write_bytes(content[:-10])


def drop_meta(path: Path) -> None:
    (path / "meta.json").unlink()


def cut_meta(path: Path) -> None:
    content = (path / "meta.json").read_text()
    (path / "meta.json").write_text(content[: len(content) // 2])


def drop_labels(path: Path) -> None:
    (path / "labels.npy").unlink()


def forge_labels(path: Path) -> None:
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (100000000000000,), }\n"
    mark = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
    (path / "labels.npy").write_bytes(mark + header)


def forge_key(path: Path) -> None:
    meta = json.loads((path / "meta.json").read_text())
    meta["key"]["tokenizer_digest"] = "zzz"
    (path / "meta.json").write_text(json.dumps(meta))


@pytest.mark.parametrize(
    "harm",
    [damage_tokens, cut_tokens, drop_meta, cut_meta, drop_labels, forge_labels, forge_key],
)
def test_a_damaged_or_stale_store_is_built_again(tmp_path: Path, harm: Any) -> None:
    encoder = Encoder()
    path = build(tmp_path, encoder).path
    harm(path)
    assert np.array_equal(build(tmp_path, encoder).tokens, TOKENS)
    assert encoder.runs == 2
    assert np.array_equal(reopen(path).tokens, TOKENS)


def test_a_store_travels_to_workers_as_a_path(tmp_path: Path) -> None:
    store = build(tmp_path, Encoder())
    sent = pickle.dumps(store)
    assert len(sent) < 1000
    there = pickle.loads(sent)
    assert isinstance(there.tokens, np.memmap)
    assert np.array_equal(there.tokens, TOKENS)
    assert (there.key, there.path, there.names) == (KEY, store.path, NAMES)


def test_an_unwritable_root(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Prod9Error, match="cannot write"):
        build(tmp_path / "file", Encoder())


def loader(store: TokenStore, batch_size: int, *, train: bool, seed: int, **rest: Any) -> Any:
    """Return the batches of whole grids of a data set with one channel."""
    config = SourceConfig(dataset_name="toy", batch_size=batch_size, **rest)
    data = ArrayDataset("toy", np.empty((len(store), 1, *GRID), np.uint8))
    crops = TokenCrops(store, data, config, stride=1, window=GRID, train=train, seed=seed)
    return batches_of(crops, config, train=train, seed=seed)


def test_loader_batches(tmp_path: Path) -> None:
    store = build(tmp_path, Encoder())
    parts = list(loader(store, 4, train=False, seed=0))
    assert torch.equal(torch.cat([part.tokens for part in parts]), TOKENS)
    assert parts[0].tokens.dtype == torch.int64
    assert torch.equal(torch.cat([part.labels for part in parts]), LABELS)
    assert parts[1].names == NAMES[4:]
    # Whole volumes have neither sources nor a place in something larger.
    assert all(part.sources is part.origin is None for part in parts)


def test_training_order_is_that_of_seed_and_epoch_with_any_workers(tmp_path: Path) -> None:
    store = build(tmp_path, Encoder())
    orders: list[list[str]] = []
    for num_workers in (0, 1):
        train = loader(store, 3, train=True, seed=2, num_workers=num_workers)
        for epoch in (0, 1):
            set_epoch(train, epoch)
            parts = list(train)
            assert [len(part.names) for part in parts] == [3, 3]
            for part in parts:
                places = [NAMES.index(name) for name in part.names]
                assert torch.equal(part.tokens, TOKENS[places])
            orders.append([name for part in parts for name in part.names])
    assert orders[0] == orders[2] != orders[1]
    assert orders[1] == orders[3]
