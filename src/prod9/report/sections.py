"""The sections of what was measured; each is None where there is nothing to show.

Those of generated volumes beside real ones are in :mod:`prod9.report.generated`.
"""

from collections.abc import Mapping

from prod9.data.volume_sets.volume_set import VolumeSet
from prod9.report.document import Section, escape
from prod9.report.numbers import absent, number, share, why
from prod9.report.pictures import DIFFERENCE_TOP, gallery
from prod9.report.summary import read, verdict
from prod9.report.tables import (
    closeness_table,
    other_table,
    reconstruction_table,
    usefulness_table,
)
from prod9.results.schema import Evaluation


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


def privacy(evaluation: Evaluation, sets: Mapping[str, VolumeSet]) -> Section | None:
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
