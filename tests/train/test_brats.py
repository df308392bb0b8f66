"""The specification's BraTS commands, verbatim, through the console scripts, on drawn cases."""

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from console_scripts import in_a_process, in_this_one

from prod9.config import Stage1Config, Stage2Config
from prod9.data.brats.phantom.cohort import make_phantom
from prod9.losses.medicalnet import MedicalNetResNet10
from prod9.tokenizer import Tokenizer
from prod9.torch_files import digest_of
from prod9.training import stage1, stage2
from prod9.training.checkpoint_files import read_last
from prod9.training.run_folder import RunFolder
from prod9.training.stage1_module import Stage1Module
from prod9.training.stage2_module import Stage2Module

pytestmark = pytest.mark.slow

CONFIGS = "src/prod9/configs/maskgit/brats"
BASE, FFL, SECOND = (
    f"{CONFIGS}/{name}.yaml" for name in ("stage1/base", "stage1/ffl", "stage2/base")
)
AUTOENCODER, TRANSFORMER = "prod9-train-autoencoder", "prod9-train-transformer"
# 60 x 60 x 39 voxels of 4 mm, cells of 8 voxels, crops of 4 x 4 x 4 cells.
COMMON = [
    "data.num_workers=0",
    "data.batch_size=2",
    "sliding_window.roi_size=[32,32,32]",
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=2",
    "callbacks.preview.every_n_steps=2",
    "callbacks.preview.num_volumes=2",
    "training.scheduler.warmup_steps=1",
]
STAGE1 = [
    *COMMON,
    "data.preprocessing.spacing_mm=[4,4,4]",
    "model.autoencoder.num_channels=[8,8,16,16]",
    "model.discriminator.channels=8",
    "loss.discriminator_iter_start=1",
]
STAGE2 = [
    *COMMON,
    "model.transformer.hidden_dim=64",
    "model.transformer.num_blocks=2",
    "model.transformer.num_heads=4",
    "model.transformer.token_dim=16",
    "sampler.steps=3",
    "evaluation.samples_per_class=2",
    "evaluation.feature_spaces=[classifier]",
    "evaluation.usefulness=false",
]
CASE = "BraTS2021_00002"


def run(
    workplace: Path, command: str, *arguments: object, code: int = 0, apart: bool = False
) -> str:
    """Run a console script; the paths in the configs are relative to the current folder."""
    env = {
        "PROD9_CACHE": str(workplace / "cache"),
        "BRATS_DATA_DIR": str(workplace / "brats"),
        "COLUMNS": "200",
    }
    call = in_a_process if apart else in_this_one
    left, out, err = call(command, *arguments, cwd=workplace, env=env)
    assert left == code, f"{command} {arguments}\n{err[-3000:]}"
    assert "Traceback" not in err
    return out + err


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small cohort, and MedicalNet weights of the right shapes."""
    folder = tmp_path_factory.mktemp("work")
    make_phantom(folder / "brats", cases=6, release="2021", seed=0, voxel_mm=4.0)
    weights = folder / "cache" / "medicalnet" / "resnet_10_23dataset.pth"
    weights.parent.mkdir(parents=True)
    torch.manual_seed(0)
    state = {f"module.{k}": v for k, v in MedicalNetResNet10().state_dict().items()}
    torch.save({"state_dict": state}, weights)
    return folder


@pytest.fixture(scope="module")
def trained(workplace: Path) -> Path:
    """Both stages of the base configuration, as the specification trains them."""
    said = run(workplace, AUTOENCODER, "train", "--config", BASE, *STAGE1, apart=True)
    assert "resnet_10_23dataset.pth" in said  # which weights are used, before training
    assert f"{workplace / 'brats'}: release 2018-2021; 6 usable cases of 6 subjects" in said
    assert "split by subject (outputs/brats_split.json): 4 train, 1 val, 1 test" in said
    assert (workplace / "outputs" / "autoencoder_final.pt").is_file()
    said = run(workplace, TRANSFORMER, "train", "--config", SECOND, *STAGE2, apart=True)
    assert "16 training volumes of 8x8x5 tokens, in crops of 4x4x4" in said
    assert (workplace / "outputs" / "brats_stage2" / "transformer.pt").is_file()
    return workplace


def scan(workplace: Path, modality: str) -> Path:
    return workplace / "brats" / CASE / f"{CASE}_{modality}.nii.gz"


def same_geometry(one: Path, two: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels of two files that lie in the same place and are stored alike."""
    first, second = nib.nifti1.load(one), nib.nifti1.load(two)
    assert first.shape == second.shape
    assert first.get_data_dtype() == second.get_data_dtype()
    np.testing.assert_allclose(first.affine, second.affine, atol=1e-6)
    return np.asarray(first.dataobj), np.asarray(second.dataobj)


