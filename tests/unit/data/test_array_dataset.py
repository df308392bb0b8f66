"""What a data set of arrays refuses, in one sentence that names it."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from prod9.config import SourceConfig
from prod9.data.array_dataset import ArrayDataset
from prod9.data.dataset import Channel, Covariate, open_splits, register_dataset
from prod9.errors import Prod9Error
from prod9.registry import DATASETS

IMAGES = np.linspace(0, 1, 4 * 2 * 27, dtype=np.float32).reshape(4, 2, 3, 3, 3)
VALID: dict[str, Any] = {
    "channels": (Channel("t1"), Channel("mask", "labels")),
    "classes": np.array([0, 1, 1, 0]),
    "class_names": ("a", "b"),
    "subjects": ("s0", "s1", "s2", "s3"),
    "covariates": (Covariate("age"), Covariate("sex", ("f", "m"))),
    "values": [(40.0, None), (50, 1.0), (None, 0.0), (60.0, 1.0)],
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channels": (Channel("t1"),)}, "one channel for each"),
        ({"channels": (Channel("t1"), Channel("t1"))}, "channels have the same name"),
        ({"classes": np.array([0, 1, 2, 0])}, "class_names"),
        ({"classes": np.array([0, 1])}, "2 classes .* 4 items"),
        ({"names": ["a", "a", "b", "c"]}, "items have the same name"),
        ({"names": ["a", "b"]}, "2 names .* 4 items"),
        ({"subjects": ["s0"]}, "1 subjects for 4 items"),
        ({"values": ()}, "one row for each of 4"),
        ({"covariates": ()}, "if there are covariates"),
        ({"values": [(1.0,), (1.0,), (1.0,), (1.0,)]}, "values of 00000 must be 2 numbers"),
    ],
)
def test_what_does_not_fit_together(changes: dict[str, Any], words: str) -> None:
    ArrayDataset("mine/train", IMAGES, **VALID)
    with pytest.raises(Prod9Error, match=rf"mine/train.*{words}"):
        ArrayDataset("mine/train", IMAGES, **(VALID | changes))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (IMAGES[0], "N, channels, D, H, W"),
        (IMAGES[:0], "N > 0"),
        (IMAGES * 1000, r"t1 must be in \[0, 1\].*not \[0, "),
        ((IMAGES * 255).astype(np.int32), r"t1 must be in \[0, 1\]"),
    ],
)
def test_images(images: np.ndarray, words: str) -> None:
    with pytest.raises(Prod9Error, match=words):
        ArrayDataset("mine", images, **VALID)


PROGRAM = """
import numpy as np
from prod9.config import SourceConfig
from prod9.data.array_dataset import ArrayDataset
from prod9.data.dataset import Channel, Covariate, open_splits, register_dataset

image, age = np.zeros((1, 1, 2, 2, 2), np.float32), Covariate("age")
returned = []
register_dataset("mine", SourceConfig)(lambda config, preprocessing=None: returned[-1])

def opened(splits):
    returned.append(splits)
    open_splits(SourceConfig(dataset_name="mine"))

for call in (
    lambda: ArrayDataset("mine", image, (Channel("x", "image"),)),
    lambda: ArrayDataset("mine", image, covariates={"age": [1.0]}, values=[(1.0,)]),
    lambda: ArrayDataset("mine", image, covariates=(age,), values=[1.0]),
    lambda: ArrayDataset("mine", image, covariates=(age,), values=[("old",)]),
    lambda: opened(None),
    lambda: opened([ArrayDataset("x", image)]),
    lambda: opened({"train": image, "val": image, "test": image}),
):
    try:
        call()
        print("accepted")
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_wrong_types_are_named_too() -> None:
    """In a process of its own: the types of calls are checked within the tests."""
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    words = ["kind of channel x", "tuple of Covariate", "values of 00000", "values of 00000"]
    words += ["none for train, val, test"] * 3
    lines = found.stdout.splitlines()
    assert len(lines) == len(words), found.stdout + found.stderr
    for line, word in zip(lines, words, strict=True):
        assert line.startswith("Prod9Error")
        assert "mine" in line
        assert word in line


def test_labels_may_be_any_whole_numbers() -> None:
    images = IMAGES.copy()
    images[:, 1] = 7
    assert ArrayDataset("mine", images, **VALID).whole(0, 1).max() == 7


def test_bytes_are_divided_by_255() -> None:
    data = ArrayDataset("mine", np.full((1, 1, 2, 2, 2), 51, np.uint8))
    assert np.array_equal(data.whole(0, 0), np.full((2, 2, 2), 0.2, np.float32))


@pytest.fixture
def opened() -> Iterator[dict[str, Any]]:
    """A data set ``returned`` that returns ``result["splits"]``."""
    result: dict[str, Any] = {}
    register_dataset("returned", SourceConfig)(lambda config, preprocessing=None: result["splits"])
    yield result
    DATASETS.remove("returned")


def one(*subjects: str) -> ArrayDataset:
    return ArrayDataset("x", IMAGES[: len(subjects), :1], subjects=subjects)


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ({"train": one("a"), "test": one("b")}, "none for val"),
        (
            {"train": one("a", "b"), "val": one("c", "b"), "test": one("d")},
            "subject b is in train and in val",
        ),
    ],
)
def test_splits_that_are_none(opened: dict[str, Any], splits: Any, words: str) -> None:
    opened["splits"] = splits
    with pytest.raises(Prod9Error, match=words):
        open_splits(SourceConfig(dataset_name="returned"))
