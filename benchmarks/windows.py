"""Volumes larger than a window: time against MONAI's windows, and memory against the size."""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.contender import Case, Contender, Work
from benchmarks.costs import Cost, Points, alone, exponent, plot
from benchmarks.encode_decode import (
    AUTOENCODER_KL,
    MAISI,
    flops_of,
    monai_network,
    parameters_of,
    preset,
    untrained_tokenizer,
)
from prod9.config import SlidingWindowConfig
from prod9.sliding_window import Windows
from prod9.tokenizer import Tokenizer, build_autoencoder

if TYPE_CHECKING:
    from benchmarks.results import Result

WINDOWS = SlidingWindowConfig(overlap=0.25)
"""The default, but for the overlap: MONAI's default, half of prod9's."""
PRESET = "ffl"
INFERER = "MONAI SlidingWindowInferer"
SCAN = (240, 240, 155)
GROWING_SIDES = (144, 192, 240, 288)
"""Multiples of the windows' step, 48 voxels: each of them has one window per 48^3 voxels. At other
sides the last window overlaps more, and a fit would tell how windows happen to fit."""
Sides = tuple[int, int, int]


def anatomy(sides: Sides, seed: int) -> Tensor:
    """Return (1, 1, *sides) in [0, 1]: the middle of the MNI152 brain, mirrored on, with noise.

    No window of it is uniform, so none can be skipped.
    """
    from nibabel import nifti1

    from prod9.data.brain_regions import template_path

    whole = np.asarray(nifti1.load(template_path("t1")).dataobj)
    middle = whole[56:142, 72:162, 56:124].astype(np.float32) / 255
    more = [(0, max(0, side - n)) for side, n in zip(sides, middle.shape, strict=True)]
    (d, h, w) = sides
    volume = torch.from_numpy(np.pad(middle, more, mode="symmetric")[:d, :h, :w].copy())
    noise = torch.randn(sides, generator=torch.Generator().manual_seed(seed))
    return (volume + noise.mul_(0.02)).clamp_(0, 1)[None, None]


def skull_stripped(sides: Sides, seed: int) -> Tensor:
    """Return (1, 1, *sides) in [0, 1]: a drawn BraTS-like T1 scan, 0 outside the brain."""
    from prod9.data.phantom.case import draw_case

    image = torch.from_numpy(draw_case(seed, 0).images["T1"]).float()
    assert tuple(image.shape) == sides
    return (image / torch.quantile(image[image > 0][::10], 0.999)).clamp_(0, 1)[None, None]


CONTENT = {"anatomy": anatomy, "skull_stripped": skull_stripped}


