"""How near a channel that is drawn from others comes to the real one."""

from dataclasses import replace

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from prod9.data.dataset import Dataset
from prod9.evaluation.translation import TranslationMetrics, evaluate_translation
from prod9.evaluation.work_cache import WorkCache
from prod9.inference.translate import translated_tokens
from prod9.model import Model
from prod9.runtime.distributed import is_main
from prod9.sample_request import SampleRequest
from prod9.sliding_window import decode, encode


def source_sets(data: Dataset) -> tuple[int, list[list[int]]]:
    """Return the target channel that ``test`` measures, and growing sets of sources.

    The order is the data set's ``translation_order``: of BraTS, FLAIR from T1, then T1 and T2, then
    T1, T1ce and T2.
    """
    *sources, target = data.translation_order or range(len(data.channels))
    return target, [sorted(sources[:count]) for count in range(1, len(sources) + 1)]


def measure_translation(
    generator: Model,
    train: Dataset,
    test: Dataset,
    how: SampleRequest,
    *,
    kept: WorkCache | None = None,
    count: int | None = None,
) -> TranslationMetrics:
    """Draw one channel of the items of ``test`` from each set of sources, and measure.

    One sample is measured, not a mean: the mean of many is smoother than any scan. The tokens are
    ``kept``; the processes of a distributed run share the sampling.

    Args:
        generator: samples.
        train: whose mean is a rival.
        test: what no training has seen.
        how: it is sampled; the labels are not looked at.
        kept: of sampled tokens.
        count: how many items are measured, the first ones; all when left out.
    """
    names = generator.channels
    target, sets = source_sets(test)
    one = replace(how, labels=(generator.label_of_channel(target),))
    items = range(len(test) if count is None else count)
    wanted = [(item, sources) for item in items for sources in sets]

    def make(number: int) -> np.ndarray:
        item, sources = wanted[number]
        volumes = {m: torch.from_numpy(test.whole(item, m))[None, None] for m in sources}
        return translated_tokens(generator, volumes, one).cpu().numpy()

    said = f"of {test.digest} by {generator.digest}, {one}"
    # In the order in which they are asked for below.
    drawn = (kept or WorkCache()).all_of([f"{target} from {each} {said}" for each in wanted], make)

    def draw(volumes: dict[int, Tensor], channel: int) -> Tensor:
        d, h, w = next(iter(volumes.values())).shape[2:]
        tokens = torch.from_numpy(next(drawn)).to(generator.device)
        return generator.decode(tokens, (d, h, w), one.windows)

    def reconstruct(volume: Tensor) -> Tensor:
        tokens = encode(generator.tokenizer, volume, how.windows)
        return decode(generator.tokenizer, tokens, volume.shape[2:], how.windows)

    with Progress(transient=True, disable=not is_main()) as bar:
        task = bar.add_task(f"translating to {names[target]}", total=len(items))
        return evaluate_translation(
            train,
            test,
            items,
            target,
            sets,
            draw,
            reconstruct,
            lambda: bar.advance(task),
        )
