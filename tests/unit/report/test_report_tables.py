"""Numbers are shown as a reader wants them; tables hold what was measured."""

import math
from pathlib import Path
from typing import Any

import pytest
from report_samples import (
    Page,
    closeness,
    distance,
    evaluation,
    generation,
    privacy,
    reconstruction,
    record,
    space,
    usefulness,
    written,
)

from prod9.report.numbers import absent, number, ratio, share
from prod9.results.schema import Generation, Segmentation


@pytest.mark.parametrize(
    ("value", "interval", "unit", "shown"),
    [
        (25.4321, (25.1, 25.7), "dB", "25.4 dB [25.1, 25.7]"),
        (25.4321, (25.372, 25.482), "dB", "25.43 dB [25.37, 25.48]"),
        (31.2, (29.0, 33.7), "", "31.2 [29.0, 33.7]"),
        (52.3, (44.1, 59.4), "", "52 [44, 59]"),
        (0.02, (-0.1, 0.9), "", "0.02 [−0.10, 0.90]"),
        (0.00003, (-0.0002, 0.0003), "", "0.00003 [−0.00020, 0.00030]"),
        (0.5, (0.5, 0.5), "", "0.500 [0.500, 0.500]"),
        (math.inf, (math.inf, math.inf), "dB", "∞ dB [∞, ∞]"),
        (0.84923, None, "", "0.849"),
        (0.037617, None, "", "0.0376"),
        (25.4321, None, "dB", "25.4 dB"),
        (1234.5, None, "", "1,234"),
        (123456.0, None, "", "123,456"),
        (-0.00042, None, "", "−0.000420"),
        (0.0000312, None, "", "3.1 × 10⁻⁵"),
        (0.0, None, "", "0"),
        (-0.0, (-0.1, 0.1), "", "0 [−0.10, 0.10]"),
        (math.nan, None, "", "not a number"),
        (-math.inf, None, "", "−∞"),
        (None, None, "dB", "not measured"),
    ],
)
def test_a_number_has_the_digits_that_tell_something(
    value: float | None, interval: tuple[float, float] | None, unit: str, shown: str
) -> None:
    assert Page(number(value, interval, unit)).text == shown


def test_shares_are_per_cent() -> None:
    assert share(0.97727) == "97.7 %"
    assert share(0.0) == "0 %"
    assert Page(share(0.962, (0.946, 0.976))).text == "96.2 % [94.6, 97.6]"
    assert Page(share(1.0, (1.0, 1.0))).text == "100 % [100, 100]"
    assert Page(share(None)).text == "not measured"


def test_what_is_missing_gives_its_reason() -> None:
    lines = ["Few volumes.", "MedicalNet is missing: no LPIPS <here> (`prod9 weights`)."]
    page = Page(absent(lines, "lpips"))
    assert page.text == "not measured MedicalNet is missing: no LPIPS <here> (prod9 weights)."
    assert page.tags("here") == []
    assert Page(absent(lines, "privacy")).text == "not measured"


def test_a_ratio_needs_a_floor_that_is_surely_above_zero() -> None:
    assert ratio(space()) == "2.5 ×"
    assert ratio(space(frechet_ratio=400.2)) == "400 ×"
    unsure = distance(1.0, 0.001, frechet_interval=(0.0, 3.0))
    assert ratio(space(floor=unsure)) == "–"
    assert ratio(space(floor=None, frechet_ratio=None)) == "–"


def test_reconstruction_has_all_volumes_the_foreground_and_each_class(tmp_path: Path) -> None:
    _, page = written(tmp_path, evaluation())
    # Nothing has LPIPS: no column.
    header = ["", "Volumes", "PSNR", "SSIM", "MS-SSIM", "MAE"]
    assert page.rows_of["reconstruction"][0] == header
    whole = ["610", "25.4 dB [25.1, 25.7]", "0.849 [0.840, 0.860]", "0.962", "0.0376"]
    assert page.row("reconstruction", "Whole volumes") == whole
    inside = page.row("reconstruction", "Foreground (voxels that are not 0)")
    assert inside[1] == "23.9 dB [23.6, 24.2]"
    assert inside[3] == "not measured"
    assert page.row("reconstruction", "ball")[:2] == ["305", "25.1 dB [24.8, 25.4]"]
    assert page.row("reconstruction", "box")[:2] == ["305", "25.7 dB [25.4, 26.0]"]


