"""Model folders: what is saved is loaded, bit for bit, and what is damaged is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_folder_samples import SUBJECT, evaluation, volumes
from safetensors.torch import load_file, save_file

import prod9
from prod9.config import SlidingWindowConfig
from prod9.config.dataset import ChannelEntry, DatasetDescription, ScanEntry, read_description
from prod9.errors import Prod9Error
from prod9.inference.model import Model
from prod9.inference.model_folder import FILES
from prod9.results.schema import Evaluation


def test_the_same_volumes_and_settings(named_model: Model, model_folder: Path) -> None:
    loaded = prod9.load(model_folder, device="cpu")
    assert isinstance(loaded, Model)
    assert np.array_equal(volumes(loaded), volumes(named_model))
    assert np.array_equal(volumes(loaded, seed=1, steps=2), volumes(named_model, seed=1, steps=2))
    assert not np.array_equal(volumes(loaded, seed=1), volumes(loaded))
    assert (loaded.generation, loaded.completion) == (
        named_model.generation,
        named_model.completion,
    )
    assert loaded.tokenizer.windows == named_model.tokenizer.windows
    assert sorted(path.name for path in model_folder.iterdir()) == sorted(
        ["config.json", "tokenizer.safetensors", "transformer.safetensors", "README.md"]
    )


def test_names_are_left_out_unless_wanted(
    named_model: Model, model_folder: Path, tmp_path: Path
) -> None:
    texts = "".join(path.read_text("latin-1") for path in model_folder.iterdir())
    assert SUBJECT not in texts
    assert "/secret" not in texts
    loaded = prod9.load(model_folder)
    assert loaded.network.spec.train_subjects == ()
    assert loaded.network.digest != named_model.network.digest
    named_model.save(tmp_path / "named", subjects=True)
    named = prod9.load(tmp_path / "named")
    assert named.network.digest == named_model.network.digest
    assert named.tokenizer.network.spec.train_subjects == (SUBJECT,)


def test_a_tokenizer_alone(named_model: Model, model_folder: Path, tmp_path: Path) -> None:
    named_model.tokenizer.save(str(tmp_path / "alone"))
    scan = np.random.default_rng(0).random((9, 8, 10), np.float32)
    expected = named_model.tokenizer.reconstruct(scan)
    for path in (tmp_path / "alone", model_folder):
        loaded = prod9.Tokenizer.load(path)
        assert np.array_equal(loaded.reconstruct(scan), expected)
        assert loaded.windows == named_model.tokenizer.windows
    assert isinstance(prod9.load(tmp_path / "alone"), prod9.Tokenizer)
    assert "transformer.safetensors" not in {p.name for p in (tmp_path / "alone").iterdir()}


def test_saved_again_it_is_the_same(model_folder: Path, tmp_path: Path) -> None:
    prod9.load(model_folder).save(tmp_path / "again")
    for path in model_folder.glob("[!R]*"):  # the card counts subjects
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_weights_as_fp16_take_half_the_room_and_give_nearly_the_same(
    named_model: Model, model_folder: Path, tmp_path: Path
) -> None:
    named_model.save(tmp_path / "half", half=True)
    loaded = prod9.load(tmp_path / "half")
    for name in ("tokenizer.safetensors", "transformer.safetensors"):
        small, large = ((folder / name) for folder in (tmp_path / "half", model_folder))
        assert small.stat().st_size < 0.6 * large.stat().st_size
    scan = np.random.default_rng(0).random((9, 8, 10), np.float32)
    expected = named_model.tokenizer.reconstruct(scan)
    assert np.abs(loaded.tokenizer.reconstruct(scan) - expected).mean() < 0.01
    assert volumes(loaded).shape == volumes(named_model).shape
    # Saved again, in either way, it has the same weights.
    loaded.save(tmp_path / "again", half=True)
    loaded.save(tmp_path / "whole")
    again, whole = (prod9.load(tmp_path / name) for name in ("again", "whole"))
    assert again.network.digest == whole.network.digest == loaded.network.digest


def test_a_weight_that_fp16_cannot_hold_is_refused(named_model: Model, tmp_path: Path) -> None:
    next(named_model.network.transformer.parameters()).data.flatten()[0] = 1e6
    with pytest.raises(Prod9Error, match="too large for fp16"):
        named_model.save(tmp_path / "half", half=True)


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def rename_one(path: Path) -> None:
    weights = load_file(path)
    name = next(iter(weights))
    weights["other"] = weights.pop(name)
    save_file(weights, path)


def change_spec(folder: Path) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["transformer"]["spec"]["class_names"] = ["ball", "cat"]
    path.write_text(json.dumps(content))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte of the tokenizer": (
        lambda f: flip(f / "tokenizer.safetensors"),
        "tokenizer.safetensors is damaged: its weights do not match its digest",
    ),
    "a byte of the transformer": (
        lambda f: flip(f / "transformer.safetensors"),
        "transformer.safetensors is damaged",
    ),
    "cut": (lambda f: cut(f / "transformer.safetensors"), "transformer.safetensors cannot be read"),
    "empty": (lambda f: (f / "tokenizer.safetensors").write_bytes(b""), "cannot be read"),
    "missing": (lambda f: (f / "tokenizer.safetensors").unlink(), "there is no file .*tokenizer"),
    "renamed": (lambda f: rename_one(f / "tokenizer.safetensors"), "not a tokenizer that prod9"),
    "spec": (change_spec, "do not match its digest"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json is damaged, or not"),
    "foreign": (lambda f: edit(f, kind="bert"), "config.json is damaged, or not of a model"),
    "foreign kind": (lambda f: edit(f, kind=["x"]), "config.json is damaged, or not of a model"),
    "newer": (lambda f: edit(f, format_version=2, prod9="9.1"), "install prod9 9.1 or newer"),
    "unfinished": (lambda f: edit(f, kind="prod9-unfinished"), "was not saved to the end"),
    "no spec": (lambda f: edit(f, tokenizer=["x"]), "not a tokenizer that prod9"),
    "settings": (lambda f: edit(f, settings={"seed": "x"}), "records seed"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_sentence(model_folder: Path, damage: str) -> None:
    spoil, words = DAMAGES[damage]
    spoil(model_folder)
    with pytest.raises(prod9.Prod9Error, match=words) as error:
        prod9.load(model_folder)
    assert "\n" not in str(error.value)


def test_the_tokenizer_of_another_model(
    model_folder: Path, make_tokenizer: Any, tmp_path: Path
) -> None:
    prod9.Tokenizer(make_tokenizer(seed=5), SlidingWindowConfig()).save(tmp_path / "other")
    other = json.loads((tmp_path / "other" / "config.json").read_text())
    edit(model_folder, tokenizer=other["tokenizer"])
    weights = "tokenizer.safetensors"
    (model_folder / weights).write_bytes((tmp_path / "other" / weights).read_bytes())
    with pytest.raises(prod9.Prod9Error, match="a transformer of the tokenizer"):
        prod9.load(model_folder)


def test_only_what_is_prod9s_is_replaced(
    named_model: Model, model_folder: Path, tmp_path: Path
) -> None:
    (model_folder / "notes.txt").write_text("mine")
    with pytest.raises(prod9.Prod9Error, match="already holds a model"):
        named_model.save(model_folder)
    named_model.tokenizer.save(model_folder, overwrite=True)
    assert isinstance(prod9.load(model_folder), prod9.Tokenizer)
    assert not (model_folder / "transformer.safetensors").exists()
    assert (model_folder / "notes.txt").read_text() == "mine"
    (model_folder / "transformer.safetensors").write_text("mine")
    with pytest.raises(prod9.Prod9Error, match="in the way and no record"):
        named_model.save(model_folder, overwrite=True)
    assert isinstance(prod9.load(model_folder), prod9.Tokenizer)  # nothing has happened yet
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"kind": "bert"}')
    with pytest.raises(prod9.Prod9Error, match="in the way and no record"):
        named_model.save(foreign, overwrite=True)


def test_a_record_names_no_other_file(named_model: Model, model_folder: Path) -> None:
    outside = model_folder.parent / "outside.txt"
    outside.write_text("mine")
    edit(model_folder, files=[*FILES, "../outside.txt", 3])
    named_model.save(model_folder, overwrite=True)
    assert outside.exists()


def test_what_was_not_saved_to_the_end_is_replaced(named_model: Model, model_folder: Path) -> None:
    (model_folder / "transformer.safetensors").unlink()
    edit(model_folder, kind="prod9-unfinished")
    named_model.save(model_folder)
    assert isinstance(prod9.load(model_folder), Model)


def description(root: Path) -> DatasetDescription:
    scan = ScanEntry(subject=SUBJECT, files={"t1": "a.nii.gz"})
    return DatasetDescription(
        name="heads",
        root=root,
        layout="loose",
        channels={"t1": ChannelEntry()},
        licence="CC-BY-4.0",
        scans={"a": scan},
    )


def test_the_card_and_what_lies_beside_the_model(named_model: Model, tmp_path: Path) -> None:
    figures, target = evaluation(SUBJECT), tmp_path / "model"
    (tmp_path / "metrics.json").write_text(figures.model_dump_json())
    (tmp_path / "report.html").write_text("<p>page</p>")
    extras: dict[str, Any] = {
        "dataset": description(tmp_path),
        "metrics": tmp_path / "metrics.json",
        "report": str(tmp_path / "report.html"),
        "licence": "Apache-2.0",
        "intended_use": "Tests.",
    }
    named_model.save(target, **extras)
    card = (target / "README.md").read_text()
    for words in ("heads", "CC-BY-4.0", "Apache-2.0", "Tests.", "ball, box", "no sign of copying"):
        assert words in card
    assert "| reconstruction, PSNR, 20 volumes | 25.4 dB [25.1, 25.7] |" in card
    assert "\n\n\n" not in card
    assert SUBJECT not in card
    assert "/secret" not in card
    assert (target / "report.html").read_text() == "<p>page</p>"
    kept = read_description(target / "dataset.yaml")
    assert (kept.scans, kept.root, kept.name) == ({}, target, "heads")
    text = (target / "metrics.json").read_text()
    assert SUBJECT not in text
    assert "/secret" not in text
    assert Evaluation.model_validate_json(text).reconstruction == figures.reconstruction
    prod9.load(target)
    named_model.save(target, overwrite=True, subjects=True, **extras)
    assert SUBJECT in (target / "metrics.json").read_text()
    assert SUBJECT in (target / "dataset.yaml").read_text()
    named_model.save(target, overwrite=True)  # what it has no more goes
    assert {path.name for path in target.iterdir()} & {"report.html", "metrics.json"} == set()


def test_figures_of_another_model(named_model: Model, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(evaluation(SUBJECT, transformer="0" * 64).model_dump_json())
    with pytest.raises(prod9.Prod9Error, match="figures of the transformer 000000000000"):
        named_model.save(tmp_path / "model", metrics=path)
    assert not (tmp_path / "model").exists()
    path.write_text("{}")
    with pytest.raises(prod9.Prod9Error, match=r"not a metrics\.json"):
        named_model.save(tmp_path / "model", metrics=path)
    with pytest.raises(prod9.Prod9Error, match="cannot read"):
        named_model.save(tmp_path / "model", report=tmp_path / "none.html")


def test_weights_keep_every_kind_of_number(named_model: Model, model_folder: Path) -> None:
    saved = load_file(model_folder / "transformer.safetensors")
    assert len({path.stat().st_mode for path in model_folder.iterdir()}) == 1
    for name, weight in named_model.network.transformer.state_dict().items():
        assert saved[name].dtype == weight.dtype
        assert torch.equal(saved[name], weight)
