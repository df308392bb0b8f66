"""A run that is cut off and resumed ends where the run ends that was not."""

import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_runs import (
    Log,
    PowerCut,
    Recorder,
    learned,
    logged,
    same,
    stage1_config,
    stage2_config,
)

from prod9.config import Stage1Config, Stage2Config
from prod9.errors import Prod9Error
from prod9.report.curves import read_history
from prod9.training import stage1, stage2
from prod9.training.checkpoint_files import read_last
from prod9.training.run_folder import RunFolder
from prod9.training.stage1_module import Stage1Module
from prod9.training.stage2_module import Stage2Module

pytestmark = pytest.mark.usefixtures("toy_data")


@dataclass
class Whole:
    """A run that nothing happened to."""

    config: Stage1Config | Stage2Config
    log: Log
    folder: Path


@pytest.fixture(scope="module")
def whole1(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        recorder, config = Recorder(Stage1Module, patch), stage1_config(folder)
        stage1.train(config)
        return Whole(config, recorder.take(), folder)


@pytest.fixture(scope="module")
def whole2(whole1: Whole, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        recorder = Recorder(Stage2Module, patch)
        config = stage2_config(folder, whole1.folder / "tokenizer.pt")
        stage2.train(config)
        return Whole(config, recorder.take(), folder)


def test_the_whole_runs_are_what_they_should_be(whole1: Whole, whole2: Whole) -> None:
    for whole in (whole1, whole2):
        assert [epoch for epoch, _, _ in whole.log] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        assert len({loss for _, _, loss in whole.log}) == 9


def cut_and_resumed(
    config: Any, cut: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> tuple[Log, Log]:
    """Cut a run off before batch ``cut[1]`` of epoch ``cut[0]``, resume it; return both logs."""
    kind = Stage1Module if isinstance(config, Stage1Config) else Stage2Module
    train: Any = stage1.train if isinstance(config, Stage1Config) else stage2.train
    recorder = Recorder(kind, monkeypatch)
    recorder.cut = cut
    with pytest.raises(PowerCut):
        train(config)
    recorder.cut = None
    before = recorder.take()
    train(config, resume=True)
    return before, recorder.take()


def check(whole: Whole, folder: Path, before: Log, after: Log, resumed_at: int) -> None:
    """All is as it is without the cut, but the batches since the checkpoint were seen twice."""
    assert before == whole.log[: len(before)]
    assert after == whole.log[resumed_at:]
    assert same(learned(folder), learned(whole.folder))
    assert logged(folder) == logged(whole.folder)


# Where a run is cut off, and after how many steps the checkpoint was made that is gone on from: one
# is made every 2 steps, in the middle of an epoch too (2, 4, 8), and at epochs' ends (3, 6, 9).
IN_EPOCH_0, AT_ITS_END, IN_EPOCH_1, IN_EPOCH_2 = ((0, 2), 2), ((1, 0), 3), ((1, 2), 4), ((2, 2), 8)
Cut = tuple[tuple[int, int], int]


def slow(cut: Cut) -> Any:
    return pytest.param(cut, marks=[pytest.mark.slow, pytest.mark.ci])


@pytest.mark.parametrize("cut", [IN_EPOCH_1, *map(slow, (IN_EPOCH_0, AT_ITS_END, IN_EPOCH_2))])
def test_stage1(whole1: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: Cut) -> None:
    config = stage1_config(tmp_path, callbacks__checkpoint__every_n_steps=2)
    check(whole1, tmp_path, *cut_and_resumed(config, cut[0], monkeypatch), cut[1])
    first, second = (torch.load(f / "tokenizer.pt") for f in (tmp_path, whole1.folder))
    assert same(first["weights"], second["weights"])


@pytest.mark.parametrize("cut", [IN_EPOCH_1, slow(AT_ITS_END)])
def test_stage2_with_dropout(
    whole2: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: Cut
) -> None:
    assert isinstance(whole2.config, Stage2Config)
    config = stage2_config(
        tmp_path, whole2.config.autoencoder_path, callbacks__checkpoint__every_n_steps=2
    )
    check(whole2, tmp_path, *cut_and_resumed(config, cut[0], monkeypatch), cut[1])
    first, second = (torch.load(f / "transformer.pt") for f in (tmp_path, whole2.folder))
    assert same(first["weights"], second["weights"])


@pytest.mark.parametrize("cut", [IN_EPOCH_1, slow(AT_ITS_END)])
def test_with_loader_processes(
    whole1: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: Cut
) -> None:
    """They fetch ahead: before Lightning tells them the epoch, and beyond what was learned."""
    settings = {"data__num_workers": 2, "callbacks__checkpoint__every_n_steps": 2}
    config = stage1_config(tmp_path, **settings)
    check(whole1, tmp_path, *cut_and_resumed(config, cut[0], monkeypatch), cut[1])


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("cut", [IN_EPOCH_1, AT_ITS_END])
def test_without_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: Cut) -> None:
    settings: dict[str, Any] = {"trainer__limit_val_batches": 0}
    recorder = Recorder(Stage1Module, monkeypatch)
    stage1.train(stage1_config(tmp_path / "whole", **settings))
    whole = Whole(stage1_config(tmp_path / "whole"), recorder.take(), tmp_path / "whole")
    config = stage1_config(tmp_path / "cut", **settings, callbacks__checkpoint__every_n_steps=2)
    check(whole, tmp_path / "cut", *cut_and_resumed(config, cut[0], monkeypatch), cut[1])


@pytest.mark.slow
@pytest.mark.ci
def test_twice_from_the_same_checkpoint(
    whole1: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = stage1_config(tmp_path, callbacks__checkpoint__every_n_steps=4)
    recorder = Recorder(Stage1Module, monkeypatch)
    for resume in (False, True):
        recorder.cut = (1, 2)
        with pytest.raises(PowerCut):
            stage1.train(config, resume=resume)
    recorder.cut = None
    before = recorder.take()
    assert before == whole1.log[:5] + whole1.log[4:5]
    stage1.train(config, resume=True)
    check(whole1, tmp_path, whole1.log[:5], recorder.take(), 4)


@pytest.mark.parametrize(
    "size", [3, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 6))]
)
def test_another_batch_size_goes_on_with_the_first_unseen_item(
    whole1: Whole,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    size: int,
) -> None:
    """Four of the six items of epoch 1 are seen: with batches of 3 one of them comes again."""
    recorder = Recorder(Stage1Module, monkeypatch)
    recorder.cut = (1, 2)
    with pytest.raises(PowerCut):
        stage1.train(stage1_config(tmp_path, callbacks__checkpoint__every_n_steps=5))
    recorder.cut = None
    epoch1 = [name for _, part, _ in whole1.log[3:6] for name in part]
    recorder.take()
    capsys.readouterr()
    stage1.train(stage1_config(tmp_path, data__batch_size=size), resume=True)
    seen = [name for epoch, part, _ in recorder.take() if epoch == 1 for name in part]
    begin = 4 // size * size
    assert seen == epoch1[begin:]
    text = (
        f"epoch 2 was begun with 2 items per step and goes on with {size}, at batch "
        f"{4 // size + 1}; {4 - begin} of its items are seen again"
    )
    assert text in capsys.readouterr().err
    assert read_last(RunFolder(tmp_path).checkpoints).position.epochs == 3


@pytest.mark.slow
def test_the_pictures_are_numbered_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"callbacks__preview": {"every_n_steps": 4, "num_volumes": 1}}
    config = stage1_config(tmp_path, **settings, callbacks__checkpoint__every_n_steps=2)
    cut_and_resumed(config, (1, 2), monkeypatch)
    names = sorted(path.name for path in (tmp_path / "previews").glob("batch-*"))
    assert names == [f"batch-000000{number}.png" for number in (4, 8, 9)]


