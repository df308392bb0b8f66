"""Figures of reconstructions against hand results and scikit-image."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from prod9.data.volume_sets.volume_set import of_tensor
from prod9.evaluation.reconstruction import FOREGROUND, WHOLE, measure_pair, summarize, table

SIDE = 14


def volumes(count, seed=0):
    stream = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, SIDE, SIDE, SIDE, generator=stream)


def collection(tensor, labels, name="toy"):
    return of_tensor(tensor, torch.as_tensor(labels), ("a", "b"), name)


def noisy(tensor, level, seed=9):
    stream = torch.Generator().manual_seed(seed)
    return (tensor + level * torch.randn(tensor.shape, generator=stream)).clamp(0, 1)


def measured(real, made, lpips=None):
    """Return the figures of a pair by name, and whether there is background."""
    *values, background = measure_pair(real, made, lpips).tolist()
    names = [*WHOLE, *(f"{name}_foreground" for name in FOREGROUND)]
    return dict(zip(names, values, strict=True)), background


def evaluated(real, made, lpips=None, **more):
    """Return the means, and the rows they are of."""
    rows = np.stack([measure_pair(a, b, lpips) for a, b in zip(real, made, strict=True)])
    return summarize(real, rows, **more), rows


REAL = volumes(6)
LABELS = [0, 0, 0, 0, 1, 1]


def test_figures_are_those_of_scikit_image():
    real, made = REAL[0, 0].numpy(), noisy(REAL, 0.1)[0, 0].numpy()
    whole, background = measured(real, made)
    assert whole["psnr"] == pytest.approx(
        peak_signal_noise_ratio(real.astype(float), made.astype(float), data_range=1), rel=1e-6
    )
    assert whole["ssim"] == pytest.approx(
        structural_similarity(
            real.astype(float),
            made.astype(float),
            gaussian_weights=True,
            use_sample_covariance=False,
            data_range=1,
        ),
        abs=1e-6,
    )
    assert whole["mae"] == pytest.approx(np.abs(real - made).mean(), rel=1e-5)
    assert np.isnan(whole["lpips"])
    assert whole["mae_foreground"] == pytest.approx(whole["mae"], rel=1e-5)
    assert not background


def test_foreground_leaves_background_out():
    real = REAL[0, 0].numpy().copy()
    real[:7] = 0
    made = real + 0.1
    made[:7] = 0  # background is perfect
    whole, background = measured(real, made.astype(np.float32))
    assert background
    assert whole["mae_foreground"] == pytest.approx(0.1, rel=1e-5)
    assert whole["psnr_foreground"] == pytest.approx(20, rel=1e-5)
    assert whole["mae"] == pytest.approx(0.05, rel=1e-5)


def test_means_intervals_and_classes():
    made = torch.cat([noisy(REAL[:4], 0.05), noisy(REAL[4:], 0.2)])
    found, rows = evaluated(collection(REAL, LABELS), collection(made, LABELS))
    psnrs = rows[:, WHOLE.index("psnr")].tolist()
    assert found.psnr == pytest.approx(np.mean(psnrs))
    low, high = found.intervals["psnr"]
    assert min(psnrs) <= low < found.psnr < high <= max(psnrs)
    assert found.per_class["a"].psnr == pytest.approx(np.mean(psnrs[:4]))
    assert found.per_class["b"].psnr == pytest.approx(np.mean(psnrs[4:]))
    assert found.per_class["a"].psnr > found.per_class["b"].psnr + 6
    assert found.volumes == 6
    assert found.foreground is None  # no voxel is 0
    assert (found.lpips, found.codebook_usage) == (None, None)


@pytest.mark.parametrize("figure", ["psnr", "ssim", "ms_ssim"])
def test_more_noise_is_worse(figure):
    scores = []
    for level in (0.02, 0.05, 0.1, 0.2):
        made = collection(noisy(REAL, level), LABELS)
        found, _ = evaluated(collection(REAL, LABELS), made)
        scores.append(getattr(found, figure))
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[-1]


def test_distance_of_features_is_averaged():
    def distance(prediction, target):
        return (prediction - target).abs().max()

    made = noisy(REAL, 0.1)
    found, _ = evaluated(
        collection(REAL, LABELS), collection(made, LABELS), lpips=distance, lpips_network="max"
    )
    assert found.lpips == pytest.approx(float((made - REAL).abs().flatten(1).amax(1).mean()))
    assert found.lpips_network == "max"


def test_perfect_reconstruction_is_infinite_not_capped():
    found, _ = evaluated(collection(REAL, LABELS), collection(REAL, LABELS))
    assert found.psnr == float("inf")
    assert found.ssim == pytest.approx(1)
    assert '"Infinity"' in found.model_dump_json()


def test_small_volumes_have_no_ssim():
    tiny = REAL[:, :, :8, :8, :8]
    found, _ = evaluated(collection(tiny, LABELS), collection(noisy(tiny, 0.1), LABELS))
    assert found.ssim is None
    assert found.ms_ssim is not None
    assert "ssim" not in found.intervals


def test_volume_of_nothing_counts_whole_but_not_as_foreground():
    real = REAL.clone()
    real[0] = 0
    made = noisy(real, 0.1)
    found, rows = evaluated(collection(real, LABELS), collection(made, LABELS))
    assert found.volumes == 6
    assert found.foreground.volumes == 5
    flat = table(collection(real, LABELS), rows)
    assert "psnr_foreground" not in flat[0]
    assert flat[5]["class"] == "b"
    assert flat[1]["psnr_foreground"] == pytest.approx(rows[1][len(WHOLE)])


def test_binary_shapes_have_a_dice():
    shapes = (REAL > 0.7).float()
    made = shapes.clone()
    made[:, :, :7] = 0  # half of each is lost
    found, _ = evaluated(collection(shapes, LABELS), collection(made, LABELS))
    kept = shapes[:, :, 7:].flatten(1).sum(1) / shapes.flatten(1).sum(1)
    assert found.dice == pytest.approx(float((2 * kept / (1 + kept)).mean()), rel=1e-5)
    grey, _ = evaluated(collection(REAL, LABELS), collection(made, LABELS))
    assert grey.dice is None
