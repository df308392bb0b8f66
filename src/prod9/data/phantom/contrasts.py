"""What a scanner shows of a phantom: T1, T1ce, T2 and FLAIR, with a scanner's faults."""

import math

import numpy as np
import torch
from torch import Tensor

from prod9.data.brats.layouts import MODALITIES
from prod9.data.phantom.anatomy import Anatomy, Canvas
from prod9.data.phantom.tumour import Tumour

# What white and grey matter and fluid add to each contrast, and what the tumour's parts have in it.
# T1 comes from the template, in whose units the tumour's figures are too.
_TISSUES = {"T2": (0.28, 0.45, 0.95), "FLAIR": (0.42, 0.55, 0.08)}
_T1CE_OF_T1 = 0.95
_CORE = {"T1": 0.25, "T1ce": 0.20, "T2": 0.80, "FLAIR": 0.45}
_RIM = {"T1": 0.50, "T1ce": 1.00, "T2": 0.60, "FLAIR": 0.70}
_OEDEMA = {"T1": 0.50, "T1ce": 0.48, "T2": 0.75, "FLAIR": 0.95}


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

    Args:
        canvas: Where the voxels lie.
        brain: Which of them are brain.
        ideal: (N,) in [0, 1].
        white: What white matter has in ``ideal``; the noise is a share of it.
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