# --- files ----------------------------------------------------------------------------------------


def whole(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def copied(whole: Whole, folder: Path, **settings: Any) -> Stage1Config:
    """Return a configuration of a copy of a run."""
    shutil.copytree(whole.folder, folder, dirs_exist_ok=True)
    return stage1_config(folder, **settings)


def test_a_torn_checkpoint_is_put_aside(
    whole1: Whole, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one before it is of epoch 2, and leads to the same end."""
    config = copied(whole1, tmp_path)
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    stage1.train(config, resume=True)
    text = capsys.readouterr().err
    assert "last.ckpt is torn (kept as torn.ckpt); the run goes on from" in text
    assert "resuming after epoch 2 (step 6)" in text
    assert same(learned(tmp_path), learned(whole1.folder))
    assert logged(tmp_path) == logged(whole1.folder)
    assert last.with_name("torn.ckpt").exists()
    assert whole(last.with_name("previous.ckpt"))["prod9_position"]["epochs"] == 2


def test_two_torn_checkpoints(whole1: Whole, tmp_path: Path) -> None:
    config = copied(whole1, tmp_path)
    for name in ("last", "previous"):
        (tmp_path / "checkpoints" / f"{name}.ckpt").write_bytes(b"torn")
    with pytest.raises(Prod9Error, match=r"last\.ckpt cannot be read: it is torn"):
        stage1.train(config, resume=True)


def test_a_last_one_that_is_no_checkpoint_is_put_aside(whole1: Whole, tmp_path: Path) -> None:
    config = copied(whole1, tmp_path)
    torch.save([1], tmp_path / "checkpoints" / "last.ckpt")
    stage1.train(config, resume=True)
    assert same(learned(tmp_path), learned(whole1.folder))
    assert torch.load(tmp_path / "checkpoints" / "torn.ckpt", weights_only=True) == [1]


def test_a_foreign_checkpoint(whole1: Whole, tmp_path: Path) -> None:
    config = copied(whole1, tmp_path)
    torch.save({"epoch": 3}, tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(Prod9Error, match="is not a checkpoint of prod9's"):
        stage1.train(config, resume=True)


def test_without_a_last_one_the_previous_one_still_forbids_to_begin_anew(
    whole1: Whole, tmp_path: Path
) -> None:
    config = copied(whole1, tmp_path)
    (tmp_path / "checkpoints" / "last.ckpt").unlink()
    (tmp_path / "tokenizer.pt").unlink()
    with pytest.raises(Prod9Error, match="already holds a run"):
        stage1.train(config)


def test_last_is_the_last_and_history_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``last.ckpt`` is written also in an epoch that is not among the best."""
    config = stage1_config(tmp_path)
    scores = itertools.count(30, -1)  # ever worse
    monkeypatch.setattr(
        "prod9.training.stage1_module.psnr", lambda a, b: torch.full((len(a),), float(next(scores)))
    )
    stage1.train(config)
    folder = RunFolder(config.output_dir)
    assert read_last(folder.checkpoints).position.epochs == 3
    (best,) = folder.checkpoints.glob("best-*.ckpt")
    assert whole(best)["epoch"] == 0

    before = read_history(folder.history)["train/loss"]
    stage1.train(stage1_config(tmp_path, trainer__max_epochs=4), resume=True)
    assert read_last(folder.checkpoints).position.epochs == 4
    names = sorted(path.name for path in folder.checkpoints.iterdir())
    assert names == [best.name, "last.ckpt", "previous.ckpt"]
    after = read_history(folder.history)["train/loss"]
    assert after[: len(before)] == before
    assert len(after) > len(before)


@pytest.mark.slow
def test_the_end_is_kept_whatever_the_interval(tmp_path: Path) -> None:
    every: dict[str, Any] = {"callbacks__checkpoint": {"every_n_epochs": 2, "every_n_steps": 0}}
    stage1.train(stage1_config(tmp_path, **every))
    folder = RunFolder(tmp_path)
    assert read_last(folder.checkpoints).position.epochs == 3
    previous = whole(folder.checkpoints / "previous.ckpt")
    assert previous["prod9_position"]["epochs"] == 2
