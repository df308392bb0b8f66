"""What a plan chooses, and that it can be edited and read back."""

from pathlib import Path

import pytest
import torch

from prod9.config import Stage1Config
from prod9.data.dataset import Outline
from prod9.errors import Prod9Error
from prod9.pipeline.plan import Plan, make_plan

SCANS = 40


def plan(folder: Path, hours: float = 0.02, **changes: object) -> Plan:
    outline = Outline(SCANS, 5, (24, 32, 16), ("a", "b"), ("T1", "T2"))
    return make_plan(folder / "dataset.yaml", outline, folder, hours=hours, **changes)  # type: ignore[arg-type]


def steps(config: object, items: int) -> int:
    per_epoch = items // config.data.batch_size  # type: ignore[attr-defined]
    return per_epoch * config.trainer.max_epochs  # type: ignore[attr-defined]


def test_the_time_there_is_decides_the_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in (1, 2):
        monkeypatch.setattr(f"prod9.pipeline.plan.stage{stage}_step_seconds", lambda *_: 0.1)
    short, long = (plan(tmp_path, hours) for hours in (0.02, 0.1))
    for stage in ("stage1", "stage2"):
        few, many = (
            steps(
                getattr(each, stage),
                SCANS
                * 2
                * getattr(each, stage).data.crops_per_volume
                * getattr(getattr(each, stage).data, "encodings", 1),
            )
            for each in (short, long)
        )
        assert many > 2 * few > 0


def test_an_epoch_of_stage_1_fits_into_a_short_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in (1, 2):
        monkeypatch.setattr(f"prod9.pipeline.plan.stage{stage}_step_seconds", lambda *_: 1.6)
    outline = Outline(9, 1, (40, 56, 40), ("all",), ("T1",))
    found = make_plan(tmp_path / "dataset.yaml", outline, tmp_path, hours=0.05).stage1
    # A fifth of 180 s, in steps of 1.6 s, rounded up to whole passes over nine scans.
    assert 22 <= steps(found, 9 * found.data.crops_per_volume) <= 24


def test_what_fits_the_data(tmp_path: Path) -> None:
    found = plan(tmp_path, mirror=True)
    assert found.stage1.sliding_window.roi_size == (24, 32, 16)  # crops of at most 32
    assert found.stage2.sliding_window.roi_size == (24, 32, 16)  # the whole grid
    assert found.stage1.data.split_file == found.stage2.data.split_file
    assert found.stage2.autoencoder_path == found.stage1.autoencoder_export_path
    assert found.stage1.data.augmentation.flip
    assert 1 <= found.stage2.data.encodings <= 16
    for config in (found.stage1, found.stage2):
        assert config.callbacks.checkpoint.export == "best"
        assert config.trainer.check_val_every_n_epoch <= config.trainer.max_epochs


def test_the_order_of_sampling_follows_from_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in (1, 2):
        monkeypatch.setattr(f"prod9.pipeline.plan.stage{stage}_step_seconds", lambda *_: 0.01)
    assert plan(tmp_path, cut_out=True).stage2.sampler.order == "confidence"
    assert plan(tmp_path).stage2.sampler.order == "halton"  # else empty space comes first


def test_a_large_grid_is_learned_in_windows(tmp_path: Path) -> None:
    outline = Outline(SCANS, 5, (160, 200, 160), ("all",), ("T1",))
    found = make_plan(tmp_path / "dataset.yaml", outline, tmp_path, hours=0.01)
    assert found.stage2.sliding_window.roi_size == (64, 64, 64)


def test_a_gpu_with_little_memory_gets_smaller_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(config: Stage1Config, *_: object) -> float:
        if config.data.batch_size > 3 or config.model.autoencoder.num_channels[0] > 64:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 0.01

    monkeypatch.setattr("prod9.pipeline.plan.stage1_step_seconds", step)
    monkeypatch.setattr("prod9.pipeline.plan.stage2_step_seconds", lambda *_: 0.01)
    found = plan(tmp_path, hours=9)  # the time there is would do for the largest network
    assert found.stage1.data.batch_size == 2
    assert found.stage1.model.autoencoder.num_channels == (64,)

    def full(*_: object) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("prod9.pipeline.plan.stage1_step_seconds", full)
    with pytest.raises(Prod9Error, match="memory"):
        plan(tmp_path)


def test_an_edited_plan_is_read_back(tmp_path: Path) -> None:
    found = plan(tmp_path)
    found.write(tmp_path)
    again = Plan.read(tmp_path)
    assert (again.stage1, again.stage2) == (found.stage1, found.stage2)
    text = (tmp_path / "stage2.yaml").read_text()
    assert all(f"# {reason}\n" in text for reason in found.reasons)
    (tmp_path / "stage2.yaml").write_text(text.replace("encodings:", "encodngs:"))
    with pytest.raises(Prod9Error, match=r"stage2\.yaml:\d+: .*encodings"):
        Plan.read(tmp_path)
