"""What all demonstrations share: their folder, their configurations, and a clock."""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from prod9.config import Stage1Config, Stage2Config
from prod9.config.load import load_stage1, load_stage2
from prod9.errors import Prod9Error
from prod9.runtime.console import say


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


def claim(output: Path, overwrite: bool) -> None:
    """Make room for a demo in ``output``.

    Raises:
        Prod9Error: there is one already, and it must not be replaced.
    """
    if (output / "metrics.json").exists() or (output / "stage1").exists():
        if not overwrite:
            raise Prod9Error(
                f"{output} already holds a demo; replace it with --overwrite or choose another "
                "--output."
            )
        for part in ("stage1", "stage2", "generated"):
            shutil.rmtree(output / part, ignore_errors=True)
        for file in ("autoencoder.pt", "metrics.json", "index.html", "split.json"):
            (output / file).unlink(missing_ok=True)
