"""What is refused, and the sentence that says so."""

import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prod9.config.load import load_stage1, load_stage2
from prod9.errors import Prod9Error

HEAD = "output_dir: o\nautoencoder_export_path: e.pt\n"
GOOD = HEAD + "data:\n  dataset_name: organmnist3d\n"


def problem(tmp_path: Path, text: str | bytes, *overrides: str, load=load_stage1) -> str:
    path = tmp_path / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Prod9Error) as caught:
        load(path, overrides)
    return str(caught.value).replace(f"{tmp_path}/", "")


# What the file holds, and what the sentence says, in this order.
IN_FILE: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "typo": (GOOD + "  batchsize: 2\n", ("run.yaml:5: data.batchsize", "batch_size?")),
    "typo at the top": (GOOD + "ouput_dir: x\n", ("run.yaml:5: ouput_dir", "output_dir?")),
    "key in the wrong section": (
        GOOD + "batch_size: 2\n",
        ("run.yaml:5: batch_size is not a known key", "data.batch_size?"),
    ),
    "key like no other": (
        GOOD + "sliding_window: {qqq: 1}\n",
        ("run.yaml:5: sliding_window.qqq", "roi_size, overlap, sw_batch_size, mode."),
    ),
    "typo that BraTS would know": (
        GOOD + "  data_dir: x\n",
        ("run.yaml:5: data.data_dir is only known where dataset_name is brats",),
    ),
    "empty section of a name that is none": (GOOD + "modle: {}\n", ("run.yaml:5: modle", "model?")),
    "whole number": (
        GOOD + "  batch_size: two\n",
        ("run.yaml:5: data.batch_size should be a valid integer", '"two".'),
    ),
    "text is no number": (GOOD + '  batch_size: "2"\n', ("run.yaml:5: data.batch_size", '"2".')),
    "true is no number": (GOOD + "seed: true\n", ("run.yaml:5: seed", "integer", "true.")),
    "no is no boolean": (GOOD + "  download: no\n", ("run.yaml:5: data.download", '"no".')),
    "range": (
        GOOD + "  batch_size: 0\n",
        ("run.yaml:5: data.batch_size should be greater than 0, not 0.",),
    ),
    "nan": (
        GOOD + "loss: {perceptual: {weight: .nan}}\n",
        ("run.yaml:5: loss.perceptual.weight should be greater than or equal to 0",),
    ),
    "choice": (
        GOOD + "loss:\n  loss_type: lpip\n",
        ("run.yaml:6: loss.loss_type", "lpips, ffl", "lpip", "did you mean lpips?"),
    ),
    "choice of a list": (
        GOOD + "trainer: {logger: tensorbord}\n",
        ("run.yaml:5: trainer.logger", "csv", "did you mean tensorboard?"),
    ),
    "number choice": (GOOD + "  size: 32\n", ("run.yaml:5: data.size", "28 or 64", "32.")),
    "list item": (
        GOOD + "model:\n  autoencoder:\n    levels: [8, eight]\n",
        ("run.yaml:7: model.autoencoder.levels[1]", "integer", '"eight".'),
    ),
    "item of a list or null": (
        GOOD + "model: {autoencoder: {attention_levels: [1]}}\n",
        ("run.yaml:5: model.autoencoder.attention_levels[0]", "boolean", "1."),
    ),
    "no list": (
        GOOD + "model: {autoencoder: {levels: 8}}\n",
        ("run.yaml:5: model.autoencoder.levels", "array", "8."),
    ),
    "empty list": (
        GOOD + "model: {autoencoder: {levels: []}}\n",
        ("run.yaml:5: model.autoencoder.levels should have at least 1 item, not [].",),
    ),
    "short list": (
        GOOD + "sliding_window: {roi_size: [64, 64]}\n",
        ("run.yaml:5: sliding_window.roi_size[2] is missing.",),
    ),
    "long list": (
        GOOD + "sliding_window: {roi_size: [1, 2, 3, 4]}\n",
        ("run.yaml:5: sliding_window.roi_size should have at most 3 items", "[1, 2, 3, 4]."),
    ),
    "union told once": (
        GOOD + "trainer: {limit_val_batches: few}\n",
        ("run.yaml:5: trainer.limit_val_batches", "integer or", "number", '"few".'),
    ),
    "path": (GOOD + "  root: 5\n", ("run.yaml:5: data.root", "string", "5.")),
    "emptied section": (GOOD + "loss:\n", ("run.yaml:5: loss should be a section of keys",)),
    "no section": (
        HEAD + "data: organmnist3d\n",
        ("run.yaml:3: data should be a section of keys", "organmnist3d"),
    ),
    "inconsistent section": (
        GOOD + "model:\n  autoencoder:\n    num_res_blocks: 1\n    levels: [2, 2]\n",
        ("run.yaml:8: model.autoencoder: levels must each be at least 3, not [2, 2].",),
    ),
    "inconsistent key": (
        GOOD + "loss:\n  focal_frequency:\n    axes: [1]\n",
        ("run.yaml:7: loss.focal_frequency.axes", "among 2, 3, 4, not [1]."),
    ),
    "missing": (
        "output_dir: o\ndata: {dataset_name: all}\n",
        ("run.yaml: autoencoder_export_path is missing: Where the trained tokenizer is written.",),
    ),
    "missing section": (HEAD, ("run.yaml: data is missing.",)),
    "missing data set": (
        HEAD + "data:\n  size: 28\n",
        ("run.yaml:4: data.dataset_name is missing; write one of organmnist3d, ", "brats, folder."),
    ),
    "empty": ("# nothing\n", ("run.yaml is empty", "extends: base.yaml")),
    "empty mapping": ("{}\n", ("run.yaml is empty",)),
    "no mapping": ("- a\n- b\n", ("run.yaml is not a mapping",)),
    "syntax": ("output_dir: o\nseed: [1\n", ("run.yaml:3: not valid YAML", "',' or ']'")),
    "tab": ("a:\n\tb: 1\n", ("run.yaml:2: not valid YAML", "character '\\t'")),
    "two documents": ("a: 1\n---\nb: 1\n", ("run.yaml:2: not valid YAML", "another document")),
    "nested": ("a: " + "[" * 5000, ("run.yaml: not valid YAML: nested too deeply.",)),
    "binary": (b"\xff\xfe\x00", ("run.yaml: not a text file in UTF-8.",)),
    "twice": (
        "seed: 1\ndata:\n  size: 28\n  size: 64\n",
        ("run.yaml:4: data.size is given twice (first in line 3).",),
    ),
    "section twice": (
        "data:\n  size: 28\ndata:\n  root: x\n",
        ("run.yaml:3: data is given twice (first in line 1).",),
    ),
    "strange key": ("? [a]\n: 1\n", ("run.yaml:1: a key must be a plain word.",)),
    "python tag": (
        "seed: !!python/object/apply:os.system ['true']\n",
        ("run.yaml:1: the tag !!python/object/apply:os.system is not allowed",),
    ),
    "own tag": ("seed: !env X\n", ("run.yaml:1: the tag !env is not allowed",)),
    "billion laughs": (
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        ("run.yaml:1: anchors and aliases", "not allowed; use extends."),
    ),
    "self": ("extends: run.yaml\n", ("run.yaml:1: extends", "circle", "run.yaml -> run.yaml.")),
    "no base": (
        "seed: 1\nextends: no.yaml\n",
        ("run.yaml:2: extends names no.yaml, which does not exist.",),
    ),
    "odd extends": ("extends: [a, b]\n", ("run.yaml:1: extends must name one YAML file",)),
    "unset variable": (
        "seed: 1\noutput_dir: x/${PROD9_NOT_SET}\n",
        ("run.yaml:2: the environment variable PROD9_NOT_SET is not set", ":default}."),
    ),
    "odd variable": ("output_dir: ${A-B}\n", ("run.yaml:1: '${A-B}'", "${VAR:default}.")),
}


