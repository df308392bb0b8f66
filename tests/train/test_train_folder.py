"""``prod9 train FOLDER``: from scans to a model, and what stands in the way."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from console_scripts import in_this_one
from test_mistakes import one_sentence

import prod9
from prod9.config.dataset import read_description
from prod9.data.splits import SubjectSplit

SIDES = (20, 17, 15)


def write_folder(folder: Path, count: int = 12) -> Path:
    """Write scans of a bright ball on a dim ground, of two classes: large and small balls."""
    places = np.stack(np.meshgrid(*map(np.arange, SIDES), indexing="ij"), -1)
    for index in range(count):
        random = np.random.default_rng(index)
        middle = np.array(SIDES) / 2 + random.uniform(-1, 1, 3)
        size = (4, 7)[index % 2]
        ball = np.linalg.norm(places - middle, axis=-1) < size
        array = (300 + 500 * ball + random.normal(0, 30, SIDES)).clip(1).astype(np.int16)
        path = folder / ("small", "large")[index % 2] / f"p{index:02d}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.Nifti1Image(array, np.diag([-1.0, -1.0, 1.0, 1.0])).to_filename(path)
    return folder


def make_smaller(work: Path) -> None:
    """Edit a plan as a user does, so that it takes seconds."""
    for name in ("stage1.yaml", "stage2.yaml"):
        plan = yaml.safe_load((work / name).read_text().replace("$${", "${"))
        plan["trainer"] |= {"max_epochs": 2, "check_val_every_n_epoch": 1}
        plan["data"]["batch_size"] = 4
        if name == "stage1.yaml":
            plan["data"]["crops_per_volume"] = 1
            plan["model"]["autoencoder"] |= {"num_channels": [8, 8], "levels": [5, 4, 3]}
        else:
            plan["data"]["encodings"] = 2
            sizes = {"hidden_dim": 32, "num_blocks": 1, "num_heads": 2, "token_dim": 8}
            plan["model"]["transformer"] |= sizes | {"local_blocks": 1}
            plan["sampler"]["steps"] = 3
            plan["evaluation"] = {
                "samples_per_class": 3,
                "feature_spaces": ["classifier"],
                "usefulness": False,
            }
        (work / name).write_text(yaml.safe_dump(plan))


@pytest.mark.slow
@pytest.mark.ci
def test_from_a_folder_to_a_model(tmp_path: Path) -> None:
    """One command plans, a second goes on with the edited plan; the model generates both ways."""
    folder, model = write_folder(tmp_path / "scans"), tmp_path / "model"
    command = ("prod9", "train", str(folder), "--output", str(model))
    before = {path: path.read_bytes() for path in folder.rglob("*.nii.gz")}
    run(*command, "--hours", "0.01", "--plan-only", cwd=tmp_path)
    work = model / "training"
    description = read_description(work / "dataset.yaml")
    assert description.shape == (24, 16, 16)
    assert {*description.classes} == {"small", "large"}
    why = (work / "stage1.yaml").read_text()
    assert why.startswith("# ")  # the reasons
    make_smaller(work)
    run(*command, "--resume", cwd=tmp_path)

    assert {path.name for path in model.iterdir()} == {
        *("config.json", "tokenizer.safetensors", "transformer.safetensors", "dataset.yaml"),
        *("metrics.json", "report.html", "README.md", "training"),
    }
    title = (model / "report.html").read_text(encoding="utf-8").partition("<h1")[2]
    assert title.partition("</h1>")[0].endswith(f"A generator of {description.name}")
    split = SubjectSplit.model_validate_json((work / "split.json").read_bytes())
    assert len(split.train) + len(split.val) + len(split.test) == 12
    shared = "".join((model / name).read_text() for name in ("config.json", "dataset.yaml"))
    assert not any(subject in shared for subject in (*split.train, *split.val, *split.test))
    assert {path: path.read_bytes() for path in folder.rglob("*.nii.gz")} == before

    loaded = prod9.load(str(model))
    assert isinstance(loaded, prod9.Model)
    (image,) = loaded.generate("small", seed=3)
    assert image.shape == (24, 16, 16)
    out = tmp_path / "out"
    wanted = ("-n", "1", "--class", "small", "--seed", "3", "--output", str(out))
    run("prod9", "generate", str(model), *wanted, cwd=tmp_path)
    (path,) = out.glob("*.nii.gz")
    written = np.asarray(nib.load(path).dataobj)
    assert np.array_equal(written, np.rint(image.get_fdata() * 255))

    # From that model, its tokenizer kept; an interrupted training goes on without Stage 1.
    tuned = ("prod9", "train", str(folder), "--output", str(tmp_path / "tuned"))
    first = ("--init-from", str(model), "--tokenizer", "keep", "--hours", "0.01", "--plan-only")
    run(*tuned, *first, cwd=tmp_path)
    make_smaller(tmp_path / "tuned" / "training")
    said = run(*tuned, "--resume", cwd=tmp_path)
    assert "Stage 2 starts from" in said
    run(*tuned, "--resume", cwd=tmp_path)
    weights = [each / "tokenizer.safetensors" for each in (model, tmp_path / "tuned")]
    assert weights[0].read_bytes() == weights[1].read_bytes()

    said = one_sentence(*in_this_one(*command, cwd=tmp_path, env={}))
    assert str(model) in said
    assert "--resume" in said


@pytest.mark.parametrize(
    ("arguments", "about"),
    [
        (("nowhere",), "nowhere"),
        (("scans", "--resume"), "model"),
        (("scans", "--resume", "--overwrite"), "--overwrite"),
        (("scans/small/p00.nii.gz",), "p00.nii.gz"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, arguments: tuple[str, ...], about: str) -> None:
    write_folder(tmp_path / "scans", 2)
    ended = in_this_one("prod9", "train", *arguments, "-o", "model", cwd=tmp_path, env={})
    assert about in one_sentence(*ended)


def test_a_mistake_costs_nothing(tmp_path: Path) -> None:
    write_folder(tmp_path / "scans")

    def fails(*arguments: str) -> str:
        return one_sentence(*in_this_one("prod9", "train", *arguments, cwd=tmp_path, env={}))

    assert "nowhere" in fails("nowhere", "-o", "model")
    assert not (tmp_path / "model").exists()
    for _ in range(2):  # the second time nothing of the first is in the way
        assert "no-model" in fails("scans", "-o", "model", "--init-from", "no-model")
    plan = tmp_path / "model" / "training" / "stage1.yaml"
    plan.write_text("an earlier plan")
    assert "nowhere" in fails("nowhere", "-o", "model", "--overwrite")
    assert plan.read_text() == "an earlier plan"
    assert "--resume" in fails("scans", "-o", "model")


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    write_folder(tmp_path / "scans")
    theirs = tmp_path / "model" / "training" / "stage1.yaml"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    for more in ((), ("--overwrite",)):
        ended = in_this_one("prod9", "train", "scans", "-o", "model", *more, cwd=tmp_path, env={})
        assert "model/training" in one_sentence(*ended)
        assert theirs.read_text() == "mine"


def run(*command: str, cwd: Path) -> str:
    """Run a command that must succeed; return what it said."""
    code, out, err = in_this_one(*command, cwd=cwd, env={})
    assert code == 0, err
    return out + err


@pytest.mark.slow
def test_a_folder_with_labels(tmp_path: Path) -> None:
    """The plan counts label maps; the trained model makes images of masks, and pairs."""
    folder, model = tmp_path / "scans", tmp_path / "model"
    for path in sorted(write_folder(tmp_path / "balls").rglob("*.nii.gz")):
        image = nib.load(path)
        case = folder / path.name.removesuffix(".nii.gz")
        case.mkdir(parents=True)
        image.to_filename(case / "T1.nii.gz")
        labels = (np.asanyarray(image.dataobj) > 550).astype(np.uint8)
        nib.Nifti1Image(labels, image.affine).to_filename(case / "seg.nii.gz")
    command = ("prod9", "train", str(folder), "--output", str(model))
    run(*command, "--hours", "0.01", "--with-labels", "--plan-only", cwd=tmp_path)
    make_smaller(model / "training")
    run(*command, "--resume", cwd=tmp_path)
    mask = folder / "p00" / "seg.nii.gz"
    made = tmp_path / "made"
    words = ("--mask", str(mask), "-n", "1", "--output", str(made))
    run("prod9", "generate", str(model), *words, cwd=tmp_path)
    assert nib.load(made / "0000_T1.nii.gz").shape == SIDES
    (pair,) = prod9.load(model).generate_pairs()
    assert {*np.unique(pair.labels.dataobj)} <= {0, 1}
