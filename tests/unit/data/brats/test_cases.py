import gzip
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from prod9.data.brats.cases import read_case
from prod9.data.brats.layouts import MODALITIES, BadCase, Case, find_cases
from prod9.data.folder.inspection import Inspection, inspect_folder
from prod9.errors import Prod9Error

SHAPE = (8, 9, 7)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
LPS[1, 3] = 239.0
ENDINGS = {
    "2018-2021": ("_t1", "_t1ce", "_t2", "_flair"),
    "2023-2024": ("-t1n", "-t1c", "-t2w", "-t2f"),
}
NAMES = {"2018-2021": "BraTS2021_00001", "2023-2024": "BraTS-GLI-00001-000", "msd": "BRATS_001"}
PUBLISHED_CHANNELS = ("FLAIR", "T1", "T1ce", "T2")


def scan(modality: str, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    random = np.random.default_rng([seed, MODALITIES.index(modality)])
    return random.integers(0, 900, shape, dtype=np.int16)


def nifti(path: Path, array: np.ndarray, affine: np.ndarray = LPS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine, dtype=array.dtype)
    image.set_sform(affine, code=1)
    nib.save(image, path)
    return path


def write(
    folder: Path, name: str, suffix: str = ".nii.gz", seg: bool = True, **change: np.ndarray
) -> Path:
    """A case in a folder of its own; ``change`` has arrays for some of the modalities."""
    release = "2023-2024" if name.startswith("BraTS-") else "2018-2021"
    for modality, ending in zip(MODALITIES, ENDINGS[release], strict=True):
        array = change.get(modality, scan(modality))
        nifti(folder / name / f"{name}{ending}{suffix}", array)
    if seg:
        labels = (scan("T1") % 4).astype(np.uint8)
        nifti(folder / name / f"{name}{ENDINGS[release][0][0]}seg{suffix}", labels)
    return folder / name


def write_decathlon(
    root: Path,
    name: str = "BRATS_001",
    described: Any = None,
    channels: tuple[str, ...] = PUBLISHED_CHANNELS,
    **change: np.ndarray,
) -> Path:
    arrays = [change.get(channel, scan(channel)) for channel in channels]
    nifti(root / "labelsTr" / f"{name}.nii.gz", (scan("T1") % 4).astype(np.uint8))
    if described is not None:
        (root / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    return nifti(root / "imagesTr" / f"{name}.nii.gz", np.stack(arrays, -1))


def only_case(root: Path) -> Case:
    cohort = find_cases(root)
    assert cohort.bad == ()
    (case,) = cohort.cases
    return case


def refused(case: Case) -> str:
    with pytest.raises(BadCase) as caught:
        read_case(case)
    error, message = caught.value, str(caught.value)
    assert message == f"case {case.name} {error.cause}."
    assert error.name == case.name
    assert "\n" not in message
    return message


def cause(root: Path) -> str:
    cohort = find_cases(root)
    assert cohort.cases == ()
    (bad,) = cohort.bad
    return bad.cause


def nothing(root: Path) -> str:
    with pytest.raises(Prod9Error) as caught:
        find_cases(root)
    assert str(root) in str(caught.value)
    return str(caught.value)


# Which files make up which case


@pytest.mark.parametrize(
    ("name", "subject", "release"),
    [
        ("Brats18_2013_2_1", "Brats18_2013_2_1", "2018-2021"),
        ("BraTS19_CBICA_AAB_1", "BraTS19_CBICA_AAB_1", "2018-2021"),
        ("BraTS20_Training_001", "BraTS20_Training_001", "2018-2021"),
        ("BraTS2021_00000", "BraTS2021_00000", "2018-2021"),
        ("BraTS-GLI-00000-000", "BraTS-GLI-00000", "2023-2024"),
        ("BraTS-GLI-02065-101", "BraTS-GLI-02065", "2023-2024"),
        ("BraTS-MET-00001-000", "BraTS-MET-00001", "2023-2024"),
        ("BraTS-PED-00002-000", "BraTS-PED-00002", "2023-2024"),
        ("BraTS-SSA-00002-000", "BraTS-SSA-00002", "2023-2024"),
        ("BraTS-MEN-00004-000", "BraTS-MEN-00004", "2023-2024"),
        ("BraTS-GoAT-00000", "BraTS-GoAT-00000", "2023-2024"),  # has no timepoints
    ],
)
def test_each_year_is_recognised_at_any_depth(
    tmp_path: Path, name: str, subject: str, release: str
) -> None:
    folder = write(tmp_path / "Training" / "HGG", name)
    case = only_case(tmp_path)
    assert (case.name, case.subject, case.release) == (name, subject, release)
    endings = ENDINGS[release]
    assert case.files == {
        modality: folder / f"{name}{ending}.nii.gz"
        for modality, ending in zip(MODALITIES, endings, strict=True)
    }
    assert tuple(case.files) == MODALITIES
    assert case.segmentation == folder / f"{name}{endings[0][0]}seg.nii.gz"


def test_the_decathlon_is_recognised_from_any_of_its_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = write_decathlon(tmp_path / "Task01_BrainTumour")
    labels = tmp_path / "Task01_BrainTumour" / "labelsTr" / "BRATS_001.nii.gz"
    for root in (tmp_path, image.parent.parent, image.parent):
        case = only_case(root)
        assert case == Case(
            "BRATS_001", "BRATS_001", "msd", dict.fromkeys(MODALITIES, image), labels
        )
    monkeypatch.chdir(image.parent)
    assert only_case(Path()).segmentation == labels
    labels.unlink()
    assert only_case(tmp_path).segmentation is None


def test_a_decathlon_label_is_no_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_decathlon(tmp_path)
    assert "labelsTr" in nothing(tmp_path / "labelsTr")
    monkeypatch.chdir(tmp_path / "labelsTr")
    with pytest.raises(Prod9Error, match="no BraTS case"):
        find_cases(Path())


def test_suffixes_in_capitals_and_unpacked(tmp_path: Path) -> None:
    folder = tmp_path / "case"
    for modality, ending in zip(
        MODALITIES, ("_T1.NII", "_T1ce.nii", "_T2.nii.gz", "_Flair.NII.GZ"), strict=True
    ):
        nifti(folder / "plain.nii", scan(modality))
        content = (folder / "plain.nii").read_bytes()
        packed = ending.lower().endswith(".gz")
        (folder / f"case{ending}").write_bytes(gzip.compress(content) if packed else content)
    (folder / "plain.nii").unlink()
    for volume, modality in zip(read_case(only_case(tmp_path)), MODALITIES, strict=True):
        assert np.array_equal(volume.array, scan(modality))


def test_what_macos_leaves_is_ignored(tmp_path: Path) -> None:
    folder = write(tmp_path, "BraTS2021_00001")
    (folder / "._BraTS2021_00001_t1.nii.gz").write_bytes(b"x")
    (folder / "._BraTS2021_00002_t1.nii.gz").write_bytes(b"x")
    write(tmp_path / "__MACOSX", "BraTS2021_00001")
    write(tmp_path / ".trash", "BraTS2021_00003")
    assert only_case(tmp_path).files["T1"] == folder / "BraTS2021_00001_t1.nii.gz"


def test_a_mixture_is_sorted_by_name_and_each_case_knows_its_release(tmp_path: Path) -> None:
    write_decathlon(tmp_path / "msd")
    for name in ("BraTS2021_00001", "BraTS-GLI-00001-001", "BraTS-GLI-00001-000"):
        write(tmp_path / "more", name)
    cohort = find_cases(tmp_path)
    assert [case.name for case in cohort.cases] == [
        "BRATS_001",
        "BraTS-GLI-00001-000",
        "BraTS-GLI-00001-001",
        "BraTS2021_00001",
    ]
    assert cohort.releases == ("2018-2021", "2023-2024", "msd")


def test_links_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path / "disk", "BraTS2021_00001")
    root = tmp_path / "data"
    root.mkdir()
    (root / "circle").symlink_to(root)
    (root / "here").symlink_to(tmp_path / "disk")
    (root / "twice").symlink_to(tmp_path / "disk")
    assert only_case(root).files["T1"].is_relative_to(root / "here")


@pytest.mark.parametrize(
    ("name", "ending", "expected"),
    [
        (NAMES["2018-2021"], "_t2", "has no T2 (no file ending in _t2.nii.gz or .nii)"),
        (NAMES["2018-2021"], "_t1", "has no T1 (no file ending in _t1.nii.gz or .nii)"),
        (NAMES["2023-2024"], "-t1c", "has no T1ce (no file ending in -t1c.nii.gz or .nii)"),
    ],
)
def test_a_missing_modality(tmp_path: Path, name: str, ending: str, expected: str) -> None:
    folder = write(tmp_path, name)
    (folder / f"{name}{ending}.nii.gz").unlink()
    assert cause(tmp_path) == f"{expected} in {folder}"


def test_a_segmentation_alone_is_a_case_too(tmp_path: Path) -> None:
    write(tmp_path, "BraTS2021_00001")
    for file in write(tmp_path, "BraTS2021_00002").glob("*_[tf]*"):
        file.unlink()
    cohort = find_cases(tmp_path)
    assert [case.name for case in cohort.cases] == ["BraTS2021_00001"]
    (bad,) = cohort.bad
    assert bad.name == "BraTS2021_00002"
    for modality, ending in zip(MODALITIES, ENDINGS["2018-2021"], strict=True):
        assert f"no {modality} (no file ending in {ending}.nii.gz" in bad.cause


def test_a_case_in_two_folders(tmp_path: Path) -> None:
    first = write(tmp_path / "HGG", "BraTS19_2013_2_1")
    second = write(tmp_path / "LGG", "BraTS19_2013_2_1")
    text = cause(tmp_path)
    for folder in (first, second):
        assert str(folder / "BraTS19_2013_2_1_") in text


def test_two_files_of_one_modality(tmp_path: Path) -> None:
    folder = write(tmp_path, "BraTS2021_00001")
    packed = folder / "BraTS2021_00001_t2.nii.gz"
    plain = nifti(folder / "BraTS2021_00001_t2.nii", scan("T2"))
    text = cause(tmp_path)
    assert "more than one file of T2" in text
    assert str(packed) in text
    assert f"{plain} " in text.replace(";", " ")


def test_two_files_of_one_decathlon_case(tmp_path: Path) -> None:
    packed = write_decathlon(tmp_path)
    plain = nifti(packed.with_suffix(""), np.stack([scan(m) for m in MODALITIES], -1))
    assert f"{plain} and {packed};" in cause(tmp_path)


def test_no_folder_and_no_cases(tmp_path: Path) -> None:
    assert "does not exist" in nothing(tmp_path / "none")
    (tmp_path / "brats.zip").write_bytes(b"PK")
    assert "unpacked" in nothing(tmp_path / "brats.zip")

    root = tmp_path / "empty"
    root.mkdir()
    message = nothing(root)
    for layout in ("_{t1,t1ce,t2,flair}.nii.gz", "-{t1n,t1c,t2w,t2f}.nii.gz", "BRATS_001.nii.gz"):
        assert layout in message
    nifti(root / "inner" / "head.nii", scan("T1"))
    assert f"such as {root / 'inner' / 'head.nii'}" in nothing(root)
    (root / "BraTS2021.tar").write_bytes(b"x")
    assert f"unpack {root / 'BraTS2021.tar'}" in nothing(root)


# Voxels


@pytest.fixture(params=["2018-2021", "2023-2024", "msd"])
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Case]:
    """Writes one case in a layout, with arrays for some modalities if given."""

    def make(**change: np.ndarray) -> Case:
        if request.param == "msd":
            write_decathlon(tmp_path, **change)
        else:
            write(tmp_path, NAMES[request.param], **change)
        return only_case(tmp_path)

    return make


