from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prod9.data import brain_regions
from prod9.data.brain_region_table import CLASS_NAMES
from prod9.data.brain_regions import RegionSampler, Variation, build
from prod9.errors import Prod9Error

STILL = Variation(
    rotation_degrees=0.0,
    scale=0.0,
    jitter_mm=0.0,
    displacement_mm=0.0,
    bias=0.0,
    gamma=0.0,
    noise=0.0,
)


@pytest.fixture(scope="module")
def sampler() -> RegionSampler:
    return RegionSampler(28)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brain_regions, "SPLIT_SIZES", {"train": 22, "val": 11, "test": 13})


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn_plainly(sampler: RegionSampler, labels: Tensor, seed: int) -> Tensor:
    """The same cubes, straight from the definition: no boxes, no matrices, no grouping."""
    v, batch, size, g = sampler.variation, len(labels), sampler.size, generator(seed)
    spacing = brain_regions.SPACING_MM[size]

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=g)

    def field(knots: Tensor) -> Tensor:
        finer = 2 * knots.shape[-1] + 1
        knots = F.interpolate(knots, size=finer, mode="trilinear", align_corners=True)
        knots = F.avg_pool3d(knots, 3, stride=1, padding=1, count_include_pad=False)
        return F.interpolate(knots, size=size, mode="trilinear", align_corners=True)

    angles, scale = v.rotation_degrees * normal(3), 1 + v.scale * normal(1, 1)
    bend = field(v.displacement_mm * normal(3, *[v.displacement_knots] * 3))
    centres = torch.tensor(list(brain_regions.REGIONS.values()))[labels] + v.jitter_mm * normal(3)
    bias = field(v.bias * normal(1, *[v.bias_knots] * 3))[:, 0]
    gamma, noise = torch.exp(v.gamma * normal(1, 1, 1)), v.noise * normal(size, size, size)

    axis = (torch.arange(size) - (size - 1) / 2) * spacing
    offsets = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).view(-1, 3)
    mm = (scale * offsets) @ brain_regions._rotations(angles).transpose(1, 2)
    mm = mm + bend.flatten(2).transpose(1, 2) + centres[:, None]
    voxels = (mm - sampler.affine[:3, 3]) @ torch.linalg.inv(sampler.affine[:3, :3]).T
    extent = torch.tensor(sampler.template.shape) - 1
    grid = (2 * voxels / extent - 1).flip(-1).view(batch, size, size, size, 3)
    source = sampler.template.expand(batch, 1, *sampler.template.shape)
    cubes = F.grid_sample(source, grid, padding_mode="zeros", align_corners=True)[:, 0]
    cubes = (cubes * bias.exp()).clamp(0, 1) ** gamma + noise
    return (cubes.clamp(0, 1) * 255).round().to(torch.uint8)


def test_the_fast_way_draws_what_the_definition_says(sampler: RegionSampler) -> None:
    labels = torch.arange(22) % 11
    fast = sampler(labels, generator(1)).int()
    plain = drawn_plainly(sampler, labels, 1).int()
    assert (fast - plain).abs().max() <= 1
    assert (fast != plain).float().mean() < 1e-3


def test_rotations_are_rotations() -> None:
    turns = brain_regions._rotations(torch.tensor([[90.0, 0, 0], [10, 20, 30]]))
    # About x, by the right hand: y goes to z.
    assert torch.allclose(
        turns[0] @ torch.tensor([0.0, 1, 0]), torch.tensor([0.0, 0, 1]), atol=1e-6
    )
    assert torch.allclose(turns @ turns.transpose(1, 2), torch.eye(3).expand(2, 3, 3), atol=1e-6)
    assert torch.allclose(torch.linalg.det(turns), torch.ones(2))


def test_without_variation_a_cube_is_the_template_around_its_centre() -> None:
    sampler = RegionSampler(64, STILL)
    thalamus = CLASS_NAMES.index("thalamus")
    cube = sampler(torch.tensor([thalamus]), generator(0))[0]
    x, y, z = (torch.tensor([0.0, -16, 8]) - sampler.affine[:3, 3]).int().tolist()
    box = sampler.template[x - 32 : x + 33, y - 32 : y + 33, z - 32 : z + 33]
    # An even number of voxels: each lies in the middle of eight of the template's.
    expected = F.avg_pool3d(box[None, None], 2, stride=1)[0, 0] * 255
    assert (cube - expected).abs().max() <= 0.51


def test_left_and_right_are_where_they_should_be() -> None:
    sampler = RegionSampler(28, STILL)
    names = ["motor-cortex-left", "motor-cortex-right"]
    labels = torch.tensor([CLASS_NAMES.index(name) for name in names])
    left, right = sampler(labels, generator(0)).float()
    # The template is symmetric; x runs to the right: outside the left hemisphere is at low x.
    assert (left.flip(0) - right).abs().mean() < 0.02 * left.mean()
    assert left[:5].mean() < 0.7 * left[-5:].mean()


def test_the_classes_can_be_told_apart(sampler: RegionSampler) -> None:
    labels = torch.arange(11).repeat(8)
    train = sampler(labels, generator(0)).float().view(8, 11, -1)
    test = sampler(labels, generator(1)).float().view(88, -1)
    nearest = torch.cdist(test, train.mean(0)).argmin(1)
    assert (nearest == labels).float().mean() > 0.95
    assert train.std(0).mean() > 10  # and no two samples of a class are alike


def test_a_file_in_medmnist_layout(small: None, tmp_path: Path) -> None:
    build(tmp_path / "brain.npz", 28)
    with np.load(tmp_path / "brain.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    for split, count in {"train": 22, "val": 11, "test": 13}.items():
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        assert images.dtype == labels.dtype == np.uint8
        assert images.shape == (count, 28, 28, 28)
        assert labels.shape == (count, 1)
        assert set(labels.ravel().tolist()) == set(range(11))
        assert images.reshape(count, -1).max(1).min() > 100
    assert not np.array_equal(arrays["train_images"][:11], arrays["val_images"])


def test_the_seed_decides_every_byte_and_the_cores_none(
    small: None, two_threads: None, tmp_path: Path
) -> None:
    build(tmp_path / "one.npz", 28, seed=5)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    build(tmp_path / "two.npz", 28, seed=5)
    build(tmp_path / "other.npz", 28, seed=50)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with np.load(tmp_path / "one.npz") as one, np.load(tmp_path / "other.npz") as other:
        for split in ("train", "val", "test"):
            assert not np.array_equal(one[f"{split}_images"], other[f"{split}_images"])


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, r"not installed: pip install 'prod9\[demo\]'"),
        (SimpleNamespace(origin="/x"), "reinstall"),
    ],
)
def test_a_missing_template_is_a_sentence(
    found: object, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: found)
    with pytest.raises(Prod9Error, match=words):
        brain_regions.template_path()
