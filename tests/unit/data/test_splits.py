import json
from pathlib import Path
from typing import Any

import pytest

from prod9.data.splits import SubjectSplit, open_split
from prod9.errors import Prod9Error

SUBJECTS = [f"BraTS-GLI-{number:05}" for number in range(20)]


def opened(path: Path, subjects: list[str] = SUBJECTS, **change: Any) -> SubjectSplit:
    return open_split(path, subjects, **{"seed": 3, "val_share": 0.1, "test_share": 0.2, **change})


def refused(path: Path, subjects: list[str] = SUBJECTS, **change: Any) -> str:
    with pytest.raises(Prod9Error) as caught:
        opened(path, subjects, **change)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def counts(split: SubjectSplit) -> tuple[int, int, int]:
    return len(split.train), len(split.val), len(split.test)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outputs" / "split.json"


def test_each_subject_is_in_one_split(path: Path) -> None:
    split = opened(path)
    assert counts(split) == (14, 2, 4)
    assert sorted([*split.train, *split.val, *split.test]) == SUBJECTS
    for name in ("train", "val", "test"):
        names = getattr(split, name)
        assert list(names) == sorted(names)
        assert all(split.split_of(subject) == name for subject in names)


def test_the_file_is_the_split(path: Path) -> None:
    split = opened(path)
    assert [file.name for file in path.parent.iterdir()] == ["split.json"]
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert stored == {
        "train": list(split.train),
        "val": list(split.val),
        "test": list(split.test),
        "seed": 3,
        "val_share": 0.1,
        "test_share": 0.2,
    }
    stored["train"].append(stored["test"].pop())  # whoever edits the file is obeyed
    path.write_text(json.dumps(stored), encoding="utf-8")
    before = path.stat().st_mtime_ns
    again = opened(path)
    assert again.train == tuple(stored["train"])
    assert counts(again) == (15, 2, 3)
    assert path.stat().st_mtime_ns == before


def test_order_and_repetition_do_not_matter(tmp_path: Path) -> None:
    first = opened(tmp_path / "a.json")
    assert opened(tmp_path / "b.json", [*SUBJECTS[::-1], *SUBJECTS[:7]]) == first
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_the_seed_matters(tmp_path: Path) -> None:
    tests = {opened(tmp_path / f"{seed}.json", seed=seed).test for seed in range(10)}
    assert len(tests) == 10


def test_each_subject_gets_its_chance(tmp_path: Path) -> None:
    times = dict.fromkeys(SUBJECTS, 0)
    for seed in range(200):
        for subject in opened(tmp_path / f"{seed}.json", seed=seed).test:
            times[subject] += 1
    # Binomial(200, 0.2): mean 40, standard deviation 5.7.
    assert sum(times.values()) == 200 * 4
    assert all(18 <= count <= 62 for count in times.values())


@pytest.mark.parametrize(
    ("subjects", "val", "test", "expected"),
    [
        (484, 0.1, 0.1, (388, 48, 48)),
        (1251, 0.1, 0.1, (1001, 125, 125)),
        (25, 0.1, 0.1, (19, 3, 3)),
        (20, 0.1, 0.0, (18, 2, 0)),
        (20, 0.0, 0.0, (20, 0, 0)),
        (20, 0.01, 0.01, (18, 1, 1)),
        (3, 0.1, 0.1, (1, 1, 1)),
        (3, 0.5, 0.4, (1, 1, 1)),
        (3, 0.05, 0.9, (1, 1, 1)),
        (4, 0.45, 0.45, (1, 1, 2)),
        (5, 0.5, 0.49, (1, 2, 2)),
        (1, 0.0, 0.0, (1, 0, 0)),
        (2, 0.9, 0.0, (1, 1, 0)),
    ],
)
def test_shares_are_rounded_and_none_is_empty(
    path: Path, subjects: int, val: float, test: float, expected: tuple[int, int, int]
) -> None:
    names = [f"s{number}" for number in range(subjects)]
    assert counts(opened(path, names, val_share=val, test_share=test)) == expected


