"""Volumes to tokens and back: a tokenizer beside MONAI's autoencoders of equal widths."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contender import Case, Contender, Goal, Work
from prod9.config import Stage1Config
from prod9.config.load import dump, load_stage1
from prod9.tokenizer import Tokenizer, TokenizerSpec, build_autoencoder

MAISI, AUTOENCODER_KL = "MONAI AutoencoderKlMaisi", "MONAI AutoencoderKL"
BATCHES = {("ffl", 28): 16, ("ffl", 64): 2, ("base", 28): 4, ("base", 64): 1}
REPEATS = {("ffl", 28): 15, ("ffl", 64): 9, ("base", 28): 7, ("base", 64): 5}


def preset(name: str) -> Stage1Config:
    """Return a shipped MedMNIST configuration of Stage 1."""
    return load_stage1(Path(f"maskgit/medmnist3d/stage1/{name}.yaml"))


def untrained_tokenizer(name: str, side: int, seed: int = 0) -> Tokenizer:
    """Return the tokenizer of a preset with its initial weights: no value changes the time."""
    config = preset(name)
    torch.manual_seed(seed)
    autoencoder = build_autoencoder(config.model.autoencoder)
    spec = TokenizerSpec(
        autoencoder=config.model.autoencoder,
        dataset_name=config.data.dataset_name,
        volume_shape=(side, side, side),
        spacing_mm=(1.0, 1.0, 1.0),
        class_names=("any",),
        config_yaml=dump(config),
    )
    return Tokenizer(spec, autoencoder)


def monai_network(kind: str, name: str, seed: int = 0) -> nn.Module:
    """Return MONAI's network with the widths, blocks and latent channels of a preset."""
    from benchmarks.rivals import monai_autoencoders

    build = {MAISI: monai_autoencoders.maisi, AUTOENCODER_KL: monai_autoencoders.autoencoder_kl}
    sizes = preset(name).model.autoencoder
    torch.manual_seed(seed)
    network = build[kind](
        sizes.num_channels, sizes.num_res_blocks, len(sizes.levels), sizes.norm_num_groups
    )
    return network.eval()


def parameters_of(*networks: nn.Module) -> int:
    """Count parameters."""
    return sum(p.numel() for network in networks for p in network.parameters())


def flops_of(run: Callable[[Tensor], object], *shape: int) -> float:
    """Count what the convolutions and matrix products of ``run`` need for an input of a shape.

    ``run`` belongs to networks on the meta device: there nothing is computed and kept, and prod9
    takes PyTorch's plain operations, which are the ones that the counter knows.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run(torch.empty(shape, device="meta"))
    return float(counter.get_total_flops())


def padded_side(side: int, stride: int) -> int:
    """Return the least multiple of the stride that holds ``side``."""
    return -(-side // stride) * stride


def prod9_encode(name: str, side: int, batch: int, seed: int) -> Work:
    """Encode as every command of prod9 does: padding, network, quantisation, token ids."""
    from prod9.runtime.allocator import keep_freed_memory

    shape = (batch, 1, side, side, side)
    flops = flops_of(build_autoencoder(preset(name).model.autoencoder).to("meta").encode, *shape)
    keep_freed_memory()
    tokenizer = untrained_tokenizer(name, side, seed)
    volumes = torch.rand(shape)
    parameters = parameters_of(tokenizer.autoencoder.encoder)
    return Work(lambda: tokenizer.encode(volumes), flops, parameters)


def prod9_decode(name: str, side: int, batch: int, seed: int) -> Work:
    """Decode as every command of prod9 does: codes, network, cut to size, clamp."""
    from prod9.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    tokenizer = untrained_tokenizer(name, side, seed)
    tokens = torch.randint(tokenizer.codebook_size, (batch, *tokenizer.grid()))
    codes = (batch, _latent_channels(name), *tokenizer.grid())
    flops = flops_of(build_autoencoder(preset(name).model.autoencoder).to("meta").decode, *codes)
    parameters = parameters_of(tokenizer.autoencoder) - parameters_of(tokenizer.autoencoder.encoder)
    return Work(lambda: tokenizer.decode(tokens, (side, side, side)), flops, parameters)


def monai_encode(kind: str, name: str, side: int, batch: int, seed: int) -> Work:
    """Encode as MONAI's generative tutorials do before they train on latents.

    The volumes come padded to a multiple of the stride: MONAI's users pad when they load.
    """
    side = padded_side(side, _stride(name))
    shape = (batch, 1, side, side, side)
    flops = flops_of(monai_network(kind, name).to("meta").encode, *shape)
    network = monai_network(kind, name, seed)
    volumes = torch.rand(shape)

    @torch.no_grad()
    def run() -> Tensor:
        return network.encode_stage_2_inputs(volumes)

    own = (network.encoder, network.quant_conv_mu, network.quant_conv_log_sigma)
    return Work(run, flops, parameters_of(*own))


def monai_decode(kind: str, name: str, side: int, batch: int, seed: int) -> Work:
    """Decode as MONAI's generative tutorials do after they drew latents."""
    grid = padded_side(side, _stride(name)) // _stride(name)
    shape = (batch, _latent_channels(name), grid, grid, grid)
    flops = flops_of(monai_network(kind, name).to("meta").decode, *shape)
    network = monai_network(kind, name, seed)
    latents = torch.randn(shape)

    @torch.no_grad()
    def run() -> Tensor:
        return network.decode_stage_2_outputs(latents)

    return Work(run, flops, parameters_of(network.decoder, network.post_quant_conv))


def _stride(name: str) -> int:
    sizes = preset(name).model.autoencoder
    return sizes.stem_stride * 2 ** (len(sizes.num_channels) - 1)


def _latent_channels(name: str) -> int:
    return len(preset(name).model.autoencoder.levels)


def case(way: str, name: str, side: int, batch: int, seed: int = 0) -> Case:
    """Return the case of one direction, preset and size; ``way``: ``encode`` or ``decode``."""
    ours, theirs = (prod9_encode, monai_encode) if way == "encode" else (prod9_decode, monai_decode)
    arguments = {"name": name, "side": side, "batch": batch, "seed": seed}
    rivals = [Contender(kind, theirs, {"kind": kind, **arguments}) for kind in _RIVALS]
    sizes = preset(name).model.autoencoder
    what = "volumes to tokens" if way == "encode" else "tokens to volumes"
    return Case(
        name=f"{way}_{name}_{side}",
        title=f"{way.capitalize()} {what}: {batch} of {side}^3, widths "
        f"{', '.join(map(str, sizes.num_channels))}; evaluation mode, no gradients",
        contenders=(Contender("prod9", ours, arguments), *rivals),
        goals=(Goal(MAISI, ratio=1.5),),
        repeats=REPEATS[name, side],
        ceiling="conv3d",
        per_repeat={"volumes": batch},
        sizes={
            "widths": list(sizes.num_channels),
            "residual_blocks": sizes.num_res_blocks,
            "latent_channels": len(sizes.levels),
            "side": side,
            "rivals_side": padded_side(side, _stride(name)),
            "batch": batch,
        },
        seed=seed,
    )


_RIVALS = (MAISI, AUTOENCODER_KL)


def cases() -> list[Case]:
    """Both directions, both presets, both sizes of MedMNIST."""
    return [
        case(way, name, side, batch)
        for way in ("encode", "decode")
        for (name, side), batch in BATCHES.items()
    ]
