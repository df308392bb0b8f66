"""A store of 10^9 tokens takes no memory: here 2 GB that are a hole in a file."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from forked import answer_of, memory_mib

from prod9.config import SourceConfig
from prod9.data.array_dataset import ArrayDataset
from prod9.data.batches import BatchKey
from prod9.data.tokens.crops import TokenCrops
from prod9.data.tokens.store import reopen, sound_meta

SHAPE = (1000, 100, 100, 100)


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """Return a store without digests: to compute them would take seconds."""
    tokens = np.lib.format.open_memmap(
        tmp_path / "tokens.npy", mode="w+", dtype=np.uint16, shape=SHAPE
    )
    tokens[-1, -1, -1, -1] = 7
    tokens.flush()
    np.save(tmp_path / "labels.npy", np.zeros(SHAPE[0], np.int64))
    meta = {
        "key": {"tokenizer_digest": "aaa", "data_digest": "bbb", "split": "train"},
        "codebook_size": 60_000,
        "dtype": "uint16",
        "shape": SHAPE,
        "names": [f"toy/{i}" for i in range(SHAPE[0])],
        "class_names": ["a"],
    }
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    found = (tmp_path / "tokens.npy").stat()
    assert found.st_size > 2e9
    assert found.st_blocks < 1000  # of 512 bytes
    return tmp_path


def growth(path: Path) -> tuple[float, float]:
    """Read batches from all over a store; return MB read and MiB of growth."""
    store, config = reopen(path), SourceConfig(dataset_name="toy")
    image = np.broadcast_to(np.uint8(0), (len(store), 1, *SHAPE[1:]))
    source = TokenCrops(
        store,
        ArrayDataset("toy", image),
        config,
        stride=1,
        window=SHAPE[1:],
        train=False,
        seed=0,
    )
    assert source.store.tokens.size == 10**9
    random = np.random.default_rng(0)
    source[BatchKey(0, [0, 1, 2, 3])]
    before = most = memory_mib()
    read = 0
    for _ in range(70):
        rows = random.integers(0, len(source), 4).tolist()
        read += source[BatchKey(0, rows)].tokens.numel() * 2
        most = max(most, memory_mib())
    assert source[BatchKey(0, [999])].tokens[0, -1, -1, -1] == 7
    return read / 1e6, most - before


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_reading_takes_constant_memory(huge: Path) -> None:
    read, grown = answer_of(growth, huge)
    assert read > 500
    assert grown < 50


def test_cut_short_it_is_no_store(huge: Path) -> None:
    os.truncate(huge / "tokens.npy", 10**9)
    assert sound_meta(huge) is None