def test_every_layout_reads_to_the_same_arrays(layout: Callable[..., Case]) -> None:
    for volume, modality in zip(read_case(layout()), MODALITIES, strict=True):
        assert volume.array.dtype == np.float32
        assert np.array_equal(volume.array, scan(modality))
        assert volume.affine.dtype == np.float64
        assert np.array_equal(volume.affine, LPS)


@pytest.mark.parametrize(("bad", "count"), [(np.nan, 2), (np.inf, 1)])
def test_nan_and_infinity(layout: Callable[..., Case], bad: float, count: int) -> None:
    array = scan("T2").astype(np.float32)
    array.flat[5 : 5 + count] = bad
    case = layout(T2=array, **{m: scan(m).astype(np.float32) for m in MODALITIES if m != "T2"})
    message = refused(case)
    assert f"{count} of 504 voxels" in message
    assert str(case.files["T2"]) in message


@pytest.mark.parametrize("constant", [0, 7])
def test_an_empty_volume(layout: Callable[..., Case], constant: int) -> None:
    case = layout(FLAIR=np.full(SHAPE, constant, np.int16))
    message = refused(case)
    assert "has an empty FLAIR" in message
    assert f"all voxels of {case.files['FLAIR']} are {constant};" in message


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.97])
def test_a_truncated_file(layout: Callable[..., Case], keep: float) -> None:
    case = layout()
    path = case.files["T1ce"]
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    message = refused(case)
    assert f"{path} cannot be read" in message


