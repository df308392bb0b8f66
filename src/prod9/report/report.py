"""The report of an evaluation: one page with all figures, pictures and their provenance."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prod9.data.volume_sets.volume_set import VolumeSet
from prod9.files import write_text
from prod9.report import generated, sections
from prod9.report.curves import read_history, training_figure
from prod9.report.document import Section, document, escape
from prod9.report.pictures import chart, choose, montage_rows, rule
from prod9.report.summary import read, summary
from prod9.report.tables import sets_table, table
from prod9.report.viewer import (
    ViewerVolume,
    embed,
    nifti_bytes,
    niivue_script,
    script,
    viewer_fragment,
)
from prod9.results.schema import Evaluation

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


@dataclass(frozen=True)
class ReportContent:
    """What a report shows."""

    title: str
    lead: str
    evaluation: Evaluation
    sets: Mapping[str, VolumeSet]
    """Those of ``real``, ``generated``, ``train``, ``originals``, ``reconstructed`` there are."""
    histories: Mapping[str, Path] = field(default_factory=dict[str, Path])
    """``Stage 1`` -> a run's history folder."""
    configs: Mapping[str, str] = field(default_factory=dict[str, str])
    """``Stage 1`` -> YAML."""
    before: Sequence[Section] = ()
    """More sections, shown after the summary."""


def write_report(path: Path, content: ReportContent) -> None:
    """Write the report, one HTML file that needs no other and no network, whole or not at all.

    Raises:
        Prod9Error: a volume cannot be read any more, or the file cannot be written.
    """
    viewer = _viewer(content)
    evaluation = content.evaluation
    parts = [
        summary(evaluation),
        *content.before,
        _pictures(content.sets),
        viewer,
        sections.reconstruction(evaluation),
        generated.generation(evaluation),
        generated.diversity(evaluation),
        sections.usefulness(evaluation),
        sections.privacy(evaluation, content.sets),
        sections.other(evaluation),
        _training(content.histories),
        _provenance(content),
    ]
    scripts = ([], []) if viewer is None else ([niivue_script()], [script()])
    there = [part for part in parts if part is not None]
    write_text(path, document(content.title, content.lead, there, *scripts))


def _pictures(sets: Mapping[str, VolumeSet]) -> Section | None:
    """Show real beside generated volumes, and originals beside their reconstructions."""
    parts: list[str] = []
    shown = {_NAMES[key]: sets[key] for key in ("real", "generated") if key in sets}
    if shown:
        chosen = {name: choose(collection) for name, collection in shown.items()}
        first = next(iter(chosen.values()))
        groups = list(dict.fromkeys(group for choice in chosen.values() for group in choice.rows))
        rows = {
            group: {name: choice.rows.get(group, []) for name, choice in chosen.items()}
            for group in groups
        }
        title = " and ".join(name.lower() for name in shown).capitalize()
        parts.append(f"<h3>{title}</h3><p>{escape(rule(first))} Axial, coronal and sagittal middle")
        parts.append(f" slices; grey from 0 to 1.</p>{montage_rows(shown, rows)}")
    originals, again = sets.get("originals", sets.get("real")), sets.get("reconstructed")
    if again is not None and originals is not None:
        pair = {_NAMES["originals"]: originals, _NAMES["reconstructed"]: again}
        # In the same order: the figures pair them so too.
        choice = choose(originals.select(range(min(len(originals), len(again)))))
        rows = {group: dict.fromkeys(pair, indices) for group, indices in choice.rows.items()}
        parts.append("<h3>Originals and their reconstructions</h3><p>The same volumes before and")
        parts.append(f" after. {escape(rule(choice))}</p>{montage_rows(pair, rows)}")
    return Section("pictures", "Pictures", "".join(parts)) if parts else None


