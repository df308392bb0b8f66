"""The verbs of ``prod9`` that use a model: what the older commands write, and what mistakes say."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from scan_files import OBLIQUE, head, stored, write_scan

from prod9.cli import autoencoder, main, transformer
from prod9.config import Stage2Config
from prod9.config.load import dump
from prod9.model import Model, save_transformer
from prod9.tokenizer import Tokenizer

SCRIPTS = {"prod9": main, "stage1": autoencoder, "stage2": transformer}
Run = Callable[..., str]
QUICK = ("--steps", 2, "--seed", 3)


@pytest.fixture(scope="module")
def place_once(
    make_scan_tokenizer: Callable[..., Tokenizer],
    make_scan_generator: Callable[..., Model],
    make_generator: Callable[..., Model],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Return a folder with two trained models, their configurations, and scans."""
    folder = tmp_path_factory.mktemp("place")
    data = {"dataset_name": "brats", "data_dir": "cohort", "batch_size": 2}
    tokenizer = make_scan_tokenizer()
    recorded = {"config_yaml": "sliding_window: {roi_size: [12, 12, 12]}\n"}
    tokenizer = Tokenizer(tokenizer.spec.model_copy(update=recorded), tokenizer.autoencoder)
    kinds = {
        "scans": (make_scan_generator(tokenizer), data),
        "cubes": (make_generator((28, 28, 28)), {"dataset_name": "organmnist3d", "batch_size": 2}),
    }
    for name, (model, source) in kinds.items():
        values = {
            "output_dir": name,
            "autoencoder_path": f"{name}.pt",
            "data": source,
            "seed": 7,
            "sliding_window": {"roi_size": [12, 12, 12]},
            "trainer": {"accelerator": "cpu"},
            "model": {"transformer": model.spec.transformer.model_dump(mode="json")},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
        model.tokenizer.save(folder / f"{name}.pt")
        recorded = dump(Stage2Config.model_validate(values))
        spec = model.spec.model_copy(update={"config_yaml": recorded})
        save_transformer(folder / name / "transformer.pt", spec, model.transformer)
    stage1 = {"output_dir": "one", "autoencoder_export_path": "scans.pt", "data": data}
    stage1 |= {"sliding_window": {"roi_size": [12, 12, 12]}, "trainer": {"accelerator": "cpu"}}
    (folder / "stage1.yaml").write_text(yaml.safe_dump(stage1))
    for number, name in enumerate(("t1", "t1ce", "t2", "flair")):
        write_scan(folder / f"{name}.nii.gz", head(number), OBLIQUE)
    hole = np.zeros((13, 12, 9), np.uint8)
    hole[4:7, 5:8, 3:5] = 1
    write_scan(folder / "hole.nii.gz", hole, OBLIQUE, np.uint8)
    return folder


@pytest.fixture
def place(place_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, a copy of that."""
    shutil.copytree(place_once, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Return what runs a console script, and returns its exit code, stdout and stderr."""

    def start(script: str, *words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
        with pytest.raises(SystemExit) as left:
            SCRIPTS[script].run()
        code = left.value.code or 0
        assert isinstance(code, int)
        return code, *capsys.readouterr()

    return start


@pytest.fixture
def run(call: Call) -> Run:
    """Return what gives stdout, or (of a mistake) the only sentence."""

    def start(script: str, *words: object, code: int = 0) -> str:
        left, out, err = call(script, *words)
        assert left == code, out + err
        if not code:
            return out
        assert not out
        assert err.startswith("error: ")
        assert err.count("\n") == 1, err
        return err.removeprefix("error: ").strip()

    return start


def same(one: str, two: str, names: str = "*") -> None:
    """Compare two folders: the same files, to the bit; pictures by their names."""
    files = [
        {path.relative_to(folder): path for path in Path(folder).rglob(names) if path.is_file()}
        for folder in (one, two)
    ]
    assert files[0].keys() == files[1].keys() != set()
    for name, path in files[0].items():
        other = files[1][name]
        if name.name.endswith((".nii.gz", ".nii")):
            assert np.array_equal(stored(path), stored(other)), name
            assert np.array_equal(nib.nifti1.load(path).affine, nib.nifti1.load(other).affine)
        elif name.suffix != ".png":
            assert path.read_bytes() == other.read_bytes(), name


@pytest.mark.parametrize("model", [["scans"], ["--model", "scans"], ["scans/transformer.pt"]])
def test_generate(run: Run, place: Path, model: list[str]) -> None:
    asked = ["-n", 2, *QUICK, "--guidance", 1.5, "--temperature", 0.9, "--shape", 8, 12, 10]
    said = run("prod9", "generate", *model, "--channel", "t1c", "-o", "a", *asked)
    assert said.strip() == "2 volumes, montage.png and manifest.json written to a"
    run("stage2", "generate", "-c", "scans.yaml", "--modality", "T1ce", "-o", "b", *asked)
    same("a", "b")
    assert json.loads(Path("a/manifest.json").read_text())["seed"] == 3


def test_generate_into_the_models_folder(run: Run, place: Path) -> None:
    asked = ["--class", "box", "-n", 1, "--steps", 1]
    run("prod9", "generate", "cubes", *asked)
    run("stage2", "generate", "-c", "cubes.yaml", *asked, "-o", "b")
    same("cubes/generated", "b")
    said = run("prod9", "generate", "cubes", code=2)
    assert said.startswith("cubes/generated already holds generated volumes; pass --overwrite")
    run("prod9", "generate", "cubes", *asked, "--resume")
    said = run("prod9", "generate", "cubes.yaml", code=2)
    assert said == "the model is no folder that could hold the volumes; give --output."


def test_translate(run: Run, place: Path) -> None:
    given = ["--source", "t2w=t2.nii.gz", "--source=T1=t1.nii.gz", "--samples", 2, *QUICK]
    said = run("prod9", "translate", "scans", *given, "--target=t2f", "-o", "a/f.nii")
    assert said.split()[:2] == ["a/f.nii", "a/f_draw-1.nii"]
    old = ["translate", "-c", "scans.yaml", *given, "--target=FLAIR"]
    run("stage2", *old, "-o", "b/f.nii")
    same("a", "b")


def test_translate_many(run: Run, call: Call, place: Path) -> None:
    for name, files in {"P1": ("t1", "t2"), "P2": ("t1", "t1ce", "t2"), "P3": ("t2",)}.items():
        (place / "many" / name).mkdir(parents=True)
        for file in files:
            shutil.copy(f"{file}.nii.gz", place / "many" / name / f"{name}_{file}.nii.gz")
    Path("many/P3/P3_t2.nii.gz").write_bytes(b"torn")
    asked = ["translate", "scans", "--input", "many", "--output", "made", *QUICK]
    sources = ["--source=T1=many/P1/P1_t1.nii.gz", "--source=T2=many/P1/P1_t2.nii.gz"]
    code, out, err = call("prod9", *asked)
    assert code == 2
    assert out.splitlines() == [
        "1 of 3: P1: made/P1/T1ce.nii.gz, made/P1/FLAIR.nii.gz",
        "2 of 3: P2: made/P2/FLAIR.nii.gz",
    ]
    bad, summary = err.splitlines()
    assert bad.startswith("3 of 3: P3: many/P3/P3_t2.nii.gz cannot be read")
    assert summary.startswith("error: 1 of 3 subjects are not complete (P3); the others are: ")
    old = ["translate", "-c", "scans.yaml", *QUICK, "--target=FLAIR", *sources]
    run("stage2", *old, "-o", "b/FLAIR.nii.gz")
    same("b", "made/P1", "FLAIR*")


def test_inpaint(run: Run, place: Path) -> None:
    given = ["--input", "t2.nii.gz", "--mask", "hole.nii.gz", *QUICK]
    run("prod9", "inpaint", "scans", *given, "--channel", "t2w", "-o", "a")
    run("stage2", "inpaint", "-c", "scans.yaml", *given, "--modality", "T2", "-o", "b")
    same("a", "b")
    said = run("prod9", "inpaint", "scans", *given, "-o", "c", code=2)
    assert said.startswith("the model has the channels T1, T1ce, T2, FLAIR; name one of them")


def test_inpaint_a_model_of_one_channel(
    run: Run,
    place: Path,
    make_scan_generator: Callable[..., Model],
    make_scan_tokenizer: Callable[..., Tokenizer],
) -> None:
    tokenizer = make_scan_tokenizer()
    spec = tokenizer.spec.model_copy(update={"class_names": ("CT",)})
    model = make_scan_generator(Tokenizer(spec, tokenizer.autoencoder))
    model.tokenizer.save(Path("autoencoder.pt"))
    save_transformer(Path("ct/transformer.pt"), model.spec, model.transformer)
    given = ["--input", "t2.nii.gz", "--mask", "hole.nii.gz", *QUICK]
    run("prod9", "inpaint", "ct", *given, "-o", "a")
    run("prod9", "inpaint", "ct", *given, "--channel", "ct", "-o", "b")
    same("a", "b")
    run("prod9", "inpaint", "ct", *given, "--channel", "T1", "-o", "c", code=2)


@pytest.mark.parametrize("model", ["scans.pt", "scans", "stage1.yaml"])
def test_reconstruct_encode_decode(run: Run, place: Path, model: str) -> None:
    files = ["t1.nii.gz", "t2.nii.gz"]
    said = run("prod9", "reconstruct", model, *files, "-o", "a", "--save-tokens")
    assert said.startswith("t1.nii.gz -> a/t1_reconstructed.nii.gz: PSNR ")
    old = ["infer", "-c", "stage1.yaml", "-o", "b", "--save-tokens"]
    assert run("stage1", *old, "-i", files[0], "-i", files[1]) == said.replace("a/", "b/")
    same("a", "b")
    said = run("prod9", "encode", "--model", model, *files, "-o", "tokens")
    assert "t1.nii.gz -> tokens/t1.tokens.npz: 6 x 8 x 9 tokens of 60 codes" in said
    for name in ("t1", "t2"):
        tokens = Path(f"tokens/{name}.tokens.npz").read_bytes()
        assert tokens == Path(f"a/{name}_reconstructed.tokens.npz").read_bytes()
    tokens = ["tokens/t1.tokens.npz", "tokens/t2.tokens.npz"]
    run("prod9", "decode", model, *tokens, "-o", "c")
    run("stage1", *old[:3], "-o", "d", "--from-tokens", tokens[0], "--from-tokens", tokens[1])
    same("c", "d")


MISTAKES = {
    ("generate", "-o", "x"): "give the model once: its path as MODEL, or --model PATH.",
    ("generate", "scans", "--model", "scans"): "give the model once",
    ("generate", "none", "-o", "x"): "there is no file none; train first",
    ("generate", "scans.pt", "-o", "x"): "scans.pt is a tokenizer, which generates nothing; ",
    ("generate", "scans", "--channel", "PD"): "this model knows no class or channel PD; ",
    ("generate", "scans", "--device", "gpu0"): "PyTorch can use no device gpu0 here; ",
    ("generate", "scans", "--shape", "0", "8", "8"): "--shape takes three sides of at least 1 with",
    ("generate", "scans", "--resume", "--overwrite"): "--resume goes on and --overwrite begins ",
    ("translate", "scans", "-o", "x.nii"): "give --source CHANNEL=FILE for one subject, or ",
    ("translate", "scans", "--source", "T1=t1.nii.gz", "-o", "x.nii"): "give --target CHANNEL",
    (
        *("translate", "scans", "--source", "T1=none.nii", "--target", "T2", "-o", "x.nii"),
    ): "none.nii does not exist; check the path.",
    ("translate", "scans", "--input", "none", "-o", "x"): "none does not exist or is no folder; ",
    ("translate", "scans", "--input", ".", "-o", "x"): "--output x is inside .",
    ("translate", "scans", "-i", "cubes", "-o", "x"): "cubes holds no volume that is named after",
    ("translate", "cubes", "--input", ".", "-o", "x"): "this model has one channel",
    ("reconstruct", "scans", "-o", "x"): "give the files after the model: prod9 reconstruct MODEL",
    ("reconstruct", "none", "t1.nii.gz", "-o", "x"): "there is no file none; ",
    ("encode", "scans", "none.nii", "-o", "x"): "none.nii does not exist; check the path.",
    ("encode", "scans", "t1.nii.gz", "./t1.nii.gz", "-o", "x"): "t1.nii.gz and t1.nii.gz have the",
    ("decode", "scans", "none.npz", "-o", "x"): "none.npz does not exist; check the path.",
    ("decode", "scans", "t1.nii.gz", "-o", "x"): "t1.nii.gz ",
}


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_mistakes(run: Run, place: Path, words: tuple[str, ...]) -> None:
    assert run("prod9", *words, code=2).startswith(MISTAKES[words])
    assert not list(place.glob("x*"))


def test_results_in_the_way(run: Run, place: Path) -> None:
    for words, there in (
        (("encode", "scans", "t1.nii.gz"), "t1.tokens.npz"),
        (("reconstruct", "scans", "t1.nii.gz"), "t1_reconstructed.nii.gz"),
    ):
        target = place / "out" / there
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(b"mine")
        said = run("prod9", *words, "-o", "out", code=2)
        assert said == f"out/{there} exists; pass --overwrite to replace it."
        assert target.read_bytes() == b"mine"
        run("prod9", *words, "-o", "out", "--overwrite")
        assert target.read_bytes() != b"mine"


def test_help_groups_the_verbs(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    sections = run("prod9", "--help").split("\n\n")[3:]
    found = {
        section.split(":\n")[0]: [line.split()[0] for line in section.splitlines()[1:]]
        for section in sections
    }
    assert [*found] == ["Make a model", "Use a model", "Look and measure", "Data and machine"]
    used = ["generate", "translate", "inpaint", "reconstruct", "encode", "decode", "edit"]
    assert found["Use a model"] == used
    assert {"demo", "plan"} <= {*found["Make a model"]}
    assert {"evaluate", "view"} <= {*found["Look and measure"]}
    assert {"data", "doctor"} <= {*found["Data and machine"]}
