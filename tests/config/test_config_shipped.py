"""The specification's configurations: they load from anywhere, and say what the table says."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from prod9.config import BraTSSourceConfig, MedMNISTDataConfig, Stage1Config, Stage2Config
from prod9.config.load import dump, load_stage1, load_stage2
from prod9.config.shipped import resolve_config, shipped
from prod9.errors import Prod9Error

SPEC = "src/prod9/configs/maskgit/"

# config, data set, levels, loss type, export
STAGE1 = [
    (
        "medmnist3d/stage1/base.yaml",
        "organmnist3d",
        (8, 8, 8),
        512,
        "lpips",
        "outputs/medmnist3d_autoencoder.pt",
    ),
    (
        "medmnist3d/stage1/large.yaml",
        "all",
        (8, 8, 6, 5),
        1920,
        "lpips",
        "outputs/medmnist3d_autoencoder-large.pt",
    ),
    (
        "medmnist3d/stage1/ffl.yaml",
        "organmnist3d",
        (8, 8, 8),
        512,
        "ffl",
        "outputs/medmnist3d_autoencoder_ffl.pt",
    ),
    (
        "brats/stage1/base.yaml",
        "brats",
        (6, 6, 6, 5),
        1080,
        "lpips",
        "outputs/autoencoder_final.pt",
    ),
    (
        "brats/stage1/ffl.yaml",
        "brats",
        (6, 6, 6, 5),
        1080,
        "ffl",
        "outputs/autoencoder_final_ffl.pt",
    ),
]
WIDTHS = {
    "medmnist3d/stage1/base.yaml": (64, 128, 128, 256),
    "medmnist3d/stage1/large.yaml": (64, 128, 256, 512),
    "medmnist3d/stage1/ffl.yaml": (16, 32, 64, 64),
    "brats/stage1/base.yaml": (64, 128, 256, 512),
    "brats/stage1/ffl.yaml": (64, 128, 256, 512),
}
PAIRS = {
    "medmnist3d/stage2/base.yaml": "medmnist3d/stage1/base.yaml",
    "medmnist3d/stage2/ffl.yaml": "medmnist3d/stage1/ffl.yaml",
    "brats/stage2/base.yaml": "brats/stage1/base.yaml",
    "demo/stage2.yaml": "demo/stage1.yaml",
    "demo/brats_stage2.yaml": "demo/brats_stage1.yaml",
}
SHIPPED = [*(row[0] for row in STAGE1), *PAIRS, "demo/stage1.yaml", "demo/brats_stage1.yaml"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, as where an installed wheel is used."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BRATS_DATA_DIR", raising=False)


def load_either(name: str, *overrides: str) -> Stage1Config | Stage2Config:
    load = load_stage1 if "stage1" in name else load_stage2
    return load(Path(SPEC + name), overrides)


def test_every_shipped_file_is_listed_here() -> None:
    assert sorted(f"maskgit/{name}" for name in SHIPPED) == shipped()


@pytest.mark.parametrize(("name", "dataset", "levels", "codes", "loss", "export"), STAGE1)
def test_stage1_is_as_the_specification_says(
    name: str, dataset: str, levels: tuple[int, ...], codes: int, loss: str, export: str
) -> None:
    config = load_stage1(Path(SPEC + name))
    assert config.data.dataset_name == dataset
    assert config.model.autoencoder.levels == levels
    assert math.prod(levels) == codes
    assert config.model.autoencoder.num_channels == WIDTHS[name]
    assert len(config.model.autoencoder.num_channels) == 4
    assert config.model.autoencoder.stem_stride == 1
    assert config.loss.loss_type == loss
    assert config.autoencoder_export_path == Path(export)
    if loss == "lpips":
        assert config.loss.perceptual.weight == 0.1
        assert config.loss.perceptual.network_type == "medicalnet_resnet10_23datasets"
    else:
        ffl = config.loss.focal_frequency
        assert (ffl.weight, ffl.alpha, ffl.patch_factor) == (1.0, 1.0, 1)
        assert (ffl.axes, ffl.ratio) == ((2, 3, 4), 0.5)
    if isinstance(config.data, MedMNISTDataConfig):
        assert config.data.size == 64
    else:
        assert config.sliding_window.roi_size == (64, 64, 64)


@pytest.mark.parametrize(("stage2", "stage1"), PAIRS.items())
def test_stage2_reads_what_its_stage1_writes(stage2: str, stage1: str) -> None:
    first, second = load_stage1(Path(SPEC + stage1)), load_stage2(Path(SPEC + stage2))
    assert second.autoencoder_path == first.autoencoder_export_path
    assert second.data.dataset_name == first.data.dataset_name
    assert getattr(second.data, "size", None) == getattr(first.data, "size", None)


@pytest.mark.parametrize("name", [name for name in PAIRS if not name.startswith("demo")])
def test_transformer_has_the_sizes_of_the_specification(name: str) -> None:
    transformer = load_stage2(Path(SPEC + name)).model.transformer
    assert (transformer.hidden_dim, transformer.num_blocks) == (512, 12)
    assert (transformer.num_heads, transformer.patch_size) == (8, 2)


@pytest.mark.parametrize("stage2", ["brats/stage2/base.yaml", "demo/brats_stage2.yaml"])
def test_both_stages_of_brats_hold_out_the_same_subjects_of_the_same_folder(stage2: str) -> None:
    first, second = (load_either(name).data for name in (PAIRS[stage2], stage2))
    assert isinstance(first, BraTSSourceConfig)
    assert isinstance(second, BraTSSourceConfig)
    for key in ("data_dir", "split_file", "split_seed", "val_share", "test_share", "on_bad_case"):
        assert getattr(first, key) == getattr(second, key)


def test_no_two_write_to_the_same_place() -> None:
    configs = [load_either(name) for name in SHIPPED]
    folders = [config.output_dir for config in configs]
    exports = [c.autoencoder_export_path for c in configs if isinstance(c, Stage1Config)]
    assert len(set(folders)) == len(folders)
    assert len(set(exports)) == len(exports)
    assert all(path.parts[0] == "outputs" for path in [*folders, *exports])


def test_demo_paths() -> None:
    assert load_either("demo/stage1.yaml").output_dir == Path("outputs/demo/stage1")
    assert load_either("demo/stage2.yaml").output_dir == Path("outputs/demo/stage2")
    assert load_either("demo/stage1.yaml").data.dataset_name == "brainregionmnist3d"
    for stage in ("stage1", "stage2"):
        config = load_either(f"demo/brats_{stage}.yaml")
        assert config.output_dir == Path("outputs/demo_brats") / stage
        assert isinstance(config.data, BraTSSourceConfig)
        assert config.data.data_dir == Path("outputs/demo_brats/cohort")
        assert config.data.split_file == Path("outputs/demo_brats/split.json")


@pytest.mark.parametrize("name", SHIPPED)
def test_dump_loads_back_to_an_equal_configuration(name: str, tmp_path: Path) -> None:
    config = load_either(name)
    text = dump(config)
    path = tmp_path / "resolved.yaml"
    path.write_text(text)
    load = load_stage1 if isinstance(config, Stage1Config) else load_stage2
    assert load(path) == config
    assert dump(load(path)) == text


@pytest.mark.parametrize("name", [name for name in SHIPPED if not name.startswith("demo")])
def test_head_says_the_command_and_what_is_not_measured(name: str) -> None:
    text = resolve_config(Path(SPEC + name)).read_text()
    command = "autoencoder" if "stage1" in name else "transformer"
    assert f"#   prod9-train-{command} train --config {SPEC}{name}\n" in text
    assert "not yet measured" in text.splitlines()[2] + text.splitlines()[3]


def test_brats_folder_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("brats/stage1/base.yaml", "brats/stage1/ffl.yaml", "brats/stage2/base.yaml"):
        monkeypatch.delenv("BRATS_DATA_DIR", raising=False)
        data = load_either(name).data
        assert isinstance(data, BraTSSourceConfig)
        assert data.data_dir == Path("data/BraTS")
        monkeypatch.setenv("BRATS_DATA_DIR", "/mnt/2021")
        data = load_either(name).data
        assert isinstance(data, BraTSSourceConfig)
        assert data.data_dir == Path("/mnt/2021")


@pytest.mark.parametrize(
    "written",
    [
        "src/prod9/configs/maskgit/demo/stage1.yaml",
        "configs/maskgit/demo/stage1.yaml",
        "./maskgit/demo/stage1.yaml",
        "demo/stage1.yaml",
    ],
)
def test_packaged_file_is_found_from_anywhere(written: str) -> None:
    assert resolve_config(Path(written)).parts[-3:] == ("maskgit", "demo", "stage1.yaml")


def test_a_file_in_the_current_folder_comes_first(tmp_path: Path) -> None:
    own = tmp_path / "demo" / "stage1.yaml"
    own.parent.mkdir()
    own.write_text("seed: 1\n")
    assert resolve_config(Path("demo/stage1.yaml")).resolve() == own


@pytest.mark.parametrize(
    "written", ["/none/src/prod9/configs/maskgit/demo/stage1.yaml", "maskgit/../maskgit/demo/x"]
)
def test_only_a_plain_relative_path_means_a_packaged_file(written: str) -> None:
    with pytest.raises(Prod9Error, match="does not exist"):
        resolve_config(Path(written))


def test_missing_file_names_the_nearest() -> None:
    with pytest.raises(Prod9Error) as caught:
        resolve_config(Path("src/prod9/configs/maskgit/medmnist3d/stage1/basis.yaml"))
    assert re.search(
        r"the configuration src/\S+/basis.yaml does not exist; nearest in the package: "
        r"maskgit/medmnist3d/stage1/base.yaml, ",
        str(caught.value),
    )


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Prod9Error, match=r"is a folder; --config needs a YAML file\.$"):
        resolve_config(tmp_path)


def test_configuration_loads_without_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from prod9.config.load import load_stage1; "
        "load_stage1(Path('demo/stage1.yaml')); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
