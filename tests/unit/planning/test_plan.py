"""The figures of ``prod9 plan``, against counts by hand; and its command."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from prod9.cli import main
from prod9.config.load import load_either
from prod9.data.phantom.cohort import make_phantom
from prod9.data.splits import open_split
from prod9.errors import Prod9Error
from prod9.planning.data_sizes import sizes_of
from prod9.planning.plan import make_plan
from prod9.tokenizer import build_autoencoder

MEDMNIST1 = Path("maskgit/medmnist3d/stage1/ffl.yaml")
MEDMNIST2 = Path("maskgit/medmnist3d/stage2/base.yaml")
BRATS1, BRATS2 = Path("maskgit/brats/stage1/ffl.yaml"), Path("maskgit/brats/stage2/base.yaml")
DEMO1, DEMO2 = Path("maskgit/demo/stage1.yaml"), Path("maskgit/demo/stage2.yaml")
NARROW = ("model.transformer.hidden_dim=48", "model.transformer.num_blocks=1")
EIGHT = sorted(
    f"maskgit/{path.parent.parent.name}/{path.parent.name}/{path.name}"
    for path in (Path(main.__file__).parents[1] / "configs" / "maskgit").rglob("*.yaml")
    if path.parent.name in ("stage1", "stage2")
)


def test_a_plan_of_stage1() -> None:
    plan: dict[str, Any] = make_plan(DEMO1, ["model.autoencoder.num_channels=[8,16]"])
    config = load_either(DEMO1, ["model.autoencoder.num_channels=[8,16]"])
    parameters = sum(p.numel() for p in build_autoencoder(config.model.autoencoder).parameters())
    assert plan["parameters"] == {"autoencoder": parameters}
    for name, copies in (("weights", 1), ("gradients", 1), ("moments", 2), ("averaged_weights", 1)):
        assert plan[f"{name}_bytes"] == 4 * copies * parameters
    assert (plan["sample"], plan["tokens_per_volume"]) == ((28, 28, 28), 343)
    assert plan["steps_per_epoch"] == plan["train_volumes"] // 8
    assert plan["steps"] == 5 * plan["steps_per_epoch"]
    assert plan["checkpoints"] == 3 + 1  # last, previous, the next one as it is written; the best
    assert plan["checkpoint_bytes"] == 4 * 4 * parameters  # weights, averaged weights, two moments
    assert "time_of_a_step_seconds" not in plan


def test_a_plan_of_stage2_finds_its_tokenizer() -> None:
    plan = make_plan(MEDMNIST2, NARROW)
    assert plan["sample"] == (8, 8, 8)  # 64 voxels, stride 8
    assert plan["tokens_per_volume"] == 512
    assert plan["steps_per_epoch"] == 971 // 64  # Organ's training split
    assert plan["token_store_bytes"] == (971 + 161) * 512 * 2  # 512 codes need two bytes


def test_several_devices_share_an_epoch() -> None:
    one: dict[str, Any] = make_plan(MEDMNIST2, NARROW)
    four = make_plan(MEDMNIST2, NARROW, devices=4)
    assert four["steps_per_epoch"] == -(-971 // 4) // 64
    assert four["memory_of_a_step_bytes"] == one["memory_of_a_step_bytes"]  # sent in place
    split: dict[str, Any] = make_plan(MEDMNIST2, [*NARROW, "trainer.strategy=fsdp"], devices=4)
    assert four["gathered_checkpoint_bytes"] == split["previews"] == 0
    assert split["gathered_checkpoint_bytes"] == split["checkpoint_bytes"]
    saved = one["memory_of_a_step_bytes"] - split["memory_of_a_step_bytes"]
    assert saved == pytest.approx(0.75 * 5 * 4 * one["parameters"]["transformer"], rel=0.05)


def test_stage1_sends_a_copy_of_its_gradients() -> None:
    one: dict[str, Any] = make_plan(DEMO1)
    two: dict[str, Any] = make_plan(DEMO1, devices=2)
    more = two["memory_of_a_step_bytes"] - one["memory_of_a_step_bytes"]
    assert more == pytest.approx(4 * one["parameters"]["autoencoder"], rel=1e-6)


def test_the_split_of_a_plan_is_that_of_training(tmp_path: Path) -> None:
    folder, file = tmp_path / "cohort", tmp_path / "split.json"
    subjects = [f"BraTS-GLI-{number:05}" for number in range(25)]
    for number, subject in enumerate(subjects):
        for visit in range(3 if number % 4 == 0 else 1):  # some were scanned three times
            case = folder / f"{subject}-{visit:03}"
            case.mkdir(parents=True)
            for name in ("t1n", "t1c", "t2w", "t2f"):
                (case / f"{case.name}-{name}.nii.gz").write_bytes(b"")
    config = load_either(BRATS1, [f"data.data_dir={folder}", f"data.split_file={file}"])

    def planned(cases: int | None = None) -> tuple[int, int] | None:
        return sizes_of(config, cases=cases).volumes

    def scans(names: tuple[str, ...]) -> int:
        return 4 * sum(3 if subjects.index(name) % 4 == 0 else 1 for name in names)

    before = planned()
    assert not file.exists()  # it is training that draws and writes it
    split = open_split(file, subjects, seed=0, val_share=0.1, test_share=0.1)
    assert (len(split.train), len(split.val)) == (19, 3)  # 2.5 is rounded up
    assert before == planned() == (scans(split.train), scans(split.val))
    stored = json.loads(file.read_text())
    stored["val"] += [stored["train"].pop() for _ in range(4)]  # edited by hand
    file.write_text(json.dumps(stored))
    assert planned() == (scans(tuple(stored["train"])), scans(tuple(stored["val"])))
    assert planned(25) == (19 * 4, 3 * 4)


@pytest.mark.slow
def test_scans_are_counted_where_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "cohort"
    where = (f"data.data_dir={folder}", f"data.split_file={tmp_path / 'split.json'}")
    config = load_either(BRATS1, [*where, "data.crops_per_volume=3"])
    assert sizes_of(config).volumes is None
    make_phantom(folder, cases=5, release="2021", seed=0, overwrite=False)
    assert sizes_of(config).volumes == (3 * 4, 1 * 4)  # of 5 subjects 1 val, 1 test
    overrides = (*where, "data.crops_per_volume=3", "data.batch_size=2")
    small = ("model.autoencoder.num_channels=[8,8]", "sliding_window.roi_size=[16,16,16]")
    assert make_plan(BRATS1, (*overrides, *small))["steps_per_epoch"] == 3 * 4 * 3 // 2


def test_windows_of_scans() -> None:
    plan = make_plan(BRATS2, NARROW, cases=100)
    assert plan["sample"] == (8, 8, 8)  # 64 voxels
    assert (plan["volume"], plan["volume_is_assumed"]) == ((240, 240, 155), True)
    assert plan["tokens_per_volume"] == 30 * 30 * 20
    assert plan["steps_per_epoch"] == 80 * 4 // 4
    assert plan["token_store_bytes"] == 90 * 4 * 30 * 30 * 20 * 2


def test_a_tokenizer_that_nobody_makes() -> None:
    overrides = ("autoencoder_path=elsewhere.pt", *NARROW)
    with pytest.raises(Prod9Error, match="--stage1"):
        make_plan(MEDMNIST2, overrides)
    told = make_plan(MEDMNIST2, overrides, stage1=Path("maskgit/medmnist3d/stage1/large.yaml"))
    assert told["tokens_per_volume"] == 512


def test_time_on_a_gpu_is_arithmetic_over_its_rate() -> None:
    plan: dict[str, Any] = make_plan(DEMO1, gpu_memory=24, tflops=10)
    flops = plan["forward_flops"] + plan["backward_flops"]
    assert (plan["device"], plan["precision"]) == ("GPU", "bf16")
    assert plan["time_of_a_step_seconds"] == pytest.approx(flops / 1e13)
    assert plan["time_of_training_hours"] == pytest.approx(plan["steps"] * flops / 1e13 / 3600)


@pytest.mark.parametrize(("every", "count"), [(50, 3), (70, 2), (0, 0)])
def test_previews_are_counted(every: int, count: int) -> None:
    """Every so many batches, and at the end, unless that has been drawn."""
    few = ("trainer.limit_train_batches=28", "trainer.max_epochs=5")
    plan = make_plan(DEMO1, (f"callbacks.preview.every_n_steps={every}", *few))
    assert (plan["steps"], plan["previews"]) == (140, count)


def test_a_batch_that_does_not_fit_is_told_what_does() -> None:
    plan: dict[str, Any] = make_plan(DEMO1, ["data.batch_size=4096"], gpu_memory=2)
    assert 8 < plan["largest_batch"] < 4096
    assert not plan["fits"]
    assert plan["advice"][0] == f"lower data.batch_size from 4096 to {plan['largest_batch']}"
    fits = make_plan(DEMO1, [f"data.batch_size={plan['largest_batch']}"], gpu_memory=2)
    assert fits["fits"]


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    arguments = ["plan", "--config", str(DEMO2), "--gpu-memory", "24", "--tflops", "50"]
    result = CliRunner().invoke(main.app, [*arguments, "--json", str(path), *NARROW])
    assert result.exit_code == 0, result.output
    content = json.loads(path.read_text())
    assert content["kind"] == "prod9-plan"
    assert f"{content['steps']:,}" in result.output
    for words in ("parameters", "largest batch", "token store", "memory of a step", "MiB", "GFLOP"):
        assert words in result.output


def test_a_mistake_in_an_override() -> None:
    result = CliRunner().invoke(main.app, ["plan", "--config", str(DEMO1), "data.batch=2"])
    assert "data.batch" in str(result.exception)


@pytest.mark.slow
@pytest.mark.parametrize("name", EIGHT)
def test_all_eight_configurations(name: str) -> None:
    assert len(EIGHT) == 8
    plan: dict[str, Any] = make_plan(Path(name), gpu_memory=24, cases=1000)
    assert plan["largest_batch"] >= 1
    assert plan["fits"], (name, plan["advice"])  # "Meant for one GPU with 24 GB" says each file.
