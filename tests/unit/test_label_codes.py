"""Label maps as tokens: exact where there are patterns enough, near otherwise, never blended."""

import numpy as np
import pytest
from pydantic import ValidationError

from prod9.label_codes import PARTS, LabelCodes, part_names


def ball(
    radius: float, middle: tuple[float, float, float], sides: tuple[int, int, int]
) -> np.ndarray:
    """Return a ball of label 2 whose upper half has label 7, as a data set gives labels."""
    x, y, z = np.meshgrid(*map(np.arange, sides), indexing="ij")
    a, b, c = middle
    inside = (x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 < radius**2
    return np.where(inside, np.where(z > c, 7, 2), 0).astype(np.float32)


def maps(count: int, sides: tuple[int, int, int] = (20, 24, 20)) -> list[np.ndarray]:
    random = np.random.default_rng(count)
    return [
        ball(random.uniform(5, 8), tuple(random.uniform(9, 12, 3)), sides) for _ in range(count)
    ]


def fitted(found: list[np.ndarray], levels: tuple[int, ...] = (8, 8, 8)) -> LabelCodes:
    return LabelCodes.fit(
        "seg", (0, 2, 7), range(len(found)), found.__getitem__, stride=4, levels=levels
    )


def test_a_held_out_map_comes_back() -> None:
    train, test = maps(30), maps(4)
    codes = fitted(train)
    for labels in test:
        tokens = codes.encode(labels)
        assert tokens.shape == (PARTS, 5, 6, 5)
        assert 0 <= tokens.min() <= tokens.max() < 512
        back = codes.decode(tokens, labels.shape)
        assert back.dtype == np.int32
        for value in (2, 7):
            dice = 2 * ((back == value) & (labels == value)).sum()
            dice /= (back == value).sum() + (labels == value).sum()
            assert dice >= 0.97


def test_where_there_are_codes_enough_every_voxel_comes_back() -> None:
    (labels,) = maps(1)
    codes = fitted([labels])
    assert np.array_equal(codes.decode(codes.encode(labels), labels.shape), labels)


def test_sides_that_the_stride_does_not_divide() -> None:
    (labels,) = maps(1, (19, 21, 18))
    codes = fitted([labels])
    assert codes.encode(labels).shape == (PARTS, 5, 6, 5)
    assert np.array_equal(codes.decode(codes.encode(labels), labels.shape), labels)


def test_any_tokens_decode_to_labels_of_the_data() -> None:
    codes = fitted(maps(5), (4, 4, 3))
    tokens = np.random.default_rng(0).integers(0, 48, (PARTS, 3, 4, 5))
    assert {*np.unique(codes.decode(tokens))} <= {0, 2, 7}


def test_a_map_of_one_label_is_exact() -> None:
    codes = fitted(maps(5), (4, 4, 3))
    for value in (0, 2, 7):
        whole = np.full((8, 8, 8), value, np.float32)
        assert np.array_equal(codes.decode(codes.encode(whole)), whole)


def test_neighbours_on_the_lattice_look_alike() -> None:
    codes = fitted(maps(30))
    steps = [np.mean(codes.table[8:] != codes.table[:-8]) for _ in range(1)]
    random = np.random.default_rng(0).permutation(512)
    assert steps[0] < np.mean(codes.table[random] != codes.table)


def test_the_same_maps_give_the_same_codes() -> None:
    assert fitted(maps(10)) == fitted(maps(10))


def test_forged_codes_are_refused() -> None:
    plain = fitted(maps(2), (4, 4, 3)).model_dump()
    for change in ({"patterns": "eJw="}, {"patterns": "?"}, {"codes": 49}, {"values": (0, 2)}):
        with pytest.raises(ValidationError):
            LabelCodes.model_validate(plain | change)


def test_parts_have_names_of_their_own() -> None:
    assert part_names("seg") == ("seg", "seg[2]", "seg[3]", "seg[4]")
