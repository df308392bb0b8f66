"""Scans of formats that are only read: results are NIfTI files with the source's geometry."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("SimpleITK")
import SimpleITK as sitk
from itk_files import image, write_dicom
from scan_files import PREPROCESSING, head

from prod9.config import SamplerConfig, SlidingWindowConfig
from prod9.data.volume_files.read import read_volume
from prod9.errors import Prod9Error
from prod9.inference.inpaint import inpaint_files
from prod9.inference.tokenizer import Tokenizer as FileTokenizer
from prod9.inference.tokenizer import reconstruct_file
from prod9.inference.translate import translate_files
from prod9.model import Model
from prod9.sample_request import SampleRequest
from prod9.tokenizer import Tokenizer

WINDOWS = SlidingWindowConfig(roi_size=(12, 12, 12))
SPACING = PREPROCESSING.model_copy(update={"spacing_mm": (0.9, 1.1, 2.5)})


@pytest.fixture(params=["scan.nrrd", "scan.mha", "scan", "scan.nii.gz.d"])
def scan(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A head of int16 in an oblique frame; without a format's suffix, a folder of DICOM slices."""
    made = image((13, 12, 9))
    volume = sitk.GetImageFromArray(head().astype(np.int16).T)
    volume.CopyInformation(made)
    path = tmp_path / request.param
    if path.suffix in (".nrrd", ".mha"):
        sitk.WriteImage(volume, path)
    else:
        write_dicom(path, volume)
    return path


def assert_like(result: Path, scan: Path) -> None:
    source, written = read_volume(scan), sitk.ReadImage(result)
    assert result.name.endswith(".nii.gz")
    assert written.GetPixelID() == sitk.sitkInt16
    assert written.GetSize() == source.array.shape
    assert np.allclose(read_volume(result).affine, source.affine, atol=1e-5)


def test_reconstruction(
    make_scan_tokenizer: Callable[..., Tokenizer], scan: Path, tmp_path: Path
) -> None:
    tokenizer = FileTokenizer(make_scan_tokenizer(preprocessing=SPACING), WINDOWS)
    folder = tmp_path / "out"
    target, _ = reconstruct_file(tokenizer, scan, folder, save_tokens=True, overwrite=False)
    name = scan.name.removesuffix(".nrrd").removesuffix(".mha")
    assert target == folder / f"{name}_reconstructed.nii.gz"
    assert (folder / f"{name}_reconstructed.tokens.npz").is_file()
    assert_like(target, scan)
    with pytest.raises(Prod9Error, match="exists"):
        reconstruct_file(tokenizer, scan, folder, save_tokens=False, overwrite=False)


def test_translation_and_in_painting(
    make_scan_generator: Callable[..., Model], scan: Path, tmp_path: Path
) -> None:
    model = make_scan_generator(preprocessing=SPACING)
    sampler = SamplerConfig(steps=2, guidance_scale=1.0)
    request = SampleRequest(model.labels_of(["T2"], 1), sampler, WINDOWS, 0)
    output = tmp_path / "out" / "t2.nii.gz"
    assert_like(
        translate_files(model, {"T1": scan}, output, request, overwrite=False).results[0], scan
    )
    mask = image((13, 12, 9), np.uint8) * 0
    mask[4:7, 5:8, 3:5] = 1
    sitk.WriteImage(mask, tmp_path / "mask.mhd")
    (result,) = inpaint_files(
        model, scan, tmp_path / "mask.mhd", tmp_path / "out", request, overwrite=False
    ).results
    assert_like(result, scan)
    before, after = read_volume(scan).array, read_volume(result).array
    inside = sitk.GetArrayFromImage(mask).T > 0
    assert np.array_equal(after[~inside], before[~inside])
    assert (after[inside] != before[inside]).mean() > 0.5
