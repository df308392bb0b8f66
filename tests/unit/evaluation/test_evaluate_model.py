"""``prod9 evaluate MODEL DATA``: figures and a page of a model with labels, and what it refuses."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from labelled_model import SHAPE, labelled_model, labels
from typer.testing import CliRunner

import prod9
from prod9.cli.main import app
from prod9.data.splits import SubjectSplit
from prod9.errors import Prod9Error
from prod9.results.schema import Evaluation

NAMES = tuple(f"s{number}" for number in range(6))
SMALL = ("pairs=2", "seeds=1", "steps=2", "widths=[4, 8]", "masks=2", "doses=[0.5]")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, scans, and the split of both."""
    root = tmp_path_factory.mktemp("labels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROD9_CACHE", str(root / "cache"))
        labelled_model().save(root / "model")
        for number, name in enumerate(NAMES):
            folder = root / "scans" / name
            folder.mkdir(parents=True)
            noise = np.random.default_rng(number).integers(1, 900, (2, *SHAPE)).astype(np.int16)
            moved = np.roll(labels(), number % 3, axis=2)
            for channel, array in (("T1", noise[0]), ("T2", noise[1]), ("seg", moved)):
                nib.Nifti1Image(array, np.eye(4)).to_filename(folder / f"{channel}.nii.gz")
        split = SubjectSplit(
            train=NAMES[:3], val=NAMES[3:4], test=NAMES[4:], seed=0, val_share=0.1, test_share=0.1
        )
        (root / "split.json").write_text(split.model_dump_json())
        yield root


def run(*words: object) -> str:
    result = CliRunner().invoke(app, ["evaluate", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_figures_and_a_page(home: Path, tmp_path: Path) -> None:
    settings = [word for each in SMALL for word in ("--segmentation", each)]
    words = (home / "model", home / "scans", "--split-file", home / "split.json", *settings)
    run(*words, "--device", "cpu", "--output", tmp_path / "out")
    text = (tmp_path / "out" / "metrics.json").read_text()
    warnings = " ".join(Evaluation.model_validate_json(text).warnings)
    assert "tested on 2 subjects" in warnings
    assert "Segmenters of real pairs reach" in warnings  # after two steps
    found = Evaluation.model_validate_json(text).segmentation
    assert found is not None
    assert (found.channel, found.steps, found.seeds, found.test_subjects) == ("seg", 2, 1, 2)
    assert [part.pairs for part in found.segmenters] == [2, 2, 4]
    assert [each.label for each in found.fidelity] == [2, 7]
    assert all(len(each.requested) == 4 for each in found.doses)  # two subjects, two doses
    ml = sorted({value for each in found.volumes if each.label == 7 for value in each.real})
    assert ml == [pytest.approx((labels() == 7).sum() / 1000)]  # of voxels of 1 mm
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Segmentation" in page
    assert "Do images show the mask" in page
    assert not (tmp_path / "out" / "unfinished-test").exists()
    with pytest.raises(Prod9Error, match="--overwrite"):
        run(*words, "--output", tmp_path / "out")
    again = prod9.evaluate_labels(
        home / "model", home / "scans", split_file=home / "split.json", settings=SMALL, device="cpu"
    )
    assert again.segmentation == found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("model", "scans"), "not known which subjects of .* the model was trained on"),
        (("model",), "does not say which data it was trained on"),
        (("model", "scans", "--real", "scans"), "--real with --generated"),
        ((), "--real with --generated"),
        (("model", "scans", "--segmentation", "step=3"), "step.*steps"),
        (("model", "scans", "--segmentation", "steps=0"), "steps.*greater than 0"),
        (("model", "scans", "--segmentation", "channel=T1"), "T1 is no channel of labels"),
    ],
)
def test_what_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(home)
    with pytest.raises(Prod9Error, match=f"(?s){said}"):
        run(*words, "--output", tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_test_subject_that_the_model_was_trained_on(home: Path, tmp_path: Path) -> None:
    model = labelled_model()
    spec = model.network.spec.model_copy(update={"train_subjects": (NAMES[4],)})
    network = type(model.network)(model.network.tokenizer, model.network.transformer, spec)
    recorded = model._recorded()
    type(model).of(network, recorded).save(tmp_path / "model", subjects=True)
    with pytest.raises(Prod9Error, match=f"the transformer was trained on.*{NAMES[4]}"):
        run(
            *(tmp_path / "model", home / "scans", "--split-file", home / "split.json"),
            *("--output", tmp_path / "out"),
        )
