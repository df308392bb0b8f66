"""A training that asks for more memory than there is ends in one sentence, and can go on."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = 8 << 30


def train(folder: Path, *overrides: str, limit: int | None) -> subprocess.CompletedProcess[str]:
    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    command = [sys.executable, "-c", "from prod9.cli.autoencoder import run; run()", "train"]
    settings = [
        f"output_dir={folder}/run",
        f"autoencoder_export_path={folder}/tokenizer.pt",
        f"data.root={folder}/data",
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=1",
        "trainer.limit_val_batches=1",
        "callbacks.preview.every_n_steps=0",
    ]
    return subprocess.run(
        [*command, "--config", "maskgit/demo/stage1.yaml", *settings, *overrides],
        capture_output=True,
        text=True,
        preexec_fn=limited,
        timeout=500,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_training_that_is_too_large(tmp_path: Path) -> None:
    wide = ("model.autoencoder.num_channels=[256,256]", "model.autoencoder.stem_stride=1")
    failed = train(tmp_path, *wide, "data.batch_size=128", limit=LIMIT)
    assert failed.returncode == 2, failed.stderr
    assert "Traceback" not in failed.stderr
    (line,) = (line for line in failed.stderr.splitlines() if line.startswith("error: "))
    assert "lower data.batch_size from 128 to " in line
    assert "of 8.0 GiB)" in line
    assert line.endswith("--resume continues from the last checkpoint.")
    assert not (tmp_path / "tokenizer.pt").exists()
    lower = line.partition("from 128 to ")[2].partition(",")[0]
    assert 1 <= int(lower) < 128
