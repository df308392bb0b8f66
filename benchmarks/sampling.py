"""Drawing token grids: against aMUSEd's loop around the same network, and token by token."""

from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.contender import Case, Contender, Goal, Work
from benchmarks.harness import spread
from benchmarks.results import GoalResult, Result, result
from benchmarks.rivals.amused import amused_loop
from benchmarks.rivals.autoregressive import whole_sequence
from benchmarks.stage2_step import build_network, meta_flops, parameters, shipped, size_of
from benchmarks.worker import Worker
from prod9.config import SamplerConfig, Stage2Config
from prod9.guidance import guidance_at
from prod9.networks.condition import Condition
from prod9.networks.cpu_kernels.linear import Linear
from prod9.networks.transformer import MaskedTransformer
from prod9.outpainting import draw_tokens

SIDE = 8
"""The shipped grid: 64^3 voxels are 8^3 tokens."""
BATCH = 4
STEPS = 12
"""prod9's default and aMUSEd's."""
SCALE = 3.0
LENGTHS = (1, 32, 64, 128, 192, 256, 384, 512)
"""Of the sequences that tokens are drawn after, one by one."""
TURNS = 5
AUTOREGRESSIVE_GOAL = 20.0
MONAI = "MONAI VQVAETransformerInferer"
AMUSED = "diffusers aMUSEd loop"
AMUSED_FAST = "diffusers aMUSEd loop, prod9's layers"


def settings(patch_size: int, steps: int) -> Stage2Config:
    """Return the shipped configuration, guided strongly enough that both passes matter."""
    return shipped(patch_size, f"sampler.steps={steps}", f"sampler.guidance_scale={SCALE}")


def live(network: nn.Module) -> nn.Module:
    """Give what starts as zero small random values: nothing may be skipped as an identity."""
    for parameter in network.parameters():
        if not parameter.detach().any():
            nn.init.normal_(parameter, std=0.02)
    return network


