from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prod9.data.volume_files.stored_volume import StoredVolume
from prod9.data.volume_sets.intensity_range import choose_intensity
from prod9.errors import Prod9Error

CASE = Path("case.nii")


def raw(values: Any, dtype: Any = np.float32) -> StoredVolume:
    array = np.array(values, np.float32).reshape(-1, 1, 1)
    return StoredVolume(array, np.eye(4), np.dtype(dtype), CASE)


def scaled(text: str, values: Any, dtype: Any = np.float32) -> np.ndarray:
    result = choose_intensity(text, raw(values, dtype)).apply(raw(values, dtype))
    assert result.dtype == np.float32
    return result.ravel()


def refused(text: str, values: Any = (0, 1), dtype: Any = np.float32) -> str:
    with pytest.raises(Prod9Error) as caught:
        scaled(text, values, dtype)
    return str(caught.value)


def test_bytes_are_shares_of_255() -> None:
    assert scaled("auto", [0, 51, 255], np.uint8).tolist() == [0, np.float32(0.2), 1]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_in_the_unit_interval_stay(dtype: Any) -> None:
    assert scaled("auto", [0, 0.25, 1], dtype).tolist() == [0, 0.25, 1]
    # Rounding beyond the ends is taken back.
    ends = scaled("auto", [-9e-7, 0.5, 1 + 9e-7], dtype)
    assert ends.tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("values", "shown"),
    [([0, 1.00001], "0 to 1.00001"), ([-2e-6, 1], "-2e-06 to 1"), ([0.5, 255], "0.5 to 255")],
)
def test_other_floats_are_refused_with_their_range(values: list[float], shown: str) -> None:
    message = refused("auto", values)
    assert message.startswith("case.nii holds float32 with values ")
    low, high = message.split("values ")[1].split(";")[0].split(" to ")
    assert (float(low), float(high)) == pytest.approx(tuple(map(float, shown.split(" to "))))
    assert "LOW,HIGH" in message
    assert "percentiles" in message


def test_a_blank_volume_may_be_among_bytes() -> None:
    assert scaled("auto", [0, 0], np.uint8).tolist() == [0, 0]


@pytest.mark.parametrize("values", [[0, 1], [1, 1]])
def test_bytes_that_are_a_mask_are_refused(values: list[int]) -> None:
    message = refused("auto", values, np.uint8)
    assert f"case.nii holds uint8 with values {values[0]} to {values[1]}: a mask" in message
    # Both ways out work.
    assert scaled("0,1", values, np.uint8).tolist() == values
    assert scaled("0,255", values, np.uint8).max() == np.float32(values[1] / 255)


def test_a_fixed_range() -> None:
    assert scaled("-1000,3000", [-1000, 0, 3000], np.int16).tolist() == [0, 0.25, 1]
    # 0.1 % of 4000 is 4.
    assert scaled("-1000,3000", [-1004, 3004], np.int16).tolist() == [0, 1]
    for values in ([-1005, 0], [0, 3005]):
        message = refused("-1000,3000", values, np.int16)
        assert "outside the intensity range -1000,3000 by more than 0.1%" in message
        assert f"case.nii has values {min(values)} to {max(values)}" in message
    description = choose_intensity("0,4095", raw([0])).description
    assert description == "0 to 4095, the same range for all volumes"


def test_percentiles_of_the_foreground() -> None:
    # Foreground 1..1001: percentile p lies at 1 + 10 p, that is 2 and 1000.
    values = np.concatenate([np.zeros(500), np.arange(1, 1002)])
    result = scaled("percentiles", values)
    assert (result[:500] == 0).all()
    expected = ((np.arange(1, 1002) - 2) / 998).clip(0, 1)
    assert np.allclose(result[500:], expected, atol=1e-6)
    # Twice as bright is the same volume: that is what it hides, and says.
    assert np.allclose(scaled("percentiles", 2 * values), result, atol=1e-6)
    description = choose_intensity("percentiles", raw([0])).description
    assert "0.1 and 99.9" in description
    assert "hides differences of brightness" in description


@given(st.integers(-1000, 1000), st.integers(1, 1000), st.integers(0, 2**32 - 1))
def test_any_way_ends_in_the_unit_interval(low: int, span: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(low, low + span + 1, 30)
    values[:2] = low, low + span
    result = scaled(f"{low},{low + span}", values, np.int16)
    assert (result.min(), result.max()) == (0, 1)
    assert np.allclose(result, (values - low) / span, atol=1e-6)
    by_itself = scaled("percentiles", values, np.int16)
    assert by_itself.min() >= 0
    assert by_itself.max() <= 1


def test_kinds_are_not_mixed() -> None:
    first = replace(raw([0, 9], np.uint8), path=Path("a.nii"))
    for other in (np.float32, np.int16):
        with pytest.raises(Prod9Error, match=r"a.nii holds uint8 and case.nii holds (float32|int)"):
            choose_intensity("auto", first).apply(raw([0, 1], other))
        choose_intensity("percentiles", first).apply(raw([0, 1], other))
    choose_intensity("auto", raw([0, 1])).apply(raw([0, 1], np.float64))


@pytest.mark.parametrize(
    "text", ["", "automatic", "1", "1,2,3", "2,1", "1,1", "0,nan", "-inf,1", "a,b"]
)
def test_what_is_no_intensity(text: str) -> None:
    with pytest.raises(Prod9Error, match="auto, percentiles, or two rising numbers"):
        choose_intensity(text, raw([0, 1]))
