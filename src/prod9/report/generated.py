"""The sections of generated volumes: how near to real ones, and how varied."""

from prod9.report.curves import frechet_figure
from prod9.report.document import Section, escape
from prod9.report.numbers import absent, digest, number, share, why
from prod9.report.pictures import chart
from prod9.report.summary import SHORT, box, read
from prod9.report.tables import class_table, space_class_table, space_table, table
from prod9.results.schema import MOST, Evaluation, FeatureSpaceFigures, Generation, too_few


def generation(evaluation: Evaluation) -> Section | None:
    """Return the distances in each feature space, and the classes."""
    g = evaluation.generation
    if g is None or not (g.spaces or g.per_class or g.class_accuracy is not None):
        return None
    parts = [
        f"<p>{g.volumes:,} generated volumes beside real ones. A distance means nothing without "
        "its feature space and the number of volumes; beside each stands its floor, what other "
        "real volumes score.</p>"
    ]
    parts += [_space(space) for space in g.spaces]
    if not g.spaces:
        parts.append(f"<p>Distances: {absent(why(evaluation.warnings, 'feature', 'space'))}</p>")
    else:
        parts.append(
            read(
                "A ratio of 1 means as near to the real volumes as other real volumes are. The "
                "Fréchet distance falls as volumes are added, even between equal distributions: "
                "compare only at the same number, or compare the fitted limit. The kernel distance "
                "has no such bias and may fall below 0 by chance. Precision and density ask "
                "whether what is drawn looks real, recall and coverage whether all that is real is "
                "drawn."
            )
        )
    parts.append(_classes(g, evaluation))
    return Section("generation", "Generation", "\n".join(parts))


def _space(space: FeatureSpaceFigures) -> str:
    parts = [
        f"<h3>{escape(space.space)}</h3>",
        f'<p class="small">{space.dimensions:,} dimensions; weights SHA-256 '
        f"{digest(space.weights_sha256)}"
        + (f"; floor: {escape(space.floor_of)}" if space.floor_of else "")
        + "</p>",
        _stability(space),
        space_table(space),
    ]
    figure = frechet_figure(space)
    if figure is not None:
        points = sorted(space.curve, key=lambda point: point.volumes)
        alt = "Fréchet distance over the number of volumes: " + "; ".join(
            f"{point.volumes}: {point.generated:.4g}"
            + ("" if point.floor is None else f" (floor {point.floor:.4g})")
            for point in points
        )
        caption = "The Fréchet distance over the number of volumes, N of each set."
        if space.frechet_limit is not None:
            caption += " Dotted: where a line in 1/N meets infinitely many."
        parts.append(
            f"<figure>{chart(figure, alt, narrow=True)}<figcaption>{caption}</figcaption></figure>"
        )
    if len(space.per_class) > 1:
        parts.append(
            f"<details><summary>Class by class ({len(space.per_class)} classes; few volumes each: "
            f"for comparison only)</summary>{space_class_table(space)}</details>"
        )
    return "\n".join(parts)


def _stability(space: FeatureSpaceFigures) -> str:
    """Say whether there are enough volumes, loudly where not."""
    count = space.generated.volumes
    limit = ""
    if space.frechet_limit is not None:
        limit = f" Fitted limit for many volumes: <b>{number(space.frechet_limit)}</b>."
    reason = too_few(space)
    if reason is None:
        return f'<p class="small">✓ {count:,} volumes are enough for this distance.{limit}</p>'
    words = f"<p>The Fréchet distance is too large with few volumes: {escape(reason)}{limit}</p>"
    return box("warning", f"⚠ Too few volumes: {count:,}", words)


def _classes(g: Generation, evaluation: Evaluation) -> str:
    if len(g.per_class) < 2 and g.class_accuracy is None:
        return ""
    reason = why(evaluation.warnings, "recognis", "classifier")
    mine = share(g.class_accuracy) if g.class_accuracy is not None else absent(reason)
    parts = [f"<h3>Classes</h3><p>Generated volumes recognised as their class: <b>{mine}</b>."]
    if g.classifier_real_accuracy is not None:
        parts.append(
            f" The classifier, trained on real volumes, is right on "
            f"{share(g.classifier_real_accuracy)} of held-out real ones."
        )
    parts.append("</p>")
    if len(g.per_class) > 1:
        parts.append(class_table(g.per_class))
    return "".join(parts)


def diversity(evaluation: Evaluation) -> Section | None:
    """Return how alike generated volumes are."""
    g = evaluation.generation
    if g is None:
        return None
    rows: list[list[str]] = []
    if g.msssim is not None:
        name = "MS-SSIM of pairs within a class ↓"
        numbers = [number(g.msssim, g.msssim_interval), number(g.msssim_real)]
        rows.append([name, *numbers, f"up to {MOST} a class"])
    for space in g.spaces:
        # Both numbers of volumes decide these figures: what stands side by side has equal ones.
        pairs = ((space.at_floor, space.floor), (space.generated, None))
        for key, name in (("recall", "Recall ↑"), ("coverage", "Coverage ↑")):
            mine, real = next(
                (p for p in pairs if getattr(p[0], key, None) is not None), (None, None)
            )
            if mine is not None:
                rows.append(
                    [
                        f"{name} <small>({SHORT[space.key]})</small>",
                        number(getattr(mine, key)),
                        number(getattr(real, key, None)),
                        f"{mine.volumes:,} / {mine.reference_volumes:,}",
                    ]
                )
    if not rows:
        return None
    parts = [table(["", "Generated", "Real", "Volumes: each set / reference"], rows)]
    if g.msssim is None:
        reason = why(evaluation.warnings, "ms-ssim", "msssim", "likeness")
        parts.append(f'<p class="small">MS-SSIM of pairs: {absent(reason)}</p>')
    parts.append(
        read(
            "Pairs of generated volumes that are much more alike than real pairs mean little "
            "variety; much less alike means noise. Recall and coverage well below those of real "
            "volumes mean that some kinds of real volume are never drawn; both are of as many "
            "volumes, against the same reference, which may be fewer than in the table above."
        )
    )
    return Section("diversity", "Diversity", "\n".join(parts))
