"""The demonstration's page: pictures, curves and figures in one file that opens from disk."""

import base64
import csv
import html
from pathlib import Path

import matplotlib.figure

from prod9.evaluate.generation import GenerationMetrics
from prod9.evaluate.reconstruction import ReconstructionMetrics
from prod9.files import write_text
from prod9.montage import save_figure

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem;
       color: #1b1f24; background: #fff; }
h1 { margin-bottom: 0; } p.lead { color: #57606a; margin-top: .3rem; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { border-bottom: 1px solid #d0d7de; padding: .35rem .9rem .35rem 0; text-align: left; }
td.number { font-variant-numeric: tabular-nums; }
img { max-width: 100%; border: 1px solid #d0d7de; border-radius: 4px; }
.row { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); }
"""


def read_history(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Read a run's ``metrics*.csv``: for each value its (step, value) pairs.

    A resumed run has one file per part; ``metrics.csv`` is the newest.
    """
    series: dict[str, list[tuple[float, float]]] = {}
    # (A run of a few batches may have logged nothing.)
    for path in (*sorted(folder.glob("metrics-until-*.csv")), *folder.glob("metrics.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if name not in ("step", "epoch") and value:
                        series.setdefault(name, []).append((float(row["step"]), float(value)))
    return series


def draw_curves(output: Path) -> None:
    """Write ``output/curves.png`` from the histories of both stages."""
    figure = matplotlib.figure.Figure(figsize=(11, 3), dpi=100)
    axes = figure.subplots(1, 3)
    stage1 = read_history(output / "stage1" / "history")
    stage2 = read_history(output / "stage2" / "history")
    panels = [
        (stage1, ["train/l1"], "Stage 1: L1 (training)"),
        (stage1, ["val/psnr"], "Stage 1: PSNR, dB (validation)"),
        (stage2, ["train/loss", "val/loss"], "Stage 2: cross-entropy, nats"),
    ]
    for axis, (series, names, title) in zip(axes, panels, strict=True):
        for name in names:
            if name in series:
                axis.plot(*zip(*series[name], strict=True), label=name)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=7)
        if len(names) > 1:
            axis.legend(fontsize=7)
    figure.tight_layout()
    save_figure(output / "curves.png", figure)


def image(path: Path) -> str:
    """Return a picture as HTML that needs no other file."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(path.stem)}" src="data:image/png;base64,{data}">'


def table(rows: list[tuple[str, str, str]]) -> str:
    """Return rows of (name, figure, note) as HTML."""
    body = "".join(
        f'<tr><td>{html.escape(name)}</td><td class="number"><b>{html.escape(value)}</b></td>'
        f"<td>{html.escape(note)}</td></tr>"
        for name, value, note in rows
    )
    return f"<table>{body}</table>"


def write_document(output: Path, title: str, lead: str, body: str) -> Path:
    """Write ``output/index.html``; ``body`` is HTML, title and lead are text."""
    page = output / "index.html"
    write_text(
        page,
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>prod9 demo</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{_STYLE}</style></head><body>
<h1>{html.escape(title)}</h1>
<p class="lead">{html.escape(lead)}</p>
{body}
</body></html>
""",
    )
    return page


def write_page(
    output: Path,
    reconstruction: ReconstructionMetrics,
    generation: GenerationMetrics,
    seconds: dict[str, float],
) -> Path:
    """Write ``output/index.html`` from the demo's pictures, histories and figures."""
    draw_curves(output)
    r, g = reconstruction, generation
    rows = [
        ("Reconstruction PSNR", f"{r.psnr:.2f} dB", f"{r.volumes} held-out volumes"),
        ("Reconstruction SSIM", f"{r.ssim:.3f}", "window 11, Gaussian, whole volume"),
        (
            "Codebook",
            f"{r.codebook_usage:.0%} used",
            f"perplexity {r.codebook_perplexity:.0f}",
        ),
        (
            "Generated volumes recognised",
            f"{g.class_accuracy:.1%}",
            f"{g.volumes} volumes; the classifier is right on {g.classifier_real_accuracy:.1%} of "
            "held-out real ones",
        ),
        (
            "Likeness within a class (MS-SSIM)",
            f"{g.msssim:.3f}",
            f"real volumes: {g.msssim_real:.3f}; much higher would mean little variety",
        ),
        (
            "Distance to the nearest training volume",
            f"{g.nearest_train_p05:.4f}",
            f"5th percentile, RMSE; held-out real volumes: {g.nearest_train_p05_real:.4f}; "
            "below that would suggest copies",
        ),
        ("Time", f"{seconds['total'] / 60:.1f} min", "all of it, on this machine"),
    ]
    body = f"""{table(rows)}
<h2>Generated</h2>
<p>Drawn from nothing but the class; axial, coronal and sagittal middle slices.</p>
{image(output / "generated.png")}
<h2>Real, and the same reconstructed from its tokens</h2>
<div class="row">{image(output / "real.png")}{image(output / "reconstructed.png")}</div>
<h2>Learning</h2>
{image(output / "curves.png")}
<p>The volumes are NIfTI files in <code>generated/</code>; every figure with its provenance is in
<code>metrics.json</code>.</p>"""
    lead = (
        "A tokenizer and a masked transformer, both trained on this machine a moment ago. The data "
        "is one average anatomy (MNI152), bent and shaded at random: these figures show that "
        "learning works, and nothing about patients."
    )
    return write_document(output, "prod9: brain regions, learned and drawn", lead, body)
