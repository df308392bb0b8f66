"""Both stages of a demonstration: trained, and shown on its page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prod9.config import Stage1Config, Stage2Config
from prod9.config.load import dump
from prod9.demo.workspace import Clock
from prod9.evaluation.evaluator import Evaluator
from prod9.model import Model
from prod9.report.document import Section
from prod9.tokenizer import Tokenizer
from prod9.training import stage1, stage2
from prod9.training.run_folder import RunFolder

_PAGE = "index.html"


@dataclass(frozen=True)
class Trained:
    """What a demonstration has learned, and from which configurations."""

    one: Stage1Config
    two: Stage2Config
    tokenizer: Tokenizer
    generator: Model


def train_both(one: Stage1Config, two: Stage2Config, clock: Clock, *, overwrite: bool) -> Trained:
    """Train Stage 1, then Stage 2.

    Raises:
        Prod9Error: a mistake in a configuration, or results in the way.
    """
    tokenizer = stage1.train(one, overwrite=overwrite)
    clock.lap("stage1")
    generator = stage2.train(two, overwrite=overwrite)
    clock.lap("stage2")
    return Trained(one, two, tokenizer, generator)


def write_page(
    output: Path,
    trained: Trained,
    evaluator: Evaluator,
    clock: Clock,
    *,
    title: str,
    lead: str,
    before: Sequence[Section] = (),
    **parts: Any,
) -> Path:
    """Write ``metrics.json`` and the page, ``output/index.html``; return the page.

    Args:
        output: folder of the demonstration.
        trained: what is shown.
        evaluator: what was measured of it.
        clock: how long everything took.
        title: of the page.
        lead: its first sentences.
        before: sections above the figures.
        parts: further fields of :class:`prod9.results.schema.Evaluation`.
    """
    evaluator.seconds |= clock.seconds
    one, two = trained.one, trained.two
    texts = {"Stage 1": dump(one), "Stage 2": dump(two)}
    source = {
        "tokenizer": trained.tokenizer.digest,
        "transformer": trained.generator.digest,
        "stage1": texts["Stage 1"],
        "stage2": texts["Stage 2"],
    }
    return evaluator.write(
        output,
        evaluator.evaluation(source, **parts),
        title=title,
        lead=lead,
        page=_PAGE,
        histories={
            "Stage 1": RunFolder(one.output_dir).history,
            "Stage 2": RunFolder(two.output_dir).history,
        },
        configs=texts,
        before=before,
    )
