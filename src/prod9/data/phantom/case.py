"""A BraTS-like case, drawn: the MNI152 brain, bent and re-coloured, with a tumour.

The anatomy is the ICBM152 2009a template inside nilearn's wheel, moved, scaled and bent at random;
the contrasts T1, T1ce, T2 and FLAIR are weighted sums of its tissue maps, and the tumour is a noisy
ball of necrotic core, enhancing rim and oedema. Grid, orientation and intensities are as BraTS has
them. It shows *one average anatomy*: enough to learn and test with, and nothing about patients.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prod9.data.brats.layouts import MODALITIES
from prod9.data.phantom.anatomy import Anatomy, Canvas, draw_anatomy, read_atlas
from prod9.data.phantom.tumour import Tumour, draw_tumour
from prod9.runtime.one_thread import one_thread

# What white and grey matter and fluid add to each contrast, and what the tumour's parts have in it.
# T1 comes from the template, in whose units the tumour's figures are too.
_TISSUES = {"T2": (0.28, 0.45, 0.95), "FLAIR": (0.42, 0.55, 0.08)}
_T1CE_OF_T1 = 0.95
_CORE = {"T1": 0.25, "T1ce": 0.20, "T2": 0.80, "FLAIR": 0.45}
_RIM = {"T1": 0.50, "T1ce": 1.00, "T2": 0.60, "FLAIR": 0.70}
_OEDEMA = {"T1": 0.50, "T1ce": 0.48, "T2": 0.75, "FLAIR": 0.95}


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

    ``voxel_mm`` is the voxels' side, from 0.5 to 8; anatomy and tumour do not depend on it, only
    the noise does. At 4, the grid is 60 x 60 x 39.
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


def contrasts(canvas: Canvas, anatomy: Anatomy, tumour: Tumour) -> dict[str, Tensor]:
    """Return what a scanner without faults would show, by modality: (N,)."""
    random = canvas.random

    def varied(value: float) -> float:
        return value * (1 + random.uniform(-0.07, 0.07))  # bounded: the order of tissues stays

    white, grey, fluid = anatomy.white, anatomy.grey, anatomy.fluid
    healthy = 1 - tumour.core - tumour.rim - tumour.oedema
    result: dict[str, Tensor] = {}
    for name in MODALITIES:
        if name in _TISSUES:
            w, g, f = (varied(value) for value in _TISSUES[name])
            tissue = w * white + g * grey + f * fluid
        else:
            w, g, f = (varied(_T1CE_OF_T1 if name == "T1ce" else 1.0) for _ in range(3))
            tissue = (w * white + g * grey + f * fluid) * anatomy.t1
        sick = (
            varied(_CORE[name]) * tumour.core
            + varied(_RIM[name]) * tumour.rim
            + varied(_OEDEMA[name]) * tumour.oedema
        )
        result[name] = healthy * tissue + sick * (1 + 0.07 * tumour.texture)
    return result


def scanned(canvas: Canvas, brain: Tensor, ideal: Tensor, white: float) -> Tensor:
    """Return one image as a scanner gives it, int16 (N,): shaded, curved, noisy, in its own units.

    ``ideal`` is (N,) in [0, 1], for the voxels that are ``brain``; ``white`` is what white matter
    has in it: the noise is a share of it.
    """
    random = canvas.random
    image = ideal * torch.exp(0.06 * canvas.noise(80.0)[brain])
    image = image.clamp(0, 1.2) ** math.exp(0.08 * random.standard_normal())
    # Magnitudes of complex numbers with noise in both parts: Rice's distribution. It has draws of
    # its own: their number depends on the voxels' side, and nothing else may.
    own = np.random.default_rng(random.integers(1 << 62))
    real, imaginary = torch.from_numpy(
        0.015 * white * own.standard_normal((2, len(image)), dtype=np.float32)
    )
    image = torch.hypot(image + real, imaginary)
    mean = math.exp(random.uniform(math.log(200), math.log(900)))
    return (image * (mean / image.mean())).round().clamp(1, 32767).to(torch.int16)