def _for_viewer(content: ReportContent) -> list[tuple[str, VolumeSet, list[int]]]:
    """Return (group, set, indices, the most important first) for the viewer."""
    sets = dict(content.sets)
    originals, real = sets.get("originals"), sets.get("real")
    if originals is not None and real is not None and originals.names == real.names:
        del sets["originals"]  # the same volumes need not be there twice
    result: list[tuple[str, VolumeSet, list[int]]] = []
    for key in ("real", "generated", "originals", "reconstructed"):
        if key in sets:
            rows = list(choose(sets[key]).rows.values())
            ranked = [row[i] for i in range(max(map(len, rows))) for row in rows if i < len(row)]
            count = _MANY if math.prod(sets[key].shape) <= _SMALL else _FEW
            result.append((_NAMES[key], sets[key], ranked[:count]))
    generation = content.evaluation.generation
    if generation is None or generation.privacy is None:
        return result
    for pair in generation.privacy.closest[:1]:
        for key, name in (("generated", pair.generated), ("train", pair.train)):
            if key in sets and name in sets[key].names:
                group = f"{_CLOSEST}: {_NAMES[key].lower()}"
                result.append((group, sets[key], [sets[key].names.index(name)]))
    return result


def _viewer(content: ReportContent) -> Section | None:
    """Embed a few volumes of each set, as many as the budget holds, and say which."""
    offered = [
        ViewerVolume(group, collection.names[i], nifti_bytes(collection[i], collection.spacing_mm))
        for group, collection, indices in _for_viewer(content)
        for i in indices
    ]
    volumes = embed(offered, VIEWER_BYTES)
    if not volumes:
        return None
    words = "Embedded: the first volumes of each set, class after class"
    if any(volume.group.startswith(_CLOSEST) for volume in volumes):
        words += ", and the closest pair of a generated and a training volume"
    if len(volumes) < len(offered):
        more = len(offered) - len(volumes)
        words += f"; {more} more did not fit into {VIEWER_BYTES // 1_000_000} MB"
    names = "".join(
        f"<li>{escape(volume.group)}: <code>{escape(volume.name)}</code></li>" for volume in volumes
    )
    body = (
        f'<div class="screen">{viewer_fragment(volumes)}</div>'
        f'<p class="small">{words}. Nothing is fetched: the volumes are inside this page.</p>'
        f"<details><summary>The {len(volumes)} embedded volumes</summary><ul>{names}</ul></details>"
    )
    return Section("look", "Viewer", body)


def _training(histories: Mapping[str, Path]) -> Section | None:
    parts: list[str] = []
    for name, folder in histories.items():
        history = read_history(folder)
        figure = training_figure(history)
        if figure is None:
            continue
        last = "; ".join(f"{key} {pairs[-1][1]:.4g}" for key, pairs in sorted(history.items()))
        alt = f"Training curves of {name}. Last values: {last}"
        parts.append(f"<h3>{escape(name)}</h3><figure>{chart(figure, alt)}</figure>")
    if not parts:
        return None
    parts.append(
        read(
            "Validation uses averaged weights on volumes that were not trained on. A validation "
            "loss that rises while the training loss falls means learning by heart; few codes in "
            "use mean a collapsed codebook. Tokens are the harder to predict the more of them are "
            "masked: accuracy falls from the lowest mask ratio to the highest."
        )
    )
    return Section("training", "Training", "".join(parts))


def _provenance(content: ReportContent) -> Section:
    evaluation = content.evaluation
    facts = [
        [escape(key), f"<code>{escape(_words(value))}</code>"]
        for key, value in evaluation.provenance.items()
    ]
    seconds = [[escape(name), f"{value:,.1f}"] for name, value in evaluation.seconds.items()]
    parts = [sets_table(evaluation.sets)] if evaluation.sets else []
    if facts:
        parts.append(f"<h3>Program, machine, command</h3>{table(['', ''], facts, text=[1])}")
    if seconds:
        parts.append(f"<h3>Time</h3>{table(['Part', 'Seconds'], seconds)}")
    parts += [
        f"<details><summary>Configuration: {escape(name)}</summary><pre>{escape(text)}</pre>"
        "</details>"
        for name, text in content.configs.items()
    ]
    raw = evaluation.model_dump_json(indent=2)
    parts.append(
        f"<details><summary>All figures, as in metrics.json</summary><pre>{escape(raw)}</pre>"
        "</details>"
    )
    return Section("provenance", "Provenance", "\n".join(parts))


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
