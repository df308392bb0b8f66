"""The specification's commands, verbatim, through the console scripts, reduced by overrides."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from console_scripts import in_a_process, in_this_one

from prod9.data.medmnist_table import PUBLISHED
from prod9.losses.medicalnet import MedicalNetResNet10

pytestmark = pytest.mark.slow

CONFIGS = "src/prod9/configs/maskgit/medmnist3d"
AUTOENCODER = "prod9-train-autoencoder"
TRANSFORMER = "prod9-train-transformer"
# (Stage 1, Stage 2 or none, side, the specification's export, overrides that shrink the networks)
SMALL = ["model.autoencoder.num_channels=[8,8,16,16]", "model.discriminator.channels=8"]
CASES = [
    ("base", "base", 28, "outputs/medmnist3d_autoencoder.pt", SMALL),
    ("base", "base", 64, "outputs/medmnist3d_autoencoder.pt", SMALL),
    ("large", None, 28, "outputs/medmnist3d_autoencoder-large.pt", SMALL),
    pytest.param(
        *("ffl", "ffl", 28, "outputs/medmnist3d_autoencoder_ffl.pt", []), marks=pytest.mark.ci
    ),
    ("ffl", "ffl", 64, "outputs/medmnist3d_autoencoder_ffl.pt", SMALL),
]
COMMON = [
    "data.root=medmnist",
    "data.num_workers=0",
    "data.batch_size=2",
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=1",
    "callbacks.preview.every_n_steps=2",
    "training.scheduler.warmup_steps=1",
]
STAGE1 = ["loss.discriminator_iter_start=1", "callbacks.preview.num_volumes=2"]
STAGE2 = [
    "model.transformer.hidden_dim=64",
    "model.transformer.num_blocks=2",
    "model.transformer.num_heads=4",
    "model.transformer.token_dim=16",
    "sampler.steps=3",
    "callbacks.preview.num_volumes=2",
    "evaluation.samples_per_class=2",
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MedMNIST's files, made here, and MedicalNet weights of the right shapes."""
    folder = tmp_path_factory.mktemp("work")
    random = np.random.default_rng(0)
    for row in PUBLISHED:
        for size, suffix in ((28, ""), (64, "_64")):
            arrays: dict[str, np.ndarray] = {}
            for split, count in (("train", 6), ("val", 4), ("test", 4)):
                axis = np.linspace(-1, 1, size)
                z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
                labels = np.arange(count) % len(row.class_names)
                radius = (
                    0.3 + 0.05 * labels[:, None, None, None] + 0.1 * random.random((count, 1, 1, 1))
                )
                ball = 200 * (x**2 + y**2 + z**2 < radius**2) + random.integers(0, 20, (1,))
                arrays[f"{split}_images"] = ball.astype(np.uint8)
                arrays[f"{split}_labels"] = labels.astype(np.uint8)[:, None]
            (folder / "medmnist").mkdir(exist_ok=True)
            np.savez_compressed(folder / "medmnist" / f"{row.flag}{suffix}.npz", **arrays)
    weights = folder / "cache" / "medicalnet" / "resnet_10_23dataset.pth"
    weights.parent.mkdir(parents=True)
    torch.manual_seed(0)
    state = {f"module.{k}": v for k, v in MedicalNetResNet10().state_dict().items()}
    torch.save({"state_dict": state}, weights)
    return folder


def run(workplace: Path, command: str, *arguments: str, apart: bool = False) -> str:
    """Run a console script; the paths in the configs are relative to the current folder."""
    call = in_a_process if apart else in_this_one
    code, out, err = call(
        command, *arguments, cwd=workplace, env={"PROD9_CACHE": str(workplace / "cache")}
    )
    assert code == 0, f"{command} {' '.join(arguments)}\n{err[-3000:]}"
    assert "Traceback" not in err
    return out + err


