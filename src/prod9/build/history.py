"""The logged values of a run that is resumed: kept, though its logger begins anew."""

from pathlib import Path


def keep_history(folder: Path) -> None:
    """Put the values so far aside, for Lightning's CSV logger begins ``metrics.csv`` anew.

    They become ``metrics-until-part-N.csv``. Of steps that are done twice both parts have values:
    :func:`prod9.report.curves.read_history` takes those of the newer one.
    """
    newest = folder / "metrics.csv"
    if newest.exists():
        parts = len(list(folder.glob("metrics-until-*.csv")))
        newest.replace(folder / f"metrics-until-part-{parts + 1:05d}.csv")
