"""Small files that ask for much: refused with a sentence, before any of it is given."""

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from fuzz_promise import little_memory
from fuzz_targets import (
    read_transformer,
    spec_of,
    tokenizer_file,
    transformer_file,
    with_spec,
)

from prod9.config.load import load_stage1
from prod9.data.volume_files.npz import read_npy, read_npz_array
from prod9.data.volume_files.read import read_volume
from prod9.errors import Prod9Error
from prod9.runtime import memory_limits
from prod9.tokenizer import Tokenizer

MIB = 1 << 20


def refused(read: Callable[[Path], object], path: Path, room: int = 256 * MIB) -> str:
    with little_memory(room), pytest.raises(Prod9Error) as caught:
        read(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def nifti(shape: tuple[int, ...], *, kind: Any = nib.Nifti1Image, **fields: Any) -> bytes:
    """Return a header that claims ``shape``, and 60 voxels."""
    content = bytearray(kind(np.zeros((3, 4, 5), np.float32), np.eye(4)).to_bytes())
    code, place = ("<8h", 40) if kind is nib.Nifti1Image else ("<8q", 16)
    struct.pack_into(code, content, place, len(shape), *shape, *[1] * (7 - len(shape)))
    if "begin" in fields:
        struct.pack_into("<f", content, 108, fields["begin"])
    if "extension" in fields:
        content[348] = 1
        struct.pack_into("<i", content, 352, fields["extension"])
    return bytes(content)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("kind", "side"),
    [(nib.Nifti1Image, 10_000), (nib.Nifti2Image, 10_000), (nib.Nifti2Image, 1 << 40)],
)
def test_a_header_of_a_million_million_voxels(
    tmp_path: Path, suffix: str, kind: Any, side: int
) -> None:
    path = tmp_path / f"x{suffix}"
    content = nifti((side,) * 3, kind=kind)
    path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    assert f"declares {side} x {side} x {side} voxels" in refused(read_volume, path)


def test_a_bomb_that_is_what_it_says_is_measured_against_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(nifti((300, 300, 300)) + bytes(4 * 300**3), 9))
    assert path.stat().st_size < MIB
    monkeypatch.setattr(memory_limits, "physical_memory", lambda: 200 * MIB)
    with pytest.raises(Prod9Error, match=r"x\.nii\.gz needs 0\.2 GiB of memory, this machine has"):
        read_volume(path)
    monkeypatch.setattr(memory_limits, "physical_memory", lambda: 300 * MIB)
    assert read_volume(path).array.shape == (300, 300, 300)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("begin", "extension"),
    [(0, 1 << 30), (351, 32), (1e6, -16), (1e9, 32), (-16.0, 32), (float("inf"), 32)],
)
def test_voxels_that_begin_nowhere(
    tmp_path: Path, suffix: str, begin: float, extension: int
) -> None:
    path = tmp_path / f"x{suffix}"
    content = nifti((3, 4, 5), begin=begin, extension=extension)
    path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    refused(read_volume, path)


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


NESTED = "{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 3000 + ")" * 3000 + "}"


@pytest.mark.parametrize(
    "content",
    [
        npy("{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000,)}\n"),
        npy("{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000,)}\n"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000)}\n"),
        npy("{'descr': ('<f4', (1000000000,)), 'fortran_order': False, 'shape': (1,)}\n"),
        npy(NESTED),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2"),  # tokens end too soon
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100),
        npy("{[]: 1}\n"),
    ],
)
def test_forged_npy_headers(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    refused(read_npy, path)
    refused(read_volume, path)


def test_an_npz_is_measured_against_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros(MIB))
    monkeypatch.setattr(memory_limits, "physical_memory", lambda: 7 * MIB)
    with pytest.raises(Prod9Error, match=r"array 'x' in .* needs"):
        read_npz_array(tmp_path / "x.npz", "x")