def every_number(figures: object) -> list[float]:
    if isinstance(figures, Mapping):
        return [number for value in figures.values() for number in every_number(value)]
    return [figures] if isinstance(figures, float | int) else []


# --- the commands -------------------------------------------------------------------------------


def test_stage1_is_measured(trained: Path) -> None:
    assert "psnr_foreground" in run(trained, AUTOENCODER, "validate", "--config", BASE, *STAGE1)
    run(trained, AUTOENCODER, "test", "--config", BASE, *STAGE1)
    metrics = json.loads((trained / "outputs/brats_stage1/metrics.json").read_text())
    figures = metrics["reconstruction"]
    assert all(map(math.isfinite, every_number(figures)))
    assert 0 < figures["foreground"]["psnr"] < figures["psnr"] < 60
    assert -1 <= figures["foreground"]["ssim"] <= 1
    assert -1 <= figures["ssim"] <= 1
    assert 0 < figures["codebook_usage"] <= 1
    assert 1 <= figures["codebook_perplexity"] <= 1080
    assert figures["volumes"] == 4  # the modalities of one scan
    assert list(figures["per_class"]) == ["T1", "T1ce", "T2", "FLAIR"]
    of_each = [part["psnr"] for part in figures["per_class"].values()]
    assert np.mean(of_each) == pytest.approx(figures["psnr"])
    assert (trained / "outputs/brats_stage1/report.html").is_file()
    tokenizer = Tokenizer.load(trained / "outputs/autoencoder_final.pt")
    assert metrics["provenance"]["tokenizer"] == tokenizer.digest
    assert tokenizer.spec.volume_shape == (60, 60, 39)
    assert tokenizer.spec.spacing_mm == (4.0, 4.0, 4.0)
    assert tokenizer.codebook_size == 1080


def test_stage2_is_measured(trained: Path) -> None:
    said = run(trained, TRANSFORMER, "validate", "--config", SECOND, *STAGE2)
    assert "masked_accuracy" in said
    run(trained, TRANSFORMER, "test", "--config", SECOND, *STAGE2)
    figures = json.loads((trained / "outputs/brats_stage2/metrics.json").read_text())
    assert all(map(math.isfinite, every_number(figures)))
    assert 0 < figures["masked_prediction"]["loss"] < 20
    assert 0 <= figures["masked_prediction"]["masked_accuracy"] <= 1
    generation = figures["generation"]
    assert generation["volumes"] == 8  # of four modalities
    assert figures["sets"]["generated"]["shape"] == [60, 60, 39]
    assert set(generation["per_class"]) == {"T1", "T1ce", "T2", "FLAIR"}
    assert generation["privacy"]["verdict"] == "no sign of copying"
    translation = figures["translation"]
    assert (translation["target"], translation["scans"]) == ("FLAIR", 1)
    assert list(translation["drawn"]) == ["T1", "T1+T2", "T1+T1ce+T2"]
    assert sorted(translation["matched"]) == ["T1", "T1ce", "T2"]
    rivals = [translation["mean"], translation["ceiling"], *translation["matched"].values()]
    for score in [*translation["drawn"].values(), *rivals]:
        assert 0 < score["psnr"] < 60
        assert -1 <= score["ssim"] <= 1
        assert score["psnr_per_scan"] == [pytest.approx(score["psnr"])]
    assert list((trained / "outputs/brats_stage2/previews").glob("*.png"))
    assert list((trained / "outputs/brats_stage1/previews").glob("*.png"))


