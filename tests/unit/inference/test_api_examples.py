"""Every example of docs/api.md, run in one go beside the files that it names."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scan_files import head, write_scan

from prod9.config import Stage2Config
from prod9.config.load import dump
from prod9.data import medmnist
from prod9.data.array_dataset import ArrayDataset
from prod9.model import save_transformer

README = Path(__file__).parents[3] / "README.md"
PAGE = README.parent / "docs" / "api.md"


def test_the_examples_run(
    make_scan_generator: Any,
    make_tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    network = make_scan_generator()
    network.tokenizer.save(Path("autoencoder.pt"))
    network.tokenizer.save(Path("outputs/autoencoder.pt"))
    save_transformer(Path("outputs/stage2/transformer.pt"), network.spec, network.transformer)
    hole = np.zeros((13, 12, 9), np.uint8)
    hole[4:7, 5:8, 3:5] = 1
    for name, voxels in (("t1", head(0)), ("t2", head(1)), ("mask", hole)):
        write_scan(Path(f"{name}.nii.gz"), voxels)
    for folder in ("real", "generated"):
        for seed in range(8):
            voxels = head(seed + 10 * len(folder)) / 900
            write_scan(Path(folder, f"{seed}.nii.gz"), voxels, dtype=np.float32)
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 28), np.uint8)
    whole = ArrayDataset(
        "toy",
        images[:, None],
        names=[*"abcd"],
        classes=np.arange(4) % 2,
        class_names=("ball", "box"),
    )
    monkeypatch.setattr(medmnist, "load", lambda config, split: whole)
    cubes = make_tokenizer(volume_shape=(28, 28, 28), stem_stride=2)
    spec = cubes.spec.model_copy(update={"dataset_name": "adrenalmnist3d"})
    type(cubes)(spec, cubes.autoencoder).save(Path("cubes.pt"))
    sizes = {"hidden_dim": 32, "num_blocks": 1, "num_heads": 2, "token_dim": 8}
    config = {
        "output_dir": Path("run"),
        "autoencoder_path": Path("cubes.pt"),
        "data": {"dataset_name": "adrenalmnist3d", "batch_size": 2, "num_workers": 0},
        "callbacks": {"preview": {"every_n_steps": 0}},
        "model": {"transformer": sizes},
    }
    Path("stage2.yaml").write_text(dump(Stage2Config.model_validate(config)))
    names: dict[str, Any] = {}
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(examples) >= 5
    for example in examples:
        exec(compile(example, str(PAGE), "exec"), names)
    assert names["first"].shape == network.tokenizer.spec.volume_shape
    assert names["flair"].shape == names["filled"].shape == names["image"].shape == (13, 12, 9)
    assert isinstance(names["array"], np.ndarray)
    assert names["model"].class_names == ("ball", "box")
    said = capsys.readouterr()
    assert "no file nowhere.pt" in said.out
    assert said.err == ""


def test_the_readme_example_runs(
    make_scan_generator: Any,
    make_tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    network = make_scan_generator(make_tokenizer(class_names=("thalamus", "cerebellum")))
    network.tokenizer.save(Path("outputs/demo/autoencoder.pt"))
    run = Path("outputs/demo/stage2/transformer.pt")
    save_transformer(run, network.spec, network.transformer)
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, str(README), "exec"), names)
    assert len(names["images"]) == 4
    assert Path("thalamus.nii.gz").is_file()
