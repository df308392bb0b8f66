"""What all demonstrations share: a folder, two configurations, both trainings, and a page."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from prod9 import __version__
from prod9.config import Stage1Config, Stage2Config
from prod9.config.load import dump, load_stage1, load_stage2
from prod9.errors import Prod9Error
from prod9.evaluation.evaluator import Evaluator
from prod9.files import write_text
from prod9.inference.generate import generate_files, own_names
from prod9.model import Model
from prod9.own_files import matching, read_record, refuse_foreign, remove_own
from prod9.report.report import Extra
from prod9.runtime.clock import Clock, shares
from prod9.runtime.console import say
from prod9.runtime.machine_speed import machine_speed
from prod9.sample_request import SampleRequest
from prod9.tokenizer import Tokenizer
from prod9.training import stage1, stage2
from prod9.training.run_folder import RunFolder

MARK = "prod9-demo.json"
"""Shows that a folder is a demonstration's; written before anything else in it."""
_FILES = (
    *("index.html", "metrics.json", "reconstruction.csv", "autoencoder.pt", "split.json"),
    *("real.png", "reconstructed.png", "generated.png"),
)
_FOLDERS = ("stage1", "stage2", "generated", "cohort", "cache", "example")
"""Whatever fills one of them knows by itself what in it is prod9's."""

_PARTS = {
    "training": ("stage1", "stage2"),
    "drawing": ("generation", "pictures"),
    "figures": ("figures", "translation", "reconstruction"),
    "reading": ("data", "cohort"),
}
"""What the time went into: laps of the clock."""


def load_configs(
    output: Path,
    files: tuple[str, str],
    overrides: tuple[Sequence[str], Sequence[str]],
    data_paths: Mapping[str, str] | None = None,
) -> tuple[Stage1Config, Stage2Config]:
    """Read the configurations of both stages, with everything they name below ``output``.

    Args:
        output: folder of the demonstration.
        files: names in ``configs/maskgit/demo``, without suffix.
        overrides: of each stage, from the command line.
        data_paths: keys that both stages share -> names below ``output``.
    """

    def below(**names: str) -> list[str]:
        # The text may hold whatever characters the path has.
        paths = {key: json.dumps(str(output / name)) for key, name in names.items()}
        return [f"{key}={path.replace('${', '$${')}" for key, path in paths.items()]

    shared, (one, two) = below(**(data_paths or {})), overrides
    first = below(output_dir="stage1", autoencoder_export_path="autoencoder.pt")
    second = below(output_dir="stage2", autoencoder_path="autoencoder.pt")
    yaml_one, yaml_two = (Path(f"maskgit/demo/{name}.yaml") for name in files)
    return (
        load_stage1(yaml_one, [*first, *shared, *one]),
        load_stage2(yaml_two, [*second, *shared, *two]),
    )


def claim(output: Path, one: Stage1Config, two: Stage2Config, *, overwrite: bool) -> None:
    """Make room for a demonstration in ``output``, and mark it as one.

    Raises:
        Prod9Error: there is one already (without ``overwrite``), or files that prod9 did not write
            are in the way.
    """
    there = matching(output, (*_FILES, *_FOLDERS))
    if read_record(output / MARK, {"prod9", "folder"}) is None:
        refuse_foreign([output / MARK, *there])
    if there and not overwrite:
        raise Prod9Error(
            f"{output} already holds a demo; replace it with --overwrite or choose another "
            "--output."
        )
    # What is in the way of a later part is told now, not after an hour of training.
    for config in (one, two):
        RunFolder(config.output_dir).check(config, resume=False, overwrite=overwrite)
    own_names(output / "generated")
    mark = {"prod9": __version__, "folder": "everything that `prod9 demo` makes"}
    write_text(output / MARK, json.dumps(mark, indent=2) + "\n")
    remove_own(output, matching(output, _FILES))


@dataclass(frozen=True)
class Demonstration:
    """Both stages, trained, in a folder that the demonstration owns."""

    output: Path
    one: Stage1Config
    two: Stage2Config
    tokenizer: Tokenizer
    model: Model
    clock: Clock
    rate: float
    """GFLOP/s of a convolution before training (``machine_speed``)."""

    @classmethod
    def train(
        cls, output: Path, one: Stage1Config, two: Stage2Config, clock: Clock, *, overwrite: bool
    ) -> "Demonstration":
        """Train Stage 1, then Stage 2.

        Raises:
            Prod9Error: a mistake in a configuration, or results in the way.
        """
        rate = machine_speed(one.trainer.accelerator).conv3d
        tokenizer = stage1.train(one, overwrite=overwrite)
        clock.lap("stage1")
        model = stage2.train(two, overwrite=overwrite)
        clock.lap("stage2")
        return cls(output, one, two, tokenizer, model, clock, rate)

    def generate(
        self,
        per_class: int,
        batch_size: int | None,
        on_volume: Callable[[Tensor], None] = lambda volume: None,
    ) -> tuple[int, ...]:
        """Generate volumes of every class into ``output/generated``; return their labels."""
        labels = self.model.labels_of(["all"], per_class)
        request = replace(SampleRequest.generation_of(self.two, labels), batch_size=batch_size)
        folder = self.output / "generated"
        # What was there is prod9's: `claim` has looked.
        generate_files(self.model, request, folder, overwrite=True, on_volume=on_volume)
        return labels

    def write_page(
        self,
        evaluator: Evaluator,
        *,
        title: str,
        lead: str,
        extra: Sequence[Extra] = (),
        **parts: Any,
    ) -> Path:
        """Write ``metrics.json`` and the page, ``output/index.html``; return the page.

        Says what the time went into, and what this is in arithmetic.

        ``extra`` are sections above the figures, ``parts`` further fields of
        :class:`prod9.results.schema.Evaluation`.
        """
        evaluator.seconds |= self.clock.seconds
        texts = {"Stage 1": dump(self.one), "Stage 2": dump(self.two)}
        source = {
            "tokenizer": self.tokenizer.digest,
            "transformer": self.model.digest,
            "stage1": texts["Stage 1"],
            "stage2": texts["Stage 2"],
        }
        # The mean of before and after: other programs may have come or gone.
        rate = (self.rate + machine_speed(self.one.trainer.accelerator).conv3d) / 2
        page = evaluator.write(
            self.output,
            evaluator.evaluation(source, demo_time=self._time(rate), **parts),
            title=title,
            lead=lead,
            page="index.html",
            histories={
                "Stage 1": RunFolder(self.one.output_dir).history,
                "Stage 2": RunFolder(self.two.output_dir).history,
            },
            configs=texts,
            extra=extra,
        )
        self.clock.lap("page")
        found = self._time(rate)
        spent = ", ".join(f"{name} {found[name]:.0%}" for name in (*_PARTS, "rest"))
        say(f"time: {spent}")
        say(
            f"{self.clock.seconds['total']:.0f} s x {rate:.0f} GFLOP/s (conv3d, as in `prod9 "
            f"doctor`) = {found['tflop']:.0f} TFLOP"
        )
        return page

    def _time(self, rate: float) -> dict[str, float]:
        """Return ``demo_time`` of :class:`prod9.results.schema.Evaluation`, until now."""
        seconds = self.clock.seconds
        arithmetic = {"conv3d_gflops": rate, "tflop": seconds["total"] * rate / 1000}
        return shares(seconds, _PARTS) | arithmetic
