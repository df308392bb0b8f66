"""Labels are not learned on a coarse grid: one sentence says so, before anything is encoded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled_model import SHAPE, labelled_model

from prod9.config import Stage2Config
from prod9.data.array_dataset import ArrayDataset
from prod9.data.dataset import Channel
from prod9.errors import Prod9Error
from prod9.training.tokens import open_tokens


def test_labels_with_a_coarse_grid_are_refused(tmp_path: Path) -> None:
    data: dict[str, Any] = {"dataset_name": "folder", "path": tmp_path, "coarse": {"factor": 2}}
    config = Stage2Config.model_validate(
        {"output_dir": tmp_path / "run", "autoencoder_path": tmp_path / "one.pt", "data": data}
    )
    channels = tuple(Channel(name) for name in ("T1", "T2"))
    items = ArrayDataset("items", np.zeros((1, 2, *SHAPE), np.float32), channels)
    with pytest.raises(Prod9Error) as refused:
        open_tokens(config, labelled_model().network.tokenizer, items, "train")
    said = str(refused.value)
    assert "coarse.factor: 0" in said
    assert "learn_labels: false" in said
    assert said.count(". ") == 0
    assert not (tmp_path / "run").exists()
