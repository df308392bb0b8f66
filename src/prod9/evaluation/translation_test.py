"""How near a modality that is drawn from others comes to the real one."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from prod9.data.brats.scans import ScanSet
from prod9.evaluation.translation import TranslationMetrics, evaluate_translation
from prod9.evaluation.work_cache import WorkCache
from prod9.inference.translate import translated_tokens
from prod9.model import Model
from prod9.runtime.distributed import is_main
from prod9.sample_request import SampleRequest
from prod9.sliding_window import decode, encode

TARGET = "FLAIR"
SOURCES = (("T1",), ("T1", "T2"), ("T1", "T1ce", "T2"))
"""What `test` measures: one modality, from more and more others."""


def measure_translation(
    generator: Model,
    train: ScanSet,
    test: ScanSet,
    how: SampleRequest,
    target: str = TARGET,
    source_sets: Sequence[Sequence[str]] = SOURCES,
    kept: WorkCache | None = None,
) -> TranslationMetrics:
    """Draw ``target`` of every scan of ``test`` from each set of sources, and measure.

    One sample is measured, not a mean: the mean of many is smoother than any scan. The tokens are
    ``kept``; the processes of a distributed run share the sampling. The labels of ``how`` are not
    looked at.
    """
    names = generator.class_names
    one = replace(how, labels=(names.index(target),))
    wanted = [(index, sources) for index in range(len(test)) for sources in source_sets]

    def make(number: int) -> np.ndarray:
        index, sources = wanted[number]
        given = {m: test.whole(index, m) for m in map(names.index, sources)}
        volumes = {m: torch.from_numpy(array)[None, None] for m, array in given.items()}
        return translated_tokens(generator, volumes, one).cpu().numpy()

    def name(index: int, sources: Sequence[str]) -> str:
        scan = f"{test.scans[index].digest} on {test.shape}"
        return f"{target} from {'+'.join(sources)} of {scan} by {generator.digest}, {one}"

    # In the order in which they are asked for below.
    drawn = (kept or WorkCache()).all_of([name(*each) for each in wanted], make)

    def draw(volumes: dict[int, Tensor], modality: int) -> Tensor:
        d, h, w = next(iter(volumes.values())).shape[2:]
        tokens = torch.from_numpy(next(drawn)).to(generator.device)
        return generator.decode(tokens, (d, h, w), one.windows)

    def reconstruct(volume: Tensor) -> Tensor:
        tokens = encode(generator.tokenizer, volume, how.windows)
        return decode(generator.tokenizer, tokens, volume.shape[2:], how.windows)

    with Progress(transient=True, disable=not is_main()) as bar:
        task = bar.add_task(f"translating to {target}", total=len(test))
        return evaluate_translation(
            train,
            test,
            names,
            names.index(target),
            [[names.index(name) for name in sources] for sources in source_sets],
            draw,
            reconstruct,
            lambda: bar.advance(task),
        )
