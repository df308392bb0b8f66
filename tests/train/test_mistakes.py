"""Mistakes of a user: each ends in one sentence that names the culprit, code 2."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from prod9.cli import autoencoder, main, transformer
from prod9.config.load import load_stage2
from prod9.data.brats.phantom.cohort import make_phantom
from prod9.tokenizer import Tokenizer

FLAG = "adrenalmnist3d"
SCRIPTS: dict[str, Callable[[], None]] = {
    "prod9": main.run,
    "prod9-train-autoencoder": autoencoder.run,
    "prod9-train-transformer": transformer.run,
}
STAGE1, STAGE2 = "prod9-train-autoencoder", "prod9-train-transformer"


def arrays() -> dict[str, np.ndarray]:
    """Return a whole MedMNIST file's arrays."""
    random = np.random.default_rng(0)
    content: dict[str, np.ndarray] = {}
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        content[f"{split}_images"] = random.integers(0, 256, (count, 28, 28, 28), np.uint8)
        content[f"{split}_labels"] = np.arange(count)[:, None] % 2
    return content


def write_data(root: Path, **content: Any) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"{FLAG}.npz"
    np.savez_compressed(path, **content)
    return path


def write_configs(folder: Path) -> None:
    """Write stage1.yaml and stage2.yaml: both stages in a second, everything inside ``folder``."""
    data = {
        "dataset_name": FLAG,
        "size": 28,
        "root": str(folder / "data"),
        "download": False,
        "batch_size": 2,
    }
    trainer = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1}
    quiet = {"preview": {"every_n_steps": 0}}
    stage1 = {
        "output_dir": str(folder / "one"),
        "autoencoder_export_path": str(folder / "tokenizer.pt"),
        "data": data,
        "model": {
            "autoencoder": {"num_channels": [8, 8], "stem_stride": 2, "norm_num_groups": 4},
            "discriminator": {"channels": 8},
        },
        "loss": {"loss_type": "ffl"},
        "trainer": trainer,
        "callbacks": quiet,
    }
    sizes = {"hidden_dim": 32, "num_blocks": 1, "num_heads": 2, "token_dim": 8}
    stage2 = {
        "output_dir": str(folder / "two"),
        "autoencoder_path": str(folder / "tokenizer.pt"),
        "data": data,
        "model": {"transformer": sizes},
        "trainer": trainer,
        "callbacks": quiet,
    }
    (folder / "stage1.yaml").write_text(yaml.safe_dump(stage1))
    (folder / "stage2.yaml").write_text(yaml.safe_dump(stage2))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Callable[..., str]:
    """Return a caller of console scripts in this process that expects one sentence, code 2."""
    monkeypatch.chdir(tmp_path)

    def call(script: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            SCRIPTS[script]()
        return one_sentence(left.value.code, *capsys.readouterr())

    return call


def one_sentence(code: Any, out: str, err: str) -> str:
    assert code == 2
    assert "Traceback" not in out + err
    assert (out + err).count("error:") == 1
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert line.endswith((".", "?"))
    return line.removeprefix("error: ")


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """Return a folder with configurations and data, nothing trained."""
    write_data(tmp_path / "data", **arrays())
    write_configs(tmp_path)
    return tmp_path


def train_both(one: Path, two: Path) -> None:
    """Train both stages from their configurations."""
    with pytest.MonkeyPatch.context() as patch:
        for script, config in ((STAGE1, one), (STAGE2, two)):
            patch.setattr(sys, "argv", [script, "train", "--config", str(config)])
            with pytest.raises(SystemExit) as left:
                SCRIPTS[script]()
            assert left.value.code == 0


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    write_data(folder / "data", **arrays())
    write_configs(folder)
    train_both(folder / "stage1.yaml", folder / "stage2.yaml")
    return folder


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    """Return a folder of one's own where both stages are trained."""
    shutil.copytree(trained_once, tmp_path, dirs_exist_ok=True)
    write_configs(tmp_path)
    return tmp_path


def nifti(path: Path, value: float = 0.5) -> Path:
    voxels = np.random.default_rng(0).random((9, 10, 11)).astype(np.float32)
    voxels[4, 5, 6] = value
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    return path


# --- 1, 2: a typo in a key, a wrong type --------------------------------------------------------


@pytest.mark.parametrize(("script", "config"), [(STAGE1, "stage1.yaml"), (STAGE2, "stage2.yaml")])
def test_a_typo_in_a_key(run: Any, fresh: Path, script: str, config: str) -> None:
    said = run(script, "train", "--config", fresh / config, "data.bath_size=2")
    assert said == "command line: data.bath_size is not a known key; did you mean batch_size?"
    path = fresh / config
    path.write_text(path.read_text() + "sede: 3\n")
    lines = len(path.read_text().splitlines())
    said = run(script, "train", "--config", path)
    assert said == f"{path}:{lines}: sede is not a known key; did you mean seed?"


@pytest.mark.parametrize("verb", ["train", "validate", "test"])
def test_a_wrong_type(run: Any, fresh: Path, verb: str) -> None:
    said = run(STAGE1, verb, "--config", fresh / "stage1.yaml", "data.batch_size=two")
    assert said == 'command line: data.batch_size should be a valid integer, not "two".'


# --- 3: a missing file --------------------------------------------------------------------------


def test_a_missing_configuration(run: Any, tmp_path: Path) -> None:
    assert str(tmp_path / "none.yaml") in run(STAGE1, "train", "--config", tmp_path / "none.yaml")


def test_missing_data(run: Any, fresh: Path) -> None:
    (fresh / "data" / f"{FLAG}.npz").unlink()
    said = run(STAGE1, "train", "--config", fresh / "stage1.yaml")
    for part in (
        str(fresh / "data" / f"{FLAG}.npz"),  # where it belongs
        f"https://zenodo.org/records/10519652/files/{FLAG}.npz",  # where from
        "bbd3c5a5576322bc4cdfea780653b1ce",  # which
        "brainregionmnist3d",  # what works without
    ):
        assert part in said
    assert not (fresh / "one").exists()


def test_a_missing_tokenizer(run: Any, fresh: Path) -> None:
    for verb in ("train", "validate", "test", "generate"):
        more = ["--output", fresh / "out"] if verb == "generate" else []
        said = run(STAGE2, verb, "--config", fresh / "stage2.yaml", *more)
        assert said.startswith(f"there is no file {fresh / 'tokenizer.pt'};")
    for verb in ("validate", "test"):
        said = run(STAGE1, verb, "--config", fresh / "stage1.yaml")
        assert said.startswith(f"there is no file {fresh / 'tokenizer.pt'};")


def test_a_missing_volume(run: Any, trained: Path) -> None:
    arguments = ["--config", trained / "stage1.yaml", "-o", trained / "out"]
    said = run(STAGE1, "infer", *arguments, "-i", trained / "none.nii.gz")
    assert said == f"{trained / 'none.nii.gz'} does not exist; check the path."
    said = run(STAGE1, "infer", *arguments, "--from-tokens", trained / "none.npz")
    assert str(trained / "none.npz") in said


def test_a_missing_checkpoint(run: Any, fresh: Path) -> None:
    said = run(STAGE1, "train", "--config", fresh / "stage1.yaml", "--resume")
    assert f"no checkpoint {fresh / 'one/checkpoints/last.ckpt'}" in said


def test_missing_weights_of_the_perceptual_loss(
    run: Any, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROD9_CACHE", str(fresh / "cache"))
    overrides = ["loss.loss_type=lpips", "loss.perceptual.download=false"]
    said = run(STAGE1, "train", "--config", fresh / "stage1.yaml", *overrides)
    for part in ("prod9 weights fetch medicalnet", "loss.perceptual.weights_path", "loss_type=ffl"):
        assert part in said
    assert not (fresh / "one").exists()


# --- 4, 5, 6: a truncated, a pickled npz, one without labels ------------------------------------


def test_a_truncated_npz(run: Any, fresh: Path) -> None:
    path = fresh / "data" / f"{FLAG}.npz"
    path.write_bytes(path.read_bytes()[:5000])
    assert f"{path} cannot be read" in run(STAGE1, "train", "--config", fresh / "stage1.yaml")


def test_a_pickled_npz(run: Any, fresh: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (fresh / "trace",))

    evil = np.array([Evil()], dtype=object)
    write_data(fresh / "data", **arrays() | {"train_labels": evil})
    said = run(STAGE1, "train", "--config", fresh / "stage1.yaml")
    assert "pickled Python objects" in said
    assert not (fresh / "trace").exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_labels_are_missing(run: Any, fresh: Path, split: str) -> None:
    content = arrays()
    del content[f"{split}_labels"]
    path = write_data(fresh / "data", **content)
    said = run(STAGE1, "train", "--config", fresh / "stage1.yaml")
    assert f"{path} has no array '{split}_labels'" in said


# --- 7: a volume with NaN -----------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_volume_with_nan(run: Any, trained: Path, value: float) -> None:
    path = nifti(trained / "bad.nii.gz", value)
    out = trained / "out"
    said = run(STAGE1, "infer", "-c", trained / "stage1.yaml", "-o", out, "-i", path)
    assert said.startswith(f"{path} has 1 of 990 voxels that are NaN or infinite;")
    assert not out.exists()


# --- 8: a wrong tokenizer -----------------------------------------------------------------------


def retrain(folder: Path, seed: int) -> str:
    """Put another tokenizer in the place of the first; return its digest's beginning."""
    tokenizer = Tokenizer.load(folder / "tokenizer.pt")
    tokenizer.autoencoder.decoder[0].bias.data += seed
    other = Tokenizer(tokenizer.spec, tokenizer.autoencoder)
    other.save(folder / "tokenizer.pt")
    return other.digest[:12]


def test_a_transformer_of_another_tokenizer(run: Any, trained: Path) -> None:
    digest = retrain(trained, 1)
    for verb in ("generate", "validate", "test"):
        more = ["--output", trained / "out"] if verb == "generate" else []
        said = run(STAGE2, verb, "--config", trained / "stage2.yaml", *more)
        assert said.startswith(f"{trained / 'two/transformer.pt'} was trained on the tokenizer ")
        assert digest in said
    assert not (trained / "out").exists()


def test_a_run_is_not_resumed_on_other_tokens(run: Any, trained: Path) -> None:
    digest = retrain(trained, 1)
    arguments = ["--config", trained / "stage2.yaml", "--resume", "trainer.max_epochs=2"]
    said = run(STAGE2, "train", *arguments)
    assert said.startswith("this run began with the tokenizer ")
    assert digest in said


def test_tokens_of_another_tokenizer(run: Any, trained: Path, monkeypatch: Any) -> None:
    out, config = trained / "out", trained / "stage1.yaml"
    source = nifti(trained / "good.nii.gz")
    arguments = ["infer", "-c", str(config), "-o", str(out), "-i", str(source), "--save-tokens"]
    monkeypatch.setattr(sys, "argv", [STAGE1, *arguments])
    with pytest.raises(SystemExit) as left:
        autoencoder.run()
    assert left.value.code == 0
    digest = retrain(trained, 1)
    (tokens,) = out.glob("*.tokens.npz")
    said = run(STAGE1, "infer", "-c", config, "-o", out, "--from-tokens", tokens)
    assert said.startswith(f"{tokens} was made by the tokenizer ")
    assert digest in said


def test_a_token_store_of_another_tokenizer_is_never_read(trained: Path) -> None:
    # Not a mistake that stops: the store's key holds the digest, so another one is built.
    from prod9.training.tokens import load_tokenizer, open_data, open_tokens

    config = load_stage2(trained / "stage2.yaml")

    def opened() -> Path:
        tokenizer = load_tokenizer(config)
        return open_tokens(config, tokenizer, open_data(config, tokenizer)["train"], "train")[
            0
        ].path

    first = opened()
    retrain(trained, 1)
    assert opened() != first


def test_a_tokenizer_of_another_size(run: Any, trained: Path) -> None:
    said = run(STAGE2, "train", "--config", trained / "stage2.yaml", "--overwrite", "data.size=64")
    assert "64x64x64, the tokenizer was trained on 28x28x28" in said


# --- 9: a checkpoint of another configuration ---------------------------------------------------


@pytest.mark.parametrize(
    ("script", "config", "override"),
    [
        (STAGE1, "stage1.yaml", "model.autoencoder.num_channels=[8,16]"),
        (STAGE1, "stage1.yaml", "loss.reconstruction.weight=2.0"),
        (STAGE2, "stage2.yaml", "model.transformer.num_blocks=2"),
        (STAGE2, "stage2.yaml", "seed=4"),
    ],
)
def test_a_checkpoint_of_another_configuration(
    run: Any, trained: Path, script: str, config: str, override: str
) -> None:
    folder = "one" if script == STAGE1 else "two"
    before = (trained / folder / "config.yaml").read_text()
    said = run(script, "train", "--config", trained / config, "--resume", override)
    assert said.startswith(f"{trained / folder / 'checkpoints/last.ckpt'} is a checkpoint of ")
    assert f"another configuration: {override.split('=')[0]} differ" in said
    assert (trained / folder / "config.yaml").read_text() == before


@pytest.mark.parametrize("content", [b"", b"junk" * 99, None])
def test_a_torn_or_foreign_checkpoint(run: Any, trained: Path, content: bytes | None) -> None:
    path = trained / "one/checkpoints/last.ckpt"
    if content is None:
        torch.save({"state_dict": {}}, path)
    else:
        path.write_bytes(content)
    assert str(path) in run(STAGE1, "train", "--config", trained / "stage1.yaml", "--resume")


def test_a_run_that_is_there_is_not_replaced(run: Any, trained: Path) -> None:
    said = run(STAGE2, "train", "--config", trained / "stage2.yaml")
    assert said.startswith(f"{trained / 'two'} already holds a run;")
    said = run(STAGE1, "train", "--config", trained / "stage1.yaml")
    assert "already holds a run;" in said
    elsewhere = f"output_dir={trained / 'elsewhere'}"
    said = run(STAGE1, "train", "--config", trained / "stage1.yaml", elsewhere)
    assert said.startswith(f"{trained / 'tokenizer.pt'} exists;")


# --- 10: output that cannot be written ----------------------------------------------------------
# (A folder inside a regular file: for root, no permission is in the way.)


def test_output_folders_that_cannot_be_written(run: Any, trained: Path) -> None:
    (trained / "file").touch()
    out = trained / "file" / "out"
    fresh = [f"autoencoder_export_path={trained / 'new.pt'}", f"output_dir={out}"]
    volume = nifti(trained / "good.nii.gz")
    for arguments in (
        (STAGE1, "train", "-c", trained / "stage1.yaml", *fresh),
        (STAGE2, "train", "-c", trained / "stage2.yaml", f"output_dir={out}"),
        (STAGE1, "infer", "-c", trained / "stage1.yaml", "-o", out, "-i", volume),
        (STAGE2, "generate", "-c", trained / "stage2.yaml", "-o", out, "-n", 1, "--steps", 1),
        ("prod9", "demo", "-o", out),
    ):
        said = run(*arguments)
        assert said.startswith("cannot write")
        assert str(out) in said
    assert not (trained / "new.pt").exists()


def test_an_export_that_cannot_be_written_is_found_before_training(
    run: Any, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("hours of training are lost")

    monkeypatch.setattr("pytorch_lightning.Trainer.fit", never)
    (fresh / "file").touch()
    export = fresh / "file" / "out" / "tokenizer.pt"
    said = run(STAGE1, "train", "-c", fresh / "stage1.yaml", f"autoencoder_export_path={export}")
    assert said.startswith("cannot write")
    assert str(export.parent) in said


# --- scans --------------------------------------------------------------------------------------

CASE = "BraTS2021_00001"


def write_brats_configs(folder: Path) -> None:
    """Write brats1.yaml and brats2.yaml, beside the others' files in ``folder``."""
    write_configs(folder)
    for name, stage in (("one", "stage1"), ("two", "stage2")):
        config = yaml.safe_load((folder / f"{stage}.yaml").read_text())
        config["output_dir"] = str(folder / f"brats-{name}")
        config["data"] = {
            "dataset_name": "brats",
            "data_dir": str(folder / "cohort"),
            "split_file": str(folder / "split.json"),
            "cache_dir": str(folder / "cache"),
            "batch_size": 2,
        }
        config["sliding_window"] = {"roi_size": [16, 16, 16]}
        tokenizer = "autoencoder_export_path" if stage == "stage1" else "autoencoder_path"
        config[tokenizer] = str(folder / "brats.pt")
        if stage == "stage1":
            config["data"]["preprocessing"] = {"spacing_mm": [12.0, 12.0, 12.0]}
        (folder / f"brats{stage[-1]}.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture(scope="module")
def brats_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brats")
    make_phantom(folder / "cohort", cases=4, release="2021", seed=0, voxel_mm=8.0)
    write_brats_configs(folder)
    train_both(folder / "brats1.yaml", folder / "brats2.yaml")
    return folder


@pytest.fixture
def brats(brats_once: Path, tmp_path: Path) -> Path:
    """Return a folder of one's own with a cohort on which both stages are trained."""
    shutil.copytree(brats_once, tmp_path, dirs_exist_ok=True)
    write_brats_configs(tmp_path)
    return tmp_path


def scan(folder: Path, modality: str = "t1") -> Path:
    return folder / "cohort" / CASE / f"{CASE}_{modality}.nii.gz"


def translation(folder: Path, *sources: str, target: str = "FLAIR") -> list[object]:
    given = [f"--source={source}" for source in sources]
    output = folder / "made" / "flair.nii.gz"
    config = folder / "brats2.yaml"
    return [STAGE2, "translate", "-c", config, *given, "--target", target, "-o", output]


def test_modalities_that_there_are_not(run: Any, brats: Path) -> None:
    known = "T1, T1ce, T2, FLAIR"
    t1, out = scan(brats), brats / "made"
    for wrong, source, target in (("T3", "T3", "FLAIR"), ("PET", "T1", "PET")):
        said = run(*translation(brats, f"{source}={t1}", target=target))
        assert wrong in said
        assert known in said
    arguments = ["-c", brats / "brats2.yaml", "--modality", "PD", "-o", out]
    said = run(STAGE2, "inpaint", *arguments, "-i", t1, "-m", scan(brats, "seg"))
    assert "PD" in said
    assert known in said
    said = run(STAGE2, "generate", *arguments)
    assert "PD" in said
    assert "T1, T1ce, T2, FLAIR" in said
    assert not out.exists()


def test_sources_that_are_not_there(run: Any, brats: Path) -> None:
    path = scan(brats, "t9")
    said = run(*translation(brats, f"T1={scan(brats)}", f"T2={path}"))
    assert said == f"{path} does not exist; check the path."
    said = run(*translation(brats, str(scan(brats))))
    assert said.endswith(": write MODALITY=FILE, such as T1=a.nii.gz.")
    said = run(*translation(brats, f"T1={scan(brats)}", f"T1={scan(brats)}"))
    assert said == "--source T1 is given twice; give each modality once."
    assert not (brats / "made").exists()


def test_the_target_is_a_source(run: Any, brats: Path) -> None:
    said = run(*translation(brats, f"T1={scan(brats)}", target="T1"))
    assert "T1 is one of the sources" in said


def test_scans_that_do_not_lie_in_the_same_place(run: Any, brats: Path) -> None:
    other = nifti(brats / "other.nii.gz")
    said = run(*translation(brats, f"T1={scan(brats)}", f"T2={other}"))
    assert said.startswith(f"{other} is on another grid than {scan(brats)} (")
    assert "9 x 10 x 11 voxels" in said
    arguments = ["-c", brats / "brats2.yaml", "--modality", "T1", "-o", brats / "made"]
    said = run(STAGE2, "inpaint", *arguments, "-i", scan(brats), "-m", other)
    assert said.startswith(f"{other} is on another grid than {scan(brats)} ")


@pytest.mark.parametrize(("script", "config"), [(STAGE1, "brats1.yaml"), (STAGE2, "brats2.yaml")])
def test_a_damaged_scan_in_the_cohort(run: Any, brats: Path, script: str, config: str) -> None:
    content = bytearray(scan(brats).read_bytes())
    content[len(content) // 2] ^= 0xFF
    scan(brats).write_bytes(content)
    said = run(script, "train", "--config", brats / config, "--overwrite")
    assert said.startswith(f"1 of 4 cases in {brats / 'cohort'} cannot be used, the first: {CASE} ")
    assert str(scan(brats)) in said
    assert "data.on_bad_case=skip" in said
    said = run("prod9", "data", "inspect", brats / "cohort")
    assert str(brats / "cohort") in said


def test_a_typo_in_what_to_do_with_bad_cases(run: Any, brats: Path) -> None:
    said = run(STAGE1, "train", "--config", brats / "brats1.yaml", "data.on_bad_case=skipp")
    assert said.startswith("command line: data.on_bad_case should be 'error' or 'skip', not ")


def test_tokenizers_of_another_kind(run: Any, brats: Path, trained_once: Path) -> None:
    cubes, scans = trained_once / "tokenizer.pt", brats / "brats.pt"
    end = "point autoencoder_path at a tokenizer of the same kind of data."
    for config, tokenizer, made_for, wanted in (
        ("brats2.yaml", cubes, FLAG, "brats"),
        ("stage2.yaml", scans, "brats", FLAG),
    ):
        overrides = [f"autoencoder_path={tokenizer}", "--overwrite"]
        said = run(STAGE2, "train", "--config", brats / config, *overrides)
        assert said.startswith(
            f"{tokenizer} was trained on {made_for}, but data.dataset_name is {wanted}, "
        )
        assert said.endswith(end)


def test_a_model_of_cubes_knows_no_modalities(run: Any, trained: Path) -> None:
    arguments = ["-c", trained / "stage2.yaml", "-o", trained / "made.nii.gz"]
    said = run(STAGE2, "translate", *arguments, "--source", "T1=a.nii.gz", "--target", "FLAIR")
    assert "knows no class or channel FLAIR" in said


def test_scans_of_another_size_than_the_tokenizers(run: Any, brats: Path) -> None:
    for path in (brats / "cohort").rglob("*.nii.gz"):
        image = nib.nifti1.load(path)
        nib.Nifti1Image(np.asarray(image.dataobj)[:, :, :14], image.affine).to_filename(path)
    overrides = ["--overwrite"]
    said = run(STAGE2, "train", "--config", brats / "brats2.yaml", *overrides)
    assert "have the shape 20x20x9, the tokenizer was trained on 20x20x13; train" in said


@pytest.mark.parametrize(("script", "config"), [(STAGE1, "brats1.yaml"), (STAGE2, "brats2.yaml")])
def test_no_folder_of_scans(run: Any, brats: Path, script: str, config: str) -> None:
    none = brats / "none"
    overrides = [f"data.data_dir={none}", f"output_dir={brats / 'new'}", "--overwrite"]
    said = run(script, "train", "--config", brats / config, *overrides)
    assert said.startswith(f"{none} does not exist or is no folder; ")
    for part in ("synapse.org", "medicaldecathlon.com", f"make-phantom-brats {none} --cases 6"):
        assert part in said


def test_a_folder_without_scans(run: Any, brats: Path) -> None:
    (brats / "empty").mkdir()
    overrides = [f"data.data_dir={brats / 'empty'}", "--overwrite"]
    said = run(STAGE1, "train", "--config", brats / "brats1.yaml", *overrides)
    assert said.startswith(f"{brats / 'empty'} holds no BraTS case: known are ")
    said = run("prod9", "data", "inspect", brats / "empty")
    assert said.startswith(f"{brats / 'empty'} is laid out in no known way (it holds nothing); ")
    said = run("prod9", "data", "make-phantom-brats", brats / "cohort", "--cases", 1)
    assert said.startswith(f"{brats / 'cohort'} is not empty; ")


# --- the same through real processes ------------------------------------------------------------


def process(script: str, *arguments: object) -> str:
    done = subprocess.run(
        [Path(sys.executable).parent / script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    return one_sentence(done.returncode, done.stdout, done.stderr)


def test_console_scripts_end_alike(trained: Path) -> None:
    said = process(STAGE2, "train", "-c", trained / "stage2.yaml", "trainer.max_epoch=1")
    assert said == "command line: trainer.max_epoch is not a known key; did you mean max_epochs?"
    path = nifti(trained / "bad.nii.gz", np.nan)
    said = process(STAGE1, "infer", "-c", trained / "stage1.yaml", "-o", trained, "-i", path)
    assert said.startswith(f"{path} has 1 of 990 voxels that are NaN or infinite;")
    path = trained / "data" / f"{FLAG}.npz"
    path.write_bytes(path.read_bytes()[:5000])
    said = process(STAGE1, "test", "-c", trained / "stage1.yaml")
    assert said.startswith(f"{path} cannot be read")