@pytest.mark.parametrize(("first", "second", "side", "export", "sizes"), CASES)
def test_train_export_train_generate_measure_infer(
    workplace: Path, first: str, second: str | None, side: int, export: str, sizes: list[str]
) -> None:
    config1 = f"{CONFIGS}/stage1/{first}.yaml"
    shared = [*COMMON, f"data.size={side}"]
    stage1 = [*shared, *STAGE1, *sizes]
    # The second size of a configuration replaces the first one's results, knowingly.
    # One configuration in processes of their own; the rest in this one, which is quicker.
    apart = (first, side) == ("base", 28)
    train = ["train", "--config", config1, "--overwrite", *stage1]
    text = run(workplace, AUTOENCODER, *train, apart=apart)
    assert (workplace / export).is_file()
    if first != "ffl":
        assert "resnet_10_23dataset.pth" in text  # says which weights it uses, before training

    assert "psnr" in run(workplace, AUTOENCODER, "validate", "--config", config1, *stage1)
    run(workplace, AUTOENCODER, "test", "--config", config1, *stage1)
    metrics = _metrics(workplace, AUTOENCODER, config1, stage1)
    assert 0 < metrics["reconstruction"]["psnr"] < 60
    assert len(metrics["provenance"]["tokenizer"]) == 64
    assert metrics["reconstruction"]["lpips"] > 0  # MedicalNet's weights are in the cache

    _check_infer(workplace, config1, stage1, f"inferred-{first}-{side}")

    if second is None:
        return
    config2 = f"{CONFIGS}/stage2/{second}.yaml"
    stage2 = [*shared, *STAGE2]
    train = ["train", "--config", config2, "--overwrite", *stage2]
    run(workplace, TRANSFORMER, *train, apart=apart)
    text = run(workplace, TRANSFORMER, "validate", "--config", config2, *stage2)
    assert "masked_accuracy" in text
    run(workplace, TRANSFORMER, "test", "--config", config2, *stage2)
    metrics = _metrics(workplace, TRANSFORMER, config2, stage2)
    assert 0 < metrics["masked_prediction"]["loss"] < 20
    spaces = [space["key"] for space in metrics["generation"]["spaces"]]
    assert spaces == ["efficientnet", "medicalnet", "classifier"]
    assert metrics["generation"]["volumes"] == 2 * len(metrics["sets"]["generated"]["classes"])

    drawn = f"generated-{second}-{side}"
    generate = ["generate", "--config", config2, "--num-samples", "2", "--class", "liver"]
    for output in (drawn, f"{drawn}-again"):
        written = ["--seed", "7", "--output", output, *stage2]
        run(workplace, TRANSFORMER, *generate, *written, apart=apart)
    manifest = json.loads((workplace / drawn / "manifest.json").read_text())
    assert [sample["class"] for sample in manifest["samples"]] == ["liver", "liver"]
    assert (workplace / drawn / "montage.png").is_file()
    for sample in manifest["samples"]:
        one = nib.nifti1.load(workplace / drawn / sample["file"])
        two = nib.nifti1.load(workplace / f"{drawn}-again" / sample["file"])
        assert one.shape == (side, side, side)
        np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(two.dataobj))


def _metrics(workplace: Path, command: str, config: str, overrides: list[str]) -> dict:
    printed = run(workplace, command, "train", "--config", config, "--print-config", *overrides)
    line = next(line for line in printed.splitlines() if line.startswith("output_dir:"))
    return json.loads((workplace / line.split(": ")[1] / "metrics.json").read_text())


def _check_infer(workplace: Path, config: str, overrides: list[str], output: str) -> None:
    """A NIfTI of odd size, oblique affine and int16 voxels comes back as it was."""
    affine = np.array([[1.1, 0.2, 0, -9], [-0.2, 0.9, 0.1, 4], [0, -0.1, 2.0, 7], [0, 0, 0, 1]])
    source = workplace / f"{output}.nii.gz"
    voxels = np.arange(31 * 20 * 17).reshape(31, 20, 17).astype(np.int16) - 3000
    nib.nifti1.Nifti1Image(voxels, affine).to_filename(source)
    arguments = ["infer", "--config", config, "--output", output]
    run(
        workplace,
        AUTOENCODER,
        *arguments,
        "--input",
        source.name,
        "--save-tokens",
        *overrides,
        "sliding_window.roi_size=[32,32,32]",
    )
    result = nib.nifti1.load(workplace / output / f"{output}_reconstructed.nii.gz")
    assert result.shape == voxels.shape
    assert result.get_data_dtype() == np.int16
    np.testing.assert_allclose(result.affine, affine, atol=1e-5)
    reconstructed = np.asarray(result.dataobj)
    assert voxels.min() <= reconstructed.min() <= reconstructed.max() <= voxels.max()

    tokens = f"{output}/{output}_reconstructed.tokens.npz"
    run(
        workplace,
        AUTOENCODER,
        *arguments,
        "--from-tokens",
        tokens,
        *overrides,
        "sliding_window.roi_size=[32,32,32]",
    )
    decoded = nib.nifti1.load(workplace / output / f"{output}_reconstructed_decoded.nii.gz")
    np.testing.assert_allclose(np.asarray(decoded.dataobj), reconstructed, atol=0.51)