def test_a_single_class_is_not_shown_twice(tmp_path: Path) -> None:
    one = reconstruction()
    one = one.model_copy(update={"per_class": {"all": one.per_class["ball"]}, "foreground": None})
    _, page = written(tmp_path, evaluation(reconstruction=one))
    assert len(page.rows_of["reconstruction"]) == 2


def generated(folder: Path, made: Generation) -> Page:
    return written(folder, evaluation(generation=made))[1]


def spaces(folder: Path, **other: Any) -> Page:
    return generated(folder, generation(spaces=[space(**other)]))


def test_a_feature_space_has_its_floor_beside_each_figure(tmp_path: Path) -> None:
    again = distance(20.0, 0.01)
    page = spaces(tmp_path, reconstructed=again)
    assert page.row("generation", "Volumes: set / reference")[:2] == ["44 / 610", "30 / 305"]
    frechet = ["31.2 [29.0, 33.7]", "12.5", "20.0", "2.5 ×"]
    assert page.row("generation", "Fréchet distance ↓")[:4] == frechet
    page = spaces(tmp_path)
    assert page.row("generation", "Fréchet distance ↓")[:3] == [*frechet[:2], "2.5 ×"]
    assert page.row("generation", "Kernel distance ↓")[:3] == ["0.0350", "0.00700", ""]
    assert page.row("generation", "Precision ↑")[:2] == ["0.812", "0.812"]
    # The ratios are of as many: 0.3 / 0.75, 0.9 / 0.9375, 0.7 / 0.875.
    assert page.row("generation", "Recall ↑")[:3] == ["0.250", "0.750", "0.40 ×"]
    assert page.row("generation", "Density ↑")[:3] == ["0.938", "0.938", "0.96 ×"]
    coverage = page.row("generation", "Coverage ↑")
    assert coverage[:3] == ["0.500", "0.875", "0.80 ×"]
    assert coverage[3] == "Low coverage: modes are missing."


def test_a_feature_space_without_floor_or_recall(tmp_path: Path) -> None:
    made = distance(31.25, 0.035, recall=None)
    page = spaces(tmp_path, generated=made, floor=None, frechet_ratio=None)
    assert page.row("generation", "Fréchet distance ↓")[:3] == ["31.2", "not measured", "–"]
    assert page.row("generation", "Recall ↑")[:3] == ["not measured", "not measured", "–"]
    page = spaces(tmp_path, floor=distance(12.5, 0.007, recall=0.0))
    assert page.row("generation", "Recall ↑")[2] == "–"


def test_classes_in_a_space_and_by_themselves(tmp_path: Path) -> None:
    page = spaces(tmp_path)
    assert page.row("generation", "box")[:3] == ["22", "70.0", "0.200"]
    per_class = generation().per_class
    page = generated(tmp_path, generation(spaces=[]))
    assert page.row("generation", "box") == ["22", "305", "95.5 %", "0.700", "0.600"]
    bare = {k: v.model_copy(update={"class_accuracy": None}) for k, v in per_class.items()}
    page = generated(tmp_path, generation(spaces=[], per_class=bare))
    assert page.row("generation", "Class") == [
        *("Generated", "Real", "MS-SSIM of pairs", "MS-SSIM of real pairs")
    ]


def test_usefulness_and_closeness(tmp_path: Path) -> None:
    near = privacy(spaces=[closeness("voxels <b>")])
    page = generated(tmp_path, generation(usefulness=usefulness(), privacy=near))
    assert page.row("usefulness", "generated") == ["44", "96.2 % [94.7, 96.6]", "96.1 %", "0.970"]
    assert page.rows_of["privacy"][1][0] == "Expected without copying"
    shown = ["1.12", "3.1 %", "52 % [44, 59]", "0.50 [0.48, 0.53]", "3"]
    assert page.row("privacy", "voxels <b>") == shown


