"""Numbers are shown as a reader wants them; tables hold what was measured."""

import math

import pytest
from report_samples import (
    Page,
    closeness,
    distance,
    generation,
    reconstruction,
    record,
    space,
    usefulness,
)

from prod9.report.numbers import absent, number, share, why
from prod9.report.tables import (
    class_table,
    closeness_table,
    other_table,
    ratio,
    reconstruction_table,
    sets_table,
    space_class_table,
    space_table,
    table,
    usefulness_table,
)


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
    reason = why(lines, "lpips")
    assert reason == lines[1]
    assert why(lines, "privacy") == ""
    page = Page(absent(reason))
    assert page.text == "not measured MedicalNet is missing: no LPIPS <here> (prod9 weights)."
    assert page.tags("here") == []


def test_a_ratio_needs_a_floor_that_is_surely_above_zero() -> None:
    assert ratio(space()) == "2.5 ×"
    assert ratio(space(frechet_ratio=400.2)) == "400 ×"
    unsure = distance(1.0, 0.001, frechet_interval=(0.0, 3.0))
    assert ratio(space(floor=unsure)) == "–"
    assert ratio(space(floor=None, frechet_ratio=None)) == "–"


def test_header_and_caption_are_escaped_and_an_empty_header_is_left_out() -> None:
    page = Page(table(["<a>", "b"], [["x", "1"]], caption="<c>"))
    assert page.rows == [["<a>", "b"], ["x", "1"]]
    assert page.text.startswith("<c>")
    assert Page(table(["", ""], [["x", "1"]])).rows == [["x", "1"]]


def test_reconstruction_has_all_volumes_the_foreground_and_each_class() -> None:
    page = Page(reconstruction_table(reconstruction()))
    # Nothing has LPIPS: no column.
    assert page.rows[0] == ["", "Volumes", "PSNR", "SSIM", "MS-SSIM", "MAE"]
    whole = ["610", "25.4 dB [25.1, 25.7]", "0.849 [0.840, 0.860]", "0.962", "0.0376"]
    assert page.row("Whole volumes")[1:] == whole
    inside = page.row("Foreground (voxels that are not 0)")
    assert inside[2] == "23.9 dB [23.6, 24.2]"
    assert inside[4] == "not measured"
    assert page.row("ball")[1:3] == ["305", "25.1 dB [24.8, 25.4]"]
    assert page.row("box")[1:3] == ["305", "25.7 dB [25.4, 26.0]"]


def test_a_single_class_is_not_shown_twice() -> None:
    one = reconstruction()
    one = one.model_copy(update={"per_class": {"all": one.per_class["ball"]}, "foreground": None})
    assert len(Page(reconstruction_table(one)).rows) == 2


def test_a_feature_space_has_its_floor_beside_each_figure() -> None:
    page = Page(space_table(space()))
    assert page.row("Volumes: set / reference")[1:3] == ["44 / 610", "30 / 305"]
    assert page.row("Fréchet distance ↓")[1:4] == ["31.2 [29.0, 33.7]", "12.5", "2.5 ×"]
    assert page.row("Kernel distance ↓")[1:4] == ["0.0350", "0.00700", ""]
    assert page.row("Precision ↑")[1:3] == ["0.812", "0.812"]
    # The ratios are of as many: 0.3 / 0.75, 0.9 / 0.9375, 0.7 / 0.875.
    assert page.row("Recall ↑")[1:4] == ["0.250", "0.750", "0.40 ×"]
    assert page.row("Density ↑")[1:4] == ["0.938", "0.938", "0.96 ×"]
    coverage = page.row("Coverage ↑")
    assert coverage[1:4] == ["0.500", "0.875", "0.80 ×"]
    assert coverage[4] == "Low coverage: modes are missing."


def test_a_feature_space_without_floor_or_recall() -> None:
    made = distance(31.25, 0.035, recall=None)
    page = Page(space_table(space(generated=made, floor=None, frechet_ratio=None)))
    assert page.row("Fréchet distance ↓")[1:4] == ["31.2", "not measured", "–"]
    assert page.row("Recall ↑")[1:4] == ["not measured", "not measured", "–"]
    nowhere = distance(12.5, 0.007, recall=0.0)
    assert Page(space_table(space(floor=nowhere))).row("Recall ↑")[3] == "–"


def test_classes_in_a_space_and_by_themselves() -> None:
    page = Page(space_class_table(space()))
    assert page.row("box")[1:4] == ["22", "70.0", "0.200"]
    page = Page(class_table(generation().per_class))
    assert page.row("box") == ["box", "22", "305", "95.5 %", "0.700", "0.600"]
    bare = {"a": generation().per_class["box"].model_copy(update={"class_accuracy": None})}
    assert "Recognised" not in Page(class_table(bare)).rows[0]


def test_usefulness_and_closeness() -> None:
    page = Page(usefulness_table(usefulness()))
    assert page.row("generated")[1:] == ["44", "96.2 % [94.7, 96.6]", "96.1 %"]
    page = Page(closeness_table([closeness("voxels <b>")]))
    assert page.rows[1][0] == "Expected without copying"
    shown = ["1.12", "3.1 %", "52 % [44, 59]", "0.50 [0.48, 0.53]", "3"]
    assert page.row("voxels <b>")[1:] == shown


def test_sets_and_figures_without_a_section() -> None:
    page = Page(sets_table({"real": record("a <b>"), "made": record("x")}))
    row = page.row("real")
    assert row[1] == "a <b>uint8 / 255"
    assert row[2:] == ["610", "2", "8 × 9 × 10", "1 × 1 × 2.5", "0 to 1", "c0ffee000000"]
    unknown = record().model_copy(update={"spacing_mm": None, "sha256": None})
    assert Page(sets_table({"real": unknown})).row("real")[5:] == ["unknown", "0 to 1", "–"]
    page = Page(other_table({"loss": 3.58859, "flair": {"psnr": 22.5, "<name>": "x", "n": None}}))
    assert page.rows[1:] == [
        ["loss", "3.589"],
        ["flair / psnr", "22.50"],
        ["flair / <name>", "x"],
        ["flair / n", "not measured"],
    ]
