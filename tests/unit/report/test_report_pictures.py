"""Pictures show the voxels they say, small enough for a page."""

import base64
import io

import matplotlib.image
import numpy as np
from report_samples import collection, one_class

from prod9.report.pictures import (
    MAX_SIDE,
    Choice,
    Picture,
    choose,
    class_rows,
    pair_rows,
    rule,
    tile,
)
from prod9.results.schema import ClosePair


def decode(picture: Picture) -> np.ndarray:
    """Return a picture of the page as uint8."""
    assert picture.src.startswith("data:image/png;base64,")
    data = base64.b64decode(picture.src.partition(",")[2])
    return (matplotlib.image.imread(io.BytesIO(data)) * 255).round().astype(np.uint8)


def test_a_tile_is_three_middle_slices_with_front_and_top_up() -> None:
    volume = np.zeros((5, 7, 9), np.float32)
    volume[4, 3, 4] = 0.2  # right
    volume[2, 6, 4] = 0.4  # front
    volume[2, 3, 8] = 1.0  # top
    pixels = tile(volume)
    assert pixels.shape == (9, 29)  # a line of one pixel between the squares
    axial, coronal, sagittal = pixels[:, :9], pixels[:, 10:19], pixels[:, 20:]
    assert axial[4, 6] == 51
    assert axial[1, 4] == 102
    assert coronal[0, 4] == 255
    assert sagittal[4, 7] == 102
    assert sagittal[0, 4] == 255
    assert not pixels[:, [9, 19]].any()


def test_a_tile_keeps_physical_proportions() -> None:
    # Slices 3 mm thick, voxels 1 mm: what is 4 voxels high is 12 pixels high.
    pixels = tile(np.ones((12, 12, 4), np.float32), (1.0, 1.0, 3.0))
    assert pixels.shape == (12, 38)
    assert (pixels[:, :12] == 255).all()
    assert (pixels[:, 13:25] == 255).all()
    flat = tile(np.ones((12, 12, 4), np.float32))
    assert (flat[:, 13:25] == 255).all(axis=1).sum() == 4


def test_big_volumes_are_averaged_down() -> None:
    volume = np.zeros((240, 240, 155), np.float32)
    volume[::2] = 1.0  # stripes of one voxel: their average is grey, a sample would be black
    pixels = tile(volume)
    assert pixels.shape == (MAX_SIDE, 3 * MAX_SIDE + 2 * (MAX_SIDE // 28))
    assert abs(pixels[:, :MAX_SIDE].mean() - 127.5) < 2
    assert pixels[40:90, :MAX_SIDE].max() < 200


def test_intensities_outside_are_cut() -> None:
    assert set(np.unique(tile(np.array([[[-1.0, 2.0]]], np.float32)))) <= {0, 255}


def test_the_first_volumes_of_each_class_are_chosen() -> None:
    toys = collection("toys", 9)
    assert choose(toys) == Choice({"ball": [0, 2, 4], "box": [1, 3, 5]}, 2)
    assert rule(choose(toys)) == (
        "The first 3 volumes of each class, in each set's own order: none was picked."
    )
    many = collection("many", 50, [f"c{i}" for i in range(24)])
    chosen = choose(many)
    assert list(chosen.rows) == [f"c{i}" for i in range(0, 24, 2)]
    assert chosen.rows["c0"] == [0, 24, 48]
    assert chosen.rows["c4"] == [4, 28]
    assert "12 of 24 classes, evenly spaced" in rule(chosen)
    alone = choose(one_class("alone", 12))
    assert alone.rows == {"all": list(range(9))}
    assert rule(alone) == "The first volumes of each set, in order; up to 9."


def test_a_montage_stands_class_by_class() -> None:
    sets = {"Real": collection("r", 4), "Generated": collection("g", 4, seed=1)}
    chosen = {
        "Real": Choice({"ball": [0, 2], "box": [1]}, 2),
        "Generated": Choice({"ball": [2]}, 1),
    }
    ball, box = class_rows(sets, chosen)
    assert (ball.label, box.label) == ("ball", "box")
    assert [[p.alt.partition(";")[0] for p in cell] for cell in ball.cells] == [
        ["Real: r-0 (ball)", "Real: r-2 (ball)"],
        ["Generated: g-2 (ball)"],
    ]
    assert np.array_equal(decode(ball.cells[1][0]), tile(sets["Generated"][2]))
    assert [len(cell) for cell in box.cells] == [1, 0]


def test_a_pair_that_is_a_copy_has_a_black_difference() -> None:
    train = collection("train", 4)
    made = collection("train", 4, names=["a", "b", "c", "d"])  # the same voxels
    pairs = [
        ClosePair(generated="b", train="train-1", distance=0.0),
        ClosePair(generated="c", train="train-0", distance=0.25),
        ClosePair(generated="gone", train="train-0", distance=0.5),
    ]
    copied, other = pair_rows(pairs, made, train)
    mine, theirs, difference = (decode(cell[0]) for cell in copied.cells)
    assert np.array_equal(mine, theirs)
    assert difference.max() <= 4  # inferno's black
    assert decode(other.cells[2][0]).max() > 200
    assert (copied.label, copied.notes) == ("1. b", ("nearest: train-1", "distance 0"))
    assert (other.label, other.notes) == ("2. c", ("nearest: train-0", "distance 0.25"))