def test_the_two_sample_tests(tmp_path: Path) -> None:
    page = generated(tmp_path, generation())
    assert page.row("generation", "generated volumes") == ["0.87 [0.83, 0.92]"]
    assert page.row("generation", "reconstructions of real volumes") == ["0.76 [0.72, 0.81]"]
    assert page.row("generation", "other real volumes") == ["0.51 [0.47, 0.56]"]
    assert "Told from real volumes ↓ 0.87 [0.83, 0.92]" in page.text
    without = generated(tmp_path, generation(two_sample_tests=[]))
    assert "Told from real" not in without.text
    assert "Can a network" not in without.text


def test_sets_and_figures_without_a_section(tmp_path: Path) -> None:
    unknown = record().model_copy(update={"spacing_mm": None, "sha256": None})
    sets = {"real": record("a <b>"), "made": unknown}
    others = {"flair": {"psnr": 22.5, "<name>": "x", "n": None}}
    measured = evaluation(
        sets=sets, masked_prediction={"loss": 3.58859}, translation=others, provenance={}
    )
    _, page = written(tmp_path, measured)
    row = page.row("provenance", "real")
    assert row[0] == "a <b>uint8 / 255"
    assert row[1:] == ["610", "2", "8 × 9 × 10", "1 × 1 × 2.5", "0 to 1", "c0ffee000000"]
    assert page.row("provenance", "made")[4:] == ["unknown", "0 to 1", "–"]
    assert page.row("other", "loss") == ["3.589"]
    assert page.row("other", "flair / psnr") == ["22.50"]
    assert page.row("other", "flair / <name>") == ["x"]
    assert page.row("other", "flair / n") == ["not measured"]


def test_what_a_model_with_labels_is_good_for(tmp_path: Path) -> None:
    scores = {"label": 3, "subjects": 12, "dice": 0.712, "dice_interval": (0.65, 0.77)}
    scores |= {"dice_of_seeds": [0.7, 0.72], "hd95_mm": 4.5, "hd95_interval": None, "missed": 0.25}
    rows = [("real", 30), ("generated", 30), ("real + generated", 60)]
    found = Segmentation.model_validate(
        {
            "channel": "seg",
            "steps": 300,
            "seeds": 2,
            "test_subjects": 12,
            "segmenters": [
                {"trained_on": name, "pairs": pairs, "labels": [scores]} for name, pairs in rows
            ],
            "fidelity": [
                {"label": 3, "subjects": 8, "dice": 0.6, "dice_interval": (0.5, 0.7)}
                | {"ceiling": 0.8, "ceiling_interval": None, "lost": 0.2, "lost_interval": None}
            ],
            "volumes": [
                {"label": 3, "real": [1.0, 2.0, 4.0], "generated": [1.5, 2.5]}
                | {"kolmogorov_smirnov": 0.5, "p_value": 0.7}
            ],
            "doses": [
                {"label": 3, "subjects": 2, "requested": [1.0, 2.0], "found": [1.5, 1.5]}
                | {
                    "slope": 0.0,
                    "slope_interval": None,
                    "slope_of_real": 0.9,
                    "r2": 0.0,
                    "r2_interval": None,
                }
                | {"slope_within": None, "slope_within_interval": None}
            ],
        }
    )
    _, page = written(tmp_path, evaluation(segmentation=found))
    rows_of = page.rows_of["segmentation"]
    assert ["generated", "30", "3", "0.71 [0.65, 0.77]", "4.50", "25.0 %", "12"] in rows_of
    assert ["3", "0.60 [0.50, 0.70]", "0.800", "0.200", "8"] in rows_of
    assert ["3", "0", "0.900", "0", "not measured", "2", "2"] in rows_of
    assert ["3", "2.00", "2.00", "0.500", "0.700"] in rows_of
    pictures = [attrs["alt"] for tag, attrs in page.elements if tag == "img"]
    assert any("requested" in alt and "label 3" in alt for alt in pictures)
    assert any("volumes, ml" in alt for alt in pictures)
