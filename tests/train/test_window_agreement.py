"""A trained tokenizer gives much the same result through windows as in one pass."""

from pathlib import Path

import pytest
import torch

from prod9.config import BraTSDataConfig, SlidingWindowConfig
from prod9.config.load import load_stage1
from prod9.data.dataset import open_splits
from prod9.data.phantom.cohort import make_phantom
from prod9.evaluation.reconstruction import window_agreement
from prod9.training import stage1

pytestmark = pytest.mark.slow


def test_windows_agree_with_one_pass(tmp_path: Path) -> None:
    """The stated tolerance: 0.04 on average, and the windows lose at most 0.5 dB to one pass.

    Group norms see a window in place of everything: results cannot be equal. (For a network
    without them they are, see tests/unit/test_sliding_window.py.)
    """
    make_phantom(tmp_path / "cohort", cases=6, release="2021", seed=1, voxel_mm=4.0)
    config = load_stage1(
        Path("maskgit/demo/brats_stage1.yaml"),
        [
            f"output_dir={tmp_path / 'run'}",
            f"autoencoder_export_path={tmp_path / 'tokenizer.pt'}",
            f"data.data_dir={tmp_path / 'cohort'}",
            f"data.split_file={tmp_path / 'split.json'}",
            f"data.cache_dir={tmp_path / 'cache'}",
            "data.preprocessing.spacing_mm=[4,4,4]",
            "data.crops_per_volume=8",
            "sliding_window.roi_size=[24,24,24]",
            "callbacks.preview.every_n_steps=0",
            "trainer.max_epochs=12",
            "trainer.check_val_every_n_epoch=12",
        ],
    )
    assert isinstance(config.data, BraTSDataConfig)
    tokenizer = stage1.train(config)
    scans = open_splits(config.data)["test"]
    # 60 x 60 x 39 voxels, and an odd, anisotropic part of them.
    whole = torch.from_numpy(scans.whole(0, 0))[None, None]
    for volume in (whole, whole[:, :, 3:50, 7:58, 2:37]):
        for overlap in (0.25, 0.5):
            windows = SlidingWindowConfig(roi_size=(24, 24, 24), overlap=overlap)
            agreement = window_agreement(tokenizer, volume, windows)
            assert agreement["difference_l1"] < 0.04
            assert agreement["windowed_psnr"] > agreement["whole_psnr"] - 0.5
            assert agreement["windowed_psnr"] > 13  # it has learned something to agree on