def assert_says(sentence: str, words: tuple[str, ...]) -> None:
    assert re.search(".*".join(map(re.escape, words)), sentence), sentence
    assert "\n" not in sentence
    assert sentence.endswith((".", "?"))


@pytest.mark.parametrize("case", IN_FILE)
def test_sentence_for_a_file(case: str, tmp_path: Path) -> None:
    text, words = IN_FILE[case]
    assert_says(problem(tmp_path, text), words)


ON_COMMAND_LINE: dict[str, tuple[str, ...]] = {
    "data.batchsize=2": ("data.batchsize is not a known key", "batch_size?"),
    "data.batch-size=2": ("data.batch-size is not a known key", "batch_size?"),
    "data.batch_size=two": ("data.batch_size", "integer", '"two".'),
    "data.batch_size.x=2": ("data.batch_size", "integer", '{"x": 2}.'),
    "data.dataset_name=organmnst3d": ("data.dataset_name", "brats", "did you mean organmnist3d?"),
    "data.dataset_name=null": ("data.dataset_name", "organmnist3d", "brats", "null."),
    "data.dataset_name=[a]": ("data.dataset_name", "organmnist3d", "brats"),
    "data.levels=[8,8,8]": ("data.levels is not a known key", "model.autoencoder.levels?"),
    "output_dir=2024": ("output_dir", "string", "2024."),
    "data.size=[1": ("'data.size=[1': not valid YAML", "',' or ']'"),
    "seed=!!python/name:os.system": ("the tag !!python/name:os.system is not allowed",),
    "seed=${PROD9_NOT_SET}": ("the environment variable PROD9_NOT_SET is not set",),
    "extends=base.yaml": ("extends cannot be overridden; choose --config.",),
    **{
        wrong: (f"{wrong!r} is not an override; write key=value",)
        for wrong in (
            "data.batch_size",
            "data.batch_size=",
            "=2",
            "--data.size=28",
            "a..b=1",
            "1=2",
        )
    },
}


