"""Histories are read whole; curves show what they hold."""

import math
from pathlib import Path

import pytest
from report_samples import space

from prod9.report.curves import frechet_figure, read_history, training_figure
from prod9.results.schema import CurvePoint

HEADER = "epoch,step,train/loss,val/loss\n"


def test_a_resumed_run_is_one_history(tmp_path: Path) -> None:
    (tmp_path / "metrics-until-epoch-00002.csv").write_text(HEADER + "0,1,9,\n0,3,8,\n1,4,,7\n")
    (tmp_path / "metrics-until-epoch-00010.csv").write_text(HEADER + "2,5,6,\n9,7,5,\n")
    # The second part was interrupted after its last checkpoint: step 7 was done again.
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss,val/psnr\n10,7,4,20\n")
    assert read_history(tmp_path) == {
        "train/loss": [(1, 9), (3, 8), (5, 6), (7, 4)],
        "val/loss": [(4, 7)],
        "val/psnr": [(7, 20)],
    }


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    rows = "0,1,2.5,\n0,2,1.5e-,\n0,,3,\n0,4,nan,\n0,5,1.2"  # of 1.25, perhaps
    (tmp_path / "metrics.csv").write_text(HEADER + rows)
    series = read_history(tmp_path)["train/loss"]
    assert [step for step, _ in series] == [1, 4]
    assert math.isnan(series[1][1])


def test_no_history(tmp_path: Path) -> None:
    assert read_history(tmp_path) == {}
    assert read_history(tmp_path / "missing") == {}
    assert training_figure({}) is None
    assert training_figure({"train/unheard_of": [(1, 2)]}) is None


def test_stage_1_has_a_panel_for_each_kind_of_value() -> None:
    line = [(float(step), 1.0 / (1 + step)) for step in range(20)]
    figure = training_figure(
        {
            "train/loss": line,
            "train/l1": line,
            "train/adversarial": [(0.0, -1.0), (1.0, 2.0)],
            "val/psnr": [(4.0, 20.0), (9.0, 25.0)],
            "val/codebook_usage": line,
            "train/grad_norm": line,
            "train/grad_norm_discriminator": line,
        }
    )
    assert figure is not None
    panels = {axis.get_title(loc="left"): axis for axis in figure.axes if axis.axison}
    assert list(panels) == [
        "Loss",
        "Loss terms, training",
        "PSNR, dB, validation",
        "Codebook: share of codes used",
        "Gradient norm before clipping",
    ]
    assert panels["PSNR, dB, validation"].lines[0].get_xydata().tolist() == [[4, 20], [9, 25]]
    assert panels["Gradient norm before clipping"].get_yscale() == "log"
    labels = [line.get_label() for line in panels["Gradient norm before clipping"].lines]
    assert labels == ["grad norm", "grad norm discriminator"]
    # Told apart by more than colour.
    dashes = {line.get_linestyle() for line in panels["Loss terms, training"].lines}
    assert len(dashes) == 2


def test_stage_2_shows_accuracy_by_mask_ratio() -> None:
    ratios = ["0.0-0.2", "0.2-0.4", "0.4-0.6", "0.6-0.8", "0.8-1.0"]
    history = {f"val/masked_accuracy_{ratio}": [(1.0, 0.5)] for ratio in reversed(ratios)}
    history |= {"train/masked_accuracy": [(1.0, 0.1)], "val/masked_accuracy": [(1.0, 0.2)]}
    figure = training_figure(history)
    assert figure is not None
    both, by_ratio = (axis for axis in figure.axes if axis.axison)
    assert [line.get_label() for line in both.lines] == ["training", "validation"]
    labels = [line.get_label() for line in by_ratio.lines]
    assert labels == ["0.0 to 0.2", "0.2 to 0.4", "0.4 to 0.6", "0.6 to 0.8", "0.8 to 1.0"]


def test_the_frechet_curve_its_floor_and_its_limit() -> None:
    figure = frechet_figure(space())
    assert figure is not None
    (axis,) = figure.axes
    made, floor, limit = axis.lines
    assert made.get_xydata().tolist() == [[20, 45], [40, 31]]
    assert floor.get_xydata().tolist() == [[20, 20], [40, 12]]
    assert set(limit.get_ydata()) == {26.2}
    assert axis.get_ylim()[0] == 0
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["20", "40"]
    assert len({line.get_linestyle() for line in axis.lines}) == 3


@pytest.mark.parametrize("limit", [None, -3.0])
def test_the_frechet_curve_without_floor(limit: float | None) -> None:
    point = CurvePoint(volumes=8, generated=2.0, generated_sd=0.5, floor=None)
    figure = frechet_figure(space(curve=[point], frechet_limit=limit))
    assert figure is not None
    assert len(figure.axes[0].lines) == (1 if limit is None else 2)
    assert figure.axes[0].get_ylim()[0] == (limit or 0)
    assert frechet_figure(space(curve=[])) is None