def test_generate_from_the_modalitys_name(trained: Path) -> None:
    # Neither --config nor --output: the shipped BraTS configuration and its folder.
    arguments = ["generate", "--modality", "T1", "--num-samples", 2, "--shape", 48, 48, 40]
    said = run(trained, TRANSFORMER, *arguments, "--steps", 3)
    folder = trained / "outputs" / "brats_stage2" / "generated"
    assert "2 volumes, montage.png and manifest.json written to outputs/brats_stage2/gen" in said
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [sample["class"] for sample in manifest["samples"]] == ["T1", "T1"]
    assert manifest["tokens_shape"] == [6, 6, 5]
    assert manifest["sampler"]["steps"] == 3
    drawn = [nib.nifti1.load(folder / sample["file"]) for sample in manifest["samples"]]
    for image in drawn:
        assert image.shape == (48, 48, 40)
        assert image.get_data_dtype() == np.uint8
        # RAS+, the training spacing, centred on the origin.
        expected = np.diag([4.0, 4.0, 4.0, 1.0])
        expected[:3, 3] = [-94, -94, -78]
        np.testing.assert_allclose(image.affine, expected)
    assert (np.asarray(drawn[0].dataobj) != np.asarray(drawn[1].dataobj)).any()
    again = run(trained, TRANSFORMER, *arguments, "--steps", 3, code=2)
    assert "already holds generated volumes" in again


def test_translate(trained: Path) -> None:
    sources = [f"--source=T1={scan(trained, 't1')}", f"--source=T2={scan(trained, 't2')}"]
    arguments = ["translate", *sources, "--target", "FLAIR", "--steps", 3]
    said = run(trained, TRANSFORMER, *arguments, "--output", "one/flair.nii.gz")
    assert said.split() == ["one/flair.nii.gz", "one/flair.png", "one/flair.json"]
    voxels, source = same_geometry(trained / "one/flair.nii.gz", scan(trained, "t1"))
    np.testing.assert_array_equal(voxels == 0, source == 0)
    assert np.ptp(voxels[source != 0]) > 0

    output = trained / "two" / "flair.nii.gz"
    said = run(trained, TRANSFORMER, *arguments, "--output", output, "--samples", 2)
    names = ["flair.nii.gz", "flair_draw-1.nii.gz", "flair_draw-2.nii.gz", "flair_std.nii.gz"]
    beside = ["flair.png", "flair.json"]
    assert [Path(line).name for line in said.split()] == [*names, *beside]
    assert {path.name for path in output.parent.iterdir()} == {*names, *beside}
    mean, _ = same_geometry(output, scan(trained, "t1"))
    draws = [
        same_geometry(output.with_name(name), scan(trained, "t1"))[0].astype(float)
        for name in names[1:3]
    ]
    np.testing.assert_allclose(mean, np.mean(draws, 0), atol=1)
    spread = np.asarray(nib.nifti1.load(output.with_name(names[3])).dataobj)
    np.testing.assert_allclose(spread, np.std(draws, 0), atol=0.5)


def test_inpaint(trained: Path) -> None:
    tumour = scan(trained, "seg")
    inside = np.asarray(nib.nifti1.load(tumour).dataobj) > 0
    assert 0 < inside.mean() < 0.1
    arguments = ["inpaint", "--input", scan(trained, "t2"), "--mask", tumour, "--modality", "T2"]
    said = run(trained, TRANSFORMER, *arguments, "--output", "painted", "--steps", 3)
    name = f"{CASE}_t2_inpainted"
    assert said.split() == [f"painted/{name}.{end}" for end in ("nii.gz", "png", "json")]
    after, before = same_geometry(trained / "painted" / f"{name}.nii.gz", scan(trained, "t2"))
    np.testing.assert_array_equal(after[~inside], before[~inside])
    assert (after[inside] != before[inside]).mean() > 0.5