def volumes_forwarded(config: SamplerConfig, batch: int) -> int:
    """How many grids pass through the network: one per sample and step, two where it is told
    nothing as well.
    """
    scales = [
        guidance_at(config.guidance_scale, config.guidance_schedule, step / config.steps)
        for step in range(config.steps)
    ]
    guided = sum(scale != 1 for scale in scales)
    return batch * (config.steps + -(-guided // config.guidance_every))


def forward_flops(config: Stage2Config) -> float:
    """Count one grid's pass through the network."""
    network = build_network(config, SIDE).to("meta")
    with torch.device("meta"), torch.no_grad():
        tokens = torch.zeros(1, SIDE, SIDE, SIDE, dtype=torch.int64)
        condition = Condition.of(torch.zeros(1, dtype=torch.int64), 1)
        return meta_flops(lambda: network(tokens, condition))


def _prepared(
    config: Stage2Config, batch: int, seed: int
) -> tuple[MaskedTransformer, Condition, Tensor, torch.Generator]:
    """Network, classes, empty grids and randomness: the same for every contender."""
    torch.manual_seed(seed)
    network = build_network(config, SIDE).eval()
    live(network)
    labels = torch.arange(batch) % network.num_classes
    empty = torch.full((batch, SIDE, SIDE, SIDE), network.mask_id)
    stream = torch.Generator().manual_seed(seed)
    return network, Condition.of(labels, 1), empty, stream


def prod9(patch_size: int, steps: int, batch: int, seed: int) -> Work:
    """What ``Generator.draw`` does for grids of the training volumes' size."""
    from prod9.runtime.allocator import keep_freed_memory

    config = settings(patch_size, steps)
    flops = forward_flops(config) * volumes_forwarded(config.sampler, batch)
    keep_freed_memory()
    network, condition, empty, stream = _prepared(config, batch, seed)

    def run() -> Tensor:
        window = empty.shape[1:]
        return draw_tokens(network, condition, empty, config.sampler, stream, window=window)

    return Work(run, flops, parameters(network))


def amused(patch_size: int, steps: int, batch: int, plain: bool, seed: int) -> Work:
    """aMUSEd's loop around prod9's network: with plain ``nn.Linear``, as its user has, or prod9's.

    The two passes of every step are one batch, and the scale is constant, as in its pipeline.
    """
    config = settings(patch_size, steps)
    flops = forward_flops(config) * steps * 2 * batch
    network, condition, empty, stream = _prepared(config, batch, seed)
    both = condition.null(network.mask_id).joined(condition)
    for module in network.modules() if plain else ():
        if isinstance(module, Linear):
            module.forward = module.plain

    def logits_of(tokens: Tensor) -> Tensor:
        return network(tokens.view(-1, *empty.shape[1:]), both).flatten(1, 3)

    def run() -> Tensor:
        tokens = amused_loop(
            logits_of,
            empty.flatten(1),
            mask_id=network.mask_id,
            steps=steps,
            guidance_scale=SCALE,
            generator=stream,
        )
        return tokens.view_as(empty)

    return Work(run, flops, parameters(network))


def _case(name: str, patch_size: int, steps: int, repeats: int, seed: int = 0) -> Case:
    own = {"patch_size": patch_size, "steps": steps, "batch": BATCH, "seed": seed}
    config = settings(patch_size, steps)
    positions = (SIDE // patch_size) ** 3
    return Case(
        name=name,
        title=f"Drawing {BATCH} grids of {SIDE}^3 tokens in {steps} steps with guidance {SCALE:g}; "
        f"the same weights, {positions} positions, in every loop. aMUSEd's scale is constant and "
        "needs two passes a step; prod9's grows from 1, and the pass that is told nothing runs at "
        f"every {config.sampler.guidance_every}rd guided step.",
        contenders=(
            Contender("prod9", prod9, own),
            Contender(AMUSED, amused, own | {"plain": True}),
            Contender(AMUSED_FAST, amused, own | {"plain": False}),
        ),
        goals=(Goal(AMUSED, ratio=1.5),),
        repeats=repeats,
        warmup=1,
        ceiling="matmul",
        per_repeat={"volumes": BATCH},
        sizes={
            "tokens_per_volume": SIDE**3,
            "positions": positions,
            "batch": BATCH,
            "grids_forwarded_prod9": volumes_forwarded(config.sampler, BATCH),
            "grids_forwarded_rivals": 2 * BATCH * steps,
            **config.sampler.model_dump(mode="json"),
            "transformer": config.model.transformer.model_dump(mode="json"),
        },
        seed=seed,
    )


def cases() -> list[Case]:
    """Equal positions, at the steps that papers use; and the shipped patch size."""
    return [
        _case("sampling_8", patch_size=1, steps=8, repeats=5),
        _case("sampling_12", patch_size=1, steps=STEPS, repeats=3),
        _case("sampling_16", patch_size=1, steps=16, repeats=3),
        _case("sampling_packed_12", patch_size=2, steps=STEPS, repeats=7),
    ]


def run() -> list[Result]:
    """Compare with MONAI's inferer, some tokens standing for all: unpacked, and as shipped."""
    threads = torch.get_num_threads()
    seconds: dict[int, list[float]] = {1: [], 2: []}  # by patch size
    tokens: list[list[float]] = []
    with ExitStack() as stack:
        monai = stack.enter_context(Worker(MONAI, threads))
        own: dict[int, Worker] = {}
        for patch_size in seconds:
            name = f"prod9 (patch size {patch_size}) against {MONAI}"
            own[patch_size] = stack.enter_context(Worker(name, threads))
            arguments = {"patch_size": patch_size, "steps": STEPS, "batch": BATCH, "seed": 0}
            own[patch_size].set_up(Contender(name, prod9, arguments))
            own[patch_size].warm_up()
        for turn in range(1 + TURNS):
            times = monai.call(
                "benchmarks.rivals.autoregressive:token_seconds",
                lengths=LENGTHS,
                size=size_of(SIDE, 1),
                batch=BATCH,
                seed=0,
            )
            if turn == 0:  # warm-up
                continue
            tokens.append(times)
            for patch_size, worker in own.items():
                seconds[patch_size].append(worker.repeat())
        packages = monai.packages()
    return [summary(patch_size, seconds[patch_size], tokens, packages) for patch_size in seconds]


def summary(
    patch_size: int,
    seconds: Sequence[float],
    tokens: Sequence[Sequence[float]],
    packages: Sequence[str] = (),
) -> Result:
    """Make the result of seconds per draw, and of seconds per token after ``LENGTHS``, by turn.

    What is claimed is claimed of the shipped patch size; the other says what packing adds to it.
    """
    count = SIDE**3
    totals = [whole_sequence(LENGTHS, times, count) for times in tokens]
    ratios = [total / own for total, own in zip(totals, seconds, strict=True)]
    found, low_high, draw = median(ratios), spread(ratios), median(seconds)
    packed = patch_size > 1
    goal = GoalResult(
        what=f"{AUTOREGRESSIVE_GOAL:g}x as fast as {MONAI}",
        needed=AUTOREGRESSIVE_GOAL,
        found=found,
        met=found >= AUTOREGRESSIVE_GOAL,
        unit="x",
        spread=low_high,
    )
    per_token = [median(column) for column in zip(*tokens, strict=True)]
    cells = f"{patch_size}^3 tokens" if packed else "one token"
    measured = result(
        f"sampling_{'packed_' if packed else ''}autoregressive",
        f"Drawing {BATCH} grids of {SIDE}^3 tokens: prod9 with {cells} per position, {STEPS} steps "
        f"and guidance {SCALE:g}, against one token after the other without guidance. MONAI's time "
        f"is an integral: tokens were timed after {len(LENGTHS)} lengths of sequence, the others "
        "lie on straight lines between them.",
        ours=draw,
        rivals={MONAI: median(totals)},
        goals=[goal] if packed else [],
        figures={
            "cost_over_size": {
                "title": "One more token",
                "x_label": "tokens that are there",
                "y_label": "time per token",
                "unit": "s",
                "series": {
                    MONAI: [list(point) for point in zip(LENGTHS, per_token, strict=True)],
                    "prod9 (a draw / its tokens)": [[x, draw / count] for x in LENGTHS],
                },
            },
        },
        packages=packages,
        per_repeat={"volumes": BATCH},
        repeats=len(tokens),
        seconds={"prod9": list(seconds), MONAI: totals},
        sizes={
            "batch": BATCH,
            "tokens_per_volume": count,
            "patch_size": patch_size,
            "lengths": list(LENGTHS),
        },
    )
    return measured.model_copy(update={"ratio": {MONAI: found}, "spread": {MONAI: low_high}})
