"""The examples of docs/monai.md, run as one program in a MONAI pipeline."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_folder_samples import RECORDED
from scan_files import head, write_scan

from prod9.inference.model import Model

pytest.importorskip("monai", reason="MONAI is not installed: pip install monai")

PAGE = Path(__file__).parents[3] / "docs" / "monai.md"


@pytest.fixture(scope="module")
def names(make_scan_generator: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the program has defined when it ends."""
    folder = tmp_path_factory.mktemp("monai")
    Model.of(make_scan_generator(), RECORDED).save(folder / "model")
    for seed in range(3):
        write_scan(folder / "scans" / f"{seed}.nii.gz", head(seed))
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(examples) == 3
    found: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for example in examples:
            exec(compile(example, str(PAGE), "exec"), found)
        found["expected"] = [
            found["model"].tokenizer.encode(file["tokens"]).tokens for file in found["files"]
        ]
        found["whole"] = found["model"].tokenizer.reconstruct(found["files"][0]["image"])
    return found


def test_a_loader_gives_images_with_their_tokens(names: dict[str, Any]) -> None:
    batch = names["batch"]
    assert batch["image"].shape == (2, 1, 13, 12, 9)
    np.testing.assert_array_equal(batch["tokens"], np.stack(names["expected"][:2]))
    assert not np.array_equal(*names["expected"][:2])


def test_a_reconstruction_lies_on_the_scans_own_grid(names: dict[str, Any]) -> None:
    before, after, whole = names["loaded"]["image"], names["kept"]["image"], names["whole"]
    assert after.shape == before.shape
    np.testing.assert_array_equal(after.affine, before.affine)
    np.testing.assert_array_equal(after.affine, whole.affine)
    np.testing.assert_allclose(after[0], whole.get_fdata(), rtol=0, atol=1e-3 * float(after.max()))
    assert not np.allclose(after[0], before[0])


def test_generated_volumes_are_items(names: dict[str, Any]) -> None:
    batch = next(iter(names["more"]))
    (again,) = names["model"].generate(label=batch["label"][0], seed=int(batch["seed"][0]), steps=4)
    np.testing.assert_array_equal(batch["image"][0, 0], again.get_fdata(dtype=np.float32))
    assert not np.array_equal(batch["image"][0], batch["image"][1])
