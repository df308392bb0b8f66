"""What tests of model folders share: settings, volumes, figures that name a subject."""

from typing import Any

import numpy as np

from prod9.config import CompletionConfig, SamplerConfig, SlidingWindowConfig
from prod9.inference.recorded import Recorded
from prod9.results.schema import (
    ClosePair,
    Evaluation,
    FeatureSpaceFigures,
    Generation,
    Privacy,
    Reconstruction,
    SetDistance,
    SetRecord,
)

SUBJECT = "patient-zero"
CONFIG_YAML = "seed: 4\ndata: {root: /secret/place, batch_size: 2}\n"
RECORDED = Recorded(
    seed=7,
    sampler=SamplerConfig(steps=3, guidance_scale=2.0, order="halton"),
    completion=CompletionConfig(steps=2, temperature=0.3),
    sliding_window=SlidingWindowConfig(roi_size=(8, 8, 8), overlap=0.25),
    data={"batch_size": 2, "root": "/secret/place"},
)


def volumes(model: Any, **settings: Any) -> np.ndarray:
    return np.stack([image.get_fdata() for image in model.generate(n=2, **settings)])


def evaluation(subject: str, **provenance: str) -> Evaluation:
    """Return figures whose closest pair names a subject."""
    distance = SetDistance(
        volumes=44,
        reference_volumes=610,
        precision=0.81,
        recall=None,
        density=None,
        coverage=None,
        frechet=31.25,
        frechet_interval=(29.0, 33.7),
        kernel=0.035,
        kernel_interval=None,
    )
    space = FeatureSpaceFigures(
        space="EfficientNet-Lite0",
        key="efficientnet",
        dimensions=1280,
        weights_sha256="ab" * 32,
        generated=distance,
        floor=distance,
        floor_of="other real volumes",
        curve=[],
        frechet_limit=None,
        stable_from=None,
        stable=False,
        per_class={},
    )
    privacy = Privacy(
        verdict="no sign of copying",
        reasons=["No near duplicate."],
        spaces=[],
        closest=[ClosePair(generated="g-1", train=subject, distance=0.1)],
    )
    real = SetRecord(
        name="/secret/set of scans",
        volumes=20,
        classes={"ball": 20},
        shape=(8, 8, 8),
        spacing_mm=None,
        intensity="as stored",
        lowest=0,
        highest=1,
        sha256=None,
    )
    return Evaluation(
        sets={"real": real},
        reconstruction=Reconstruction(
            volumes=20,
            psnr=25.4,
            ssim=0.849,
            ms_ssim=None,
            mae=0.04,
            lpips=None,
            intervals={"psnr": (25.1, 25.7)},
            foreground=None,
            per_class={},
            lpips_network=None,
            codebook_usage=None,
            codebook_perplexity=None,
        ),
        generation=Generation(
            volumes=44,
            class_accuracy=0.98,
            classifier_real_accuracy=None,
            msssim=0.68,
            msssim_interval=(0.64, 0.72),
            msssim_real=0.61,
            nearest_train_p05=None,
            nearest_train_p05_real=None,
            per_class={},
            spaces=[space],
            usefulness=None,
            privacy=privacy,
        ),
        warnings=["few volumes in (/secret/a.nii.gz), so intervals are wide."],
        seconds={},
        provenance={"command": "prod9 evaluate /secret", "config": "root: /secret", **provenance},
    )
