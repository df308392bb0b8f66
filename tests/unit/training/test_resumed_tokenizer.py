"""A run of Stage 2 goes on with the tokenizer that it began with, or not at all."""

from pathlib import Path
from typing import Any

import pytest
import torch

from prod9.config import Stage2Config
from prod9.data.tokens.store import TokenBatch
from prod9.errors import Prod9Error
from prod9.training.stage2_module import Stage2Module

CONFIG = Stage2Config.model_validate(
    {
        "output_dir": "out",
        "autoencoder_path": "tokenizer.pt",
        "data": {"dataset_name": "organmnist3d"},
    }
)
BATCH = TokenBatch(torch.zeros(2, 3, 2, 4, dtype=torch.int64), torch.tensor([0, 1]), ["a", "b"])


def test_another_tokenizer_is_refused(
    make_transformer: Any, make_trainer: Any, tmp_path: Path
) -> None:
    def run(tokenizer: str, epochs: int, checkpoint: Path | None = None) -> Any:
        batches = torch.utils.data.DataLoader([BATCH], batch_size=None)  # type: ignore[arg-type]
        trainer = make_trainer(max_epochs=epochs, limit_val_batches=0)
        module = Stage2Module(CONFIG, make_transformer(), tokenizer)
        trainer.fit(module, batches, ckpt_path=checkpoint, weights_only=True)
        return trainer

    path = tmp_path / "last.ckpt"
    run("a" * 64, 1).save_checkpoint(path)
    assert run("a" * 64, 2, path).global_step == 2
    with pytest.raises(Prod9Error, match="began with the tokenizer aaaaaaaaaaaa, but"):
        run("b" * 64, 2, path)