@pytest.mark.parametrize(
    ("subjects", "val", "test", "needed"),
    [(2, 0.1, 0.1, 3), (0, 0.1, 0.1, 3), (1, 0.1, 0.0, 2), (0, 0.0, 0.0, 1)],
)
def test_too_few_subjects(path: Path, subjects: int, val: float, test: float, needed: int) -> None:
    message = refused(path, SUBJECTS[:subjects], val_share=val, test_share=test)
    assert f"there are {subjects}, at least {needed} are needed" in message
    assert not path.exists()


@pytest.mark.parametrize(
    ("key", "value", "stored"),
    [("seed", 4, "3"), ("val_share", 0.15, "0.1"), ("test_share", 0.1, "0.2")],
)
def test_another_seed_or_share_is_refused(path: Path, key: str, value: float, stored: str) -> None:
    opened(path)
    message = refused(path, **{key: value})
    key = f"data.{'split_seed' if key == 'seed' else key}"
    assert f"{path} was drawn with {key} {stored}, not {value}; set {key} to {stored}" in message


def test_new_subjects_are_refused_and_counted(path: Path) -> None:
    opened(path)
    message = refused(path, [*SUBJECTS[5:], "BraTS-GLI-00091", "BraTS-GLI-00090"])
    assert f"{path} lacks 2 of the 17 subjects" in message
    assert "the first is BraTS-GLI-00090" in message


def test_subjects_that_are_gone_are_fine(path: Path) -> None:
    split = opened(path)
    assert opened(path, SUBJECTS[4:6]) == split


@pytest.mark.parametrize(("first", "second"), [("train", "test"), ("val", "test"), ("val", "val")])
def test_a_subject_in_two_splits(path: Path, first: str, second: str) -> None:
    opened(path)
    stored = json.loads(path.read_text(encoding="utf-8"))
    subject = stored[first][0]
    stored[second].append(subject)
    path.write_text(json.dumps(stored), encoding="utf-8")
    assert f"{path} names the subject {subject} more than once" in refused(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "4",
        "[" * 100_000,
        '{"train": []}',
        '{"train": "abc", "val": [], "test": [], "seed": 3, "val_share": 0.1, "test_share": 0.2}',
        '{"train": [1], "val": [], "test": [], "seed": 3, "val_share": 0.1, "test_share": 0.2}',
        '{"train": [[]], "val": [], "test": [], "seed": 3, "val_share": 0.1, "test_share": 0.2}',
        '{"train": null, "val": [], "test": [], "seed": 3, "val_share": 0.1, "test_share": 0.2}',
        '{"train": [], "val": [], "test": [], "seed": "3", "val_share": 0.1, "test_share": 0.2}',
        '{"train": [], "val": [], "test": [], "seed": true, "val_share": 0.1, "test_share": 0.2}',
        '{"train": [], "val": [], "test": [], "seed": 3, "val_share": null, "test_share": 0.2}',
    ],
)
def test_an_unreadable_file_is_named_and_kept(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    message = refused(path)
    assert f"{path} is no split" in message
    assert "delete it" in message
    assert path.read_text(encoding="utf-8") == text


def test_no_text_and_no_file(path: Path) -> None:
    path.mkdir(parents=True)
    assert f"{path} is no split" in refused(path)
    path.rmdir()
    path.write_bytes(b"\xff\xfe\x00")
    assert f"{path} is no split" in refused(path)


def test_an_unwritable_place(path: Path) -> None:
    path.parent.write_bytes(b"a file where a folder should be")
    assert "cannot write" in refused(path)


def test_folds_test_each_subject_once(tmp_path: Path) -> None:
    names = [f"s{index:02d}" for index in range(23)]
    found = [
        open_split(
            tmp_path / f"{fold}.json",
            names,
            seed=3,
            val_share=0.1,
            test_share=0.2,
            fold=fold,
            folds=5,
        )
        for fold in range(5)
    ]
    assert sorted(name for split in found for name in split.test) == names
    for split in found:
        assert sorted((*split.train, *split.val, *split.test)) == names
        assert len(split.test) in (4, 5)
        assert len(split.val) == 2
    with pytest.raises(Prod9Error, match="fold"):
        open_split(
            tmp_path / "0.json", names, seed=3, val_share=0.1, test_share=0.2, fold=1, folds=5
        )
