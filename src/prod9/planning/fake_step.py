"""One training step with PyTorch's fake tensors, which have shapes but no values and no memory."""

import math
import warnings
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prod9.config import Stage1Config, Stage2Config
from prod9.config.data import coarse_of
from prod9.data.crops import Batch
from prod9.data.tokens.store import TokenBatch
from prod9.losses.feature_loss import build_feature_loss
from prod9.masking import gamma
from prod9.model import build_transformer
from prod9.networks.activation_checkpointing import recompute_activations
from prod9.planning.data_sizes import Sizes
from prod9.planning.flops import operation_flops
from prod9.tokenizer import CHANNELS, build_autoencoder
from prod9.training.bare_step import replace_loop, take_step
from prod9.training.stage1 import build_discriminator
from prod9.training.stage1_module import Stage1Module
from prod9.training.stage2_module import Stage2Module

Device = Literal["cpu", "cuda"]
FROZEN = "feature network"
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
aten = torch.ops.aten


@dataclass(frozen=True)
class StepCost:
    """What one step of one process needs."""

    parameters: dict[str, int]
    """Network -> how many; the first is the one that is averaged and exported."""
    held: int
    """Bytes between two steps: weights, gradients, moments, averaged weights, the batch."""
    peak: int
    """The most bytes at any moment of a step."""
    flops: tuple[float, float]
    """Floating point operations, forward and backward."""


class StepRecorder(TorchDispatchMode):
    """Adds up the bytes of all storages that are alive, and floating point operations.

    Memory that a kernel allocates for itself is not seen. ``flops`` are of (forward, backward).

    Args:
        masked: share of the rows that a selection by a mask keeps (its values are not known).
    """

    def __init__(self, masked: float = 1.0) -> None:
        super().__init__()
        self.masked = masked
        self.held = self.peak = 0
        self.flops = [0.0, 0.0]
        self._alive: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        packet = func.overloadpacket
        if packet is aten._local_scalar_dense:
            return 0  # "Is anything not finite?": no.
        if packet is aten.index and len(args[1]) == 1 and args[1][0].dtype == torch.bool:
            x, (mask,) = args
            rows = max(1, round(self.masked * mask.numel()))
            out = x.new_empty(rows, *x.shape[mask.ndim :])
        elif packet is aten._fused_adamw_:
            return None  # works in place; PyTorch takes seconds to find that out
        else:
            out = func(*args, **kwargs)
        for leaf in [out] if isinstance(out, Tensor) else tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.hold(leaf)
        node: Any = torch._C._current_autograd_node()  # pyright: ignore[reportPrivateUsage]
        self.flops[node is not None] += operation_flops(func, args, kwargs, out)
        return out

    def hold(self, tensor: Tensor) -> None:
        """Count a tensor's storage until it is freed."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()  # pyright: ignore[reportPrivateUsage]
        if key in self._alive:
            return
        self._alive.add(key)
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._free, key, size).atexit = False

    def _free(self, key: int, size: int) -> None:
        self._alive.remove(key)
        self.held -= size


def precision_of(config: Stage1Config | Stage2Config, device: Device) -> str:
    """Return ``trainer.precision``; ``auto`` is bf16 on a GPU."""
    auto = "bf16" if device == "cuda" else "fp32"
    return auto if config.trainer.precision == "auto" else config.trainer.precision


def step_cost(
    config: Stage1Config | Stage2Config,
    sizes: Sizes,
    batch: int,
    device: Device,
    *,
    checkpointing: bool,
) -> StepCost:
    """Take two training steps of ``batch`` samples and measure the second.

    The step is that of the training module itself. Stage 1 takes it with its discriminator; in
    Stage 2 as many tokens are masked as one step in forty exceeds.
    """
    recorder = StepRecorder(_masked_share(config, sizes, batch))
    module, networks = _module(config, sizes)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    tensors = [t for part in {module, *networks.values()} for t in _make_fake(part, mode)]
    if checkpointing:
        recompute_activations(next(iter(networks.values())))
    with _surroundings(device), mode, recorder:
        for tensor in tensors:
            recorder.hold(tensor)
        _replace_loop(module)
        data, precision = _batch(config, sizes, batch), precision_of(config, device)

        def step() -> None:
            low = precision in _TYPES
            take_step(module, data, torch.autocast("cpu", _TYPES.get(precision), enabled=low))

        step()
        recorder.peak, recorder.flops = recorder.held, [0.0, 0.0]
        step()
        held = recorder.held
    parameters = {name: sum(p.numel() for p in n.parameters()) for name, n in networks.items()}
    return StepCost(parameters, held, recorder.peak, (recorder.flops[0], recorder.flops[1]))


def _masked_share(config: Stage1Config | Stage2Config, sizes: Sizes, batch: int) -> float:
    """Return the share of a batch's tokens that is masked, mean plus two standard deviations."""
    if isinstance(config, Stage1Config):
        return 1.0
    ratios = torch.linspace(0, 1, 1001)
    share = gamma(config.loss.mask_schedule, ratios, math.prod(sizes.window))
    return min(1.0, float(share.mean() + 2 * share.std() / batch**0.5))


