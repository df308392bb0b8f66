"""One training step of Stage 2 against transformers of equal size, and what packing adds to it."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contender import Case, Contender, Goal, Work
from benchmarks.rivals.maskgit_networks import (
    EncoderNetwork,
    Size,
    UVitNetwork,
    decoder_only,
    masked_loss,
    next_token_loss,
    training_step,
)
from prod9.config import Stage1Config, Stage2Config
from prod9.config.load import load
from prod9.data.medmnist_table import class_names
from prod9.model import build_transformer
from prod9.networks.condition import Condition
from prod9.networks.transformer import MaskedTransformer

STAGE1 = Path("maskgit/medmnist3d/stage1/base.yaml")
STAGE2 = Path("maskgit/medmnist3d/stage2/base.yaml")
ENCODER = "nn.TransformerEncoder"
MONAI = "MONAI DecoderOnlyTransformer"
UVIT = "diffusers UVit2DModel"


def shipped(patch_size: int, *overrides: str) -> Stage2Config:
    """Return the shipped Stage 2 configuration with another patch size."""
    return load(STAGE2, Stage2Config, [f"model.transformer.patch_size={patch_size}", *overrides])


def size_of(side: int, patch_size: int) -> Size:
    """Return the size of the shipped network over ``side``^3 tokens, with one position per token.

    A network without packing has as many positions as there are tokens, whatever prod9 makes of
    them; ``patch_size`` changes nothing else that rivals share.
    """
    network = shipped(patch_size).model.transformer
    stage1 = load(STAGE1, Stage1Config)
    return Size(
        tokens=side**3,
        codes=math.prod(stage1.model.autoencoder.levels),
        classes=len(class_names(stage1.data.dataset_name)),
        width=network.hidden_dim,
        blocks=network.num_blocks,
        heads=network.num_heads,
        mlp_ratio=network.mlp_ratio,
        token_dim=network.token_dim,
    )


def build_network(config: Stage2Config, side: int) -> MaskedTransformer:
    """Return the untrained network of a configuration for ``side``^3 tokens."""
    stage1 = load(STAGE1, Stage1Config)
    return build_transformer(
        config.model.transformer,
        levels=stage1.model.autoencoder.levels,
        num_classes=len(class_names(stage1.data.dataset_name)),
        num_channels=1,
        grid=(side, side, side),
    )


def parameters(network: nn.Module) -> int:
    """Count the numbers that are trained."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def meta_flops(work: Callable[[], object]) -> float:
    """Count what the matrix products and convolutions of ``work`` on the meta device need.

    There nothing is computed, attention is two products, and the network takes its plain paths:
    the CPU's fused attention and prod9's own autograd functions are unknown to the counter.
    """
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def _data(size: Size, batch: int, seed: int) -> tuple[Tensor, Tensor]:
    """Tokens (B, N) and labels (B,): timing does not depend on what they say."""
    stream = torch.Generator().manual_seed(seed)
    tokens = torch.randint(size.codes, (batch, size.tokens), generator=stream)
    return tokens, torch.randint(size.classes, (batch,), generator=stream)


def prod9_flops(patch_size: int, side: int, batch: int) -> float:
    """Count forward and backward; the head runs on masked tokens, 2 / pi of all on average."""
    config = shipped(patch_size)
    network = build_network(config, side).to("meta")
    with torch.device("meta"):
        tokens = torch.zeros(batch, side, side, side, dtype=torch.int64)
        labels = torch.zeros(batch, dtype=torch.int64)

    def step() -> None:
        condition = Condition.of(labels, 1)
        features = network.features(tokens, condition).flatten(0, 3)
        masked = features[: round(2 / math.pi * len(features))]
        network.head(masked).sum().backward()

    return meta_flops(step)


def rival_flops(kind: type[nn.Module], size: Size, batch: int) -> float:
    """Count forward and backward of a network that is told tokens and labels."""
    with torch.device("meta"):
        network = kind(size)
        tokens = torch.zeros(batch, size.tokens, dtype=torch.int64)
        labels = torch.zeros(batch, dtype=torch.int64)
    return meta_flops(lambda: network(tokens, labels).sum().backward())


