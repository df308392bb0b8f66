from typing import Any

import numpy as np
import pytest
import torch

from prod9.config import BraTSSourceConfig, PreprocessingConfig
from prod9.data.batches import BatchKey, batches_of, set_epoch
from prod9.data.brats.dataset import BraTSDataset
from prod9.data.brats.layouts import MODALITIES
from prod9.data.scan_cache import Scan
from prod9.data.tokens.build import open_or_build
from prod9.data.tokens.crops import CoarseTokens, TokenCrops
from prod9.data.tokens.store import TokenBatch, TokenStore, TokenStoreKey

STRIDE = 4
SHAPE = (30, 24, 21)
GRID = (8, 6, 6)
"""Of 4 voxels each: one voxel of padding comes before the first axis, one before the last."""
V = 5000
BOXES = [((9, 4, 2), (12, 8, 10)), ((0, 0, 3), (30, 24, 8)), ((20, 16, 12), (3, 2, 2))]
"""First voxel and sides of each scan's box."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """Return three scans of four modalities: a token says which row and cell it is from."""
    rows = torch.arange(12).view(12, 1, 1, 1) * 288 + torch.arange(288).view(1, *GRID)
    return open_or_build(
        tmp_path_factory.mktemp("stores"),
        TokenStoreKey("tokenizer", "data", "train"),
        names=[f"scan{scan}/{modality}" for scan in range(3) for modality in MODALITIES],
        labels=np.tile(np.arange(4), 3),
        class_names=MODALITIES,
        grid=GRID,
        codebook_size=V,
        encode=lambda start, stop: [rows[start:stop]],
    )


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> BraTSDataset:
    folder = tmp_path_factory.mktemp("scans")
    made: list[Scan] = []
    for index, (first, sides) in enumerate(BOXES):
        path = folder / f"{index}.npy"
        np.save(path, np.ones((4, *sides), np.float16))
        made.append(Scan(f"scan{index}", "s", "", path, SHAPE, first, sides))
    return BraTSDataset("cohort", made, SHAPE, PreprocessingConfig())


def config(**change: Any) -> BraTSSourceConfig:
    return BraTSSourceConfig(dataset_name="brats", batch_size=5, **change)


def crops_of(
    store: TokenStore,
    scans: BraTSDataset,
    *,
    train: bool = True,
    seed: int = 0,
    window: Any = (3, 2, 4),
    coarse: CoarseTokens | None = None,
    **change: Any,
) -> TokenCrops:
    return TokenCrops(
        store,
        scans,
        config(**change),
        stride=STRIDE,
        window=window,
        train=train,
        seed=seed,
        coarse=coarse,
    )


def everything(crops: TokenCrops, epoch: int = 0) -> TokenBatch:
    return crops[BatchKey(epoch, list(range(len(crops))))]


def test_a_target_and_its_sources_are_the_same_cells(
    store: TokenStore, scans: BraTSDataset
) -> None:
    crops = crops_of(store, scans, crops_per_volume=3, foreground_crops=0.5)
    assert len(crops) == 3 * 4 * 3
    batch = everything(crops, 2)
    assert batch.sources is not None
    assert batch.origin is not None
    assert batch.tokens.shape == (36, 3, 2, 4)
    assert batch.sources.shape == (36, 4, 3, 2, 4)
    assert (batch.tokens.dtype, batch.sources.dtype) == (torch.int64, torch.int64)
    assert batch.origin.dtype == torch.float32
    for item in range(36):
        row = item // 3
        scan, target = divmod(row, 4)
        d, h, w = batch.origin[item].int().tolist()
        for modality in range(4):
            stored = store.tokens[4 * scan + modality, d : d + 3, h : h + 2, w : w + 4]
            expected = torch.from_numpy(stored.astype(np.int64))
            if modality == target:
                assert torch.equal(batch.tokens[item], expected)
                expected = torch.full_like(expected, V)  # the answer is no source
            assert torch.equal(batch.sources[item, modality], expected)
        assert int(batch.labels[item]) == target
        assert batch.names[item] == f"scan{scan}/{MODALITIES[target]}"


def test_the_store_is_only_read(store: TokenStore, scans: BraTSDataset) -> None:
    before = np.array(store.tokens)
    batch = everything(crops_of(store, scans))
    assert batch.sources is not None
    batch.sources.fill_(0)
    batch.tokens.fill_(0)
    assert np.array_equal(store.tokens, before)


def test_the_box_in_cells(store: TokenStore, scans: BraTSDataset) -> None:
    # 30 voxels are 8 cells of 4: one voxel of padding before, one after. 24: none. 21: one before.
    low, high = crops_of(store, scans).box(0)
    assert low.tolist() == [10 / 4, 4 / 4, 3 / 4]
    assert high.tolist() == [22 / 4, 12 / 4, 13 / 4]
    low, high = crops_of(store, scans).box(1)
    assert low.tolist() == [1 / 4, 0, 4 / 4]
    assert high.tolist() == [31 / 4, 6, 12 / 4]


@pytest.mark.parametrize("window", [(3, 3, 3), (2, 2, 4)])
def test_foreground_crops_have_their_middle_in_the_box(
    store: TokenStore, scans: BraTSDataset, window: Any
) -> None:
    crops = crops_of(store, scans, window=window, foreground_crops=1.0, crops_per_volume=20)
    batch = everything(crops)
    assert batch.origin is not None
    room = np.array(GRID) - window
    for scan, starts in enumerate(batch.origin.numpy().reshape(3, 80, 3)):
        low, high = crops.box(scan)
        middle = starts + np.array(window) // 2
        at_border = (starts == 0) | (starts == room)
        # The middle cell holds some of the box.
        assert (((middle + 1 > low) & (middle < high)) | at_border).all()
        assert ((starts >= 0) & (starts <= room)).all()
    # The small box in the corner leaves one place; anywhere, there would be many.
    corner = batch.origin.view(3, 80, 3)[2]
    assert len(torch.unique(corner, dim=0)) <= 4
    free = everything(crops_of(store, scans, window=window, foreground_crops=0.0)).origin
    assert free is not None
    assert len(torch.unique(free, dim=0)) > 6


def test_places_are_drawn_from_seed_epoch_and_item(store: TokenStore, scans: BraTSDataset) -> None:
    def origin(seed: int = 0, epoch: int = 0) -> torch.Tensor:
        crops = crops_of(store, scans, seed=seed, foreground_crops=0.0)
        found = everything(crops, epoch).origin
        assert found is not None
        return found

    assert torch.equal(origin(), origin())
    assert not torch.equal(origin(), origin(epoch=1))
    assert not torch.equal(origin(), origin(seed=1))
    crops = crops_of(store, scans, foreground_crops=0.0)
    pair = crops[BatchKey(0, [7, 3])]  # not of the batch
    assert pair.origin is not None
    assert torch.equal(pair.origin, origin()[[7, 3]])


def test_validation_stays_where_it_is(store: TokenStore, scans: BraTSDataset) -> None:
    crops = crops_of(store, scans, train=False, crops_per_volume=5)
    assert len(crops) == 12
    first, later = everything(crops, 0), everything(crops, 9)
    assert first.origin is not None
    assert later.origin is not None
    assert torch.equal(first.origin, later.origin)
    assert torch.equal(first.tokens, later.tokens)


def test_a_window_larger_than_the_grid_is_the_grid(store: TokenStore, scans: BraTSDataset) -> None:
    batch = everything(crops_of(store, scans, window=(16, 6, 4)))
    assert batch.tokens.shape == (12, 8, 6, 4)
    assert batch.origin is not None
    assert not batch.origin[:, :2].any()


def test_the_loader_shuffles_in_training_alone(store: TokenStore, scans: BraTSDataset) -> None:
    def batches(train: bool, seed: int = 4, epoch: int = 0) -> list[list[str]]:
        crops = crops_of(store, scans, train=train, seed=seed, crops_per_volume=1)
        loader = batches_of(crops, config(), train=train, seed=seed)
        set_epoch(loader, epoch)
        return [batch.names for batch in loader]

    assert batches(False, epoch=3) == [store.names[:5], store.names[5:10], store.names[10:]]
    drawn = [batches(True), batches(True, epoch=1), batches(True, seed=5)]
    for index, epoch in enumerate(drawn):
        assert epoch not in drawn[:index]
        assert [len(names) for names in epoch] == [5, 5]  # what does not fill a batch is left out
        assert len({name for names in epoch for name in names} & set(store.names)) == 10
    assert batches(True) == drawn[0]


@pytest.mark.parametrize("train", [True, False])
def test_workers_change_nothing(store: TokenStore, scans: BraTSDataset, train: bool) -> None:
    here, there = (
        batches_of(
            crops_of(store, scans, train=train, seed=4),
            config(num_workers=workers),
            train=train,
            seed=4,
        )
        for workers in (0, 1)
    )
    for epoch in (0, 1):
        set_epoch(here, epoch)
        set_epoch(there, epoch)
        for one, other in zip(here, there, strict=True):
            assert one.names == other.names
            for a, b in (
                (one.tokens, other.tokens),
                (one.labels, other.labels),
                (one.sources, other.sources),
                (one.origin, other.origin),
            ):
                assert a is not None
                assert b is not None
                assert torch.equal(a, b)


@pytest.fixture(scope="module")
def coarse(store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> CoarseTokens:
    """Return half of the batches whole, on a grid of (4, 3, 3) cells of the row's number."""

    def stored(grid: tuple[int, int, int], tokens: torch.Tensor) -> TokenStore:
        return open_or_build(
            tmp_path_factory.mktemp("coarse"),
            TokenStoreKey("tokenizer", "data", "train"),
            names=store.names,
            labels=store.labels,
            class_names=MODALITIES,
            grid=grid,
            codebook_size=V,
            encode=lambda start, stop: [tokens[start:stop]],
        )

    shown = 4999 - torch.from_numpy(store.tokens.astype(np.int64))
    whole = torch.arange(12).view(12, 1, 1, 1).expand(12, 4, 3, 3)
    return CoarseTokens(stored((4, 3, 3), whole), stored(GRID, shown), 0.5)


