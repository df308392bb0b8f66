"""An evaluation that was killed goes on; several processes share it; the figures are the same."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked import finish, kill, start, wait_for

from prod9.config import SamplerConfig, SlidingWindowConfig
from prod9.data.volume_sets.volume_set import VolumeSet, of_tensor
from prod9.evaluation import evaluator as evaluator_module
from prod9.evaluation import work_cache as kept_module
from prod9.evaluation.evaluator import Evaluator
from prod9.evaluation.feature_spaces import FeatureSpace, features_of
from prod9.evaluation.reconstruction import round_trip
from prod9.evaluation.test_metrics import generated
from prod9.evaluation.work_cache import WorkCache
from prod9.model import Model
from prod9.sample_request import SampleRequest

NAMES = [f"part {index}" for index in range(9)]


def squares(rank: int, folder: Path | None, log: Path, results: Path, stop: int = 99) -> None:
    """Make the squares of 0..8; ``log`` tells who made which."""

    def make(index: int) -> np.ndarray:
        if index == stop:
            raise KeyboardInterrupt
        with log.open("a") as file:
            file.write(f"{rank} {index}\n")
        return np.array([index**2, math.nan])

    parts = WorkCache(folder).all_of(NAMES, make, "squares")
    np.save(results / f"{rank}.npy", np.stack(parts))


def made(log: Path) -> list[tuple[int, int]]:
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(rank), int(index)) for rank, index in map(str.split, lines)]


def right(path: Path) -> bool:
    wanted = np.array([[index**2, math.nan] for index in range(9)])
    return np.array_equal(np.load(path), wanted, equal_nan=True)


def test_parts_are_made_once(tmp_path: Path) -> None:
    given = (tmp_path / "kept", tmp_path / "log", tmp_path)
    with pytest.raises(KeyboardInterrupt):
        squares(0, *given, stop=5)
    squares(0, *given)
    squares(0, *given)
    assert made(tmp_path / "log") == [(0, index) for index in range(9)]
    assert right(tmp_path / "0.npy")
    WorkCache(tmp_path / "kept").clear()
    assert not (tmp_path / "kept").exists()
    squares(0, None, tmp_path / "other", tmp_path)
    squares(0, None, tmp_path / "other", tmp_path)
    assert len(made(tmp_path / "other")) == 18


def test_a_torn_part_is_made_again(tmp_path: Path) -> None:
    given = (tmp_path / "kept", tmp_path / "log", tmp_path)
    squares(0, *given)
    torn = sorted((tmp_path / "kept").iterdir())[3]
    torn.write_bytes(torn.read_bytes()[:-3])
    squares(0, *given)
    assert len(made(tmp_path / "log")) == 10
    assert right(tmp_path / "0.npy")


def test_a_folder_that_cannot_be_written_costs_time_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    squares(0, tmp_path / "file", tmp_path / "log", tmp_path)
    assert right(tmp_path / "0.npy")


def test_processes_share_the_parts_and_all_get_them(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        squares(0, tmp_path / "kept", tmp_path / "log", tmp_path, stop=2)
    (tmp_path / "log").unlink()
    finish(start(2, tmp_path / "m", squares, tmp_path / "kept", tmp_path / "log", tmp_path))
    assert sorted(index for _, index in made(tmp_path / "log")) == [*range(2, 9)]  # nothing twice
    assert Counter(rank for rank, _ in made(tmp_path / "log")) == {0: 4, 1: 3}
    assert right(tmp_path / "0.npy")
    assert right(tmp_path / "1.npy")


def test_machines_with_folders_of_their_own_still_get_all(tmp_path: Path) -> None:
    finish(start(2, tmp_path / "m", squares_apart, tmp_path))
    assert right(tmp_path / "0.npy")
    assert right(tmp_path / "1.npy")


def squares_apart(rank: int, folder: Path) -> None:
    if rank == 0:  # one of them has finished some of its share before
        WorkCache(folder / "0").one(NAMES[4], lambda: np.array([16, math.nan]))
    squares(rank, folder / str(rank), folder / "log", folder)


def test_another_version_makes_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = (tmp_path / "kept", tmp_path / "log", tmp_path)
    squares(0, *given)
    monkeypatch.setattr(kept_module, "__version__", "99.0")
    squares(0, *given)
    assert len(made(tmp_path / "log")) == 18


# --- features -------------------------------------------------------------------------------------


def volumes(count: int, side: int = 6) -> VolumeSet:
    stream = torch.Generator().manual_seed(0)
    images = torch.rand(count, 1, side, side, side, generator=stream)
    return of_tensor(images, torch.arange(count) % 2, ("a", "b"), "toy")


def space(rank: int, log: Path, stop: int = 999) -> FeatureSpace:
    def embed(volume: torch.Tensor) -> torch.Tensor:
        if log.exists() and len(log.read_text().splitlines()) >= stop:
            raise KeyboardInterrupt
        with log.open("a") as file:
            file.write(f"{rank} 0\n" * len(volume))
        flat = volume.flatten(1)
        return torch.stack([flat.mean(1), flat.amax(1)], 1)

    return FeatureSpace("efficientnet", "toy", 2, "sha", embed)


def features_in_a_process(rank: int, log: Path, cache: Path, results: Path) -> None:
    found = features_of(space(rank, log), volumes(150), WorkCache(cache))
    np.save(results / f"{rank}.npy", found.numpy())


def test_interrupted_features_go_on(tmp_path: Path) -> None:
    collection, log, cache = volumes(150), tmp_path / "log", WorkCache(tmp_path / "cache")
    with pytest.raises(KeyboardInterrupt):
        features_of(space(0, log, stop=60), collection, cache)
    log.unlink()
    found = features_of(space(0, log), collection, cache)
    assert len(made(log)) == 150 - 2 * 32  # two blocks were finished
    assert torch.equal(found, features_of(space(0, tmp_path / "other"), collection))
    assert torch.equal(features_of(space(0, log), collection, cache), found)
    assert len(made(log)) == 150 - 2 * 32


def test_processes_share_features(tmp_path: Path) -> None:
    log, cache = tmp_path / "log", tmp_path / "cache"
    finish(start(2, tmp_path / "meeting", features_in_a_process, log, cache, tmp_path))
    wanted = features_of(space(0, tmp_path / "other"), volumes(150)).numpy()
    assert np.array_equal(np.load(tmp_path / "0.npy"), wanted)
    assert np.array_equal(np.load(tmp_path / "1.npy"), wanted)
    assert Counter(rank for rank, _ in made(log)) == {0: 32 + 32 + 22, 1: 64}


def test_killed_features_go_on(tmp_path: Path) -> None:
    log, given = tmp_path / "log", (tmp_path / "cache", tmp_path)
    for attempt in range(3):
        processes = start(1, tmp_path / f"m{attempt}", features_in_a_process, log, *given)
        wait_for(lambda least=35 * attempt + 20: len(made(log)) >= least, processes)
        kill(processes)
    features_in_a_process(0, log, *given)
    wanted = features_of(space(0, tmp_path / "other"), volumes(150)).numpy()
    assert np.array_equal(np.load(tmp_path / "0.npy"), wanted)


# --- drawn volumes and reconstructions ------------------------------------------------------------


def test_drawn_volumes_are_kept(
    generator: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = SampleRequest((0, 0, 1, 1, 1), SamplerConfig(steps=2), batch_size=2)
    asked: list[int] = []
    sample = Model.sample

    def counted(self: Model, request: SampleRequest, number: int, *rest: Any) -> Any:
        if len(asked) == 2:
            asked.clear()
            raise KeyboardInterrupt
        asked.append(number)
        return sample(self, request, number, *rest)

    def again(seed: int = 3, kept: WorkCache | None = None) -> torch.Tensor:
        kept = kept or WorkCache(tmp_path / "kept")
        return generated(generator, replace(request, seed=seed), kept).tensor()

    wanted = again(kept=WorkCache())
    every = [generator.sample_volumes(replace(request, seed=3), n) for n in range(3)]
    assert torch.equal(wanted, torch.cat(every))
    with monkeypatch.context() as patch:
        patch.setattr(Model, "sample", counted)
        with pytest.raises(KeyboardInterrupt):
            again()
        assert torch.equal(again(), wanted)
        assert asked == [2]  # the third batch alone
    assert not torch.equal(again(seed=4), wanted)


def test_reconstruction_figures_are_kept(
    make_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, originals = make_tokenizer(volume_shape=(12, 12, 12)), volumes(7, side=12)
    windows = SlidingWindowConfig(roi_size=(8, 8, 8))
    monkeypatch.setenv("PROD9_CACHE", str(tmp_path / "none"))
    measure, measured = evaluator_module.measure_pair, []

    def counted(*given: Any) -> Any:
        if len(measured) == 4:
            measured.clear()
            raise KeyboardInterrupt
        measured.append(1)
        return measure(*given)

    def evaluate(kept: WorkCache) -> Any:
        evaluator = Evaluator(kept=kept)
        trip = round_trip(tokenizer, originals, windows, kept)
        figures = evaluator.measure_reconstruction(originals, trip)
        return figures, repr(evaluator.rows)

    wanted = evaluate(WorkCache())
    with monkeypatch.context() as patch:
        patch.setattr(evaluator_module, "measure_pair", counted)
        with pytest.raises(KeyboardInterrupt):
            evaluate(WorkCache(tmp_path / "kept"))
        assert evaluate(WorkCache(tmp_path / "kept")) == wanted
        assert len(measured) == 3
    assert wanted[0].codebook_usage > 0
    cells = (12 // tokenizer.autoencoder.stride) ** 3
    bits = math.log2(tokenizer.fsq.codebook_size)
    assert wanted[0].bits_per_voxel == pytest.approx(cells * bits / 12**3)
