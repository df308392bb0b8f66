"""``prod9 evaluate`` on folders of any generator, through the console script."""

import csv
import json
import sys

import numpy as np
import pytest

from prod9.cli import main
from prod9.data.volume_files.write import write_nifti
from prod9.evaluation.runner import evaluate
from prod9.results.schema import Evaluation

SIDE = 14
CLASSES = ("dark", "light")


def draw(count, seed):
    """Return volumes of two classes that differ in brightness, and their labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    centre = (
        random.normal(0, 0.05, (count, 1, 1, 1)) + np.where(labels, 0.7, 0.3)[:, None, None, None]
    )
    texture = random.normal(0, 0.1, (count, SIDE, SIDE, SIDE))
    volumes = ((centre + texture).clip(0, 1) * 255).round().astype(np.uint8)
    return volumes, labels


def write(folder, volumes, labels=None, suffix=""):
    folder.mkdir(parents=True)
    rows = [("file", "class")]
    for index, volume in enumerate(volumes):
        name = f"{index:03d}{suffix}.nii.gz"
        write_nifti(folder / name, volume, np.diag([2.0, 2, 2, 1]), np.uint8, overwrite=False)
        rows.append((name, CLASSES[0 if labels is None else labels[index]]))
    if labels is not None:
        with (folder / "manifest.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    train = draw(40, 0)
    write(root / "train", *train)
    write(root / "real", *draw(30, 1))
    write(root / "good", *draw(24, 2))
    write(root / "copies", train[0][:24], train[1][:24])
    real = draw(30, 1)[0].astype(float)
    noise = np.random.default_rng(3).normal(0, 8, real.shape)
    write(root / "again", (real + noise).clip(0, 255).astype(np.uint8), suffix="_reconstructed")
    write(root / "unlabelled", draw(12, 4)[0])
    return root


def run(monkeypatch, *arguments):
    """Run the command; return the exit code."""
    monkeypatch.setattr(sys, "argv", ["prod9", "evaluate", *map(str, arguments)])
    try:
        main.run()
    except SystemExit as end:
        return end.code or 0
    return 0


def evaluated(monkeypatch, output, *arguments):
    assert run(monkeypatch, *arguments, "--output", output) == 0
    assert "<html" in (output / "report.html").read_text()
    return Evaluation.model_validate_json((output / "metrics.json").read_text())


def test_everything_at_once(folders, tmp_path, monkeypatch):
    found = evaluated(
        monkeypatch,
        tmp_path / "out",
        *("--real", folders / "real", "--generated", folders / "good"),
        *("--train", folders / "train", "--reconstructed", folders / "again"),
        *("--features", "classifier"),
    )
    g = found.generation
    assert (g.volumes, g.class_accuracy) == (24, 1.0)
    assert g.privacy.verdict == "no sign of copying"
    assert [space.key for space in g.spaces] == ["classifier"]
    assert [row.trained_on for row in g.usefulness.rows][-1] == "real + generated"
    assert set(found.sets) == {"real", "generated", "train", "reconstructed"}
    assert found.sets["real"].classes == {"dark": 15, "light": 15}
    r = found.reconstruction
    assert r.volumes == 30
    # Noise of 8 / 255, cut off at 255 and to whole numbers: near 20 log10(255 / 8).
    assert r.psnr == pytest.approx(30.1, abs=0.4)
    with (tmp_path / "out" / "reconstruction.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert np.mean([float(row["psnr"]) for row in rows]) == pytest.approx(r.psnr)


def test_same_seed_same_figures(folders, tmp_path, monkeypatch):
    def figures(name):
        found = evaluated(
            monkeypatch,
            tmp_path / name,
            *("--real", folders / "real", "--generated", folders / "good"),
            *("--train", folders / "train", "--features", "classifier"),
        )
        return found.model_dump(exclude={"seconds", "provenance"})

    assert figures("one") == figures("two")


def test_a_generator_that_replays_its_training_set_fails_loudly(
    folders, tmp_path, monkeypatch, capsys
):
    found = evaluated(
        monkeypatch,
        tmp_path / "out",
        *("--real", folders / "real", "--generated", folders / "copies"),
        *("--train", folders / "train", "--features", "classifier", "--no-usefulness"),
    )
    assert found.generation.privacy.verdict == "copies"
    assert found.generation.privacy.spaces[0].near_duplicates == 24
    assert found.warnings[0].startswith("Privacy: copies.")
    assert "warning: Privacy: copies." in capsys.readouterr().err
    assert "Privacy: copies." in (tmp_path / "out" / "report.html").read_text()


def test_folders_without_labels_and_training_volumes(folders, tmp_path, monkeypatch):
    found = evaluated(
        monkeypatch,
        tmp_path / "out",
        *("--real", folders / "real", "--generated", folders / "unlabelled"),
        *("--features", "efficientnet"),
    )
    g = found.generation
    assert [space.key for space in g.spaces] == ["efficientnet"]
    assert (g.class_accuracy, g.privacy, g.usefulness) == (None, None, None)
    assert any("--train" in warning for warning in found.warnings)
    assert g.spaces[0].floor_of == "12 real volumes against 15 others of the same set"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--real", "real"), "--generated DIR"),
        (("--real", "nowhere", "--generated", "good"), "nowhere"),
        (
            ("--real", "real", "--generated", "good", "--features", "vgg"),
            "choose from efficientnet",
        ),
        (("--real", "real", "--generated", "empty"), "empty"),
        (("--real", "real", "--generated", "small"), "resample"),
        (("--real", "real", "--generated", "torn"), "torn"),
        (("--real", "real", "--generated", "good", "--train", "real"), "held out"),
        (("--real", "real", "--generated", "good", "--medicalnet", "no.pth"), "no.pth"),
    ],
)
def test_mistakes_get_one_sentence(folders, tmp_path, monkeypatch, capsys, arguments, sentence):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "small", draw(4, 5)[0][:, :12, :12, :12])
    write(tmp_path / "torn", draw(3, 5)[0])
    whole = (tmp_path / "torn" / "001.nii.gz").read_bytes()
    (tmp_path / "torn" / "001.nii.gz").write_bytes(whole[: len(whole) // 2])

    def place(word):
        for root in (tmp_path, folders):
            if (root / word).is_dir():
                return root / word
        return word

    code = run(monkeypatch, *map(place, arguments), "--output", tmp_path / "out")
    error = capsys.readouterr().err
    assert code == 2, error
    assert sentence in error
    assert "Traceback" not in error
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_results_are_not_overwritten(folders, tmp_path, monkeypatch, capsys):
    arguments = ("--real", folders / "real", "--reconstructed", folders / "again")
    assert run(monkeypatch, *arguments, "--output", tmp_path) == 0
    first = (tmp_path / "metrics.json").read_bytes()
    assert run(monkeypatch, *arguments, "--output", tmp_path) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "metrics.json").read_bytes() == first
    assert run(monkeypatch, *arguments, "--output", tmp_path, "--overwrite") == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["schema_version"] == 1


def test_the_function_takes_arrays_and_writes_nothing(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train, real, good = (draw(*given)[0] for given in ((40, 0), (30, 1), (24, 2)))
    given = {"features": ["efficientnet"], "usefulness": False}
    found = evaluate(real, good, train=train, reconstructed=real, **given)
    assert found.generation.privacy.verdict == "no sign of copying"
    assert found.reconstruction.psnr == float("inf")
    assert found.sets["generated"].name == "generated"
    again = evaluate(str(folders / "again"), folders / "unlabelled", **given)
    assert again.generation.volumes == 12
    assert capsys.readouterr().out == ""
    assert [*tmp_path.iterdir()] == []
    evaluate(real, good, output=tmp_path / "out", **given)
    assert (tmp_path / "out" / "report.html").exists()
