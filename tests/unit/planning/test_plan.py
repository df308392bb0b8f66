"""The figures of ``prod9 plan``, against counts by hand; and its command."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prod9.cli import main
from prod9.cli.plan import lines
from prod9.data.phantom.cohort import make_phantom
from prod9.data.splits import open_split
from prod9.errors import Prod9Error
from prod9.planning import plan as plan_module
from prod9.planning.data_sizes import load_either, volumes_of
from prod9.planning.plan import Request, make_plan
from prod9.planning.recorder import Operation, Shape
from prod9.planning.step_timing import CARDS, SHARE_OF_PEAK, replay
from prod9.tokenizer import build_autoencoder

MEDMNIST1 = Path("maskgit/medmnist3d/stage1/ffl.yaml")
MEDMNIST2 = Path("maskgit/medmnist3d/stage2/base.yaml")
BRATS1, BRATS2 = Path("maskgit/brats/stage1/ffl.yaml"), Path("maskgit/brats/stage2/base.yaml")
DEMO1, DEMO2 = Path("maskgit/demo/stage1.yaml"), Path("maskgit/demo/stage2.yaml")
NARROW = ("model.transformer.hidden_dim=48", "model.transformer.num_blocks=1")
NO_TRIAL = Request(measure=False)
EIGHT = sorted(
    f"maskgit/{path.parent.parent.name}/{path.parent.name}/{path.name}"
    for path in (Path(main.__file__).parents[1] / "configs" / "maskgit").rglob("*.yaml")
    if path.parent.name in ("stage1", "stage2")
)


def test_a_plan_of_stage1() -> None:
    plan = make_plan(DEMO1, ("model.autoencoder.num_channels=[8,16]",), NO_TRIAL)
    config = load_either(DEMO1, ["model.autoencoder.num_channels=[8,16]"])
    parameters = sum(p.numel() for p in build_autoencoder(config.model.autoencoder).parameters())
    assert plan.parameters == {"autoencoder": parameters}
    memory = plan.memory
    copies = (memory.weights, memory.gradients, memory.moments, memory.averaged)
    assert copies == tuple(4 * parameters * n for n in (1, 1, 2, 1))
    assert (plan.sample, plan.tokens_per_volume, plan.positions) == ((28, 28, 28), 343, None)
    assert plan.train_volumes is not None
    assert plan.steps_per_epoch == plan.train_volumes // 8
    assert plan.steps == 5 * plan.steps_per_epoch
    assert plan.checkpoints == 3 + 1  # last, previous, the next one as it is written; the best
    assert plan.checkpoint_bytes == 4 * 4 * parameters  # weights, averaged weights, two moments
    assert plan.seconds_per_step is None
    assert plan.hours is None


def test_a_plan_of_stage2_finds_its_tokenizer() -> None:
    plan = make_plan(MEDMNIST2, NARROW, NO_TRIAL)
    assert plan.sample == (8, 8, 8)  # 64 voxels, stride 8
    assert (plan.tokens_per_volume, plan.positions) == (512, 64)
    assert plan.steps_per_epoch == 971 // 64  # Organ's training split
    assert plan.token_store_bytes == (971 + 161) * 512 * 2  # 512 codes need two bytes


def test_several_devices_share_an_epoch() -> None:
    one = make_plan(MEDMNIST2, NARROW, NO_TRIAL)
    four = make_plan(MEDMNIST2, NARROW, Request(measure=False, devices=4))
    assert four.steps_per_epoch == -(-971 // 4) // 64
    assert four.memory.needed == one.memory.needed  # the gradients lie in what is sent
    overrides = (*NARROW, "trainer.strategy=fsdp")
    split = make_plan(MEDMNIST2, overrides, Request(measure=False, devices=4))
    assert (four.gathered_bytes, split.gathered_bytes) == (0, split.checkpoint_bytes)
    assert (split.previews, "memory, to write a checkpoint" in dict(lines(split))) == (0, True)
    assert "memory, to write a checkpoint" not in dict(lines(four))
    saved = one.memory.needed - split.memory.needed
    assert saved == pytest.approx(0.75 * 5 * 4 * one.parameters["transformer"], rel=0.05)


def test_stage1_sends_a_copy_of_its_gradients() -> None:
    one = make_plan(DEMO1, (), NO_TRIAL)
    two = make_plan(DEMO1, (), Request(measure=False, devices=2))
    gradients = 4 * one.parameters["autoencoder"]
    assert two.memory.needed - one.memory.needed == pytest.approx(gradients, rel=1e-6)


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

    def planned() -> tuple[int, int]:
        found = volumes_of(config, None)
        assert found is not None
        return found.train, found.val

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
    told = volumes_of(config, 25)
    assert told is not None
    assert (told.train, told.val) == (19 * 4, 3 * 4)


def test_a_step_that_would_take_minutes_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(operations: object) -> object:
        raise AssertionError("tried")

    monkeypatch.setattr(plan_module, "replay", never)
    for bound in ("_MOST_FLOPS", "_MOST_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(plan_module, bound, 1.0)
            plan = make_plan(DEMO1, (), Request())
        assert plan.seconds_per_step is None
        assert "not tried on this CPU: 8 samples are" in plan.seconds_from
        assert plan.hours is None


@pytest.mark.slow
def test_scans_are_counted_where_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "cohort"
    where = (f"data.data_dir={folder}", f"data.split_file={tmp_path / 'split.json'}")
    config = load_either(BRATS1, [*where, "data.crops_per_volume=3"])
    assert volumes_of(config, None) is None
    make_phantom(folder, cases=5, release="2021", seed=0, overwrite=False)
    found = volumes_of(config, None)
    assert found is not None
    assert (found.train, found.val) == (3 * 4, 1 * 4)  # of 5 subjects 1 val, 1 test
    assert volumes_of(config, 100) is not None
    overrides = (*where, "data.crops_per_volume=3", "data.batch_size=2")
    small = ("model.autoencoder.num_channels=[8,8]", "sliding_window.roi_size=[16,16,16]")
    plan = make_plan(BRATS1, (*overrides, *small), NO_TRIAL)
    assert plan.steps_per_epoch == 3 * 4 * 3 // 2


def test_windows_of_scans() -> None:
    plan = make_plan(BRATS2, NARROW, Request(measure=False, cases=100))
    assert plan.sample == (8, 8, 8)  # 64 voxels
    assert plan.positions == 64
    assert plan.tokens_per_volume == 30 * 30 * 20  # 240 x 240 x 155 voxels
    assert plan.steps_per_epoch == 80 * 4 // 4
    assert plan.token_store_bytes == 90 * 4 * 30 * 30 * 20 * 2
    assert plan.volume_is_assumed
    assert dict(lines(plan))["volume"].startswith("taken to be 240x240x155 voxels")


def test_a_tokenizer_that_nobody_makes() -> None:
    overrides = ("autoencoder_path=elsewhere.pt", *NARROW)
    with pytest.raises(Prod9Error, match="--stage1"):
        make_plan(MEDMNIST2, overrides, NO_TRIAL)
    told = Request(measure=False, stage1=Path("maskgit/medmnist3d/stage1/large.yaml"))
    assert make_plan(MEDMNIST2, overrides, told).positions == 64


def test_time_on_a_gpu_is_arithmetic_over_its_rate() -> None:
    asked = Request(gpu_memory=24, tflops=10)
    plan = make_plan(DEMO1, (), asked)
    flops = sum(sum(both) for both in plan.flops.values())
    assert plan.setting == "bf16 on a GPU"
    assert plan.seconds_per_step == pytest.approx(flops / 1e13)
    assert plan.hours == pytest.approx(plan.steps * flops / 1e13 / 3600)
    named = make_plan(DEMO1, (), Request(gpu_memory=24, card="t4"))  # the same steps
    rate = CARDS["t4"] * SHARE_OF_PEAK * 1e12
    assert named.seconds_per_step == pytest.approx(flops / rate)


@pytest.mark.parametrize(("every", "count"), [(1, 140), (50, 3), (70, 2), (1000, 1), (0, 0)])
def test_previews_are_counted_and_not_in_the_time(every: int, count: int) -> None:
    """Every so many batches, and at the end, unless that has been drawn."""
    few = ("trainer.limit_train_batches=28", "trainer.max_epochs=5")
    every_n = f"callbacks.preview.every_n_steps={every}"
    plan = make_plan(DEMO1, (every_n, *few), Request(gpu_memory=24, tflops=10))
    assert (plan.steps, plan.previews) == (140, count)
    told = dict(lines(plan))["time of all steps"]
    assert told.endswith("previews" if count == 0 else f"previews ({count} of them)")


def test_a_batch_that_does_not_fit_is_told_what_does() -> None:
    plan = make_plan(DEMO1, ("data.batch_size=4096",), Request(gpu_memory=2))
    memory = plan.memory
    assert memory.largest_batch is not None
    assert 8 < memory.largest_batch < 4096
    assert memory.needed > 2 * 2**30
    assert plan.advice[0] == f"lower data.batch_size from 4096 to {memory.largest_batch}"


def test_operations_are_tried_as_often_as_they_are_called() -> None:
    import torch

    shape = Shape((512, 512), (512, 1), torch.float32)
    product = Operation(torch.ops.aten.mm.default, (shape, shape), {}, 0, "", False, True, 1)
    again = Operation(torch.ops.aten.mm.default, (shape, shape), {}, 0, "", False, True, 100)
    once, often = replay([product]).per_batch, replay([again]).per_batch
    assert 20 * once < often < 500 * once
    update = Operation(torch.ops.aten.mm.default, (shape, shape), {}, 0, "", False, False, 1)
    assert replay([update]).per_batch == 0
    assert replay([update]).per_step > 0


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    arguments = ["plan", "--config", str(DEMO2), "--gpu-memory", "24", "--card", "a100"]
    result = CliRunner().invoke(main.app, [*arguments, "--json", str(path), *NARROW])
    assert result.exit_code == 0, result.output
    for text in ("parameters", "largest batch in 24 GiB", "token store", "(a guess)"):
        assert text in result.output
    content = json.loads(path.read_text())
    assert content["kind"] == "prod9-plan"
    assert content["positions"] == 64  # 7 tokens a side, 2 a position
    assert f"{content['steps']:,} in all" in result.output


def test_mistakes_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(main.app, ["plan", "--config", str(DEMO1), "--card", "abacus"])
    assert isinstance(result.exception, Prod9Error)
    assert "a100" in str(result.exception)
    result = CliRunner().invoke(main.app, ["plan", "--config", str(DEMO1), "data.batch=2"])
    assert "data.batch" in str(result.exception)


@pytest.mark.slow
@pytest.mark.parametrize("name", EIGHT)
def test_all_eight_configurations(name: str) -> None:
    assert len(EIGHT) == 8
    plan = make_plan(Path(name), (), Request(gpu_memory=24, cases=1000))
    memory = plan.memory
    assert memory.largest_batch is not None
    assert memory.largest_batch >= 1
    # "Meant for one GPU with 24 GB" says each file.
    assert memory.needed <= 24 * 2**30, (name, plan.advice)
