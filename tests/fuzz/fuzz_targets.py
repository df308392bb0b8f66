"""Every reader of files that somebody else may have made, with whole files to begin from.

What is promised: a reader returns, or raises Prod9Error; in a second or so, in memory that the file
accounts for, running nothing, and writing nothing.
"""

import gzip
import hashlib
import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from fuzz_mutations import NIFTI1

from prod9.config import AutoencoderConfig, Stage1Config, Stage2Config, TransformerConfig
from prod9.config.load import load, load_stage1
from prod9.data.brats.cases import channel_order, read_case
from prod9.data.brats.layouts import MODALITIES, Case
from prod9.data.splits import open_split
from prod9.data.tokens.store import sound_meta
from prod9.data.volume_files.npz import npz_headers, read_npy, read_npz_array
from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.write import write_inside
from prod9.data.volume_sets.folder import list_volumes
from prod9.errors import Prod9Error
from prod9.inference.model_folder import read_folder, save_folder
from prod9.inference.recorded import Recorded
from prod9.model import TransformerSpec, build_transformer, load_generator, save_transformer
from prod9.report.curves import read_history
from prod9.report.viewed_files import find_volumes
from prod9.tokenizer import Tokenizer, TokenizerSpec, build_autoencoder
from prod9.torch_files import read_plain, write_plain
from prod9.training.checkpoint_files import CONFIG_KEY, POSITION_KEY, Position, read_last

AFFINE = np.array([[-1.0, 0, 0, 9], [0, 1, 0, 2], [0, 0, 2, 3], [0, 0, 0, 1]])

TOKENS, LABELS = np.zeros((1, 2, 2, 2), np.uint8), np.zeros(1, np.int64)


@dataclass(frozen=True)
class Target:
    """A reader, and what it reads."""

    name: str
    file: str
    """The input's name in an empty folder."""
    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], object]
    fields: tuple[tuple[int, str], ...] = ()
    """Where numbers lie in the input, as ``fuzz_mutations`` has them."""
    store: Callable[[bytes], bytes] = field(default=lambda data: data)
    """Input -> the file's bytes; packs what would otherwise be refused for its checksum."""


def saved(write: Callable[[Any, Any], object], array: Any) -> bytes:
    buffer = io.BytesIO()
    write(buffer, array)
    return buffer.getvalue()


def arrays() -> list[np.ndarray]:
    voxels = np.random.default_rng(0).random((4, 5, 6))
    return [voxels.astype(np.float32), (voxels * 255).astype(np.uint8), np.asfortranarray(voxels)]


def npy_seeds() -> list[bytes]:
    labelled = np.zeros(3, [("a", "<i4"), ("b", "<f8", (2,))])
    return [saved(np.save, array) for array in (*arrays(), np.zeros((0, 3)), labelled)]


def npz_seeds() -> list[bytes]:
    content = {"train_images": np.zeros((2, 3, 3, 3), np.uint8), "train_labels": np.eye(2)}
    plain, packed = io.BytesIO(), io.BytesIO()
    np.savez(plain, **content)
    np.savez_compressed(packed, **content)
    return [plain.getvalue(), packed.getvalue()]


def read_npz(path: Path) -> None:
    for key in npz_headers(path):
        read_npz_array(path, key)


def nifti_seeds() -> list[bytes]:
    result: list[bytes] = []
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        for array in arrays():
            image = kind(array, AFFINE)
            image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"a comment"))
            image.header.set_slope_inter(2, -1)
            result.append(image.to_bytes())
            result.append(kind(array, AFFINE).to_bytes())
    return result


def series_seeds() -> list[bytes]:
    array = np.random.default_rng(0).random((3, 4, 5, 4)).astype(np.float32)
    return [nib.Nifti1Image(array, AFFINE).to_bytes()]


def read_any_volume(path: Path) -> None:
    for read in (read_volume, lambda path: find_volumes([path.parent])):
        try:
            read(path)
        except Prod9Error:
            continue


def paint(path: Path) -> None:
    new = np.ones((4, 5, 6), np.float32)
    write_inside(path.with_name(f"out{path.name[4:]}"), path, new, new > 0)


def case_of(path: Path) -> Case:
    return Case("x", "x", "msd", dict.fromkeys(MODALITIES, path), None)


def read_channels(path: Path) -> object:
    return channel_order(path.parent / "imagesTr" / "BRATS_001.nii.gz")


def describe_seeds() -> list[bytes]:
    names = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    return [json.dumps({"modality": m}).encode() for m in (names, list(names.values()))]


