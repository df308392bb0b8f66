"""The top of the report: warnings, the verdict on copying, the headline figures."""

from collections.abc import Sequence

from prod9.report.document import Section, escape
from prod9.report.numbers import number, prose, share
from prod9.report.tables import ratio
from prod9.results.schema import Evaluation, FeatureSpaceFigures, Privacy, Usefulness

SHORT = {
    "efficientnet": "EfficientNet, ImageNet",
    "medicalnet": "MedicalNet",
    "classifier": "classifier of this data",
}
_VERDICTS = {
    "no sign of copying": ("good", "✓ No sign of copied training volumes"),
    "suspicious": ("warning", "! Suspicious: training volumes may come back"),
    "copies": ("bad", "✕ Copies: training volumes come back"),
}


def box(kind: str, title: str, body: str = "") -> str:
    """Return a box of kind ``good``, ``warning`` or ``bad``; the title says it too."""
    return f'<div class="box {kind}" role="note"><strong>{escape(title)}</strong>{body}</div>'


def bullets(lines: Sequence[str]) -> str:
    """Return plain lines as a list."""
    return f"<ul>{''.join(f'<li>{prose(line)}</li>' for line in lines)}</ul>" if lines else ""


def read(words: str) -> str:
    """Return the short text that says how a figure is to be read; HTML of ours."""
    return f'<p class="read"><b>How to read this.</b> {words}</p>'


def verdict(privacy: Privacy) -> str:
    """Return whether training volumes come back, and what that rests on."""
    kind, title = _VERDICTS[privacy.verdict]
    return box(kind, title, bullets(privacy.reasons))


def _stat(name: str, value: str, note: str) -> str:
    return (
        f'<div><dt>{escape(name)}</dt><dd class="value">{value}</dd>'
        f'<dd class="note">{note}</dd></div>'
    )


def _space(space: FeatureSpaceFigures) -> str:
    made, floor = space.generated, space.floor
    notes = [escape(SHORT[space.key]), f"{made.volumes:,} volumes"]
    if floor is not None:
        times = ratio(space)
        notes.append(f"floor {number(floor.frechet)}" + ("" if times == "–" else f", {times}"))
    if not space.stable:
        notes.append('<b class="warn-text">! too few volumes to quote it</b>')
    value = number(made.frechet, made.frechet_interval)
    return _stat("Fréchet distance ↓", value, "; ".join(notes))


def _useful(figures: Usefulness) -> str:
    rows = {row.trained_on: row for row in figures.rows}
    mine = rows.get("generated")
    if mine is None:
        return ""
    others = [row for name, row in rows.items() if name.startswith("real") and "+" not in name]
    note = "; ".join(f"{escape(row.trained_on)}: {share(row.accuracy)}" for row in others)
    name = "Train on generated, test on real ↑"
    return _stat(name, share(mine.accuracy, mine.accuracy_interval), note)


def _headlines(evaluation: Evaluation) -> list[str]:
    stats: list[str] = []
    r, g = evaluation.reconstruction, evaluation.generation
    if r is not None:
        note = f"reconstruction of {r.volumes:,} volumes"
        stats.append(_stat("PSNR ↑", number(r.psnr, r.intervals.get("psnr"), "dB"), note))
        if r.ssim is not None:
            stats.append(_stat("SSIM ↑", number(r.ssim, r.intervals.get("ssim")), note))
    if g is None:
        return stats
    stats += [_space(space) for space in g.spaces]
    if g.class_accuracy is not None:
        note = f"of {g.volumes:,} generated volumes"
        if g.classifier_real_accuracy is not None:
            note += f"; of held-out real ones {share(g.classifier_real_accuracy)}"
        stats.append(_stat("Recognised as their class ↑", share(g.class_accuracy), note))
    if g.msssim is not None:
        note = "MS-SSIM of pairs within a class"
        note += "" if g.msssim_real is None else f"; real pairs {number(g.msssim_real)}"
        stats.append(_stat("Likeness ↓", number(g.msssim, g.msssim_interval), note))
    if g.usefulness is not None:
        stats.append(_useful(g.usefulness))
    return stats


def summary(evaluation: Evaluation) -> Section:
    """Return the warnings, the verdict and the headline figures."""
    warnings = evaluation.warnings
    count = f"{len(warnings)} warning{'s' if len(warnings) != 1 else ''}"
    title = f"⚠ Read before you quote a figure: {count}"
    parts = [box("warning", title, bullets(warnings))] if warnings else []
    if evaluation.generation is not None and evaluation.generation.privacy is not None:
        parts.append(verdict(evaluation.generation.privacy))
    stats = "".join(_headlines(evaluation))
    if stats:
        parts.append(f'<dl class="stats">{stats}</dl>')
        parts.append(
            '<p class="small">Brackets are 95 % intervals. ↑ more is better, ↓ less is better. The '
            "floor is what other real volumes, as many as generated ones, score by themselves."
            + ("" if warnings else " No warnings were raised.")
            + "</p>"
        )
    return Section("summary", "Summary", "\n".join(parts))
