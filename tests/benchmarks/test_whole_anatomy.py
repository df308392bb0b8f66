"""What the anatomy of the template, moved, spoilt or absent, scores."""

import numpy as np
import pytest
from scipy import ndimage

from benchmarks.whole_anatomy import Template, read_template, registered, score, summary


@pytest.fixture(scope="module")
def template() -> Template:
    return read_template()


def test_the_template_finds_itself(template: Template) -> None:
    own = score(template.t1, template)
    assert own.ncc == pytest.approx(1)
    assert own.difference_ml == 0
    # Lateral ventricles of adults: some 10 to 40 ml.
    assert 10 < own.ventricles_ml < 40
    # Both sides: the template is symmetric.
    left = template.ventricles[: template.ventricles.shape[0] // 2].sum()
    assert 0.4 < left / template.ventricles.sum() < 0.6


@pytest.mark.slow
def test_a_moved_template_is_moved_back(template: Template) -> None:
    turn = np.deg2rad(6)
    matrix = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1.1]]
    )
    middle = np.array(template.t1.shape) / 2
    offset = middle - matrix @ middle + [2, -3, 1]
    moved = ndimage.affine_transform(template.t1, matrix, offset, order=1)
    found = score(registered(0.7 * moved, template), template)
    assert score(moved, template).ncc < 0.5
    assert found.ncc > 0.95  # two interpolations blur
    assert found.difference_ml < 5


def test_lumps_and_filled_ventricles_are_seen(template: Template) -> None:
    noise = np.random.default_rng(0).standard_normal(template.t1.shape)
    lumps = template.brain * (0.7 + 0.2 * ndimage.gaussian_filter(noise, 3))
    assert abs(score(lumps, template).ncc) < 0.2
    filled = np.where(template.around, template.t1.max(), template.t1)
    own = score(template.t1, template)
    without = score(filled, template)
    assert without.ventricles_ml == 0
    assert without.difference_ml == pytest.approx(own.ventricles_ml)
    mean = summary([own, without])["ventricles_ml"]["mean"]
    assert mean == pytest.approx(own.ventricles_ml / 2)