def test_infer(trained: Path) -> None:
    source = scan(trained, "flair")
    arguments = ["infer", "--config", BASE, "--output", "inferred"]
    said = run(
        trained, AUTOENCODER, *arguments, "--input", source, "--save-tokens",
        "sliding_window.roi_size=[32,32,32]",
    )  # fmt: skip
    assert f"{source} -> inferred/{CASE}_flair_reconstructed.nii.gz: PSNR " in said
    target = trained / "inferred" / f"{CASE}_flair_reconstructed.nii.gz"
    after, before = same_geometry(target, source)
    np.testing.assert_array_equal(after == 0, before == 0)
    tokens = target.with_name(f"{CASE}_flair_reconstructed.tokens.npz")
    run(
        trained, AUTOENCODER, *arguments, "--from-tokens", tokens,
        "sliding_window.roi_size=[32,32,32]",
    )  # fmt: skip
    decoded = nib.nifti1.load(target.with_name(f"{CASE}_flair_reconstructed_decoded.nii.gz"))
    assert nib.aff2axcodes(decoded.affine) == ("R", "A", "S")
    upright = np.asarray(nib.as_closest_canonical(nib.load(target)).dataobj)
    # Tokens alone do not know where the head ends: what is decoded to almost nothing is background.
    voxels = np.asarray(decoded.dataobj)
    shown = (upright != 0) & (voxels != 0)
    assert shown.sum() > 0.5 * (upright != 0).sum()
    np.testing.assert_allclose(voxels[shown], upright[shown], atol=0.51)


def test_the_focal_frequency_variant_trains_and_resumes(workplace: Path) -> None:
    said = run(workplace, AUTOENCODER, "train", "--config", FFL, *STAGE1)
    assert "perceptual" not in said
    export, folder = workplace / "outputs/autoencoder_final_ffl.pt", "outputs/brats_stage1_ffl"
    first = Tokenizer.load(export).digest
    assert read_last(RunFolder(workplace / folder).checkpoints).position.epochs == 2
    longer = [*STAGE1, "trainer.max_epochs=3", "--resume"]
    run(workplace, AUTOENCODER, "train", "--config", FFL, *longer)
    assert read_last(RunFolder(workplace / folder).checkpoints).position.epochs == 3
    assert (workplace / folder / "history" / "metrics-until-part-00001.csv").is_file()
    assert Tokenizer.load(export).digest != first


def test_the_folder_is_inspected(workplace: Path, tmp_path: Path) -> None:
    said = run(workplace, "prod9", "data", "inspect", workplace / "brats")
    for part in (
        "2018-2021 (6 cases)",
        "6 usable, 0 broken",
        "60 x 60 x 39",
        "4 x 4 x 4 mm",
        "LPS",
    ):
        assert part in said
    broken = shutil.copytree(workplace / "brats", tmp_path / "broken")
    (broken / CASE / f"{CASE}_t1.nii.gz").write_bytes(b"")
    said = run(workplace, "prod9", "data", "inspect", broken, code=2)
    assert f"{CASE} cannot be used" in said
    assert f"error: 1 of 6 cases of {broken} cannot be used; " in said


