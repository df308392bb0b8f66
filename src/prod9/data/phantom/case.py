"""A BraTS-like case, drawn: the MNI152 brain, bent and re-coloured, with a tumour.

The anatomy is the ICBM152 2009a template inside nilearn's wheel, moved, scaled and bent at random;
the contrasts T1, T1ce, T2 and FLAIR are weighted sums of its tissue maps, and the tumour is a noisy
ball of necrotic core, enhancing rim and oedema. Grid, orientation and intensities are as BraTS has
them. It shows *one average anatomy*: enough to learn and test with, and nothing about patients.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prod9.data.phantom.anatomy import Canvas, draw_anatomy, read_atlas
from prod9.data.phantom.contrasts import contrasts, scanned
from prod9.data.phantom.tumour import draw_tumour
from prod9.runtime.one_thread import one_thread


@dataclass(frozen=True)
class PhantomCase:
    """Four co-registered, skull-stripped images and what is tumour in them."""

    images: Mapping[str, np.ndarray]
    """By ``MODALITIES``: int16, (240, 240, 155) at 1 mm, axes to the left, back and top (LPS);
    arbitrary units, at least 1 in the brain and 0 outside."""
    segmentation: np.ndarray
    """uint8, same shape: ``BACKGROUND``, ``CORE``, ``OEDEMA`` and ``ENHANCING`` of
    :mod:`prod9.data.phantom.tumour`."""
    affine: np.ndarray
    """float64 (4, 4): voxel to mm."""


def draw_case(seed: int, index: int, *, voxel_mm: float = 1.0) -> PhantomCase:
    """Draw case ``index`` (0 or more) of the cohort ``seed`` (0 or more): the same one each time.

    Args:
        seed: of the cohort.
        index: of the case.
        voxel_mm: the voxels' side, from 0.5 to 8; anatomy and tumour do not depend on it, only the
            noise does. At 4, the grid is 60 x 60 x 39.

    Raises:
        Prod9Error: the template is missing.
    """
    with one_thread():
        # The order of the draws is part of the cohort.
        canvas, atlas = Canvas(voxel_mm, np.random.default_rng([seed, index])), read_atlas()
        anatomy = draw_anatomy(canvas, atlas)
        tumour = draw_tumour(canvas, atlas, anatomy)
        images: dict[str, np.ndarray] = {}
        for name, ideal in contrasts(canvas, anatomy, tumour).items():
            white = float(ideal[anatomy.white > 0.9].median())
            image = scanned(canvas, anatomy.brain, ideal, white)
            images[name] = _on_grid(canvas, anatomy.brain, image)
        segmentation = _on_grid(canvas, anatomy.brain, tumour.labels)
    # Stored axes run to the left and back: world coordinates fall as indices rise.
    affine = np.diag([-voxel_mm, -voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = np.array([0.0, 239.0, 0.0]) + (voxel_mm - 1) / 2 * np.array([-1, -1, 1])
    return PhantomCase(images, segmentation, affine)


def _on_grid(canvas: Canvas, brain: Tensor, values: Tensor) -> np.ndarray:
    grid = torch.zeros(canvas.shape, dtype=values.dtype)
    grid[canvas.box][brain] = values
    return grid.numpy()
