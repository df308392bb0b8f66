"""``prod9 plan``: what a training run will need, before it begins."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from prod9.cli.options import ConfigOption, Count, OverridesArgument, print_table

_UNITS = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def plan(
    config: ConfigOption,
    overrides: OverridesArgument = None,
    gpu_memory: Annotated[float | None, typer.Option(min=0.1)] = None,
    devices: Count = 1,
    tflops: Annotated[float | None, typer.Option(min=0.001)] = None,
    stage1: Path | None = None,
    cases: Annotated[int | None, typer.Option(min=3)] = None,
    output: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Estimate what a configuration needs: parameters, memory, arithmetic, disk, time.

    Reads the configuration, the tokenizer if it is there, and the names in a BraTS folder; no
    volume. Time is given for a GPU whose --tflops are known.

    Args:
        gpu_memory: GiB of a GPU; this CPU when left out.
        devices: GPUs in all.
        tflops: What the GPU sustains, TFLOP/s.
        stage1: Stage 2: the configuration that makes its tokenizer.
        cases: BraTS: how many, if they are not here.
        output: Write the figures to this file too.
    """
    from prod9.files import write_text
    from prod9.planning.plan import make_plan

    figures = make_plan(
        config,
        overrides or (),
        gpu_memory=gpu_memory,
        devices=devices,
        tflops=tflops,
        stage1=stage1,
        cases=cases,
    )
    rows: list[tuple[str, str]] = []
    for name, value in figures.items():
        *words, unit = name.split("_")
        if unit not in ("bytes", "flops", "seconds", "hours"):
            words, unit = [*words, unit], ""
        if value not in ("", [], None):
            rows.append((" ".join(words), text(value, unit)))
    print_table(rows)
    if output is not None:
        write_text(output, json.dumps({"kind": "prod9-plan", **figures}, indent=2) + "\n")
        typer.echo(f"written to {output}")


def text(value: Any, unit: str) -> str:
    """Write a figure with its unit: ``1.25 GiB``, ``15.5 GFLOP``, ``2,048``."""
    match value:
        case dict():
            return ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in value.items())
        case tuple():
            return "x".join(map(str, value))
        case list():
            return ", or ".join(value)
        case bool():
            return "yes" if value else "no"
        case _ if unit == "bytes":
            names = (f"{value / size:.3g} {name}" for name, size in _UNITS if value >= size)
            return next(names, f"{value:.0f} B")
        case _ if unit == "flops":
            return f"{value / 1e9:,.1f} GFLOP"
        case float():
            return f"{value:.3g} {unit}"
        case int():
            return f"{value:,}"
        case _:
            return str(value)