def config_seeds() -> list[bytes]:
    return [
        b"extends: maskgit/demo/stage1.yaml\ndata:\n  batch_size: 2\n  size: 28\nseed: 3\n",
        b"model:\n  autoencoder:\n    levels: [8, 8, 8]\n    num_channels: [8, 8]\n"
        b"output_dir: ${OUT:out}\ntrainer: {max_epochs: 2, precision: fp32}\n",
        b'data:\n  dataset_name: brats\n  data_dir: "x"\n  preprocessing: {spacing_mm: [1, 1.0, '
        b"1e0]}\nautoencoder_export_path: a.pt\n",
    ]


def read_configs(path: Path) -> None:
    for model in (Stage1Config, Stage2Config):
        try:
            load(path, model)
        except Prod9Error:
            continue


def read_override(path: Path) -> None:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    load_stage1(Path("maskgit/demo/stage1.yaml"), text.split("\t"))


@cache
def tokenizer() -> Tokenizer:
    config = AutoencoderConfig(levels=(5, 4, 3), num_channels=(8, 8), norm_num_groups=4)
    spec = TokenizerSpec(
        autoencoder=config,
        dataset_name="organmnist3d",
        volume_shape=(8, 8, 8),
        spacing_mm=(1.0, 1.0, 1.0),
        class_names=("ball", "box"),
        config_yaml="seed: 0\n",
    )
    return Tokenizer(spec, build_autoencoder(config))


def written(write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "x.pt")
        return (Path(folder) / "x.pt").read_bytes()


@cache
def tokenizer_file() -> bytes:
    return written(tokenizer().save)


@cache
def transformer_file() -> bytes:
    config = TransformerConfig(hidden_dim=16, num_blocks=1, num_heads=2, token_dim=8, mlp_ratio=1.0)
    spec = TransformerSpec(
        transformer=config,
        levels=(5, 4, 3),
        class_names=("ball", "box"),
        grid=(4, 4, 4),
        window=(4, 4, 4),
        tokenizer_digest=tokenizer().digest,
        config_yaml="seed: 0\n",
    )
    network = build_transformer(
        config, levels=(5, 4, 3), num_classes=2, num_channels=1, grid=(4, 4, 4)
    )
    return written(lambda path: save_transformer(path, spec, network))


@cache
def checkpoint_file() -> bytes:
    weights = {"a.weight": torch.ones(3, 2), "a.bias": torch.zeros(3, dtype=torch.float64)}
    moments = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(3, 2).bfloat16()}}}
    loops = {"fit_loop": {"epoch_loop.batch_progress": {"total": {"completed": 6}}}}
    content = {"state_dict": weights, "optimizer_states": [moments], CONFIG_KEY: "seed: 0\n"}
    content[POSITION_KEY] = Position()._asdict()
    return written(lambda path: write_plain(path, content | {"epoch": 2, "loops": loops}))