def test_a_file_without_its_last_byte_or_with_a_flipped_bit(layout: Callable[..., Case]) -> None:
    case = layout()
    path = case.files["T1ce"]
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert str(path) in refused(case)
    # A bit that changes voxels and nothing else: only the checksum tells.
    voxels = bytearray(gzip.decompress(content))
    voxels[-1] ^= 1
    path.write_bytes(gzip.compress(voxels)[:-8] + content[-8:])
    assert f"{path} cannot be read" in refused(case)


def test_a_file_that_is_gone(layout: Callable[..., Case]) -> None:
    case = layout()
    case.files["T1"].unlink()
    assert f"{case.files['T1']} does not exist" in refused(case)


def test_an_affine_without_volume_or_numbers(layout: Callable[..., Case], tmp_path: Path) -> None:
    case = layout()
    for affine, expected in (
        (np.diag([1.0, 1, 0, 1]), "span no volume"),
        (LPS * np.nan, "NaN"),
    ):
        for path in set(case.files.values()):
            image: Any = nib.load(path)
            array = np.asanyarray(image.dataobj)
            path.unlink()
            image = nib.Nifti1Image(array, LPS)
            image.set_qform(None, code=0)
            image.header["sform_code"] = 1
            for name, row in zip(("srow_x", "srow_y", "srow_z"), affine, strict=False):
                image.header[name] = row
            image.to_filename(path)
            raw = bytearray(gzip.decompress(path.read_bytes()))
            raw[280:328] = affine[:3].astype("<f4").tobytes()  # nibabel writes its own affine
            path.write_bytes(gzip.compress(raw))
        message = refused(case)
        assert expected in message
        assert str(case.files["T1"]) in message


