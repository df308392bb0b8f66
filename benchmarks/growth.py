"""How time and memory grow: with a volume's side, the number of tokens, the size of a data set."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.contender import Work
from benchmarks.costs import Cost, Points, alone, exponent, plot
from benchmarks.data_loading import first_batch, open_npz, open_npz_monai, open_tokens
from benchmarks.encode_decode import MAISI, monai_network, parameters_of, preset

if TYPE_CHECKING:
    from benchmarks.results import Result

PRESET = "ffl"
VOLUME_SIDES = (16, 24, 32, 48, 64)
TOKEN_SIDES = (6, 8, 12, 16)
NPZ_VOLUMES = (100, 1_000, 10_000)
NPZ_SIDE = 28
STORE_VOLUMES = (200, 2_000, 20_000)
STORE_SIDE = 8
"""512 tokens a volume: 10^5, 10^6 and 10^7 tokens."""
ENCODER = "nn.TransformerEncoder"
Costs = Mapping[str, Mapping[float, Cost]]
"""Contender -> size -> cost."""


def prod9_volume(side: int, seed: int = 0) -> Work:
    """Forward and backward of prod9's autoencoder under an L1 loss, one volume."""
    from prod9.runtime.allocator import keep_freed_memory
    from prod9.tokenizer import build_autoencoder

    keep_freed_memory()
    torch.manual_seed(seed)
    network = build_autoencoder(preset(PRESET).model.autoencoder)
    volume = torch.rand(1, 1, side, side, side)

    def run() -> None:
        network.zero_grad()
        (network(volume).volume - volume).abs().mean().backward()

    return Work(run, None, parameters_of(network))


def monai_volume(side: int, seed: int = 0) -> Work:
    """The same of MAISI's autoencoder."""
    network = monai_network(MAISI, PRESET, seed).train()
    volume = torch.rand(1, 1, side, side, side)

    def run() -> None:
        network.zero_grad()
        (network(volume)[0] - volume).abs().mean().backward()

    return Work(run, None, parameters_of(network))


def prod9_tokens(side: int, patch_size: int, seed: int = 0) -> Work:
    """Return a whole training step of Stage 2 over ``side``^3 tokens."""
    from benchmarks import stage2_step

    return stage2_step.prod9(side=side, batch=1, patch_size=patch_size, seed=seed)


def encoder_tokens(side: int, seed: int = 0) -> Work:
    """A training step of ``nn.TransformerEncoder`` at one position per token."""
    from benchmarks import stage2_step

    return stage2_step.masked_rival(kind=stage2_step.ENCODER, side=side, batch=1, seed=seed)


def _after_writing(opener: Callable[..., Iterable[Any]], sizes: dict[str, Any]) -> Work:
    """A repeat opens everything and takes one batch; the files are there by then."""
    next(iter(opener(**sizes)))  # writes them, outside the clock
    return first_batch(lambda: opener(**sizes))


def prod9_npz(count: int) -> Work:
    """Open an npz of ``count`` volumes, until the first batch."""
    from prod9.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    return _after_writing(open_npz, {"count": count, "side": NPZ_SIDE, "seed": 0})


def monai_npz(count: int) -> Work:
    """The same with everything cached."""
    return _after_writing(open_npz_monai, {"count": count, "side": NPZ_SIDE, "workers": 0})


def prod9_store(count: int) -> Work:
    """Open a token store of ``count`` volumes, until the first batch."""
    from prod9.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    sizes = {"count": count, "side": STORE_SIDE, "seed": 0, "npy": False}
    return _after_writing(open_tokens, sizes)


def _variant(who: str) -> bool:
    """Whether this is another way of prod9's, drawn beside it, and no rival."""
    return who.startswith("prod9,")


