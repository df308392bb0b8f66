"""Commands that do not share their work are refused where a launcher has started several."""

import pytest
from typer import Typer
from typer.testing import CliRunner

from prod9.cli import autoencoder, main, transformer
from prod9.errors import Prod9Error
from prod9.runtime.processes import require_alone

BRATS = "maskgit/brats/stage2/base.yaml"
ALONE = [
    (main.app, ["evaluate", "-o", "out", "--real", "real", "--generated", "made"]),
    (main.app, ["demo", "-o", "out"]),
    (autoencoder.app, ["infer", "-c", BRATS, "-o", "out", "-i", "scan.nii.gz"]),
    (transformer.app, ["translate", "--source", "T1=a.nii.gz", "--target", "T2", "-o", "b.nii.gz"]),
    (transformer.app, ["inpaint", "-i", "a", "-m", "b", "--modality", "T1", "-o", "out"]),
    (main.app, ["translate", "run", "--input", "in", "-o", "out"]),
    (main.app, ["inpaint", "run", "-i", "a", "-m", "b", "-o", "out"]),
    *((main.app, [verb, "run", "a", "-o", "out"]) for verb in ("reconstruct", "encode", "decode")),
    (transformer.app, ["sweep", "-c", "maskgit/medmnist3d/stage2/base.yaml"]),
]


@pytest.fixture(params=["torchrun", "srun"])
def launcher(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    variables = {
        "torchrun": {"WORLD_SIZE": "2", "RANK": "1"},
        "srun": {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"},
    }
    for name, value in variables[request.param].items():
        monkeypatch.setenv(name, value)
    return request.param


@pytest.mark.parametrize(("app", "words"), ALONE, ids=[words[0] for _, words in ALONE])
def test_who_does_not_share_does_not_begin(app: Typer, words: list[str], launcher: str) -> None:
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, Prod9Error), result.output
    assert "the launcher has started 2" in str(result.exception)
    assert words[0] in str(result.exception)


def test_one_process_is_alone() -> None:
    require_alone("infer")
