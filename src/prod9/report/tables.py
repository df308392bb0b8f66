"""The tables of the report; all results are HTML."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from prod9.report.document import escape
from prod9.report.numbers import absent, digest, number, share, times
from prod9.results.schema import (
    ClassFigures,
    Closeness,
    FeatureSpaceFigures,
    Reconstruction,
    ReconstructionFigures,
    SetDistance,
    SetRecord,
    TrainedClassifier,
    Usefulness,
)


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    text: Sequence[int] = (),
    reference: Sequence[int] = (),
    caption: str = "",
) -> str:
    """Return a table; the first cell of each row names it.

    Args:
        header: plain text.
        rows: HTML.
        text: columns of words, not numbers.
        reference: rows that only say what to expect.
        caption: plain text.
    """

    def kind(column: int) -> str:
        return ' class="text"' if column in text else ""

    head = "".join(
        f'<th scope="col"{kind(column)}>{escape(name)}</th>' for column, name in enumerate(header)
    )
    lines: list[str] = []
    for index, row in enumerate(rows):
        cells = "".join(f"<td{kind(c)}>{cell}</td>" for c, cell in enumerate(row) if c)
        start = '<tr class="reference">' if index in reference else "<tr>"
        lines.append(f'{start}<th scope="row">{row[0]}</th>{cells}</tr>')
    head = f"<thead><tr>{head}</tr></thead>" if any(header) else ""
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll" tabindex="0"><table>{title}{head}'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def reconstruction_table(figures: Reconstruction) -> str:
    """Return all volumes, their foreground, and each class."""
    columns = {"psnr": "PSNR", "ssim": "SSIM", "ms_ssim": "MS-SSIM", "mae": "MAE", "lpips": "LPIPS"}
    sets: dict[str, ReconstructionFigures] = {"<b>Whole volumes</b>": figures}
    if figures.foreground is not None:
        sets["<b>Foreground</b> (voxels that are not 0)"] = figures.foreground
    if len(figures.per_class) > 1:
        sets |= {escape(name): part for name, part in figures.per_class.items()}
    kept = [key for key in columns if any(getattr(part, key) is not None for part in sets.values())]

    def cell(part: ReconstructionFigures, key: str) -> str:
        unit = "dB" if key == "psnr" else ""
        return number(getattr(part, key), part.intervals.get(key), unit)

    return table(
        ["", "Volumes", *(columns[key] for key in kept)],
        [
            [name, f"{part.volumes:,}", *(cell(part, key) for key in kept)]
            for name, part in sets.items()
        ],
    )


_SPACE_ROWS: tuple[tuple[str, str, str], ...] = (
    ("frechet", "Fréchet distance ↓", "How far the means and covariances of features lie apart."),
    ("kernel", "Kernel distance ↓", "The same question without assuming Gaussians; unbiased."),
    ("precision", "Precision ↑", "Low precision: generated volumes that look like no real one."),
    ("recall", "Recall ↑", "Low recall: real volumes that the generator would never draw."),
    ("density", "Density ↑", "Low density: generated volumes lie where real ones are rare."),
    ("coverage", "Coverage ↑", "Low coverage: modes are missing."),
)


def ratio(figures: FeatureSpaceFigures, key: str = "frechet") -> str:
    """Return how many times its floor a figure is; a dash where the floor is, or may be, 0."""
    found, floor = figures.frechet_ratio, figures.floor
    if key != "frechet":
        mine, base = getattr(figures.at_floor, key, None), getattr(floor, key, None)
        return times(mine / base, 2) if mine is not None and base else "–"
    if found is None or floor is None:
        return "–"
    if floor.frechet_interval is not None and floor.frechet_interval[0] <= 0:
        return "–"
    return times(found)


def space_table(figures: FeatureSpaceFigures) -> str:
    """Return the distances of one feature space, with the floor of real volumes beside them."""

    def cell(part: SetDistance | None, key: str) -> str:
        if part is None:
            return absent()
        return number(getattr(part, key), getattr(part, f"{key}_interval", None))

    made, floor, again = figures.generated, figures.floor, figures.reconstructed
    columns = {"Generated": made, "Floor: other real volumes": floor}
    if again is not None:
        columns["Reconstructed real volumes"] = again
    against = [
        "–" if part is None else f"{part.volumes:,} / {part.reference_volumes:,}"
        for part in columns.values()
    ]
    rows = [["Volumes: set / reference", *against, "", ""]]
    for key, name, meaning in _SPACE_ROWS:
        against_floor = "" if key == "kernel" else ratio(figures, key)
        rows.append([name, *(cell(part, key) for part in columns.values()), against_floor, meaning])
    header = ["", *columns, "Generated / floor, at equal N", "What it says"]
    return table(header, rows, text=[len(header) - 1])


def space_class_table(figures: FeatureSpaceFigures) -> str:
    """Return the distances of one feature space, class by class."""
    keys = [key for key, _, _ in _SPACE_ROWS]
    rows = [
        [escape(name), f"{part.volumes:,}", *(number(getattr(part, key)) for key in keys)]
        for name, part in figures.per_class.items()
    ]
    return table(["Class", "Volumes", *(name for _, name, _ in _SPACE_ROWS)], rows)


def class_table(classes: Mapping[str, ClassFigures]) -> str:
    """Return how many volumes of each class there are, how many are recognised, how alike."""
    columns = {
        "class_accuracy": ("Recognised", share),
        "msssim": ("MS-SSIM of pairs", number),
        "msssim_real": ("MS-SSIM of real pairs", number),
    }
    kept = [k for k in columns if any(getattr(part, k) is not None for part in classes.values())]
    rows = [
        [
            escape(name),
            f"{part.volumes:,}",
            f"{part.real_volumes:,}",
            *(columns[key][1](getattr(part, key)) for key in kept),
        ]
        for name, part in classes.items()
    ]
    return table(["Class", "Generated", "Real", *(columns[key][0] for key in kept)], rows)


def usefulness_table(figures: Usefulness) -> str:
    """Return one row for each set that a classifier was trained on."""

    def row(part: TrainedClassifier) -> list[str]:
        return [
            escape(part.trained_on),
            f"{part.volumes:,}",
            share(part.accuracy, part.accuracy_interval),
            share(part.balanced_accuracy),
        ]

    header = ["Trained on", "Volumes", "Accuracy", "Balanced accuracy"]
    return table(header, [row(part) for part in figures.rows])


def closeness_table(spaces: Sequence[Closeness]) -> str:
    """Return one row a space, below what independent volumes would give."""
    expected = ["Expected without copying", "about 1 or more", "about 5 %"]
    expected += ["about 50 %", "about 0.5", "0"]
    rows = [expected]
    for part in spaces:
        rows.append(
            [
                escape(part.space),
                number(part.distance_ratio),
                share(part.share_below_p05),
                share(part.nearer_train_share, part.nearer_train_interval),
                number(part.membership_auc, part.membership_interval),
                f"{part.near_duplicates:,}",
            ]
        )
    header = ["Space", "Distance ratio", "Nearer than 95 % of held-out volumes"]
    header += ["Nearer to training than to held-out", "Membership AUC", "Near duplicates"]
    return table(header, rows, reference=[0])


def other_table(figures: Mapping[str, Any]) -> str:
    """Return figures that have no section of their own: nested names, joined by slashes."""

    def rows(name: str, value: Any) -> list[list[str]]:
        if isinstance(value, dict):
            inner = cast(dict[str, Any], value).items()
            return [row for key, part in inner for row in rows(f"{name} / {key}", part)]
        if isinstance(value, float | int) or value is None:
            return [[escape(name), number(value, digits=4)]]
        return [[escape(name), escape(value)]]

    return table(["", "Value"], [row for key, part in figures.items() for row in rows(key, part)])


def sets_table(sets: Mapping[str, SetRecord]) -> str:
    """Return what was compared, with digests."""

    def row(role: str, part: SetRecord) -> list[str]:
        sides = part.spacing_mm
        spacing = "unknown" if sides is None else " × ".join(f"{side:g}" for side in sides)
        return [
            f"<b>{escape(role)}</b>",
            f"{escape(part.name)}<br>{escape(part.intensity)}",
            f"{part.volumes:,}",
            f"{len(part.classes):,}",
            " × ".join(map(str, part.shape)),
            spacing,
            f"{part.lowest:.3g} to {part.highest:.3g}",
            "–" if part.sha256 is None else digest(part.sha256),
        ]

    header = ["Set", "What it is", "Volumes", "Classes", "Voxels", "Spacing, mm", "Intensities"]
    rows = [row(role, part) for role, part in sets.items()]
    return table([*header, "SHA-256"], rows, text=[1])
