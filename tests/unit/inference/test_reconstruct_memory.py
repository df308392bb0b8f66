"""A scan may be as large as its own arrays: cutting it into windows costs the same for any size."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from prod9.config import AutoencoderConfig, PreprocessingConfig
from prod9.data.brats.layouts import MODALITIES
from prod9.tokenizer import Tokenizer, TokenizerSpec, build_autoencoder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc"
    ),
]

MIB = 1 << 20
LEVELS = (6, 6, 6, 5)
DEMO: dict[str, Any] = {"num_channels": (32, 96), "stem_stride": 2}
SMALL: dict[str, Any] = {"num_channels": (8, 8), "norm_num_groups": 4, "stem_stride": 2}
# The console script, and at its end the most memory that it ever had, in KiB.
CHILD = """
import atexit, re
from pathlib import Path

def peak():
    status = Path("/proc/self/status").read_text()
    Path("peak.json").write_text(re.search(r"VmHWM:\\s+(\\d+)", status)[1])

atexit.register(peak)
from prod9.cli.autoencoder import run
run()
"""


def write_model(folder: Path, sizes: dict[str, Any]) -> Path:
    """Untrained weights and a configuration that finds them."""
    config = AutoencoderConfig(levels=LEVELS, **sizes)
    torch.manual_seed(0)
    spec = TokenizerSpec(
        autoencoder=config,
        dataset_name="brats",
        volume_shape=(240, 240, 155),
        spacing_mm=(1.0, 1.0, 1.0),
        class_names=MODALITIES,
        preprocessing=PreprocessingConfig(),
        config_yaml="",
    )
    Tokenizer(spec, build_autoencoder(config)).save(folder / "tokenizer.pt")
    settings = {
        "output_dir": "out",
        "autoencoder_export_path": "tokenizer.pt",
        "data": {"dataset_name": "brats"},
        "sliding_window": {"roi_size": [64, 64, 64], "overlap": 0.0},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


def write_ball(path: Path, shape: tuple[int, int, int]) -> Path:
    x, y, z = (np.linspace(-1, 1, side, dtype=np.float32) for side in shape)
    inside = x[:, None, None] ** 2 + y[None, :, None] ** 2 + z[None, None, :] ** 2 < 0.8
    voxels = np.random.default_rng(0).integers(100, 1000, shape, dtype=np.int16) * inside
    image = nib.Nifti1Image(voxels.astype(np.int16), np.diag([-1.0, -1.0, 1.0, 1.0]))
    image.to_filename(path)
    return path


def peak_mib(folder: Path, scan: Path) -> float:
    """Reconstruct a scan in a process of its own; return that process's peak."""
    arguments = ["infer", "-c", "config.yaml", "-o", "out", "-i", str(scan), "--overwrite"]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = nib.nifti1.load(folder / "out" / scan.name.replace(".nii", "_reconstructed.nii"))
    source = nib.nifti1.load(scan)
    assert (result.shape, result.get_data_dtype()) == (source.shape, np.int16)
    assert re.search(r"PSNR \d+\.\d\d dB", done.stdout)
    return json.loads((folder / "peak.json").read_text()) / 1024


def test_a_whole_head_with_the_demos_network(tmp_path: Path) -> None:
    scan = write_ball(tmp_path / "scan.nii.gz", (240, 240, 155))
    peak = peak_mib(write_model(tmp_path, DEMO), scan)
    print(f"240 x 240 x 155, channels 32, 96: {peak:.0f} MiB")
    assert peak < 4096


def test_eight_times_the_voxels_need_no_larger_working_set(tmp_path: Path) -> None:
    write_model(tmp_path, SMALL)
    beyond: list[float] = []
    for name, shape in (("small", (240, 240, 155)), ("large", (480, 480, 310))):
        peak = peak_mib(tmp_path, write_ball(tmp_path / f"{name}.nii.gz", shape))
        # At the peak: the scan, the network's result, that on the scan's grid, and that in its
        # intensities, float32 each; where there is foreground, bool.
        own = (4 * 4 + 1) * float(np.prod(shape)) / MIB
        beyond.append(peak - own)
        print(f"{shape}: {peak:.0f} MiB, of which its own arrays {own:.0f}")
    assert beyond[1] <= beyond[0] + 256
