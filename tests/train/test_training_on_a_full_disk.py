"""A disk that fills up while training: one sentence, and the last checkpoint is as it was."""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from console_scripts import in_a_process
from test_mistakes import STAGE1, arrays, write_configs, write_data

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(make_disk: Callable[[int], Path]) -> Path:
    return make_disk(8)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(("logger", "left"), [("csv", 0), ("tensorboard", 100_000)])
def test_the_disk_fills_up_in_the_second_epoch(
    tmp_path: Path, disk: Path, logger: str, left: int
) -> None:
    write_configs(tmp_path)
    write_data(tmp_path / "data", **arrays())
    path = tmp_path / "stage1.yaml"
    config = yaml.safe_load(path.read_text())
    config["output_dir"] = str(disk / "run")
    config["trainer"] |= {"logger": logger, "log_every_n_steps": 1}
    path.write_text(yaml.safe_dump(config))
    command = ("train", "--config", path)
    assert in_a_process(STAGE1, *command, cwd=tmp_path, env={})[0] == 0
    before = digests(disk / "run" / "checkpoints")
    assert "last.ckpt" in before

    more = (*command, "--resume", "trainer.max_epochs=4")
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while file.write(bytes(1 << 12)):
            pass
    if left:
        os.truncate(disk / "filler", (disk / "filler").stat().st_size - left)
    code, _, err = in_a_process(STAGE1, *more, cwd=tmp_path, env={})
    assert code == 2
    assert "No space left on device" in err
    assert "Traceback" not in err
    assert err.strip().splitlines()[-1].startswith("error: cannot write")
    after = digests(disk / "run" / "checkpoints")
    assert after["last.ckpt"] == before["last.ckpt"]
    assert [name for name in after if name.startswith(".")] == []

    (disk / "filler").unlink()
    assert in_a_process(STAGE1, *more, cwd=tmp_path, env={})[0] == 0
