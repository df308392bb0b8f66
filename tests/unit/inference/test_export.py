"""``prod9 export``, and what MONAI makes of its bundle."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from model_folder_samples import CONFIG_YAML, SUBJECT, evaluation, volumes
from scan_files import head, write_scan
from typer.testing import CliRunner

import prod9
from prod9.cli import main
from prod9.errors import Prod9Error
from prod9.inference.model import Model
from prod9.inference.tokenizer import reconstruct_file
from prod9.model import save_transformer

SCHEMA = {
    "type": "object",
    "required": [
        *("schema", "version", "monai_version", "pytorch_version", "numpy_version"),
        *("required_packages_version", "task", "description", "authors", "copyright"),
        "network_data_format",
    ],
    "properties": {
        "changelog": {"type": "object"},
        "required_packages_version": {"type": "object"},
        "network_data_format": {
            "required": ["inputs", "outputs"],
            "additionalProperties": {
                "additionalProperties": {
                    "required": [
                        *("type", "format", "num_channels", "spatial_shape", "dtype"),
                        "value_range",
                    ],
                    "properties": {
                        "num_channels": {"type": "integer"},
                        "spatial_shape": {"items": {"type": ["string", "integer"]}},
                        "value_range": {"items": {"type": "number"}},
                        "channel_def": {"type": "object"},
                    },
                }
            },
        },
    },
    "additionalProperties": True,
}
"""What MONAI's schema (meta_schema_20240725.json) requires of such a file."""


@pytest.fixture
def run_folder(named_model: Model, tmp_path: Path) -> Path:
    """The run folder of a model, with figures and a page."""
    run, network = tmp_path / "run", named_model.network
    network.tokenizer.save(tmp_path / "autoencoder.pt")
    text = CONFIG_YAML + "sampler: {steps: 3}\n"
    spec = network.spec.model_copy(update={"config_yaml": text})
    save_transformer(run / "transformer.pt", spec, network.transformer)
    digest = prod9.load(run, device="cpu").network.digest
    (run / "metrics.json").write_text(evaluation(SUBJECT, transformer=digest).model_dump_json())
    (run / "report.html").write_text(f"<p>{SUBJECT}</p>")
    return run


def export(*words: object) -> str:
    result = CliRunner().invoke(main.app, ["export", *map(str, words)])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_every_kind_of_run(run_folder: Path, tmp_path: Path) -> None:
    expected = volumes(prod9.load(run_folder, device="cpu"))
    for n, run in enumerate((run_folder, run_folder / "transformer.pt", tmp_path / "0")):
        assert f"written to {tmp_path / str(n)}" in export(run, tmp_path / str(n))
        loaded = prod9.load(tmp_path / str(n), device="cpu")
        assert np.array_equal(volumes(loaded), expected)
        figures = json.loads((tmp_path / str(n) / "metrics.json").read_text())
        assert figures["provenance"]["transformer"] == loaded.network.digest
        for path in (tmp_path / str(n)).iterdir():
            assert SUBJECT not in path.read_text("latin-1"), path
            assert "/secret" not in path.read_text("latin-1"), path
    export(tmp_path / "autoencoder.pt", tmp_path / "tokenizer", "--licence", "MIT")
    assert isinstance(prod9.load(tmp_path / "tokenizer"), prod9.Tokenizer)
    assert "MIT" in (tmp_path / "tokenizer" / "README.md").read_text()


def test_names_and_replacing(run_folder: Path, tmp_path: Path) -> None:
    export(run_folder, tmp_path / "out")
    with pytest.raises(Prod9Error, match="already holds a model"):
        export(run_folder, tmp_path / "out", "--with-subjects")
    export(run_folder, tmp_path / "out", "--with-subjects", "--overwrite")
    assert SUBJECT in (tmp_path / "out" / "report.html").read_text()
    loaded = prod9.load(tmp_path / "out")
    assert loaded.network.digest == prod9.load(run_folder).network.digest


def test_a_bundle_replaces_its_own(run_folder: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    export(run_folder, bundle, "--monai-bundle")
    found = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert {path for path in found if not path.startswith("models/")} == {
        *("configs/inference.json", "configs/metadata.json", "configs/reconstruct.json"),
        "docs/README.md",
    }
    (bundle / "LICENSE").write_text("mine")
    with pytest.raises(Prod9Error, match="already holds a bundle"):
        export(run_folder, bundle, "--monai-bundle")
    prod9.export(tmp_path / "autoencoder.pt", bundle, monai_bundle=True, overwrite=True)
    assert not (bundle / "configs" / "inference.json").exists()
    assert (bundle / "LICENSE").read_text() == "mine"
    (bundle / "configs" / "metadata.json").write_text("{}")
    with pytest.raises(Prod9Error, match="in the way"):
        export(run_folder, bundle, "--monai-bundle", "--overwrite")


@pytest.fixture
def bundle(run_folder: Path, tmp_path: Path) -> Path:
    pytest.importorskip("monai")
    prod9.export(run_folder, tmp_path / "bundle", monai_bundle=True)
    return tmp_path / "bundle"


def run(bundle: Path, config: str, **keys: Any) -> None:
    from monai.bundle import run

    run(config_file=str(bundle / "configs" / config), bundle_root=str(bundle), **keys)


def test_monai_generates(bundle: Path, tmp_path: Path) -> None:
    run(bundle, "inference.json", label="box", count=2, seed=3, device="cpu")
    (bundle / "eval" / "montage.png").unlink()
    loaded = prod9.load(bundle / "models", device="cpu")
    images = loaded.generate("box", n=2, seed=3)
    paths = sorted((bundle / "eval").glob("*.nii.gz"))
    assert len(paths) == len(images) == 2
    for path, image in zip(paths, images, strict=True):
        voxels = np.asarray(nib.nifti1.load(path).dataobj)
        assert np.array_equal(voxels, (image.get_fdata() * 255).round())
    run(bundle, "inference.json", device="cpu", output_dir=str(tmp_path / "all"))
    assert len(list((tmp_path / "all").glob("*.nii.gz"))) == 2


def test_monai_reconstructs(bundle: Path, tmp_path: Path) -> None:
    write_scan(bundle / "data" / "scan.nii.gz", head(0))
    run(bundle, "reconstruct.json", device="cpu")
    tokenizer = prod9.Tokenizer.load(bundle / "models", device="cpu")
    path, _ = reconstruct_file(
        tokenizer, bundle / "data" / "scan.nii.gz", tmp_path, save_tokens=False, overwrite=False
    )
    voxels = [
        np.asarray(nib.nifti1.load(folder / path.name).dataobj)
        for folder in (bundle / "eval", tmp_path)
    ]
    assert np.array_equal(*voxels)
    (bundle / "data" / "scan.nii.gz").unlink()
    with pytest.raises(RuntimeError) as error:  # MONAI's, around prod9's
        run(bundle, "reconstruct.json", device="cpu")
    assert "dataset_dir" in str(error.value.__cause__)


def test_monai_reads_the_metadata(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("jsonschema")
    from monai.bundle import ConfigWorkflow, verify_metadata

    schema, meta = tmp_path / "schema.json", bundle / "configs" / "metadata.json"
    schema.write_text(json.dumps(SCHEMA))  # there already: nothing is downloaded
    verify_metadata(meta_file=str(meta), filepath=str(schema))
    workflow = ConfigWorkflow(
        str(bundle / "configs" / "inference.json"), workflow_type=None, bundle_root=str(bundle)
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    assert workflow.spatial_shape == [8, 8, 8]
    assert "python -m monai.bundle run" in (bundle / "docs" / "README.md").read_text()