def grown(name: str, title: str, size_label: str, costs: Costs, **more: Any) -> "Result":
    """Make the result of the costs by contender and size.

    What is compared with the rivals are the seconds at the largest size that prod9 and they have.
    """
    from benchmarks.results import result

    seconds: dict[str, Points] = {}
    memory: dict[str, Points] = {}
    for who, by_size in costs.items():
        rising = sorted(by_size.items())
        seconds[who] = [(float(size), cost.seconds) for size, cost in rising]
        memory[who] = [(float(size), cost.memory_mib) for size, cost in rising]
    compared = {who: dict(points) for who, points in seconds.items() if not _variant(who)}
    largest = max(set.intersection(*(set(by_size) for by_size in compared.values())))
    rivals = {who: by_size[largest] for who, by_size in compared.items() if who != "prod9"}
    return result(
        name,
        title,
        ours=compared["prod9"][largest],
        rivals=rivals,
        figures={
            "exponent": {
                who: {"time": exponent(seconds[who]), "memory": exponent(memory[who])}
                for who in costs
            },
            "compared_at": {size_label: largest},
            "cost_over_size": plot(title, size_label, "time", "s", seconds),
            "memory_over_size": plot(title, size_label, "peak memory", "MiB", memory),
        },
        **more,
    )


def volume_side() -> "Result":
    """Stage 1: sides of 16 to 64."""
    costs = {
        "prod9": {s**3: alone(prod9_volume, repeats=3, warmup=1, side=s) for s in VOLUME_SIDES},
        MAISI: {s**3: alone(monai_volume, repeats=3, warmup=1, side=s) for s in VOLUME_SIDES},
    }
    widths = list(preset(PRESET).model.autoencoder.num_channels)
    return grown(
        "growth_volume_side",
        f"Forward and backward of the autoencoder, one volume, widths {widths}",
        "voxels",
        costs,
        sizes={"sides": list(VOLUME_SIDES), "widths": widths},
        packages=["monai"],
    )


def tokens() -> "Result":
    """Stage 2: 6^3 to 16^3 tokens, one and eight to a position."""

    def over(setup: Callable[..., Work], **arguments: Any) -> dict[float, Cost]:
        found: dict[float, Cost] = {}
        for side in TOKEN_SIDES:
            often = 3 if side <= 8 else 1  # a step of 16^3 tokens takes half a minute
            found[side**3] = alone(setup, repeats=often, warmup=often // 3, side=side, **arguments)
        return found

    return grown(
        "growth_tokens",
        "A training step of Stage 2, one volume, 512 wide, 12 blocks",
        "tokens",
        {
            "prod9": over(prod9_tokens, patch_size=1),
            "prod9, 2^3 tokens a position": over(prod9_tokens, patch_size=2),
            ENCODER: over(encoder_tokens),
        },
        sizes={"sides": list(TOKEN_SIDES), "batch": 1},
        ours_name="prod9",
    )


def dataset() -> "Result":
    """Opening and the first batch: 100 to 10,000 volumes of 28^3, 10^5 to 10^7 tokens."""
    often = {"repeats": 3, "warmup": 1}
    costs = {
        "prod9": {n: alone(prod9_npz, count=n, **often) for n in NPZ_VOLUMES},
        "prod9, token store": {n: alone(prod9_store, count=n, **often) for n in STORE_VOLUMES},
        "MONAI CacheDataset": {n: alone(monai_npz, count=n, **often) for n in NPZ_VOLUMES},
    }
    return grown(
        "growth_dataset",
        f"Open a data set (an npz of {NPZ_SIDE}^3 volumes; a store of {STORE_SIDE}^3 tokens a "
        "volume), until the first batch is there",
        "volumes",
        costs,
        sizes={"npz_volumes": list(NPZ_VOLUMES), "store_volumes": list(STORE_VOLUMES)},
        packages=["monai"],
    )


def run() -> "list[Result]":
    """All three; each point in a process of its own. About eight minutes on two cores."""
    return [volume_side(), tokens(), dataset()]
