"""A model that has learned labels: images of a mask, pairs, label maps of images; wrong masks."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from labelled_model import AFFINE, SHAPE, VALUES, labelled_model, labels, write
from typer.testing import CliRunner

from prod9.cli.main import app
from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.stored_volume import StoredVolume
from prod9.errors import Prod9Error
from prod9.inference.labelled import encode_mask, vote
from prod9.inference.load import load
from prod9.inference.model import Model


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labelled") / "model"
    labelled_model().save(path)
    return path


CUBES = np.diag([1.0, 1.0, 1.0, 1.0])


def model_at(path: Path) -> Model:
    found = load(path)
    assert isinstance(found, Model)
    return found


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [*map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_images_of_a_mask_lie_on_its_grid(model_path: Path, tmp_path: Path) -> None:
    mask = write(tmp_path / "seg.nii.gz", labels())
    run("generate", model_path, "--mask", mask, "-n", 2, "--output", tmp_path / "made")
    names = ["0000_T1", "0001_T2", "0002_T1", "0003_T2"]  # all channels of a subject together
    found = [nib.load(tmp_path / "made" / f"{name}.nii.gz") for name in names]
    assert all(image.shape == SHAPE for image in found)
    assert all(np.allclose(image.affine, AFFINE) for image in found)
    arrays = [np.asanyarray(image.dataobj) for image in found]
    assert not np.array_equal(arrays[0], arrays[2])  # samples differ
    images = model_at(model_path).generate(n=2, mask=mask)
    for image, array in zip(images, arrays, strict=True):
        assert np.abs(image.get_fdata() * 255 - array).max() <= 0.51


def test_pairs_have_labels_of_the_data_alone(model_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    run("generate", model_path, "--with-labels", "-n", 2, "--output", folder)
    names = sorted(path.name for path in folder.glob("*.nii.gz"))
    assert sorted(path.name for path in (folder / "labels").iterdir()) == names
    maps = [np.asanyarray(nib.load(folder / "labels" / name).dataobj) for name in names]
    assert all(array.dtype == np.uint8 and {*np.unique(array)} <= {*VALUES} for array in maps)
    assert np.array_equal(maps[0], maps[1])  # T1 and T2 of one subject
    assert not np.array_equal(maps[0], maps[2])
    pairs = model_at(model_path).generate_pairs(n=2)
    for number, pair in enumerate(pairs):
        assert np.array_equal(np.asanyarray(pair.labels.dataobj), maps[2 * number])
        assert len(pair.images) == 2
    run("generate", model_path, "--with-labels", "-n", 1, "--output", folder, "--overwrite")
    assert len([*(folder / "labels").iterdir()]) == 2


def test_an_interrupted_set_of_pairs_goes_on_the_same(model_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    words = ("generate", model_path, "--with-labels", "-n", 2, "--output", folder)
    run(*words)
    before = {path: path.read_bytes() for path in folder.rglob("*.nii.gz")}
    record = json.loads((folder / "manifest.json").read_text())
    record["labels"] = [each["label"] for each in record.pop("samples")]
    (folder / "manifest.json").unlink()
    (folder / "unfinished.json").write_text(json.dumps(record))
    (folder / "0003_T2.nii.gz").unlink()
    run(*words, "--resume")
    after = {path: nib.load(path).get_fdata() for path in folder.rglob("*.nii.gz")}
    assert {*after} == {*before}


def test_a_label_map_is_made_from_an_image(model_path: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).uniform(50, 900, SHAPE).astype(np.int16)
    t1 = write(tmp_path / "T1.nii.gz", image)
    output = tmp_path / "seg.nii.gz"
    run("translate", model_path, "--source", f"T1={t1}", "--target", "seg", "--samples", 3,
        "--output", output)  # fmt: skip
    found = nib.load(output)
    assert found.shape == SHAPE
    assert np.allclose(found.affine, AFFINE)
    draws = [np.asanyarray(nib.load(tmp_path / f"seg_draw-{k}.nii.gz").dataobj) for k in (1, 2, 3)]
    for array in (np.asanyarray(found.dataobj), *draws):
        assert array.dtype == np.uint8
        assert {*np.unique(array)} <= {*VALUES}
    uncertain = np.asanyarray(nib.load(tmp_path / "seg_std.nii.gz").dataobj)
    agreed = np.mean([draw == np.asanyarray(found.dataobj) for draw in draws], 0)
    assert np.allclose(uncertain, 1 - agreed)
    # And it is a source beside another image.
    run("translate", model_path, "--source", f"T1={t1}", "--source", f"seg={output}", "--target",
        "T2", "--output", tmp_path / "t2.nii.gz")  # fmt: skip


def test_votes() -> None:
    samples = np.array([[0, 2, 7], [0, 7, 7], [2, 7, 0], [0, 7, 2]])[:, None, None]
    best, share = vote(samples)
    assert best.ravel().tolist() == [0, 7, 7]
    assert share.ravel().tolist() == [0.25, 0.25, 0.5]


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (labels() * 0, "is empty"),
        (labels() + 0.25 * (labels() > 0), "with fractions"),
        (np.where(labels() == 7, 5, labels()), "has the label 5; known are 0, 2, 7"),
    ],
)
def test_wrong_masks(model_path: Path, tmp_path: Path, array: np.ndarray, said: str) -> None:
    path = write(tmp_path / "seg.nii.gz", array.astype(np.float32))
    with pytest.raises(Prod9Error, match=said):
        run("generate", model_path, "--mask", path, "--output", tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_mask_on_another_grid_than_the_image(model_path: Path, tmp_path: Path) -> None:
    t1 = write(tmp_path / "T1.nii.gz", np.arange(12 * 16 * 12).reshape(SHAPE).astype(np.int16))
    mask = write(tmp_path / "seg.nii.gz", labels((12, 16, 14)))
    with pytest.raises(Prod9Error, match="is on another grid than"):
        run("translate", model_path, "--source", f"T1={t1}", "--source", f"seg={mask}",
            "--target", "T2", "--output", tmp_path / "t2.nii.gz")  # fmt: skip


def test_a_model_without_labels(model_folder: Path, tmp_path: Path) -> None:
    mask = write(tmp_path / "seg.nii.gz", labels())
    for words in (("--mask", mask), ("--with-labels",)):
        with pytest.raises(Prod9Error, match="has learned no label maps"):
            run("generate", model_folder, *words, "--output", tmp_path / "made")


def test_covariates(model_path: Path, tmp_path: Path) -> None:
    words = ("generate", model_path, "--channel", "T1", "-n", 1, "--seed", 3, "--output")
    found = []
    for number, given in enumerate(([], ["age=30"], ["age=90"], ["age=90", "sex=F"])):
        options = [word for each in given for word in ("--covariate", each)]
        run(*words, tmp_path / str(number), *options)
        found.append(np.asanyarray(nib.load(tmp_path / str(number) / "0000_T1.nii.gz").dataobj))
    assert all(not np.array_equal(found[0], other) for other in found[1:])
    assert not np.array_equal(found[1], found[2])
    assert not np.array_equal(found[2], found[3])
    (image,) = model_at(model_path).generate("T1", seed=3, covariates={"age": 90, "sex": "F"})
    assert np.abs(image.get_fdata() * 255 - found[3]).max() <= 0.51
    (without,) = model_at(model_path).generate("T1", seed=3)
    assert np.abs(without.get_fdata() * 255 - found[0]).max() <= 0.51


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("height=180", "knows no covariate height; it knows age, sex"),
        ("sex=X", "sex is one of F, M, not X"),
        ("age=old", "age is a number, not old"),
        ("age=nan", "age is a number, not nan"),
        ("age", "write each once, as NAME=VALUE"),
    ],
)
def test_wrong_covariates(model_path: Path, tmp_path: Path, given: str, said: str) -> None:
    with pytest.raises(Prod9Error, match=said):
        run("generate", model_path, "--covariate", given, "--output", tmp_path / "made")


def test_the_image_depends_on_the_mask(model_path: Path, tmp_path: Path) -> None:
    model = model_at(model_path)
    masks = [write(tmp_path / "a.nii.gz", labels()), write(tmp_path / "b.nii.gz", labels()[::-1])]
    one, other = (model.generate("T1", mask=mask, seed=0)[0].get_fdata() for mask in masks)
    assert not np.array_equal(one, other)


def test_a_mask_survives_the_way_to_the_network_and_back(model_path: Path) -> None:
    """Axes that point elsewhere, and spacing that is not the model's along one of them."""
    network = model_at(model_path).network
    affine = np.diag([-1.0, 1.0, -0.5, 1.0])
    array = np.repeat(labels()[::-1, :, ::-1], 2, axis=2)  # pairs of equal slices
    found = encode_mask(network, StoredVolume.of(array, Path("seg.nii.gz"), affine))
    assert found.placement.shape == SHAPE
    back = found.codes.decode(found.tokens.numpy(), SHAPE)
    assert np.array_equal(back, labels())
    assert np.array_equal(found.placement.invert_nearest(back), array)