@pytest.mark.parametrize(
    "change",
    [
        {"autoencoder": {"num_channels": [10**9, 10**9]}},
        {"autoencoder": {"num_channels": [8, 8], "num_res_blocks": 10**9}},
        {"autoencoder": {"num_channels": [8] * 10**5}},
        {"autoencoder": {"levels": [4000, 4000, 4000]}},
        {"autoencoder": {"levels": [10**30, 4, 3]}},
        {"autoencoder": {"norm_num_groups": 10**18}},
        {"volume_shape": [10**9, 8, 8]},
        {"volume_shape": [0, 8, 8]},
        {"volume_shape": [4096, 4096, 4096]},
        {"spacing_mm": [-1.0, 1.0, 1.0]},
        {"spacing_mm": [float("nan"), 1.0, 1.0]},
        {"class_names": ["a\nb", "box"]},
        {"class_names": ["a\0b", "box"]},
        {"class_names": ["x" * 300, "box"]},
        {"class_names": ["\u0b95" * 90, "box"]},
        {"class_names": ["\ud800", "box"]},
    ],
)
def test_an_export_of_absurd_sizes(tmp_path: Path, change: dict[str, Any]) -> None:
    spec = json.loads(spec_of(tokenizer_file()))
    for key, value in change.items():
        spec[key] = spec[key] | value if isinstance(value, dict) else value
    path = tmp_path / "x.pt"
    path.write_bytes(with_spec(tokenizer_file(), json.dumps(spec).encode()))
    message = refused(Tokenizer.load, path)
    if "autoencoder" not in change:
        assert "is not a tokenizer" in message  # and not: another digest, when it was believed
    assert "make it again" in message


@pytest.mark.parametrize(
    "change",
    [
        {"grid": [4096, 4096, 4096]},
        {"window": [4096, 4096, 4096]},
        {"grid": [10**9, 4, 4]},
        {"window": [4, 4, 0]},
        {"num_sources": 10**9},
        {"num_sources": -1},
        {"transformer": {"patch_size": 10**6}},
        {"transformer": {"num_blocks": 10**9}},
        {"transformer": {"mlp_ratio": 1e300}},
    ],
)
def test_a_transformer_of_absurd_sizes(tmp_path: Path, change: dict[str, Any]) -> None:
    spec = json.loads(spec_of(transformer_file()))
    for key, value in change.items():
        spec[key] = spec[key] | value if isinstance(value, dict) else value
    path = tmp_path / "x.pt"
    path.write_bytes(with_spec(transformer_file(), json.dumps(spec).encode()))
    # Not: damaged, by another digest, when it was believed.
    assert "is not a transformer" in refused(read_transformer, path)


def test_the_largest_grid_that_is_believed(tmp_path: Path) -> None:
    spec = json.loads(spec_of(transformer_file())) | {"grid": [2048, 1024, 1024]}
    path = tmp_path / "x.pt"
    path.write_bytes(with_spec(transformer_file(), json.dumps(spec).encode()))
    assert "is damaged" in refused(read_transformer, path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: !!python/object/apply:os.mkdir [trace]", "tag"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "anchors"),
        ("a: " + "[" * 20_000, "nested too deeply"),
        ("a: " + "{a: " * 20_000, "nested too deeply"),
        ('output_dir: "a\\0b"', "character that is none"),
        ('output_dir: "a\\ud800"', "character that is none"),
        ("# " + "x" * MIB, "larger than any configuration"),
        ("seed: " + "9" * 5000, "seed"),
        ("extends: x.yaml", "circle"),
    ],
)
def test_hostile_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert words in refused(load_stage1, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.yaml"]


def test_a_long_chain_of_extends(tmp_path: Path) -> None:
    for number in range(400):
        (tmp_path / f"{number}.yaml").write_text(f"extends: {number + 1}.yaml\n")
    with pytest.raises(Prod9Error, match="more than 20 files extend one another"):
        load_stage1(tmp_path / "0.yaml")
