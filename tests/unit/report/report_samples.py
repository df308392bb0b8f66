"""A small evaluation, toy collections, and a reader of pages."""

import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from prod9.data.array_dataset import ArrayDataset
from prod9.data.volume_sets.volume_set import ONE_CLASS, VolumeSet, of_dataset
from prod9.report.report import write_report
from prod9.results.schema import (
    ClassFigures,
    Closeness,
    ClosePair,
    CurvePoint,
    Evaluation,
    FeatureSpaceFigures,
    Generation,
    Neighbours,
    Privacy,
    Reconstruction,
    ReconstructionFigures,
    SetDistance,
    SetRecord,
    TrainedClassifier,
    TwoSampleTest,
    Usefulness,
)

_VOID = {"meta", "br", "img", "input", "link", "hr", "wbr"}


class Page(HTMLParser):
    """Reads a page: elements, text of cells, and whether tags are balanced."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.rows: list[list[str]] = []
        self.rows_of: dict[str, list[list[str]]] = {}
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []
        self.text = " ".join("".join(self.words).split())
        self.rows_of = {
            section: [[" ".join(cell.split()) for cell in row] for row in rows]
            for section, rows in self.rows_of.items()
        }

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "section":
            self.rows_of[dict(attrs).get("aria-labelledby") or ""] = self.rows = []
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag in (
            "p",
            "div",
            "li",
            "td",
            "th",
            "dd",
            "dt",
            "h2",
            "h3",
            "span",
            "br",
            "option",
            "small",
        ):
            self.words.append(" ")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("script", "style"):
            return
        self.words.append(data)
        if "tr" in self._open and ("td" in self._open or "th" in self._open):
            self.rows[-1][-1] += data

    def row(self, section: str, name: str) -> list[str]:
        """Return the cells behind the name of the first row of a section that bears it."""
        return next(row[1:] for row in self.rows_of[section] if row[0] == name)

    def tags(self, name: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def collection(
    name: str,
    count: int = 6,
    classes: Sequence[str] = ("ball", "box"),
    shape: tuple[int, int, int] = (8, 9, 10),
    seed: int = 0,
    **other: Any,
) -> VolumeSet:
    """Return random volumes; their classes take turns."""
    images = np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
    labels = np.arange(count) % len(classes)
    names = other.pop("names", [f"{name}-{i}" for i in range(count)])
    return of_dataset(
        ArrayDataset(
            name,
            images[:, None],
            names=names,
            classes=labels,
            class_names=tuple(classes),
            **other,
        )
    )


def one_class(name: str, count: int = 5, **other: Any) -> VolumeSet:
    return collection(name, count, ONE_CLASS, **other)


def figures(volumes: int, psnr: float, **other: Any) -> dict[str, Any]:
    values = {
        "volumes": volumes,
        "psnr": psnr,
        "ssim": 0.849,
        "ms_ssim": 0.962,
        "mae": 0.0376,
        "lpips": None,
        "intervals": {"psnr": (psnr - 0.3, psnr + 0.3), "ssim": (0.84, 0.86)},
    }
    return values | other


def distance(frechet: float, kernel: float, volumes: int = 44, **other: Any) -> SetDistance:
    values: dict[str, Any] = {
        "volumes": volumes,
        "reference_volumes": 610,
        "frechet": frechet,
        "frechet_interval": None,
        "kernel": kernel,
        "kernel_interval": None,
        "precision": 0.8125,
        "recall": 0.25,
        "density": 0.9375,
        "coverage": 0.5,
    }
    return SetDistance(**(values | other))


def space(**other: Any) -> FeatureSpaceFigures:
    values: dict[str, Any] = {
        "space": "EfficientNet-Lite0 (ImageNet), slices of three planes",
        "key": "efficientnet",
        "dimensions": 1280,
        "weights_sha256": "ab" * 32,
        "generated": distance(31.25, 0.035, frechet_interval=(29.0, 33.7)),
        "floor": distance(12.5, 0.007, 30, reference_volumes=305, recall=0.75, coverage=0.875),
        "floor_of": "30 real volumes against 305 others of the same set",
        "frechet_ratio": 2.5,
        "at_floor": Neighbours(
            volumes=30,
            reference_volumes=305,
            precision=0.78,
            recall=0.3,
            density=0.9,
            coverage=0.7,
        ),
        "curve": [
            CurvePoint(volumes=40, generated=31.0, generated_sd=0.5, floor=12.0),
            CurvePoint(volumes=20, generated=45.0, generated_sd=2.0, floor=20.0),
        ],
        "frechet_limit": 26.2,
        "stable_from": 2300,
        "stable": False,
        "per_class": {"ball": distance(60.0, 0.1, 22), "box": distance(70.0, 0.2, 22)},
    }
    return FeatureSpaceFigures(**(values | other))


def closeness(name: str = "voxels", **other: Any) -> Closeness:
    values: dict[str, Any] = {
        "space": name,
        "distance_ratio": 1.12,
        "p05": 0.11,
        "p05_held_out": 0.09,
        "share_below_p05": 0.031,
        "nearer_train_share": 0.516,
        "nearer_train_interval": (0.439, 0.592),
        "membership_auc": 0.503,
        "membership_interval": (0.478, 0.529),
        "near_duplicates": 3,
    }
    return Closeness(**(values | other))


def privacy(**other: Any) -> Privacy:
    values: dict[str, Any] = {
        "verdict": "copies",
        "reasons": ["3 near duplicates among 6 volumes."],
        "spaces": [closeness()],
        "closest": [ClosePair(generated="generated-1", train="train-2", distance=0.0125)],
    }
    return Privacy(**(values | other))


def usefulness(real: str = "real (all)") -> Usefulness:
    rows = [(real, 971, 0.995), ("generated", 44, 0.962)]
    return Usefulness(
        steps=400,
        test_volumes=610,
        rows=[
            TrainedClassifier(
                trained_on=name,
                volumes=n,
                accuracy=right,
                accuracy_interval=(right - 0.015, right + 0.004),
                balanced_accuracy=right - 0.001,
                auc=0.97,
            )
            for name, n, right in rows
        ],
    )


def two_sample_tests() -> list[TwoSampleTest]:
    areas = {"generated": 0.871, "reconstructed": 0.764, "real": 0.512}
    return [
        TwoSampleTest(
            volumes_of=name, volumes=44, seeds=3, auc=area, auc_interval=(area - 0.04, area + 0.05)
        )
        for name, area in areas.items()
    ]


def generation(**other: Any) -> Generation:
    per_class = {
        name: ClassFigures(
            volumes=22, real_volumes=305, class_accuracy=right, msssim=0.7, msssim_real=0.6
        )
        for name, right in (("ball", 1.0), ("box", 0.955))
    }
    values: dict[str, Any] = {
        "volumes": 44,
        "class_accuracy": 0.977,
        "classifier_real_accuracy": 0.998,
        "msssim": 0.679,
        "msssim_interval": (0.64, 0.72),
        "msssim_real": 0.609,
        "nearest_train_p05": 0.112,
        "nearest_train_p05_real": 0.0903,
        "per_class": per_class,
        "spaces": [space()],
        "usefulness": usefulness(),
        "privacy": privacy(),
        "two_sample_tests": two_sample_tests(),
    }
    return Generation(**(values | other))


def reconstruction(**other: Any) -> Reconstruction:
    values = figures(610, 25.4) | {
        "foreground": ReconstructionFigures(**figures(610, 23.9, ms_ssim=None)),
        "per_class": {
            "ball": ReconstructionFigures(**figures(305, 25.1)),
            "box": ReconstructionFigures(**figures(305, 25.7)),
        },
        "lpips_network": None,
        "codebook_usage": 0.807,
        "codebook_perplexity": 168.2,
    }
    return Reconstruction(**(values | other))


def record(name: str = "toys/test") -> SetRecord:
    return SetRecord(
        name=name,
        volumes=610,
        classes={"ball": 305, "box": 305},
        shape=(8, 9, 10),
        spacing_mm=(1.0, 1.0, 2.5),
        intensity="uint8 / 255",
        lowest=0.0,
        highest=1.0,
        sha256="c0ffee" + 58 * "0",
    )


def evaluation(**other: Any) -> Evaluation:
    values: dict[str, Any] = {
        "sets": {"real": record()},
        "reconstruction": reconstruction(),
        "generation": generation(),
        "warnings": ["MedicalNet's weights are not there: no LPIPS (`prod9 weights`)."],
        "seconds": {"generation": 44.94},
        "provenance": {"prod9": "0.2.0", "command": "prod9 evaluate", "threads": 2},
    }
    return Evaluation(**(values | other))


def written(
    folder: Path, measured: Evaluation, sets: Mapping[str, VolumeSet] | None = None, **other: Any
) -> tuple[str, Page]:
    """Return the page, and what is in it beside scripts."""
    path = folder / "page" / "report.html"
    texts = {"title": "A title", "lead": "A lead."}
    write_report(path, measured, sets or {}, **(texts | other))
    html = path.read_text(encoding="utf-8")
    return html, Page(without_scripts(html))


def without_scripts(html: str) -> str:
    return re.sub(r"<script\b.*?</script>", "", html, flags=re.DOTALL)