def number_of_windows(sides: Sides) -> int:
    """Count the windows over a volume; MONAI places the same ones."""
    stride = build_autoencoder(preset(PRESET).model.autoencoder).stride
    grid = [-(-side // stride) for side in sides]
    cells = [side // stride for side in WINDOWS.roi_size]
    return len(Windows.over(grid, cells, WINDOWS.overlap).starts)


def _tokenizer(seed: int) -> Tokenizer:
    from prod9.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    return untrained_tokenizer(PRESET, WINDOWS.roi_size[0], seed)


def _window_flops(way: str) -> float:
    network = build_autoencoder(preset(PRESET).model.autoencoder).to("meta")
    levels = preset(PRESET).model.autoencoder.levels
    if way == "encode":
        return flops_of(network.encode, 1, 1, *WINDOWS.roi_size)
    cells = [side // network.stride for side in WINDOWS.roi_size]
    return flops_of(network.decode, 1, len(levels), *cells)


def _tokens(tokenizer: Tokenizer, sides: Sides, seed: int) -> Tensor:
    """Tokens of which no window is uniform; decoding takes as long whatever they say."""
    stream = torch.Generator().manual_seed(seed)
    return torch.randint(tokenizer.codebook_size, (1, *tokenizer.grid(sides)), generator=stream)


def prod9(way: str, sides: Sides, content: str, seed: int) -> Work:
    """prod9's windows around prod9's network."""
    from prod9.sliding_window import decode, encode

    volume = CONTENT[content](sides, seed) if way == "encode" else None
    tokenizer = _tokenizer(seed)
    # What is uniform is skipped: only where nothing is, the work is known beforehand.
    flops = _window_flops(way) * number_of_windows(sides) if content == "anatomy" else None
    if volume is not None:
        run = partial(encode, tokenizer, volume, WINDOWS)
        return Work(run, flops, parameters_of(tokenizer.autoencoder.encoder))
    run = partial(decode, tokenizer, _tokens(tokenizer, sides, seed), sides, WINDOWS)
    return Work(
        run,
        flops,
        parameters_of(tokenizer.autoencoder) - parameters_of(tokenizer.autoencoder.encoder),
    )


def inferer(way: str, sides: Sides, content: str, seed: int) -> Work:
    """MONAI's windows around prod9's network, whose process is set up as prod9's.

    So the ratio says what the windows cost, and nothing of the network or the allocator.
    """
    from benchmarks.rivals import monai_inference

    volume = CONTENT[content](sides, seed) if way == "encode" else None
    tokenizer = _tokenizer(seed)
    network, fsq, stride = tokenizer.autoencoder, tokenizer.fsq, tokenizer.autoencoder.stride
    if volume is not None:
        return Work(partial(monai_inference.encode, network.encode, fsq, volume, stride, WINDOWS))
    tokens = _tokens(tokenizer, sides, seed)
    run = partial(monai_inference.decode, network.decode, fsq, tokens, sides, stride, WINDOWS)
    return Work(run)


def monai(kind: str, way: str, sides: Sides, content: str, seed: int) -> Work:
    """MONAI's windows around MONAI's network of equal widths, as MAISI's scripts run it."""
    from benchmarks.rivals.monai_inference import inferer as make_inferer

    network = monai_network(kind, PRESET, seed)
    if way == "encode":
        volume = CONTENT[content](sides, seed)
        own, around = network.encode_stage_2_inputs, make_inferer(WINDOWS)
        inputs = volume
    else:
        sizes = preset(PRESET).model.autoencoder
        stride = build_autoencoder(sizes).stride
        own, around = network.decode_stage_2_outputs, make_inferer(WINDOWS, stride)
        inputs = torch.randn(1, len(sizes.levels), *(side // stride for side in sides))
    return Work(torch.no_grad()(lambda: around(inputs, own)), None, parameters_of(network))


def case(
    name: str,
    way: str,
    sides: Sides,
    *,
    content: str = "anatomy",
    repeats: int,
    networks: tuple[str, ...] = (),
    seed: int = 0,
) -> Case:
    """Return a case; ``networks`` of MONAI are measured beside prod9's in MONAI's windows."""
    arguments: dict[str, Any] = {"way": way, "sides": sides, "content": content, "seed": seed}
    others = [Contender(kind, monai, {"kind": kind, **arguments}) for kind in networks]
    shown = "x".join(map(str, sides))
    inside = "background skipped where a window holds nothing else" if content != "anatomy" else ""
    return Case(
        name=name,
        title=f"{way.capitalize()} a volume of {shown} through {number_of_windows(sides)} windows "
        f"of {WINDOWS.roi_size[0]}^3, overlap {WINDOWS.overlap:g}, {WINDOWS.mode}"
        + (f"; a skull-stripped scan, {inside}" if inside else "; texture everywhere"),
        contenders=(
            Contender("prod9", prod9, arguments),
            Contender(INFERER, inferer, arguments),
            *others,
        ),
        repeats=repeats,
        warmup=1 if repeats > 1 else 0,
        ceiling="conv3d" if content == "anatomy" else None,
        per_repeat={"volumes": 1, "windows": number_of_windows(sides)},
        sizes={
            "sides": list(sides),
            "widths": list(preset(PRESET).model.autoencoder.num_channels),
            "content": content,
            **WINDOWS.model_dump(mode="json"),
        },
        seed=seed,
    )


def cases() -> list[Case]:
    """Both directions at two sizes, and a scan that is mostly background."""
    both = (MAISI, AUTOENCODER_KL)
    found = [
        case(f"windows_{way}_128", way, (128, 128, 128), repeats=5, networks=both)
        for way in ("encode", "decode")
    ]
    found += [
        case(f"windows_{way}_256", way, (256, 256, 256), repeats=1) for way in ("encode", "decode")
    ]
    scan = "windows_encode_scan"
    return [*found, case(scan, "encode", SCAN, content="skull_stripped", repeats=3)]


def arrays_mib(way: str, side: int) -> float:
    """Return the size of what a pass gives: int64 tokens, or a float32 volume."""
    stride = build_autoencoder(preset(PRESET).model.autoencoder).stride
    size = 8 * (side // stride) ** 3 if way == "encode" else 4 * side**3
    return size / 2**20


def judge_growth(costs: dict[str, dict[int, Cost]]) -> "Result":
    """Make the result of the costs by direction and side."""
    from benchmarks.results import goal, result

    seconds: dict[str, Points] = {}
    beyond: dict[str, Points] = {}
    for way, by_side in costs.items():
        name = f"prod9, {way}"
        seconds[name] = [(side**3, cost.seconds) for side, cost in by_side.items()]
        # The input was there before; the result must be, at the end.
        beyond[name] = [
            (side**3, cost.working_mib - arrays_mib(way, side)) for side, cost in by_side.items()
        ]
    exponents = {name: exponent(points) for name, points in seconds.items()}
    growth = {name: points[-1][1] / points[0][1] for name, points in beyond.items()}
    low, high = GROWING_SIDES[0], GROWING_SIDES[-1]
    goals = [
        *(
            goal(f"{name}: time grows as voxels to the power of", (0.9, 1.1), found)
            for name, found in exponents.items()
        ),
        *(
            goal(
                f"{name}: memory beside input and result from {low}^3 to {high}^3",
                1.25,
                found,
                better="lower",
                unit="x",
            )
            for name, found in growth.items()
        ),
    ]
    figures = {
        "exponent": exponents,
        "memory_growth": growth,
        "cost_over_size": plot("Windows: time against the volume", "voxels", "time", "s", seconds),
        "memory_over_size": plot(
            "Windows: memory beside input and result", "voxels", "memory", "MiB", beyond
        ),
    }
    return result(
        "windows_memory",
        f"Time and memory of windowed encoding and decoding, {low}^3 to {high}^3",
        goals=goals,
        figures=figures,
        sizes={"sides": list(GROWING_SIDES), **WINDOWS.model_dump(mode="json")},
    )


def run() -> "list[Result]":
    """Measure how time and memory grow with the volume; each point in a process of its own."""
    costs = {
        way: {
            side: alone(prod9, way=way, sides=(side,) * 3, content="anatomy", seed=0)
            for side in GROWING_SIDES
        }
        for way in ("encode", "decode")
    }
    return [judge_growth(costs)]
