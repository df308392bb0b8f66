"""Documents with anything in them are understood or refused in a sentence."""

import json
from pathlib import Path

import layout_folders as good
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prod9.config.dataset import read_description, write_description
from prod9.data.folder.understand import understand
from prod9.errors import Prod9Error

NAMES = st.sampled_from(
    ["image", "label", "fold", "subject", "age", "t1", "0", "1", "training", "modality"]
)
TEXTS = st.sampled_from(["t1/sub-01.nii.gz", "../x.nii", "a\\b.nii", "\0.nii.gz", "", "5", "é"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
ENTRIES = st.builds(
    lambda files, rest: files | rest,
    st.sampled_from([{}, {"t1": "t1/sub-01.nii.gz"}, {"image": ["t1/sub-02.nii.gz"]}]),
    st.dictionaries(NAMES, VALUES, max_size=5),
)
SHARED = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def understood_or_refused(path: Path) -> None:
    try:
        description, _ = understand(path)
    except Prod9Error as error:
        assert str(error).endswith(".")  # noqa: PT017 (either is right)
        return
    write_description(path.parent / "dataset.yaml", description)
    again = read_description(path.parent / "dataset.yaml")
    assert again == description.model_copy(update={"root": again.root})
    (path.parent / "dataset.yaml").unlink()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scans")
    good.data_list(root)
    return root


@SHARED
@given(training=st.lists(ENTRIES | VALUES, max_size=3))
def test_a_data_list_of_anything(training: object, folder: Path) -> None:
    path = folder / "list.json"
    path.write_text(json.dumps({"training": training}))
    understood_or_refused(path)


@SHARED
@given(modality=VALUES, training=VALUES | st.lists(ENTRIES, max_size=2))
def test_a_dataset_json_of_anything(modality: object, training: object, folder: Path) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({"modality": modality, "training": training, "name": modality}))
    understood_or_refused(path)
    path.unlink()


@SHARED
@given(
    cells=st.lists(
        st.tuples(
            st.sampled_from(
                ["t1/sub-01.nii.gz", "t1/sub-02.nii.gz", "a\\b.nii", "none.nii", "", '"']
            ),
            st.sampled_from(["p1", "p2", "${HOME}", ""]),
            st.sampled_from(["t1", "seg", "t2", ""]),
            TEXTS | st.sampled_from(["nan", "inf", "1e999", "7"]),
            st.sampled_from(["train", "Val", "other", ""]),
        ),
        max_size=5,
    )
)
def test_a_table_of_anything(cells: list[tuple[str, ...]], folder: Path) -> None:
    path = folder / "list.csv"
    lines = ["file,subject,channel,age,split", *(",".join(row) for row in cells)]
    path.write_text("\n".join(lines), encoding="utf-8")
    understood_or_refused(path)
    path.unlink()


def test_names_that_yaml_takes_for_something_else(tmp_path: Path) -> None:
    for name in ("001", "1e3", "null", "yes", "a.b", "a: b", "#c", "${HOME}"):
        good.write(tmp_path / f"{name}.nii.gz", good.volume(1))
    description, problems = understand(tmp_path)
    assert problems == ()
    assert "001" in description.scans
    understood_or_refused(tmp_path)
    write_description(tmp_path / "dataset.yaml", description)
    assert read_description(tmp_path / "dataset.yaml").scans == description.scans
