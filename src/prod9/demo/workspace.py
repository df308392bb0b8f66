"""What all demonstrations share: their folder, their configurations, and a clock."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from prod9 import __version__
from prod9.config import Stage1Config, Stage2Config
from prod9.config.load import load_stage1, load_stage2
from prod9.errors import Prod9Error
from prod9.files import write_text
from prod9.inference.generate import own_names
from prod9.own_files import matching, read_record, refuse_foreign, remove_own
from prod9.runtime.console import say
from prod9.training.run_folder import RunFolder

MARK = "prod9-demo.json"
"""Shows that a folder is a demonstration's; written before anything else in it."""
_FILES = (
    *("index.html", "metrics.json", "reconstruction.csv", "autoencoder.pt", "split.json"),
    *("real.png", "reconstructed.png", "generated.png"),
)
_FOLDERS = ("stage1", "stage2", "generated", "cohort", "cache", "example")
"""Whatever fills one of them knows by itself what in it is prod9's."""


class Clock:
    """Seconds of each part of a demo."""

    def __init__(self) -> None:
        self.start = self.last = time.monotonic()
        self.seconds: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """End the part ``name`` and say how long it took."""
        now = time.monotonic()
        self.seconds[name] = round(now - self.last, 1)
        self.seconds["total"] = round(now - self.start, 1)
        self.last = now
        say(f"[{self.seconds['total'] / 60:.1f} min] {name}: {self.seconds[name]:.0f} s")


def override(key: str, path: Path) -> str:
    """Return an override that holds whatever characters the path has."""
    return f"{key}={json.dumps(str(path)).replace('${', '$${')}"


def configs(
    output: Path, one: str, two: str, first: Sequence[str], second: Sequence[str]
) -> tuple[Stage1Config, Stage2Config]:
    """Read the demo configurations called ``one`` and ``two``, with everything below ``output``.

    ``first`` and ``second`` are their overrides.
    """
    export = output / "autoencoder.pt"
    return (
        load_stage1(
            Path(f"maskgit/demo/{one}.yaml"),
            [
                override("output_dir", output / "stage1"),
                override("autoencoder_export_path", export),
                *first,
            ],
        ),
        load_stage2(
            Path(f"maskgit/demo/{two}.yaml"),
            [
                override("output_dir", output / "stage2"),
                override("autoencoder_path", export),
                *second,
            ],
        ),
    )


def claim(output: Path, one: Stage1Config, two: Stage2Config, *, overwrite: bool) -> None:
    """Make room for a demo in ``output``, and mark it as one.

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