def prod9(side: int, batch: int, patch_size: int, seed: int) -> Work:
    """``prod9-train-transformer train`` of the shipped configuration, its real Lightning loop."""
    from benchmarks.lightning_steps import LightningSteps, leave_threads
    from prod9.data.tokens.store import TokenBatch
    from prod9.runtime.allocator import keep_freed_memory
    from prod9.training.stage2_module import Stage2Module

    threads = leave_threads()
    flops = prod9_flops(patch_size, side, batch)  # before, so that nothing of it is kept
    keep_freed_memory()
    torch.manual_seed(seed)
    config = shipped(patch_size, f"seed={seed}")
    module = Stage2Module(config, build_network(config, side))
    tokens, labels = _data(size_of(side, patch_size), batch, seed)
    names = [f"volume {i}" for i in range(batch)]
    grids = TokenBatch(tokens.view(batch, side, side, side), labels, names)
    steps = LightningSteps(module, grids, config.trainer, threads)
    return Work(steps.step, flops, parameters(module.transformer))


def masked_rival(kind: str, side: int, batch: int, seed: int) -> Work:
    """A masked transformer in the usual loop, at one position per token."""
    torch.manual_seed(seed)
    size = size_of(side, 1)
    network_type = {ENCODER: EncoderNetwork, UVIT: UVitNetwork}[kind]
    network = network_type(size)
    tokens, labels = _data(size, batch, seed)
    step = training_step(network, lambda: masked_loss(network, tokens, labels, size.mask_id))
    return Work(step, rival_flops(network_type, size, batch), parameters(network))


def monai_rival(side: int, batch: int, seed: int) -> Work:
    """MONAI's autoregressive transformer in its tutorial's loop: the next token, of all tokens."""
    torch.manual_seed(seed)
    size = size_of(side, 1)
    network = decoder_only(size)
    tokens, _ = _data(size, batch, seed)
    step = training_step(network, lambda: next_token_loss(network, tokens, size.mask_id))
    # Causal attention needs half of its products, which the counter does not know.
    return Work(step, None, parameters(network))


def _case(side: int, batch: int, patch_size: int, repeats: int, seed: int = 0) -> Case:
    config, size = shipped(patch_size), size_of(side, patch_size)
    packed = patch_size > 1
    own = {"side": side, "batch": batch, "seed": seed}
    contenders = [
        Contender("prod9", prod9, own | {"patch_size": patch_size}),
        Contender(ENCODER, masked_rival, own | {"kind": ENCODER}),
    ]
    if not packed:
        contenders.append(Contender(MONAI, monai_rival, own))
        contenders.append(Contender(UVIT, masked_rival, own | {"kind": UVIT}))
    cells = f"{patch_size}^3 tokens" if packed else "one token"
    return Case(
        name=f"stage2_step_{'packed_' if packed else ''}{size.tokens}",
        title=f"One training step (forward, loss, backward, clipping, AdamW) over {batch} x "
        f"{side}^3 tokens of {size.codes} codes, {size.width} wide, {size.blocks} blocks, "
        f"{size.heads} heads; a position of prod9 is {cells}, a rival's one token.",
        contenders=tuple(contenders),
        goals=(Goal(ENCODER, ratio=5.0),)
        if packed
        else (Goal(ENCODER, ratio=1.15), Goal(MONAI, ratio=1.1)),
        repeats=repeats,
        warmup=1,
        ceiling="matmul",
        per_repeat={"volumes": batch, "tokens": batch * size.tokens},
        sizes={
            "tokens_per_volume": size.tokens,
            "batch": batch,
            "positions_prod9": (-(-side // patch_size)) ** 3,
            "positions_rivals": size.tokens,
            **config.model.transformer.model_dump(mode="json"),
            "codes": size.codes,
            "classes": size.classes,
        },
        seed=seed,
    )


def cases() -> list[Case]:
    """Equal positions at three grids; and the shipped patch size of 2 at two of them."""
    return [
        _case(8, batch=2, patch_size=1, repeats=7),
        _case(12, batch=1, patch_size=1, repeats=5),
        _case(16, batch=1, patch_size=1, repeats=3),
        _case(8, batch=2, patch_size=2, repeats=7),
        _case(16, batch=1, patch_size=2, repeats=3),
    ]
