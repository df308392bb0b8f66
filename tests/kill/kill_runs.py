"""What happens to the folder of a run before it begins, each function called with a folder."""

from pathlib import Path

from prod9.config import Stage1Config
from prod9.config.load import load
from prod9.training.run_folder import RunFolder

_CONFIG = "maskgit/medmnist3d/stage1/ffl.yaml"


def claim(folder: Path) -> None:
    """Take the folder of an older run, which is replaced."""
    root = folder / "run"
    config = load(Path(_CONFIG), Stage1Config, [f"output_dir={root}"])
    RunFolder(root).claim(config, resume=False, overwrite=True)


def older_run(folder: Path) -> None:
    """Fill a run's folder."""
    root = folder / "run"
    older = load(Path(_CONFIG), Stage1Config, [f"output_dir={root}", "seed=1"])
    RunFolder(root).claim(older, resume=False, overwrite=False)
    parts = ("metrics.json", "transformer.pt", "checkpoints/last.ckpt", "report.html")
    for path in (root / part for part in (*parts, "reconstruction.csv")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("older")
