"""What each lever adds: prod9 against itself without it."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.contender import Case, Contender, Work

WITHOUT = "prod9 without it"
_WIDTHS, _LEVELS = (16, 32, 64, 64), (8, 8, 8)


def _autoencoder() -> nn.Module:
    from prod9.config import AutoencoderConfig
    from prod9.tokenizer import build_autoencoder

    return build_autoencoder(AutoencoderConfig(levels=_LEVELS, num_channels=_WIDTHS))


def _keep(lever: bool = True) -> None:
    from prod9.runtime.allocator import keep_freed_memory

    if lever:
        keep_freed_memory()


def freed_memory(lever: bool, seed: int) -> Work:
    """Forward and backward of the autoencoder."""
    _keep(lever)
    torch.manual_seed(seed)
    network, x = _autoencoder(), torch.rand(2, 1, 64, 64, 64)
    return Work(lambda: (network(x).volume - x).abs().mean().backward())


def linear(lever: bool, seed: int) -> Work:
    """Forward and backward of one transformer block over 1,024 positions."""
    from prod9.networks.cpu_kernels.linear import Linear
    from prod9.networks.transformer import Block

    _keep()
    torch.manual_seed(seed)
    block = Block(512, 8, 4.0, 0.0)
    for module in () if lever else block.modules():
        if isinstance(module, Linear):
            module.forward = module.plain
    x, condition = torch.randn(1, 1024, 512, requires_grad=True), torch.randn(1, 512)
    angles = torch.randn(1024, 32)

    def run() -> None:
        block(x, condition, angles.cos(), angles.sin()).sum().backward()

    return Work(run)


def norm_silu(lever: bool, seed: int) -> Work:
    """Forward and backward of group norm and SiLU, features last."""
    from prod9.networks.cpu_kernels.norm import NormSiLU

    _keep()
    torch.manual_seed(seed)
    norm = NormSiLU(16, 8)
    x = torch.randn(2, 16, 64, 64, 64).contiguous(memory_format=torch.channels_last_3d)
    gradient = torch.randn_like(x)

    def plain(x: Tensor) -> Tensor:
        return F.silu(F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps))

    function: Callable[[Tensor], Tensor] = norm if lever else plain
    leaf = x.requires_grad_()
    return Work(lambda: function(leaf).backward(gradient))


def single_volume(lever: bool, seed: int) -> Work:
    """Encode and decode one volume."""
    from prod9.networks.cpu_kernels.conv import Conv3d

    _keep()
    torch.manual_seed(seed)
    network, x = _autoencoder().eval(), torch.rand(1, 1, 64, 64, 64)
    if not lever:
        for module in network.modules():
            if isinstance(module, Conv3d):
                module.__class__ = nn.Conv3d

    def run() -> None:
        with torch.inference_mode():
            network(x)

    return Work(run)


LEVERS: dict[str, tuple[Callable[..., Work], str]] = {
    "freed_memory": (
        freed_memory,
        "Keeping freed memory: the autoencoder forward and backward, 2 x 64^3 voxels",
    ),
    "linear": (
        linear,
        "Matrix products by oneDNN: a transformer block forward and backward, 1,024 positions",
    ),
    "norm_silu": (
        norm_silu,
        "Group norm and SiLU as one: forward and backward on 2 x 16 x 64^3 values",
    ),
    "single_volume": (
        single_volume,
        "One volume as two slabs: encode and decode 1 x 64^3 voxels",
    ),
}


def cases() -> list[Case]:
    return [
        Case(
            name=f"lever_{name}",
            title=f"{title}, widths {list(_WIDTHS)}." if "voxels" in title else f"{title}.",
            contenders=(
                Contender("prod9", setup, {"lever": True, "seed": 0}),
                Contender(WITHOUT, setup, {"lever": False, "seed": 0}),
            ),
            warmup=5,
            sizes={"widths": list(_WIDTHS), "levels": list(_LEVELS)},
        )
        for name, (setup, title) in LEVERS.items()
    ]