def test_a_cohort_is_made_at_full_size(workplace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cohort"
    said = run(workplace, "prod9", "data", "make-phantom-brats", folder, "--cases", 1)
    assert said.strip() == f"1 cases written to {folder} (semi-synthetic: nobody's brain)"
    files = sorted(path.name for path in (folder / "BraTS2021_00000").iterdir())
    assert files == [f"BraTS2021_00000_{m}.nii.gz" for m in ("flair", "seg", "t1", "t1ce", "t2")]
    image = nib.nifti1.load(folder / "BraTS2021_00000" / files[2])
    assert image.shape == (240, 240, 155)
    assert image.get_data_dtype() == np.int16
    said = run(workplace, "prod9", "data", "inspect", folder, code=2)
    assert "1 usable, 0 broken" in said
    assert "has only one subject, BraTS2021_00000" in said


# --- in this process: the same arithmetic --------------------------------------------------------


def settings(**rest: Any) -> dict[str, Any]:
    """Everything relative to the current folder."""
    own: dict[str, Any] = {
        "output_dir": "out",
        "data": {"dataset_name": "brats", "data_dir": "cohort", "cache_dir": "cache"},
        "sliding_window": {"roi_size": [32, 32, 32]},
        "trainer": {"max_epochs": 3, "limit_val_batches": 1},
        "callbacks": {"preview": {"every_n_steps": 0}},
    }
    own["data"] |= {"batch_size": 4, "augmentation": {"flip": True, "intensity_scale": 0.1}}
    own["data"]["preprocessing"] = {"spacing_mm": [8.0, 8.0, 8.0]}
    return own | rest


def stage1_config(**rest: Any) -> Stage1Config:
    sizes = {"num_channels": [8, 8], "stem_stride": 2, "norm_num_groups": 4}
    own = {
        "autoencoder_export_path": "tokenizer.pt",
        "model": {
            "autoencoder": sizes,
            "discriminator": {"channels": 4, "num_layers_d": 1},
        },
        "loss": {"loss_type": "ffl", "discriminator_iter_start": 2},
    }
    return Stage1Config.model_validate(settings() | own | rest)


def stage2_config(**rest: Any) -> Stage2Config:
    own = settings(sliding_window={"roi_size": [16, 16, 16]})
    for key in ("augmentation", "preprocessing"):
        del own["data"][key]
    sizes = {"hidden_dim": 32, "num_blocks": 1, "num_heads": 2, "token_dim": 8}
    own |= {"autoencoder_path": "tokenizer.pt", "model": {"transformer": sizes}}
    return Stage2Config.model_validate(own | rest)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, which holds a cohort."""
    monkeypatch.chdir(tmp_path)
    make_phantom(tmp_path / "cohort", cases=4, release="2021", seed=0, voxel_mm=8.0)
    return tmp_path


def cut_before(module: type[Any], epoch: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(this: Any) -> None:
        if this.current_epoch == epoch:
            raise RuntimeError("power cut")

    monkeypatch.setattr(module, "on_train_epoch_start", begin)


def test_a_resumed_run_ends_where_the_whole_one_ends(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = stage1.train(stage1_config(output_dir="whole", autoencoder_export_path="whole.pt"))
    cut_before(Stage1Module, 1, monkeypatch)
    with pytest.raises(RuntimeError, match="power cut"):
        stage1.train(stage1_config())
    cut_before(Stage1Module, None, monkeypatch)
    resumed = stage1.train(stage1_config(), resume=True)
    same(whole.autoencoder, resumed.autoencoder)

    other = stage2.train(stage2_config(output_dir="whole2"))
    cut_before(Stage2Module, 1, monkeypatch)
    with pytest.raises(RuntimeError, match="power cut"):
        stage2.train(stage2_config(output_dir="out2"))
    cut_before(Stage2Module, None, monkeypatch)
    same(other.transformer, stage2.train(stage2_config(output_dir="out2"), resume=True).transformer)


def same(one: torch.nn.Module, two: torch.nn.Module) -> None:
    weights = two.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in one.state_dict().items())


def test_three_releases_of_the_same_cases_make_the_same_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests: dict[str, str] = {}
    trainer = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 0}
    for release in ("2021", "2023", "msd", "other cases"):
        folder = tmp_path / release
        folder.mkdir()
        monkeypatch.chdir(folder)
        seed, layout = (1, "msd") if release == "other cases" else (0, release)
        make_phantom(Path("cohort"), cases=4, release=layout, seed=seed, voxel_mm=8.0)
        tokenizer = stage1.train(stage1_config(trainer=trainer))
        # The subjects have other names in each release.
        spec = tokenizer.spec.model_copy(update={"train_subjects": ()})
        digests[release] = digest_of(spec, tokenizer.autoencoder.state_dict())
    assert digests["2021"] == digests["2023"] == digests["msd"] != digests["other cases"]
    assert yaml.safe_load(Path("out/config.yaml").read_text())["data"]["data_dir"] == "cohort"
