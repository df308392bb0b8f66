"""``--overwrite`` leaves nothing of the run before, or says what it cannot remove."""

from pathlib import Path

import pytest
import torch

from prod9.config import Stage1Config
from prod9.config.load import dump
from prod9.errors import Prod9Error
from prod9.training.checkpoint_files import CONFIG_KEY, POSITION_KEY, Position
from prod9.training.run_folder import RunFolder

PARTS = (
    *("checkpoints/previous.ckpt", "checkpoints/torn.ckpt", "checkpoints/best-epoch=3.ckpt"),
    *("previews/batch-0000100.png", "previews/levels-0000100.png"),
    *("history/metrics.csv", "history/metrics-until-part-00001.csv"),
    *("tensorboard/events.out.tfevents.1.host.2.0", "nonfinite/step-00000003.npz"),
    *("metrics.json", "report.html", "reconstruction.csv", "transformer.pt"),
)


def old_run(root: Path) -> Stage1Config:
    config = Stage1Config.model_validate(
        {
            "output_dir": root,
            "autoencoder_export_path": root / "tokenizer.pt",
            "data": {"dataset_name": "organmnist3d"},
        }
    )
    RunFolder(root).claim(config, resume=False, overwrite=False)
    for part in PARTS:
        (root / part).parent.mkdir(exist_ok=True)
        (root / part).write_text("old")
    checkpoint = {CONFIG_KEY: dump(config), POSITION_KEY: Position()._asdict()}
    torch.save(checkpoint, root / "checkpoints" / "last.ckpt")
    return config


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_nothing_is_left(tmp_path: Path) -> None:
    config = old_run(tmp_path)
    RunFolder(tmp_path).claim(config, resume=False, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_nothing_is_left_where_the_configuration_is_lost(tmp_path: Path) -> None:
    config = old_run(tmp_path)
    (tmp_path / "config.yaml").unlink()
    RunFolder(tmp_path).claim(config, resume=False, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_what_somebody_else_keeps_there_stays(tmp_path: Path) -> None:
    config = old_run(tmp_path)
    mine = ["checkpoints/mine.ckpt", "history/mine.csv", "mine/metrics.json", "notes.txt"]
    (tmp_path / "mine").mkdir()
    for name in mine:
        (tmp_path / name).write_text("mine")
    RunFolder(tmp_path).claim(config, resume=False, overwrite=True)
    assert files(tmp_path) == sorted(["config.yaml", *mine])


def test_values_of_a_run_that_left_no_checkpoint_are_put_aside(tmp_path: Path) -> None:
    config = old_run(tmp_path)
    for number in (1, 2):
        for name in ("checkpoints/last.ckpt", "checkpoints/previous.ckpt", "transformer.pt"):
            (tmp_path / name).unlink(missing_ok=True)
        RunFolder(tmp_path).claim(config, resume=False, overwrite=False)
        assert not (tmp_path / "history").exists()
        assert (tmp_path / f"history-{number}" / "metrics.csv").read_text() == "old"
        (tmp_path / "history").mkdir()
        (tmp_path / "history" / "metrics.csv").write_text("old")
    assert (tmp_path / "nonfinite").exists()


def test_a_checkpoint_that_cannot_be_removed_is_told(tmp_path: Path) -> None:
    """The new run would be resumed from it."""
    config = old_run(tmp_path)
    torn = tmp_path / "checkpoints" / "torn.ckpt"
    torn.unlink()
    torn.mkdir()
    with pytest.raises(Prod9Error, match=f"cannot remove {torn}: "):
        RunFolder(tmp_path).claim(config, resume=False, overwrite=True)
    assert "config.yaml" in files(tmp_path)  # it is still a run that can be replaced


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["config.yaml", "checkpoints/last.ckpt", *PARTS])
def test_files_of_somebody_else_are_not_replaced(
    tmp_path: Path, name: str, overwrite: bool
) -> None:
    config = old_run(tmp_path / "own")
    mine = tmp_path / "run" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("- mine")
    with pytest.raises(Prod9Error, match=f"{mine} is in the way"):
        RunFolder(tmp_path / "run").claim(config, resume=False, overwrite=overwrite)
    assert files(tmp_path / "run") == [name]
    assert mine.read_text() == "- mine"
