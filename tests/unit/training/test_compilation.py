import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import compiled_networks
import pytest
import torch
from compiled_networks import autoencoder, gradients, loss_of, transformer
from torch import Tensor, nn

from prod9.config import TrainerConfig
from prod9.errors import Prod9Error
from prod9.training import trainer
from prod9.training.trainer import compile_mode, prepare_training


@pytest.mark.parametrize("make", [autoencoder, transformer])
def test_recomputed_activations_give_the_same_gradients_from_less_memory(make: Any) -> None:
    def kept(network: nn.Module) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        parameters = {p.untyped_storage().data_ptr() for p in network.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = loss_of(network)  # alive, so that no storage is counted twice
        del loss
        return sum(size for place, size in sizes.items() if place not in parameters)

    network = make()
    plain, before = gradients(network), kept(network)
    prepare_training(network, TrainerConfig(activation_checkpointing=True))
    for ours, expected in zip(gradients(network), plain, strict=True):
        assert torch.equal(ours, expected)
    assert kept(network) < 0.6 * before


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_hot_paths_compile_whole_and_give_the_same_gradients(backend: str) -> None:
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("needs a C++ compiler")
    script = Path(compiled_networks.__file__)
    done = subprocess.run(
        [sys.executable, script, backend], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["autoencoder"]["graphs"] == 2  # encoder and decoder
    assert found["transformer"]["graphs"] == 1  # its two blocks are alike
    assert found["autoencoder"]["error"] < 1e-3
    assert found["transformer"]["error"] < 1e-3


def test_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    def mode(**settings: Any) -> str | None:
        return compile_mode(TrainerConfig(accelerator="cpu", **settings))

    assert mode() is None
    assert mode(compile="off") is None
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert mode(compile="max-autotune") == "max-autotune"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert mode() is None
    with pytest.raises(Prod9Error, match=r"trainer.compile=default needs a C\+\+ compiler"):
        mode(compile="default")
    # On a GPU what counts is Triton.
    monkeypatch.setattr(trainer, "resolve_device", lambda accelerator: torch.device("cuda"))
    for there, expected in ((object(), "default"), (None, None)):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, there=there: there)
        assert mode() == expected
    with pytest.raises(Prod9Error, match="needs the package triton"):
        mode(compile="default")
