"""Token grids of any size, sampled in windows of the training's size, from the middle outwards.

Every window begins with the tokens that its neighbours already have, which the sampler never
changes, so that anatomy continues from window to window and there is no seam to blend.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch

from prod9.config.sampler import SamplerConfig
from prod9.guidance import guided, parts_of
from prod9.networks.condition import Condition
from prod9.networks.transformer import MaskedTransformer
from prod9.sampling import sample
from prod9.shapes import Tokens
from prod9.sliding_window import Windows

OnWindow: TypeAlias = Callable[[int, int], None]
"""Called with (windows done, windows in all)."""


def from_the_middle(windows: Windows) -> list[tuple[slice, ...]]:
    """Return the windows' cells, those nearest to the middle of the grid first."""

    def distance(start: Sequence[int]) -> tuple[float, Sequence[int]]:
        middles = zip(start, windows.roi, windows.sides, strict=True)
        return sum((s + (r - side) / 2) ** 2 for s, r, side in middles), start

    return [windows.cells(start) for start in sorted(windows.starts, key=distance)]


def centred(grid: Sequence[int], whole: Sequence[int], count: int) -> torch.Tensor:
    """Return the origin (count, 3) of a grid in the middle of the training grid ``whole``."""
    offset = [(w - g) / 2 for g, w in zip(grid, whole, strict=True)]
    return torch.tensor([offset]).expand(count, 3)


def draw_tokens(
    transformer: MaskedTransformer,
    condition: Condition,
    initial: Tokens,
    config: SamplerConfig,
    generator: torch.Generator,
    *,
    window: Sequence[int],
    overlap: float = 0.5,
    labels: Sequence[int] = (),
    on_window: OnWindow = lambda done, total: None,
) -> Tokens:
    """Fill the cells of ``initial`` (B, *grid) that hold the mask id; leave all others as they are.

    ``steps`` passes fill an empty window, ``revisions`` follow; one that is partly known gets its
    share of both.

    Args:
        transformer: the model.
        condition: of the whole grid; sources have its sides.
        initial: known tokens, on the device of ``generator``.
        config: how to sample.
        generator: source of all randomness.
        window: cells per side of a window, as in training; a smaller grid is one window.
        overlap: share of a window that its neighbour covers too.
        labels: the sources that are labels, whose guidance may differ.
        on_window: told of the progress.
    """
    cells = from_the_middle(Windows.over(initial.shape[1:], window, overlap))
    tokens = initial.clone()
    for done, cell in enumerate(cells, 1):
        part = tokens[(slice(None), *cell)]
        unknown = int((part == transformer.mask_id).flatten(1).sum(1).max())
        if unknown:
            part_of_window = unknown / part[0].numel()
            own = condition if len(cells) == 1 else condition.window(cell)
            tokens[(slice(None), *cell)] = sample(
                guided(
                    transformer,
                    own,
                    parts_of(own, config, transformer.mask_id, labels),
                    config.guidance_schedule,
                    config.guidance_every,
                ),
                part,
                mask_id=transformer.mask_id,
                order=config.order,
                steps=math.ceil(config.steps * part_of_window),
                schedule=config.scheduler_type,
                temperature=config.temperature,
                final_temperature=config.final_temperature,
                choice_temperature=config.choice_temperature,
                revisions=math.ceil(config.revisions * part_of_window),
                revised_share=config.revised_share,
                generator=generator,
            )
        on_window(done, len(cells))
    return tokens