@pytest.mark.parametrize("modality", ["T1", "T2"])
def test_a_4d_file_where_3d_is_expected(tmp_path: Path, modality: str) -> None:
    case = only_case(
        write(tmp_path, "BraTS2021_00001", **{modality: scan("T1", shape=(8, 9, 7, 2))})
    )
    message = refused(case)
    assert "8 x 9 x 7 x 2" in message
    assert str(case.files[modality]) in message


def test_another_shape(tmp_path: Path) -> None:
    case = only_case(write(tmp_path, "BraTS2021_00001", T2=scan("T2", shape=(8, 9, 6))))
    message = refused(case)
    for words in ("two grids", "8 x 9 x 7 and 8 x 9 x 6 voxels"):
        assert words in message
    for modality in ("T1", "T2"):
        assert f"{modality} ({case.files[modality]})" in message


@pytest.mark.parametrize(("scale", "good"), [(1 + 1e-4, True), (1 + 2e-4, False)])
def test_grids_may_differ_by_a_micrometre_at_the_far_corner(
    tmp_path: Path, scale: float, good: bool
) -> None:
    folder = write(tmp_path, "BraTS2021_00001")
    affine = LPS.copy()
    affine[1, 1] *= scale  # eight voxels along: 0.0008 or 0.0016 mm
    nifti(folder / "BraTS2021_00001_flair.nii.gz", scan("FLAIR"), affine)
    case = only_case(tmp_path)
    if good:
        assert np.array_equal(read_case(case)[0].affine, LPS)
    else:
        message = refused(case)
        assert "two grids" in message
        assert "0.0016 mm apart" in message
        assert str(case.files["FLAIR"]) in message


@pytest.mark.parametrize(
    "described",
    [
        {"modality": {"0": "T2w", "1": "FLAIR", "2": "T1w", "3": "T1gd"}},
        {"modality": {"3": "t1gd", "2": "t1w", "1": "flair", "0": "t2w"}},
        {"modality": ["T2", "FLAIR", "T1", "T1ce"]},
    ],
)
def test_the_decathlon_says_which_channel_is_which(tmp_path: Path, described: Any) -> None:
    write_decathlon(tmp_path, described=described, channels=("T2", "FLAIR", "T1", "T1ce"))
    for volume, modality in zip(read_case(only_case(tmp_path)), MODALITIES, strict=True):
        assert np.array_equal(volume.array, scan(modality))