@contextmanager
def _surroundings(device: Device) -> Generator[None]:
    """Let networks compute as they would on ``device``, and wait for no other process.

    Without CUDA, PyTorch has no fake tensors of a GPU: they stay on the CPU. prod9's own CPU
    operations are switched off as in a compiled model, and under autocast norms compute in fp32.
    """

    def wide(norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return norm(x.float() if torch.is_autocast_enabled("cpu") else x, *args, **kwargs)

        return call

    with ExitStack() as within:
        within.enter_context(warnings.catch_warnings(action="ignore"))
        within.enter_context(patch("torch.distributed.is_initialized", lambda: False))
        if device == "cuda":
            within.enter_context(patch("torch.compiler.is_compiling", lambda: True))
            for name in ("group_norm", "layer_norm"):
                within.enter_context(patch.object(F, name, wide(getattr(F, name))))
        yield


def _module(
    config: Stage1Config | Stage2Config, sizes: Sizes
) -> tuple[Stage1Module | Stage2Module, dict[str, nn.Module]]:
    """Return the training module and its networks, the trained one first.

    The networks are on the meta device: nothing is allocated, initialised or read from a file.
    """
    if isinstance(config, Stage2Config):
        with torch.device("meta"):
            transformer = build_transformer(
                config.model.transformer,
                levels=sizes.autoencoder.levels,
                num_classes=len(sizes.data.class_names),
                num_channels=len(sizes.data.channels),
                coarse=coarse_of(config.data).factor > 0,
                grid=sizes.grid,
            )
        return Stage2Module(config, transformer), {"transformer": transformer}
    with torch.device("meta"):
        autoencoder = build_autoencoder(config.model.autoencoder)
        discriminator = build_discriminator(config)
        feature = build_feature_loss(config.loss, untrained=True)
    networks: dict[str, nn.Module] = {"autoencoder": autoencoder}
    if discriminator is not None:
        networks["discriminator"] = discriminator
    # A frozen network is no registered submodule of its loss: see MedicalNetPerceptualLoss.
    if isinstance(frozen := getattr(feature.term, "network", None), nn.Module):
        networks[FROZEN] = frozen
    module = Stage1Module(config, autoencoder, feature, discriminator)
    module.batches_seen = config.loss.discriminator_iter_start
    return module, networks


def _make_fake(network: nn.Module, mode: FakeTensorMode) -> Iterator[Tensor]:
    """Replace parameters and buffers, which ``nn.Module.to`` cannot do with fake tensors."""
    for part in network.modules():
        for name, tensor in (*part.named_parameters("", False), *part.named_buffers("", False)):
            if not isinstance(tensor, FakeTensor):
                fake: Any = FakeTensor(mode, tensor.detach().to("meta"), torch.device("cpu"))
                if isinstance(tensor, nn.Parameter):
                    fake = nn.Parameter(fake, tensor.requires_grad)
                setattr(part, name, fake)
                yield fake


def _replace_loop(module: Stage1Module | Stage2Module) -> None:
    """Replace what the module calls of Lightning's loop."""
    loop: Any = SimpleNamespace(estimated_stepping_batches=2, precision_plugin=None, global_step=0)
    module.trainer = loop
    optimizers, schedulers = module.configure_optimizers()

    def clip(optimizer: torch.optim.Optimizer, *_: object) -> None:
        module.on_before_optimizer_step(optimizer)

    for optimizer in optimizers:
        optimizer.register_step_pre_hook(clip)
    replace_loop(module, optimizers, schedulers)


def _batch(config: Stage1Config | Stage2Config, sizes: Sizes, count: int) -> Batch | TokenBatch:
    labels, names = torch.zeros(count, dtype=torch.long), [""] * count
    if isinstance(config, Stage1Config):
        return Batch(torch.zeros(count, CHANNELS, *sizes.sample), labels, names)
    tokens = labels.new_zeros(count, *sizes.window)
    channels = len(sizes.data.channels)
    given = (channels if channels > 1 else 0) + (coarse_of(config.data).factor > 0)
    if not given:
        return TokenBatch(tokens, labels, names)
    sources = labels.new_zeros(count, given, *sizes.window)
    return TokenBatch(tokens, labels, names, sources, torch.zeros(count, 3))