def test_what_the_coarse_volume_shows_is_the_last_source(
    store: TokenStore, scans: BraTSDataset, coarse: CoarseTokens
) -> None:
    crops = crops_of(store, scans, train=False, coarse=coarse)
    batch, without = everything(crops), everything(crops_of(store, scans, train=False))
    assert batch.sources is not None
    assert without.sources is not None
    assert not batch.coarse
    assert torch.equal(batch.tokens, without.tokens)
    assert torch.equal(batch.sources[:, :4], without.sources)
    assert torch.equal(batch.sources[:, 4], 4999 - batch.tokens)  # of the same cells and channel


def test_a_share_of_training_batches_is_whole_and_coarse(
    store: TokenStore, scans: BraTSDataset, coarse: CoarseTokens
) -> None:
    crops = crops_of(store, scans, coarse=coarse, crops_per_volume=5)
    keys = [BatchKey(epoch, [3, 17, epoch % 60]) for epoch in range(200)]
    batches = [crops[key] for key in keys]
    found = [batch for batch in batches if batch.coarse]
    assert 70 < len(found) < 130
    for batch in found:
        assert batch.sources is None
        assert batch.origin is None
        # Three windows have 72 tokens, two volumes of 36 as many.
        assert batch.tokens.shape == (2, 4, 3, 3)
        rows = batch.tokens[:, 0, 0, 0]  # repetition 3 of row 0, repetition 2 of row 3
        assert rows.tolist() == [0, 3]
        assert torch.equal(batch.labels, rows % 4)
    again = [crops[key].coarse for key in keys]
    assert again == [batch.coarse for batch in batches]
