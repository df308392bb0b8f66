"""``prod9 plan``: what a training run will need, before it begins."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from prod9.cli.options import ConfigOption, OverridesArgument
from prod9.errors import Prod9Error
from prod9.files import write_text
from prod9.planning.plan import Plan, Request, make_plan
from prod9.planning.step_timing import CARDS
from prod9.runtime.allocator import keep_freed_memory

_UNITS = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def plan(
    config: ConfigOption,
    overrides: OverridesArgument = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option("--gpu-memory", min=0.1, help="GiB of a GPU; this CPU when left out."),
    ] = None,
    devices: Annotated[int, typer.Option("--devices", min=1, help="GPUs in all.")] = 1,
    tflops: Annotated[
        float | None, typer.Option("--tflops", min=0.001, help="What the GPU sustains, TFLOP/s.")
    ] = None,
    card: Annotated[
        str | None, typer.Option("--card", help=f"Or its name: {', '.join(CARDS)}.")
    ] = None,
    stage1: Annotated[
        Path | None,
        typer.Option("--stage1", help="Stage 2: the configuration that makes its tokenizer."),
    ] = None,
    cases: Annotated[
        int | None, typer.Option("--cases", min=3, help="BraTS: how many, if they are not here.")
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(help="Try the step's operations on this CPU for its time (not if large)."),
    ] = True,
    output: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file too.")
    ] = None,
) -> None:
    """Say what a configuration needs: parameters, memory, arithmetic, disk, time. All estimated.

    Reads the configuration, the tokenizer if it is there, and the names in a BraTS folder; no
    volume. A plan for this CPU does the operations of a small step, within a minute or two.
    """
    if card is not None and card not in CARDS:
        raise Prod9Error(f"--card {card}: choose from {', '.join(CARDS)}, or give --tflops.")
    keep_freed_memory()
    request = Request(
        gpu_memory=gpu_memory,
        devices=devices,
        tflops=tflops,
        card=card,
        stage1=stage1,
        cases=cases,
        measure=measure,
    )
    found = make_plan(config, tuple(overrides or ()), request)
    table = Table("what", Column("estimate", overflow="fold"), show_header=False)
    for row in lines(found):
        table.add_row(*row)
    Console(soft_wrap=True).print(table)
    if output is not None:
        write_text(output, json.dumps(found.as_json(), indent=2) + "\n")
        typer.echo(f"written to {output}")


def lines(plan: Plan) -> Iterator[tuple[str, str]]:
    """Yield what is estimated, in words."""
    memory = plan.memory
    ranks = f" x {plan.devices} = {plan.batch_size * plan.devices}" if plan.devices > 1 else ""
    yield "configuration", f"{plan.config} (Stage {plan.stage}, {plan.setting})"
    yield "batch", f"{plan.batch_size}{ranks}"
    yield "parameters", ", ".join(f"{k} {v / 1e6:.2f} M" for k, v in plan.parameters.items())
    by = "x".join(map(str, plan.sample))
    if plan.stage == 1:
        yield "sample", f"{by} voxels; a volume is {plan.tokens_per_volume:,} tokens"
    else:
        yield "sample", f"{by} tokens in {plan.positions:,} positions"
        yield "tokens per volume", f"{plan.tokens_per_volume:,}"
    if plan.volume_is_assumed:
        grid = "x".join(map(str, plan.volume))
        yield "volume", f"taken to be {grid} voxels, as BraTS releases are; no scan was looked at"
    yield (
        "memory, whatever the batch",
        f"weights {size(memory.weights)}, gradients {size(memory.gradients)}, moments "
        f"{size(memory.moments)}, averaged weights {size(memory.averaged)}",
    )
    yield "memory per sample", size(memory.per_sample)
    yield "memory of a step", size(memory.needed)
    other = "without" if plan.checkpointing else "with"
    yield f"... {other} activation checkpointing", size(memory.needed_checkpointing)
    if memory.limit is not None:
        yield f"largest batch in {size(memory.limit)}", str(memory.largest_batch)
        yield (
            f"... {other} activation checkpointing",
            str(memory.largest_batch_checkpointing),
        )
        fits = "yes" if memory.needed <= memory.limit else "NO: " + ", or ".join(plan.advice)
        yield "does it fit", fits
    for name, (forward, backward) in plan.flops.items():
        yield f"arithmetic, {name}", f"{forward / 1e9:,.1f} + {backward / 1e9:,.1f} GFLOP a step"
    if plan.steps is None:
        yield "steps", plan.data_note
    else:
        note = f" ({plan.data_note})" if plan.data_note else ""
        yield "training volumes", f"{plan.train_volumes:,}{note}"
        yield "steps", f"{plan.steps_per_epoch:,} an epoch, {plan.steps:,} in all"
    if plan.token_store_bytes is not None:
        yield "disk, token store", size(plan.token_store_bytes)
    each = size(plan.checkpoint_bytes)
    yield "disk, checkpoints", f"at most {plan.checkpoints} x {each}"
    if plan.gathered_bytes:
        gathered = size(plan.gathered_bytes)
        yield "memory, to write a checkpoint", f"{gathered} more of the first host's, for a moment"
    if plan.seconds_per_step is None:
        yield "time", plan.seconds_from
    else:
        yield "time of a step", f"about {plan.seconds_per_step:.3g} s ({plan.seconds_from})"
    if plan.hours is not None:
        out = f"previews ({plan.previews:,} of them)" if plan.previews else "previews"
        yield "time of all steps", f"about {plan.hours:,.1f} hours, without validation and {out}"


def size(count: float) -> str:
    """Write bytes with three digits: ``1.25 GiB``."""
    for unit, factor in _UNITS:
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"