def pickle_of(file: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        return archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl")))


def with_pickle(file: bytes, data: bytes) -> bytes:
    """Put another pickle into a ``.pt`` file, with a right checksum."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(file)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, data if name.endswith("data.pkl") else old.read(name))
    return buffer.getvalue()


def spec_of(file: bytes) -> bytes:
    return json.dumps(torch.load(io.BytesIO(file), weights_only=True)["spec"]).encode()


def with_spec(file: bytes, data: bytes) -> bytes:
    """Put another spec, JSON, into an export; what is no JSON gives an empty file."""
    buffer = io.BytesIO()
    try:
        content = torch.load(io.BytesIO(file), weights_only=True)
        torch.save(content | {"spec": json.loads(data)}, buffer)
    except (ValueError, RecursionError):
        return b""
    return buffer.getvalue()


def read_transformer(path: Path) -> object:
    return load_generator(path, tokenizer())


@cache
def model_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.pt"
        file.write_bytes(transformer_file())
        network = load_generator(file, tokenizer())
        save_folder(network, Recorded(), Path(folder) / "model", {})
        return {path.name: path.read_bytes() for path in (Path(folder) / "model").iterdir()}


def read_model(path: Path) -> object:
    for name, content in model_files().items():
        if name != path.name:
            path.with_name(name).write_bytes(content)
    return read_folder(path.parent, "cpu")


def model_target(name: str) -> Target:
    return Target(f"model {name}", name, lambda: [model_files()[name]], read_model)


def volumes_beside(path: Path) -> None:
    for name in ("a.npy", "b.npy"):
        (path.parent / name).touch()
    list_volumes(path.parent)


def manifest_seeds() -> list[bytes]:
    samples = [{"file": f"{name}.npy", "class": "liver", "label": 0} for name in "ab"]
    return [json.dumps({"prod9": "1", "samples": samples}).encode()]


def split_seeds() -> list[bytes]:
    split = {"train": ["a"], "val": ["b"], "test": ["c"]}
    return [json.dumps(split | {"seed": 0, "val_share": 0.25, "test_share": 0.25}).encode()]


def read_split(path: Path) -> object:
    return open_split(path, ["a", "b", "c"], seed=0, val_share=0.25, test_share=0.25)


def store_seeds() -> list[bytes]:
    key = {"tokenizer_digest": "0", "data_digest": "1", "split": "train"}
    meta = {"key": key, "codebook_size": 60, "dtype": "uint8", "shape": [1, 2, 2, 2]}
    digests = {
        "tokens.npy": hashlib.sha256(saved(np.save, TOKENS)).hexdigest(),
        "labels.npy": hashlib.sha256(saved(np.save, LABELS)).hexdigest(),
    }
    more = {"names": ["a"], "class_names": ["ball"], "sha256": digests, "prod9_version": "1"}
    return [json.dumps(meta | more).encode()]


def read_store(path: Path) -> object:
    np.save(path.with_name("tokens.npy"), TOKENS)
    np.save(path.with_name("labels.npy"), LABELS)
    return sound_meta(path.parent)


def read_labels(path: Path) -> object:
    np.save(path.with_name("tokens.npy"), TOKENS)
    path.with_name("meta.json").write_bytes(store_seeds()[0])
    return sound_meta(path.parent)


def packed(data: bytes) -> bytes:
    return gzip.compress(data, 1)


def gzip_seeds() -> list[bytes]:
    return [gzip.compress(seed) for seed in nifti_seeds()[:4]]


def read_series(path: Path) -> object:
    return read_case(case_of(path))


def read_content(path: Path) -> object:
    return read_plain(path, "delete it")


OVERRIDES = [b"data.batch_size=2", b"model.autoencoder.levels=[8, 8]\tseed=1"]
TABLE = [b'file,class\na.npy,liver\n"b.npy","a, b"\n']
HISTORY = [b"epoch,step,train/loss\n0,1,0.5\n0,2,nan\n1,3,\n"]

TARGETS = (
    Target("npy", "case.npy", npy_seeds, read_any_volume),
    Target("npy array", "case.npy", npy_seeds, read_npy),
    Target("npz", "case.npz", npz_seeds, read_npz),
    Target("NIfTI", "case.nii", nifti_seeds, read_any_volume, NIFTI1),
    Target("NIfTI packed", "case.nii.gz", nifti_seeds, read_any_volume, NIFTI1, packed),
    Target("gzip", "case.nii.gz", gzip_seeds, read_volume),
    Target("NIfTI painted", "case.nii", nifti_seeds, paint, NIFTI1),
    Target("Decathlon", "BRATS_001.nii", series_seeds, read_series, NIFTI1),
    Target("dataset.json", "dataset.json", describe_seeds, read_channels),
    Target("YAML", "config.yaml", config_seeds, read_configs),
    Target("override", "override.txt", lambda: OVERRIDES, read_override),
    Target("tokenizer", "x.pt", lambda: [tokenizer_file()], Tokenizer.load),
    Target(
        "tokenizer spec",
        "x.pt",
        lambda: [spec_of(tokenizer_file())],
        Tokenizer.load,
        store=lambda data: with_spec(tokenizer_file(), data),
    ),
    Target("transformer", "x.pt", lambda: [transformer_file()], read_transformer),
    Target(
        "transformer spec",
        "x.pt",
        lambda: [spec_of(transformer_file())],
        read_transformer,
        store=lambda data: with_spec(transformer_file(), data),
    ),
    Target(
        "checkpoint",
        "last.ckpt",
        lambda: [checkpoint_file()],
        lambda path: read_last(path.parent),
    ),
    Target(
        "checkpoint pickle",
        "x.pt",
        lambda: [pickle_of(checkpoint_file())],
        read_content,
        store=lambda data: with_pickle(checkpoint_file(), data),
    ),
    *map(model_target, ("config.json", "tokenizer.safetensors", "transformer.safetensors")),
    Target("manifest.json", "manifest.json", manifest_seeds, volumes_beside),
    Target("manifest.csv", "manifest.csv", lambda: TABLE, volumes_beside),
    Target("split", "split.json", split_seeds, read_split),
    Target("token store", "meta.json", store_seeds, read_store),
    Target("token labels", "labels.npy", lambda: [saved(np.save, LABELS)], read_labels),
    Target("history", "metrics.csv", lambda: HISTORY, lambda path: read_history(path.parent)),
)
