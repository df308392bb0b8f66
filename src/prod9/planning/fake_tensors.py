"""Surroundings in which tensors have shapes and no numbers, as they would be on another device."""

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from prod9.config.training import TrainerConfig
from prod9.planning.recorder import Rehearsal
from prod9.runtime import processes

Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Setting:
    """What a step runs on."""

    device: Device
    precision: Precision

    def __str__(self) -> str:
        return f"{self.precision} on a {'GPU' if self.device == 'cuda' else 'CPU'}"


def setting_of(config: TrainerConfig, device: Device) -> Setting:
    """Return what ``trainer.precision`` means there; ``auto`` takes a GPU to compute in bf16."""
    if config.precision == "auto":
        return Setting(device, "bf16" if device == "cuda" else "fp32")
    return Setting(device, config.precision)


@contextmanager
def _alone() -> Generator[None]:
    """Wait for nobody: other processes of a distributed run rehearse nothing."""
    joined = processes._joined  # pyright: ignore[reportPrivateUsage]
    processes._joined = lambda: False  # pyright: ignore[reportPrivateUsage]
    try:
        yield
    finally:
        processes._joined = joined  # pyright: ignore[reportPrivateUsage]


def bare() -> torch.device:
    """Build networks without numbers in the block."""
    return torch.device("meta")


@contextmanager
def pretend(
    setting: Setting, networks: Sequence[nn.Module], kept: float = 1.0
) -> Generator[Rehearsal]:
    """Make all tensors of the block, and ``networks``, into such without numbers."""
    mode = FakeTensorMode()
    _move(networks, mode)
    with (
        warnings.catch_warnings(),
        _alone(),
        _as_on_a_gpu() if setting.device == "cuda" else nullcontext(),
        mode,
        Rehearsal(kept) as watch,
    ):
        warnings.simplefilter("ignore")
        watch.hold(networks)
        yield watch


def _move(networks: Sequence[nn.Module], mode: FakeTensorMode) -> None:
    """Replace parameters and buffers; ``nn.Module.to`` cannot do it with tensors like these."""
    moved: dict[int, Tensor] = {}

    def to(tensor: Tensor) -> Tensor:
        if id(tensor) not in moved:
            new: Tensor = FakeTensor(mode, tensor.detach(), torch.device("cpu"))
            if isinstance(tensor, nn.Parameter):
                new = nn.Parameter(new, tensor.requires_grad)
            moved[id(tensor)] = moved[id(new)] = new
        return moved[id(tensor)]

    for part in (part for network in networks for part in network.modules()):
        for tensors in cast(Any, (part._parameters, part._buffers)):  # pyright: ignore[reportPrivateUsage]
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = to(tensor)


@contextmanager
def _as_on_a_gpu() -> Generator[None]:
    """Let networks take the ways that they take on a GPU.

    PyTorch without CUDA cannot even pretend to have one, so the tensors are said to lie on a CPU.
    There prod9's operations of its own are left out when a model is compiled, and under autocast
    norms stay in bf16, which a GPU computes in fp32.
    """

    def wide(norm: Any) -> Any:
        def call(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return norm(x.float() if torch.is_autocast_enabled("cpu") else x, *args, **kwargs)

        return call

    changes: list[tuple[Any, str, Any]] = [
        (torch.compiler, "is_compiling", lambda: True),
        *((F, name, wide(getattr(F, name))) for name in ("group_norm", "layer_norm")),
    ]
    before = [getattr(place, name) for place, name, _ in changes]
    for place, name, value in changes:
        setattr(place, name, value)
    try:
        yield
    finally:
        for (place, name, _), value in zip(changes, before, strict=True):
            setattr(place, name, value)


@contextmanager
def in_precision(setting: Setting) -> Generator[None]:
    """Compute in the setting's precision."""
    if setting.precision == "fp32":
        yield
        return
    before = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
    torch.set_autocast_enabled("cpu", True)
    torch.set_autocast_dtype("cpu", _TYPES[setting.precision])
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled("cpu", before[0])
        torch.set_autocast_dtype("cpu", before[1])
