"""What is read: extends, environment, overrides, scalars."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prod9.config import BraTSDataConfig, MedMNISTDataConfig, Stage1Config
from prod9.config.entries import Entries, merge, nested, parse, scalar
from prod9.config.load import dump, load_stage1, load_stage2

BASE = """\
output_dir: outputs/x
autoencoder_export_path: outputs/x.pt
data:
  dataset_name: organmnist3d
  size: 64
  batch_size: 4
"""
in_tmp = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    return path


def beside(base: Path, text: str, name: str = "variant.yaml") -> Path:
    path = base.parent / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# --- extends


def test_variant_changes_only_what_it_names(base: Path) -> None:
    variant = beside(base, "extends: base.yaml\ndata:\n  batch_size: 2\n")
    expected = load_stage1(base, ["data.batch_size=2"])
    assert load_stage1(variant) == expected
    assert expected.data.batch_size == 2
    assert isinstance(expected.data, MedMNISTDataConfig)
    assert expected.data.size == 64


def test_chain_through_folders_and_lists_replaced(base: Path) -> None:
    beside(base, "extends: ../base.yaml\nmodel: {autoencoder: {levels: [8, 8, 6, 5]}}", "a/b.yaml")
    top = beside(base, "extends: a/b.yaml\nmodel: {autoencoder: {levels: [5, 5]}}\nseed: 3\n")
    config = load_stage1(top)
    assert config.model.autoencoder.levels == (5, 5)
    assert (config.seed, config.data.batch_size) == (3, 4)


def test_own_file_may_extend_a_shipped_one(base: Path) -> None:
    own = beside(base, "extends: maskgit/medmnist3d/stage1/large.yaml\noutput_dir: mine\n")
    config = load_stage1(own)
    assert config.output_dir == Path("mine")
    assert config.model.autoencoder.levels == (8, 8, 6, 5)


# --- overrides


def test_override_values_are_yaml(base: Path) -> None:
    config = load_stage1(
        base,
        [
            "training.optimizer.learning_rate=1e-4",
            "model.autoencoder.levels=[8, 8, 6, 5]",
            "model.autoencoder.attention_levels=[false,false,true,true]",
            "trainer.limit_train_batches=1",
            "trainer.limit_val_batches=1.0",
            "loss.perceptual.download=false",
            "loss.perceptual={weight: 2}",
            "trainer.devices=auto",
            "data.batch_size=1",
            "data.batch_size=3",
            "output_dir=a=b",
        ],
    )
    assert config.training.optimizer.learning_rate == 1e-4
    assert config.model.autoencoder.levels == (8, 8, 6, 5)
    assert config.model.autoencoder.attention_levels == (False, False, True, True)
    # Lightning reads 1 as one batch and 1.0 as all of them.
    assert type(config.trainer.limit_train_batches) is int
    assert type(config.trainer.limit_val_batches) is float
    assert config.loss.perceptual.download is False
    assert config.loss.perceptual.weight == 2.0
    assert config.data.batch_size == 3
    assert config.output_dir == Path("a=b")


def test_null_takes_a_value_back(base: Path) -> None:
    variant = beside(base, "extends: base.yaml\ntrainer: {limit_train_batches: 5}\n")
    assert load_stage1(variant).trainer.limit_train_batches == 5
    config = load_stage1(variant, ["trainer.limit_train_batches=null"])
    assert config.trainer.limit_train_batches is None


def test_loss_type_switches_by_override(base: Path) -> None:
    variant = beside(base, "extends: base.yaml\nloss: {perceptual: {weight: 0.3}}\n")
    config = load_stage1(variant, ["loss.loss_type=ffl"])
    assert (config.loss.loss_type, config.loss.perceptual.weight) == ("ffl", 0.3)


def test_dataset_switches_both_ways(base: Path) -> None:
    brats = load_stage1(base, ["data.dataset_name=brats"]).data
    assert isinstance(brats, BraTSDataConfig)
    assert brats.batch_size == 4  # what both kinds know is kept
    own = beside(
        base, "extends: base.yaml\ndata: {dataset_name: brats, data_dir: /b, batch_size: 1}"
    )
    first = load_stage1(own).data
    assert isinstance(first, BraTSDataConfig)
    assert first.data_dir == Path("/b")
    second = load_stage1(own, ["data.dataset_name=all", "data.size=28"]).data
    assert isinstance(second, MedMNISTDataConfig)
    assert (second.dataset_name, second.size, second.batch_size) == ("all", 28, 1)


def test_dataset_switch_within_a_kind_keeps_every_key(base: Path) -> None:
    data = load_stage1(base, ["data.dataset_name=nodulemnist3d"]).data
    assert isinstance(data, MedMNISTDataConfig)
    assert data.size == 64


# --- environment


def test_variable_is_read_as_yaml(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variant = beside(
        base,
        "extends: base.yaml\noutput_dir: out/${RUN}\nseed: ${SEED:7}\n"
        "data: {root: '${ROOT:data}/npz'}\n"
        "loss:\n  perceptual:\n    weights_path: ${WEIGHTS:}\n",
    )
    monkeypatch.setenv("RUN", "first")
    for name in ("SEED", "ROOT", "WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    config = load_stage1(variant)
    assert config.output_dir == Path("out/first")
    assert config.seed == 7
    assert isinstance(config.data, MedMNISTDataConfig)
    assert config.data.root == Path("data/npz")
    assert config.loss.perceptual.weights_path is None
    monkeypatch.setenv("SEED", "8")
    monkeypatch.setenv("WEIGHTS", "/w.pth")
    config = load_stage1(variant)
    assert (config.seed, config.loss.perceptual.weights_path) == (8, Path("/w.pth"))
    monkeypatch.setenv("SEED", "")  # empty counts as unset
    assert load_stage1(variant).seed == 7


def test_variable_in_an_override(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BS", "2")
    assert load_stage1(base, ["data.batch_size=${BS:4}"]).data.batch_size == 2


def test_dollar_brace_can_be_written(base: Path) -> None:
    assert load_stage1(base, ["output_dir=$${x}"]).output_dir == Path("${x}")


# What the system's own environment may hold: no NUL, no lone surrogate.
values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(value=values, default=st.from_regex(r"[a-z0-9 .]{0,8}", fullmatch=True))
@in_tmp
def test_variables_substitute_literally(value: str, default: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROD9_X", value)
        entries = parse(f"a: '<${{PROD9_X:{default}}}>'", "f")
    assert nested(entries) == {"a": f"<{value or default}>"}


# --- scalars


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-1.", -1.0),
        ("+3", 3),
        ("010", 10),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        (".inf", math.inf),
        ("no", "no"),
        ("on", "on"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("e5", "e5"),
        (".", "."),
        ("0x10", "0x10"),
    ],
)
def test_scalars_are_yaml_1_2(text: str, value: object) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


@given(st.floats(allow_nan=False))
def test_every_float_is_read_as_python_prints_it(value: float) -> None:
    text = repr(value).replace("inf", ".inf")
    assert scalar(text) == value
    assert isinstance(scalar(text), float)


@given(st.integers())
def test_every_integer_is_an_integer(value: int) -> None:
    assert scalar(str(value)) == value


# --- merging

leaves = st.none() | st.booleans() | st.integers() | st.text("ab", max_size=2)
mappings: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(st.sampled_from("abc"), leaves | st.lists(leaves, max_size=2), max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner | leaves, max_size=3),
    max_leaves=8,
)


def entries(values: dict[str, Any], source: str) -> Entries:
    return parse(yaml.safe_dump(values), source, lines=False) if values else {}


@given(mappings, mappings)
def test_merge_keeps_values_and_where_they_came_from(
    low: dict[str, Any], high: dict[str, Any]
) -> None:
    below, above = entries(low, "low"), entries(high, "high")
    merged = merge(below, above)
    for keys, entry in merged.items():
        assert entry == (above if keys in above else below)[keys]
    for keys, entry in above.items():  # only an empty section is not taken
        assert keys in merged or entry.value == {}
    for keys in below.keys() - merged.keys():  # something above took its place
        assert any(keys[: len(own)] == own or own[: len(keys)] == keys for own in above)
    nested(merged)  # no key is a section and a value


@given(mappings)
def test_merge_identities(values: dict[str, Any]) -> None:
    some = entries(values, "f")
    assert merge(some, {}) == merge({}, some) == merge(some, some) == some
    assert nested(some) == values


def test_entries_have_lines() -> None:
    found = parse("a: 1\nb:\n  c: [1,\n  2]\n  d: {e: 1}\n  g: {}\n", "f")
    assert {".".join(keys): entry for keys, entry in found.items()} == {
        "a": (1, "f:1"),
        "b.c": ([1, 2], "f:3"),
        "b.d.e": (1, "f:5"),
        "b.g": ({}, "f:6"),
    }


# --- dump

numbers = st.floats(0, allow_nan=False)


@given(
    folder=values,
    strategy=st.sampled_from(["auto", "ddp", "fsdp"]),
    weights=st.none() | values,
    weight=numbers,
    limit=st.none() | st.integers(1, 2**62) | st.floats(2**-20, 1),
    levels=st.lists(st.integers(3, 27), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
)
@in_tmp
def test_any_configuration_survives_dump_and_load(
    base: Path,
    folder: str,
    strategy: str,
    weights: str | None,
    weight: float,
    limit: float | None,
    levels: list[int],
    seed: int,
) -> None:
    changes: dict[str, Any] = {
        "output_dir": Path(folder),
        "autoencoder_export_path": Path("1e-4"),
        "seed": seed,
        "data": {"dataset_name": "all"},
        "trainer": {"strategy": strategy, "limit_train_batches": limit},
        "loss": {"perceptual": {"weight": weight, "weights_path": weights}},
        "model": {"autoencoder": {"levels": tuple(levels)}},
    }
    config = Stage1Config.model_validate(changes)
    path = base.parent / "resolved.yaml"
    path.write_text(dump(config), encoding="utf-8", newline="")
    again = load_stage1(path)
    assert again == config
    assert type(again.trainer.limit_train_batches) is type(config.trainer.limit_train_batches)


def test_one_key_of_a_section_leaves_its_others_alone() -> None:
    path = Path("maskgit/brats/stage2/base.yaml")
    usual = load_stage2(path, []).completion
    changed = load_stage2(path, ["completion.steps=3"]).completion
    assert changed == usual.model_copy(update={"steps": 3})
    assert (usual.temperature, usual.guidance_scale) == (0.7, 1.0)