@pytest.fixture(scope="module")
def two_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two channels of labels; only the second knows label 9."""
    path = tmp_path_factory.mktemp("two") / "model"
    labelled_model(lesion=(0, 2, 9)).save(path)
    return path


def test_a_mask_is_of_the_channel_that_it_fits(two_kinds: Path, tmp_path: Path) -> None:
    network = model_at(two_kinds).network
    nine = np.where(labels() == 7, 9, labels())
    alike = np.where(labels() == 7, 2, labels())
    given = {"a.nii.gz": labels(), "b.nii.gz": nine, "lesion.nii": alike}
    stored = {name: read_volume(write(tmp_path / name, array)) for name, array in given.items()}
    channels = [encode_mask(network, each).codes.channel for each in stored.values()]
    assert channels == ["seg", "lesion", "lesion"]
    path = write(tmp_path / "mask.nii.gz", alike)
    with pytest.raises(Prod9Error, match=r"fits several .*seg, lesion.*--mask CHANNEL=FILE"):
        run("generate", two_kinds, "--mask", path, "--output", tmp_path / "made")
    with pytest.raises(Prod9Error, match="fits none of"):
        encode_mask(network, read_volume(write(tmp_path / "c.nii.gz", labels() + (labels() == 2))))
    arrays = []
    for channel in ("seg", "lesion"):
        folder, words = tmp_path / channel, ("--channel", "T1", "-n", 1)
        run("generate", two_kinds, "--mask", f"{channel}={path}", *words, "--output", folder)
        arrays.append(np.asanyarray(nib.load(folder / "0000_T1.nii.gz").dataobj))
        (image,) = model_at(two_kinds).generate("T1", mask=path, mask_channel=channel)
        assert np.abs(image.get_fdata() * 255 - arrays[-1]).max() <= 0.51
    assert not np.array_equal(*arrays)


def test_guidance_of_the_mask_alone(model_path: Path, tmp_path: Path) -> None:
    mask = write(tmp_path / "seg.nii.gz", labels())
    words = ("generate", model_path, "--mask", mask, "--channel", "T1", "-n", 1, "--steps", 3)
    found = []
    for number, more in enumerate(((), ("--guidance-labels", 1.5), ("--guidance-labels", 6))):
        run(*words, *more, "--output", tmp_path / str(number))
        found.append(np.asanyarray(nib.load(tmp_path / str(number) / "0000_T1.nii.gz").dataobj))
    assert np.array_equal(found[0], found[1])  # as --guidance is when left out
    assert not np.array_equal(found[0], found[2])


# --- a scan, drawn anew where its labels were edited ---------------------------------------------


def test_only_cells_that_an_edit_touches_are_drawn(model_path: Path, tmp_path: Path) -> None:
    array = np.random.default_rng(0).uniform(50, 900, SHAPE).astype(np.int16)
    scan, old = (
        write(tmp_path / "T1.nii.gz", array, CUBES),
        write(tmp_path / "a.nii.gz", labels(), CUBES),
    )
    changed = labels()
    changed[8:12, 4:8, 0:4] = changed[10, 9, 8] = 2
    new = write(tmp_path / "b.nii.gz", changed, CUBES)
    words = ("inpaint", model_path, "--input", scan, "--channel", "T1")
    run(*words, "--labels", old, "--edited", new, "--output", tmp_path / "out")
    image = nib.load(tmp_path / "out" / "T1_inpainted.nii.gz")
    found = np.asanyarray(image.dataobj)
    cells = np.zeros(SHAPE, bool)
    cells[8:12, 4:8, 0:4] = cells[8:12, 8:12, 8:12] = True  # of 4 voxels a side
    assert found.dtype == array.dtype
    assert np.array_equal(found[~cells], array[~cells])
    assert (found != array)[cells].mean() > 0.9
    model = model_at(model_path)
    (same,) = model.inpaint(scan, channel="T1", labels=old, edited=new)
    assert np.abs(same.get_fdata() - found).max() <= 0.51
    record = json.loads((tmp_path / "out" / "T1_inpainted.json").read_text())
    assert record["labels"] == [str(old), str(new)]
    mask = write(tmp_path / "mask.nii.gz", cells.astype(np.uint8), CUBES)
    (without,) = model.inpaint(scan, mask, channel="T1")  # the same cells, without the labels
    assert not np.array_equal(without.get_fdata(), same.get_fdata())
    nothing = write(tmp_path / "none.nii.gz", labels() * 0, CUBES)  # a label that is taken away
    assert model.inpaint(scan, channel="T1", labels=old, edited=nothing)


def test_edits_that_do_not_fit(model_path: Path, model_folder: Path, tmp_path: Path) -> None:
    array = np.random.default_rng(0).uniform(50, 900, SHAPE).astype(np.int16)
    scan, old = write(tmp_path / "T1.nii.gz", array), write(tmp_path / "a.nii.gz", labels())
    other = write(tmp_path / "b.nii.gz", labels((12, 16, 14)))
    words = ("--input", scan, "--output", tmp_path / "out", "--channel", "T1")
    for more, said in (
        (("--labels", old, "--edited", old), "are alike"),
        (("--labels", old, "--edited", other), "on another grid"),
        (("--labels", old), "--labels and --edited, both"),
        (("--labels", old, "--edited", old, "--mask", old), "--labels and --edited, both"),
        ((), "give --mask"),
    ):
        with pytest.raises(Prod9Error, match=said):
            run("inpaint", model_path, *words, *more)
    with pytest.raises(Prod9Error, match="has learned no label maps"):
        run("inpaint", model_folder, *words, "--labels", old, "--edited", old)
    assert not (tmp_path / "out").exists()
