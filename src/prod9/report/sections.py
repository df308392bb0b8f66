"""The sections of what was measured; each is None where there is nothing to show."""

from collections.abc import Mapping

from prod9.data.collection import Collection
from prod9.evaluate.schema import Evaluation, FeatureSpaceFigures, Generation
from prod9.report.curves import frechet_figure
from prod9.report.document import Section, escape
from prod9.report.pictures import DIFFERENCE_TOP, chart, gallery
from prod9.report.summary import SHORT, box, read, verdict
from prod9.report.tables import (
    absent,
    class_table,
    closeness_table,
    digest,
    number,
    other_table,
    reconstruction_table,
    share,
    space_class_table,
    space_table,
    table,
    usefulness_table,
    why,
)


def reconstruction(evaluation: Evaluation) -> Section | None:
    """Return how well volumes survive the tokenizer."""
    r = evaluation.reconstruction
    if r is None:
        return None
    parts = [
        f"<p>{r.volumes:,} volumes beside their originals, each measured by itself; means, with "
        "95 % bootstrap intervals over volumes.</p>",
        reconstruction_table(r),
    ]
    parts += [
        f'<p class="small">{name}: {absent(why(evaluation.warnings, *words))}</p>'
        for name, value, *words in (
            ("SSIM", r.ssim, "ssim"),
            ("MS-SSIM", r.ms_ssim, "ms-ssim", "ms_ssim"),
            ("LPIPS", r.lpips, "lpips", "medicalnet"),
        )
        if value is None
    ]
    if r.lpips is not None and r.lpips_network is not None:
        parts.append(f'<p class="small">LPIPS: features of {escape(r.lpips_network)}.</p>')
    if r.codebook_usage is not None or r.codebook_perplexity is not None:
        parts.append(
            f"<p>Codebook: {share(r.codebook_usage)} of the codes occur; perplexity "
            f"{number(r.codebook_perplexity)} (as many codes used evenly would carry as much).</p>"
        )
    parts.append(
        read(
            "PSNR is the error on a logarithmic scale: 3 dB more is half the squared error. SSIM "
            "and MS-SSIM (1 is perfect) compare structure and punish blur more than PSNR does; MAE "
            "is the mean absolute error of intensities in [0, 1]; LPIPS compares the features of a "
            "network (0 is perfect). Empty background is easy: the foreground is the sterner test. "
            "What is lost here, no generator on these tokens can draw."
        )
    )
    return Section("reconstruction", "Reconstruction", "\n".join(parts))


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
    if space.stable:
        return f'<p class="small">✓ {count:,} volumes are enough for this distance.{limit}</p>'
    if space.frechet_limit is None:
        when = "these are too few even for a curve. Compare it with its floor only"
    elif space.stable_from is None:
        when = (
            "it falls as 1/N, and its limit may be 0: at this number it does not tell the sets "
            "apart. Compare it with its floor only"
        )
    else:
        when = (
            f"it comes within 5 % of its limit at about {space.stable_from:,} volumes. Compare it "
            "with its floor and at the same number only, or quote the kernel distance"
        )
    words = f"<p>The Fréchet distance is too large with few volumes; {when}.{limit}</p>"
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
        rows.append([name, number(g.msssim, g.msssim_interval), number(g.msssim_real)])
    for space in g.spaces:
        for key, name in (("recall", "Recall ↑"), ("coverage", "Coverage ↑")):
            value = getattr(space.generated, key)
            other = None if space.floor is None else getattr(space.floor, key)
            if value is not None:
                rows.append(
                    [f"{name} <small>({SHORT[space.key]})</small>", number(value), number(other)]
                )
    if not rows:
        return None
    parts = [table(["", "Generated", "Real"], rows)]
    if g.msssim is None:
        reason = why(evaluation.warnings, "ms-ssim", "msssim", "likeness")
        parts.append(f'<p class="small">MS-SSIM of pairs: {absent(reason)}</p>')
    parts.append(
        read(
            "Pairs of generated volumes that are much more alike than real pairs mean little "
            "variety; much less alike means noise. Recall and coverage well below the floor mean "
            "that some kinds of real volume are never drawn."
        )
    )
    return Section("diversity", "Diversity", "\n".join(parts))


def usefulness(evaluation: Evaluation) -> Section | None:
    """Return how well a classifier learns from generated volumes."""
    g = evaluation.generation
    if g is None or g.usefulness is None:
        return None
    u = g.usefulness
    parts = [
        f"<p>The same classifier, trained on each set for {u.steps:,} steps, tested on "
        f"{u.test_volumes:,} real held-out volumes.</p>",
        usefulness_table(u),
        read(
            "If training on generated volumes comes near training on as many real ones, the "
            "generator draws what tells the classes apart. If real and generated together beat "
            "real alone, they add something."
        ),
    ]
    return Section("usefulness", "Usefulness", "\n".join(parts))


def privacy(evaluation: Evaluation, sets: Mapping[str, Collection]) -> Section | None:
    """Return the verdict on copying, what it rests on, and the closest pairs."""
    g = evaluation.generation
    if g is None or (g.privacy is None and g.nearest_train_p05 is None):
        return None
    parts: list[str] = []
    if g.privacy is not None:
        parts += [verdict(g.privacy), closeness_table(g.privacy.spaces)]
    if g.nearest_train_p05 is not None:
        parts.append(
            "<p>Distance to the nearest training volume (RMSE), 5th percentile: generated "
            f"{number(g.nearest_train_p05)}, held-out real {number(g.nearest_train_p05_real)}.</p>"
        )
    if g.privacy is not None and "generated" in sets and "train" in sets:
        pairs = gallery(g.privacy.closest, sets["generated"], sets["train"])
        if pairs:
            parts.append(
                f"<h3>The closest pairs</h3>{pairs}<p class='small'>Difference: absolute, from "
                f"black (none) to bright yellow ({DIFFERENCE_TOP:g} and more).</p>"
            )
    parts.append(
        read(
            "Held-out real volumes were never trained on: a generator that does not copy comes no "
            "nearer to the training volumes than they do. Blurred volumes are near to everything; "
            "so it counts whether generated volumes are nearer to training volumes than to "
            "held-out ones (about half should be). No sign of copying is no proof of privacy."
        )
    )
    return Section("privacy", "Privacy", "\n".join(parts))


def other(evaluation: Evaluation) -> Section | None:
    """Return the figures of the transformer and of windows, which have no section of their own."""
    parts = [
        f"<h3>{title}</h3>{other_table(figures)}"
        for title, figures in (
            ("Masked tokens", evaluation.masked_prediction),
            ("Translation", evaluation.translation),
            ("Windows against one pass", evaluation.window_agreement),
        )
        if figures
    ]
    return Section("other", "Other figures", "".join(parts)) if parts else None
