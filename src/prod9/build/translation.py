"""Translation measured on held-out scans: draws of a model beside what costs nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.progress import Progress
from torch import Tensor

from prod9.build.synthesis import Settings, background_cells, draw_missing
from prod9.data.scans import ScanSet
from prod9.evaluate.translation import TranslationMetrics, evaluate_translation
from prod9.generator import Generator
from prod9.sliding_window import decode, encode

TARGET = "FLAIR"
SOURCES = (("T1",), ("T1", "T2"), ("T1", "T1ce", "T2"))
"""What `test` measures: one modality, from more and more others."""


def drawn_volume(
    generator: Generator, volumes: Mapping[int, Tensor], target: int, settings: Settings
) -> Tensor:
    """Draw a modality from others: volumes (1, 1, D, H, W) by modality -> (K, 1, D, H, W)."""
    tokens = {m: encode(generator.tokenizer, v, settings.windows) for m, v in volumes.items()}
    known = background_cells(generator, list(volumes.values()))
    drawn = draw_missing(generator, tokens, target, settings, known)
    d, h, w = next(iter(volumes.values())).shape[2:]
    return generator.decode(drawn, (d, h, w), settings.windows)


def measure_translation(
    generator: Generator,
    train: ScanSet,
    test: ScanSet,
    settings: Settings,
    target: str = TARGET,
    source_sets: Sequence[Sequence[str]] = SOURCES,
) -> TranslationMetrics:
    """Draw ``target`` of every scan of ``test`` from each set of sources, and measure.

    One draw is measured, not a mean: the mean of many is smoother than any scan.
    """
    names = generator.class_names
    one = replace(settings, samples=1)

    def draw(volumes: dict[int, Tensor], modality: int) -> Tensor:
        return drawn_volume(generator, volumes, modality, one)

    def reconstruct(volume: Tensor) -> Tensor:
        tokens = encode(generator.tokenizer, volume, settings.windows)
        return decode(generator.tokenizer, tokens, volume.shape[2:], settings.windows)

    with Progress(transient=True) as bar:
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