def test_the_decathlon_may_say_nothing_of_channels(tmp_path: Path) -> None:
    write_decathlon(tmp_path, described={"name": "BRATS"})
    assert np.array_equal(read_case(only_case(tmp_path))[3].array, scan("FLAIR"))


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"modality": {"0": "FLAIR", "1": "T1w", "2": "T2w"}}, "names the channels FLAIR, T1, T2;"),
        ({"modality": {"0": "FLAIR", "1": "T1w", "2": "T1w", "3": "T2w"}}, "each once"),
        ({"modality": {"0": "FLAIR", "1": "T1w", "2": "DWI", "3": "T2w"}}, "DWI"),
        ({"modality": {"0": "FLAIR", "1": "T1w", "2": "T1gd", "4": "T2w"}}, "does not say which"),
        ({"modality": {"zero": "FLAIR"}}, "does not say which"),
        ({"modality": [1, 2, 3, 4]}, "does not say which"),
        ({"modality": 4}, "does not say which"),
        ([], "does not say which"),
    ],
)
def test_wrong_channels_in_the_description(tmp_path: Path, described: Any, words: str) -> None:
    write_decathlon(tmp_path, described=described)
    message = refused(only_case(tmp_path))
    assert words in message
    assert str(tmp_path / "dataset.json") in message


def test_a_damaged_description(tmp_path: Path) -> None:
    write_decathlon(tmp_path)
    (tmp_path / "dataset.json").write_text("{", encoding="utf-8")
    assert f"{tmp_path / 'dataset.json'} does not say" in refused(only_case(tmp_path))


@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 3), (*SHAPE, 1, 4), (*SHAPE, 4, 2)])
def test_a_decathlon_file_of_another_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = nifti(tmp_path / "imagesTr" / "BRATS_001.nii.gz", scan("T1", shape=shape))
    message = refused(only_case(tmp_path))
    assert f"{path} has the shape {' x '.join(map(str, shape))};" in message
    assert "FLAIR, T1, T1ce, T2" in message


def test_a_decathlon_file_with_a_fifth_axis_of_one(tmp_path: Path) -> None:
    channels = np.stack([scan(channel) for channel in PUBLISHED_CHANNELS], -1)
    nifti(tmp_path / "imagesTr" / "BRATS_001.nii", channels[..., None])
    assert np.array_equal(read_case(only_case(tmp_path))[1].array, scan("T1ce"))


def test_a_decathlon_file_scaled_by_a_slope(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.stack([scan(c) for c in PUBLISHED_CHANNELS], -1), LPS)
    image.header.set_slope_inter(0.5, 3)
    (tmp_path / "imagesTr").mkdir()
    nib.save(image, tmp_path / "imagesTr" / "BRATS_001.nii.gz")
    assert np.array_equal(read_case(only_case(tmp_path))[0].array, scan("T1") * 0.5 + 3)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_forged_decathlon_size_is_refused_before_allocating(tmp_path: Path, suffix: str) -> None:
    plain = nifti(tmp_path / "case.nii", np.stack([scan(m) for m in MODALITIES], -1))
    content = bytearray(plain.read_bytes())
    content[42:48] = np.array([30_000] * 3, "<i2").tobytes()
    path = tmp_path / "imagesTr" / f"BRATS_001{suffix}"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    assert "30000 x 30000 x 30000 x 4" in refused(only_case(tmp_path))


