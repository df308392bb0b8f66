"""The report of an evaluation: one page with all figures, pictures and their provenance."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from prod9.data.volume_sets.volume_set import VolumeSet
from prod9.files import write_text
from prod9.report.curves import (
    dose_figure,
    frechet_figure,
    read_history,
    training_figure,
    volumes_figure,
)
from prod9.report.numbers import flat
from prod9.report.page import asset, document, render
from prod9.report.pictures import (
    DIFFERENCE_TOP,
    Choice,
    MontageRow,
    Picture,
    chart,
    choose,
    class_rows,
    pair_rows,
    rule,
)
from prod9.report.viewer import ViewerVolume, nifti_bytes, scripts, viewer_section
from prod9.results.schema import MOST, Evaluation

VIEWER_BYTES = 24_000_000
"""Of all volumes in the viewer, in base64."""
_MANY, _FEW = 12, 3  # volumes a set in the viewer: of small ones, of big ones
_SMALL = 64**3
_CLOSEST = "Closest pair"

_NAMES = {
    "real": "Real",
    "generated": "Generated",
    "train": "Training",
    "originals": "Original",
    "reconstructed": "Reconstructed",
}
_MEASURED = ("reconstruction", "generation", "diversity", "usefulness", "segmentation", "privacy")
"""Sections, each a template that shows nothing where nothing was measured."""
_MEASURES = (
    ("frechet", "Fréchet distance ↓", "How far the means and covariances of features lie apart."),
    ("kernel", "Kernel distance ↓", "The same question without assuming Gaussians; unbiased."),
    ("precision", "Precision ↑", "Low precision: generated volumes that look like no real one."),
    ("recall", "Recall ↑", "Low recall: real volumes that the generator would never draw."),
    ("density", "Density ↑", "Low density: generated volumes lie where real ones are rare."),
    ("coverage", "Coverage ↑", "Low coverage: modes are missing."),
)


@dataclass(frozen=True)
class Extra:
    """A further section of the page, after the summary: a table, a sentence, a picture."""

    id: str
    title: str
    words: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    picture: Picture | None = None


def write_report(
    path: Path,
    evaluation: Evaluation,
    sets: Mapping[str, VolumeSet],
    *,
    title: str,
    lead: str,
    histories: Mapping[str, Path] | None = None,
    configs: Mapping[str, str] | None = None,
    extra: Sequence[Extra] = (),
) -> None:
    """Write the report, one HTML file that needs no other and no network, whole or not at all.

    Args:
        path: of the page.
        evaluation: what was measured.
        sets: ``real``, ``generated``, ``train``, ``originals``, ``reconstructed``, as there are.
        title: plain text.
        lead: plain text, below the title.
        histories: ``Stage 1`` -> a run's history folder.
        configs: ``Stage 1`` -> YAML.
        extra: more sections, shown after the summary.

    Raises:
        Prod9Error: a volume cannot be read any more, or the file cannot be written.
    """
    values = {
        "evaluation": evaluation,
        "pairs": _pairs(evaluation, sets),
        "charts": _charts(evaluation),
        "configs": configs or {},
        "measures": _MEASURES,
        "difference_top": f"{DIFFERENCE_TOP:g}",
        "most": MOST,
    }
    look = _viewer(evaluation, sets)
    sections = [
        ("summary", "Summary", render("summary.html", **values)),
        *((part.id, part.title, render("extra.html", part=part)) for part in extra),
        ("pictures", "Pictures", render("pictures.html", **_pictures(sets))),
        ("look", "Viewer", look),
        *((name, name.capitalize(), render(f"{name}.html", **values)) for name in _MEASURED),
        ("other", "Other figures", render("other.html", others=_others(evaluation))),
        ("training", "Training", render("training.html", curves=_curves(histories or {}))),
        ("provenance", "Provenance", render("provenance.html", **values)),
    ]
    with_viewer = (scripts(), [asset("viewer.css")]) if look else ()
    write_text(path, document(title, lead, sections, *with_viewer))


def _pictures(sets: Mapping[str, VolumeSet]) -> dict[str, Any]:
    """Return real beside generated volumes, and originals beside their reconstructions."""

    def montage(shown: dict[str, VolumeSet], chosen: dict[str, Choice]) -> dict[str, Any]:
        first = next(iter(chosen.values()))
        return {"columns": [*shown], "rows": class_rows(shown, chosen), "rule": rule(first)}

    found: dict[str, Any] = {"made": None, "again": None}
    made = {_NAMES[key]: sets[key] for key in ("real", "generated") if key in sets}
    if made:
        found["made"] = montage(made, {name: choose(volumes) for name, volumes in made.items()})
    originals, again = sets.get("originals", sets.get("real")), sets.get("reconstructed")
    if originals is not None and again is not None:
        # In the same order: the figures pair them so too.
        choice = choose(originals.select(range(min(len(originals), len(again)))))
        pair = {_NAMES["originals"]: originals, _NAMES["reconstructed"]: again}
        found["again"] = montage(pair, dict.fromkeys(pair, choice))
    return found


def _for_viewer(
    evaluation: Evaluation, sets: Mapping[str, VolumeSet]
) -> Iterator[tuple[str, VolumeSet, int]]:
    """Yield (group, set, index), the most important of each group first."""
    originals, real = sets.get("originals"), sets.get("real")
    twice = originals is not None and real is not None and originals.names == real.names
    for key in ("real", "generated", "originals", "reconstructed"):
        if key in sets and not (twice and key == "originals"):
            rows = list(choose(sets[key]).rows.values())
            ranked = [row[i] for i in range(max(map(len, rows))) for row in rows if i < len(row)]
            count = _MANY if math.prod(sets[key].shape) <= _SMALL else _FEW
            yield from ((_NAMES[key], sets[key], index) for index in ranked[:count])
    generation = evaluation.generation
    if generation is None or generation.privacy is None:
        return
    for pair in generation.privacy.closest[:1]:
        for key, name in (("generated", pair.generated), ("train", pair.train)):
            if key in sets and name in sets[key].names:
                group = f"{_CLOSEST}: {_NAMES[key].lower()}"
                yield group, sets[key], sets[key].names.index(name)


def _viewer(evaluation: Evaluation, sets: Mapping[str, VolumeSet]) -> str:
    """Embed a few volumes of each set, as many as the budget holds, and say which."""
    offered = [
        ViewerVolume(group, volumes.names[i], nifti_bytes(volumes[i], volumes.spacing_mm))
        for group, volumes, i in _for_viewer(evaluation, sets)
    ]
    chosen = "the first volumes of each set, class after class"
    if any(volume.group.startswith(_CLOSEST) for volume in offered):
        chosen += ", and the closest pair of a generated and a training volume"
    return viewer_section(offered, VIEWER_BYTES, chosen)


def _pairs(evaluation: Evaluation, sets: Mapping[str, VolumeSet]) -> list[MontageRow]:
    generation = evaluation.generation
    if generation is None or generation.privacy is None or not {"generated", "train"} <= {*sets}:
        return []
    return pair_rows(generation.privacy.closest, sets["generated"], sets["train"])


def _charts(evaluation: Evaluation) -> dict[str, Picture]:
    """Return the Frechet distance over the number of volumes, for each space; what labels show."""
    charts: dict[str, Picture] = {}
    for space in evaluation.generation.spaces if evaluation.generation else ():
        figure = frechet_figure(space)
        if figure is not None:
            points = [
                f"{point.volumes}: {point.generated:.4g}"
                + ("" if point.floor is None else f" (floor {point.floor:.4g})")
                for point in sorted(space.curve, key=lambda point: point.volumes)
            ]
            alt = f"Fréchet distance over the number of volumes: {'; '.join(points)}"
            charts[space.key] = chart(figure, alt, "chart narrow")
    if found := evaluation.segmentation:
        slopes = [f"label {each.label}: slope {each.slope or 0:.3g}" for each in found.doses]
        if slopes:
            alt = f"Volume found over volume requested, ml; {'; '.join(slopes)}"
            charts["doses"] = chart(dose_figure(found.doses), alt)
        medians = [
            f"label {each.label}: {median(each.real):.3g} and {median(each.generated):.3g}"
            for each in found.volumes
        ]
        alt = f"Cumulative distributions of label volumes, ml; medians {'; '.join(medians)}"
        charts["volumes"] = chart(volumes_figure(found.volumes), alt)
    return charts


def _others(evaluation: Evaluation) -> dict[str, list[tuple[str, Any]]]:
    """Return the figures that have no section of their own, by their heading."""
    found = {
        "Masked tokens": evaluation.masked_prediction,
        "Translation": evaluation.translation,
        "Windows against one pass": evaluation.window_agreement,
        "Shares of the demonstration's time, and its arithmetic": evaluation.demo_time,
    }
    return {title: list(flat(figures)) for title, figures in found.items() if figures}


def _curves(histories: Mapping[str, Path]) -> dict[str, Picture]:
    """Return the training curves of each stage."""
    curves: dict[str, Picture] = {}
    for name, folder in histories.items():
        history = read_history(folder)
        figure = training_figure(history)
        if figure is not None:
            last = "; ".join(f"{key} {pairs[-1][1]:.4g}" for key, pairs in sorted(history.items()))
            curves[name] = chart(figure, f"Training curves of {name}. Last values: {last}")
    return curves
