from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prod9.data.volume_sets.volume_set import ONE_CLASS, VolumeSet, of_tensor
from prod9.errors import Prod9Error
from prod9.evaluation.feature_spaces import CPU, FeatureSpace, features_of, on_device
from prod9.evaluation.pretrained import efficientnet_space, lpips_of, medicalnet_space, resized
from prod9.files import hexdigest
from prod9.losses.medicalnet import MedicalNetResNet10


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def collection_of(volumes: Tensor) -> VolumeSet:
    return of_tensor(volumes, torch.zeros(len(volumes)), ONE_CLASS, "toy")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained MedicalNet whose batch norms do something."""
    path = tmp_path_factory.mktemp("medicalnet") / "weights.pth"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MedicalNetResNet10()
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
    torch.save({"state_dict": network.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def medicalnet(weights: Path) -> FeatureSpace:
    return medicalnet_space(weights)


def moments() -> FeatureSpace:
    """Mean and largest voxel: features that one can work out by hand."""
    return FeatureSpace(
        key="classifier",
        name="moments",
        dimensions=2,
        weights_sha256="",
        embed=lambda x: torch.stack([x.mean((1, 2, 3, 4)), x.amax((1, 2, 3, 4))], 1),
    )


def test_features_come_in_order_in_double_precision():
    volumes = torch.rand(70, 1, 3, 4, 5, generator=generator())  # more than one block
    found = features_of(moments(), collection_of(volumes))
    assert found.dtype == torch.float64
    flat = volumes.flatten(1)
    torch.testing.assert_close(found, torch.stack([flat.mean(1), flat.amax(1)], 1).double())


def test_large_volumes_are_read_one_at_a_time():
    alive: list[int] = []

    def volume(index: int) -> np.ndarray:
        alive.append(index)
        return np.zeros((64, 64, 64), np.float32)

    def embed(x: Tensor) -> Tensor:
        assert len(x) == len(alive) == 1
        alive.clear()
        return torch.zeros(1, 2)

    volumes = VolumeSet(**{**vars(collection_of(torch.rand(3, 1, 64, 64, 64))), "read": volume})
    assert features_of(FeatureSpace("classifier", "", 2, "", embed), volumes).shape == (3, 2)


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((28, 28, 28), (48, 48, 48)),
        ((64, 48, 128), (64, 48, 128)),
        ((60, 20, 128), (60, 48, 128)),
        ((256, 128, 200), (128, 64, 100)),
        ((240, 240, 155), (128, 128, 83)),
        ((512, 512, 2), (128, 128, 48)),
    ],
)
def test_sides_that_medicalnet_gets(shape, wanted):
    with torch.device("meta"):
        assert resized(torch.empty(1, 1, *shape)).shape == (1, 1, *wanted)


def test_shrinking_averages_and_enlarging_is_linear():
    stripes = (torch.arange(256) % 2).float().expand(1, 1, 96, 96, 256)
    torch.testing.assert_close(resized(stripes), torch.full((1, 1, 48, 48, 128), 0.5))
    # Voxel centres at half a voxel from the edge: 24 -> 48 puts new ones at quarters.
    ramp = torch.arange(24.0).expand(1, 1, 24, 24, 24)
    row = resized(ramp)[0, 0, 5, 5]
    torch.testing.assert_close(row[1:-1], torch.arange(46) / 2 + 0.25)


@pytest.mark.parametrize("shape", [(24, 28, 20), (50, 48, 60)])
def test_medicalnet_features_from_the_definition(weights, medicalnet, shape):
    network = MedicalNetResNet10()
    state = torch.load(weights, weights_only=True)["state_dict"]
    network.load_state_dict(state)
    network.eval()
    volume = torch.rand(1, 1, *shape, generator=generator())
    if min(shape) < 48:
        sides = [max(48, side) for side in shape]
        x = F.interpolate(volume, sides, mode="trilinear")
    else:
        x = volume
    array = x.double().numpy()
    standard = torch.from_numpy((array - array.mean()) / array.std(ddof=1)).float()
    with torch.no_grad():
        wanted = network(standard).mean((2, 3, 4))
    found = medicalnet.embed(volume)
    assert found.shape == (1, medicalnet.dimensions) == (1, 512)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


def test_an_embedding_has_no_gradient_and_leaves_the_random_state(medicalnet):
    volume = torch.rand(1, 1, 10, 12, 8, generator=generator()).requires_grad_()
    state = torch.get_rng_state()
    assert not medicalnet.embed(volume).requires_grad
    assert torch.equal(state, torch.get_rng_state())


def test_brightness_and_contrast_do_not_matter_to_medicalnet(medicalnet):
    volume = torch.rand(1, 1, 12, 12, 12, generator=generator())
    first, second = medicalnet.embed(volume), medicalnet.embed(0.3 * volume + 0.5)
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(first, medicalnet.embed(volume.flip(2)), rtol=1e-2)


def test_a_constant_volume_has_finite_features(medicalnet):
    assert medicalnet.embed(torch.full((1, 1, 8, 8, 8), 0.7)).isfinite().all()


def test_the_space_says_whose_weights(weights, medicalnet, tmp_path):
    assert medicalnet.key == "medicalnet"
    assert medicalnet.weights_sha256 == hexdigest(weights, "sha256")
    with pytest.raises(Prod9Error, match=r"no file .*nowhere\.pth"):
        medicalnet_space(tmp_path / "nowhere.pth")


def test_networks_go_to_the_device(weights, monkeypatch):
    asked: list[torch.device] = []
    to = torch.nn.Module.to

    def counted(self: torch.nn.Module, *args: object, **more: object) -> torch.nn.Module:
        asked.extend(arg for arg in args if isinstance(arg, torch.device))
        return to(self, *args, **more)

    monkeypatch.setattr(torch.nn.Module, "to", counted)
    device = torch.device("cpu", 0)
    for make in (medicalnet_space, lpips_of):
        asked.clear()
        make(weights, device)
        assert asked == [device]
    asked.clear()
    efficientnet_space(device=device)
    assert asked == [device]


def test_volumes_go_to_the_device(weights, monkeypatch):
    """There is one device here; asked for are the moves to it."""
    asked: list[torch.device] = []
    to = torch.Tensor.to

    def counted(self: Tensor, *args: object, **more: object) -> Tensor:
        asked.extend(arg for arg in args if isinstance(arg, torch.device))
        return to(self, *args, **more)

    device = torch.device("cpu", 0)
    space = medicalnet_space(weights, device)
    monkeypatch.setattr(torch.Tensor, "to", counted)
    volumes = torch.rand(1, 1, 8, 8, 8, generator=generator())
    found = space.embed(volumes)
    assert asked == [device]
    assert found.device == torch.device("cpu")
    assert torch.equal(found, medicalnet_space(weights).embed(volumes))


def test_no_device_rounds_the_factors():
    seen: list[tuple[bool, bool]] = []

    def embed(volume: Tensor) -> Tensor:
        seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic))
        return volume.flatten(1)

    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    for _ in range(2):
        on_device(embed, CPU)(torch.rand(1, 1, 2, 2, 2))
    assert seen == [(False, True)] * 2
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic) == before