def test_a_decathlon_file_of_colours_is_refused(tmp_path: Path) -> None:
    colours = np.zeros((*SHAPE, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nifti(tmp_path / "imagesTr" / "BRATS_001.nii.gz", colours)
    assert "real numbers" in refused(only_case(tmp_path))


def test_cases_and_errors_survive_a_worker(tmp_path: Path) -> None:
    case = only_case(write(tmp_path, "BraTS2021_00001"))
    assert pickle.loads(pickle.dumps(case)) == case
    assert len({case, only_case(tmp_path)}) == 1
    error = pickle.loads(pickle.dumps(BadCase(case.name, "has no T2")))
    assert isinstance(error, BadCase)
    assert str(error) == "case BraTS2021_00001 has no T2."


# Inspection


def found(inspection: Inspection) -> dict[str, list[str]]:
    lines: dict[str, list[str]] = {}
    for what, text in inspection.lines:
        lines.setdefault(what, []).append(text)
    return lines


def test_an_inspection_of_a_mixed_folder(tmp_path: Path) -> None:
    write_decathlon(tmp_path / "msd")
    for name in ("BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "BraTS-GLI-00002-000"):
        write(tmp_path, name, seg=name.endswith("2-000"))
    coarse = np.array([[0, 0, 2.5, 0], [1.5, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
    for file in write(tmp_path, "BraTS2021_00005", seg=False).iterdir():
        image: Any = nib.load(file)
        nifti(file, np.asanyarray(image.dataobj)[:, :, :5], coarse)
    for number in (6, 9):
        (write(tmp_path, f"BraTS2021_0000{number}") / f"BraTS2021_0000{number}_t1.nii.gz").unlink()
    broken = write(tmp_path, "BraTS2021_00007") / "BraTS2021_00007_t2.nii.gz"
    broken.write_bytes(broken.read_bytes()[:99])

    calls: list[tuple[int, int]] = []
    inspection = inspect_folder(tmp_path, lambda done, count: calls.append((done, count)))
    assert calls == [(i, 6) for i in range(1, 7)]
    assert (inspection.usable, inspection.broken) == (5, 3)
    lines = found(inspection)
    problems = lines.pop("problem")
    for what, text in {
        "folder": str(tmp_path),
        "layout": "BraTS 2018-2021 (2 cases), 2023-2024 (3 cases), msd (1 case); segmentations "
        "are left out: 3 of 6 cases have one",
        "cases": "5 usable, 3 broken",
        "subjects": "4",
        "timepoints": "1 a subject (3 subjects), 2 a subject (1 subject)",
        "shapes": "8 x 9 x 7 (4 cases), 8 x 9 x 5 (1 case)",
        "spacings": "1 x 1 x 1 mm (4 cases), 1.5 x 1 x 2.5 mm (1 case)",
        "orientations": "LPS (4 cases), AIR (1 case)",
    }.items():
        assert lines[what] == [text]
    assert [what for what in lines if what.startswith("channel")] == [
        f"channel {modality}" for modality in MODALITIES
    ]
    assert "holds several releases" in problems[0]
    assert problems[1].startswith("case BraTS2021_00006 has no T1 (")
    assert problems[2].startswith("case BraTS2021_00009 has no T1 (")
    assert problems[3].startswith(f"case BraTS2021_00007 cannot be used: {broken} cannot be read")
    assert len(problems) == 4


def test_a_sound_folder_has_no_problems(tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path, f"BraTS2021_0000{number}")
    inspection = inspect_folder(tmp_path)
    assert inspection.broken == 0
    assert "problem" not in found(inspection)


def test_a_broken_segmentation_is_a_problem(tmp_path: Path) -> None:
    for number, change in enumerate(("shape", "affine", "file", "none")):
        name = f"BraTS2021_0000{number}"
        path = write(tmp_path, name) / f"{name}_seg.nii.gz"
        if change == "shape":
            nifti(path, np.ones((8, 9, 6), np.uint8))
        elif change == "affine":
            nifti(path, np.ones(SHAPE, np.uint8), np.diag([-1.0, 1, 1, 1]))
        elif change == "file":
            path.write_bytes(b"x")
    inspection = inspect_folder(tmp_path)
    assert (inspection.usable, inspection.broken) == (1, 3)
    problems = found(inspection)["problem"]
    assert "8 x 9 x 7 and 8 x 9 x 6 voxels" in problems[0]
    # y = 239 - j against y = j: 239 mm apart at j = 0.
    assert "a corner 239 mm apart" in problems[1]
    assert "BraTS2021_00002_seg.nii.gz cannot be read" in problems[2]


def test_a_folder_without_a_whole_case(tmp_path: Path) -> None:
    for file in write(tmp_path, "BraTS2021_00009").glob("*_t*"):
        file.unlink()
    with pytest.raises(Prod9Error, match=r"case BraTS2021_00009 has no T1 \("):
        inspect_folder(tmp_path)


def test_nothing_is_written_into_the_folder(tmp_path: Path) -> None:
    write(tmp_path, "BraTS2021_00001")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    inspect_folder(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