@pytest.mark.parametrize("override", ON_COMMAND_LINE)
def test_sentence_for_an_override(override: str, tmp_path: Path) -> None:
    assert_says(problem(tmp_path, GOOD, override), ("command line: ", *ON_COMMAND_LINE[override]))


def test_all_problems_are_listed_in_the_order_of_the_lines(tmp_path: Path) -> None:
    text = GOOD + "  batch_size: 0\nfoo_bar: 1\ntrainer:\n  max_epoch: 3\n"
    message = problem(tmp_path, text, "seed=-1")
    lines = message.split("\n")
    assert lines[0] == "run.yaml has 4 problems:"
    assert [line.split(": ")[0] for line in lines[1:]] == [
        "  run.yaml:5",
        "  run.yaml:6",
        "  run.yaml:8",
        "  command line",
    ]
    assert lines[3] == (
        "  run.yaml:8: trainer.max_epoch is not a known key; did you mean max_epochs?"
    )


def test_problem_is_shown_in_the_file_it_was_written_in(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(GOOD + "  batchsize: 2\n  num_workers: many\n")
    message = problem(tmp_path, "extends: base.yaml\ndata:\n  num_workers: few\n")
    assert message == (
        "run.yaml has 2 problems:\n"
        "  base.yaml:5: data.batchsize is not a known key; did you mean batch_size?\n"
        '  run.yaml:3: data.num_workers should be a valid integer, not "few".'
    )


def test_long_circle(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("seed: 1\nextends: run.yaml\n")
    assert problem(tmp_path, "extends: a.yaml\n") == (
        "b.yaml:2: extends goes round in a circle: run.yaml -> a.yaml -> b.yaml -> run.yaml."
    )


def test_new_data_set_and_a_key_of_the_old_kind_together(tmp_path: Path) -> None:
    text = HEAD + "data:\n  dataset_name: brats\n  data_dir: /b\n"
    message = problem(tmp_path, text, "data.dataset_name=all", "data.data_dir=/c")
    assert message == (
        "command line: data.data_dir is only known where dataset_name is brats; remove it."
    )


def test_stages_mixed_up(tmp_path: Path) -> None:
    assert problem(tmp_path, GOOD, load=load_stage2) == (
        "run.yaml is a Stage 1 configuration; run it with prod9-train-autoencoder."
    )
    text = GOOD.replace("autoencoder_export_path", "autoencoder_path")
    assert problem(tmp_path, text, load=load_stage1) == (
        "run.yaml is a Stage 2 configuration; run it with prod9-train-transformer."
    )
    # Both keys: the file belongs to the command, and one key is wrong.
    assert "autoencoder_path is not a known key" in problem(
        tmp_path, GOOD + "autoencoder_path: x\n"
    )


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(Prod9Error, match=r"none\.yaml does not exist; nearest in the package: "):
        load_stage1(tmp_path / "none.yaml")
    with pytest.raises(Prod9Error, match="is a folder"):
        load_stage1(tmp_path)


def test_tag_runs_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    problem(tmp_path, f"seed: !!python/object/apply:pathlib.Path.touch [{trace}]\n")
    assert not trace.exists()


@given(st.text(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_text_ends_in_a_traceback(tmp_path: Path, text: str) -> None:
    problem(tmp_path, text.encode("utf-8", "surrogatepass"))


PIECES = [
    *("data", "model", "seed", "batch_size", "5", "x", ":", "-", "[", "]", "{", "}", ",", "'", '"'),
    *("&a", "*a", "!t", "${", "A:", "#", "|", "?", " ", "\n", "  ", "- ", ": ", "extends: "),
    "run.yaml",
]
yamlish = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)


@given(yamlish, yamlish)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_near_yaml_ends_in_a_traceback(tmp_path: Path, text: str, value: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(Prod9Error):
        load_stage1(path)
    path.write_text(GOOD)
    for override in (value, f"data.size={value}", f"model={value}", f"data={value}"):
        with suppress(Prod9Error):
            load_stage1(path, [override])
