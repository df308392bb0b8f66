import copy

import pytest
import torch
from torch import nn

from prod9.losses.medicalnet import MedicalNetResNet10
from prod9.losses.perceptual import MedicalNetPerceptualLoss, normalize_intensity


@pytest.fixture(scope="module")
def loss_fn() -> MedicalNetPerceptualLoss:
    torch.manual_seed(0)
    return MedicalNetPerceptualLoss(MedicalNetResNet10().state_dict())


def _pair(shape: tuple[int, ...] = (2, 1, 16, 16, 16)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)


def test_zero_for_equal_volumes_and_blind_to_brightness_and_contrast(loss_fn):
    a, b = _pair()
    assert loss_fn(a, a).item() == 0.0
    assert loss_fn(a, b).item() > 1e-4
    torch.testing.assert_close(loss_fn(0.5 * a + 0.2, b), loss_fn(a, b), rtol=1e-3, atol=1e-6)


def test_intensities_are_normalised_over_the_batch():
    a, _ = _pair()
    normal = normalize_intensity(a)
    assert normal.mean().item() == pytest.approx(0, abs=1e-5)
    assert normal.std().item() == pytest.approx(1, rel=1e-5)
    # A volume with hardly any contrast is not blown up to full contrast.
    assert normalize_intensity(a * 1e-6).std().item() < 1e-3


def test_in_validation_a_volume_is_normalised_by_itself(loss_fn):
    """Whatever it comes with: processes need not agree on whose batch it is in."""
    a, b = _pair()
    a = a * torch.tensor([0.2, 1.0]).view(2, 1, 1, 1, 1)
    own = copy.deepcopy(loss_fn).eval()
    alone = torch.stack([own(a[i : i + 1], b[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(own(a, b), alone.mean(), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(own(a[:1], b[:1]), loss_fn(a[:1], b[:1]), rtol=1e-4, atol=1e-7)
    assert abs(float(own(a, b) / loss_fn(a, b)) - 1) > 1e-3  # the batch makes a difference


def test_squared_distance_of_unit_vectors(loss_fn):
    a, b = _pair()
    f, g = loss_fn.features(a), loss_fn.features(b)
    torch.testing.assert_close(f.norm(dim=1), torch.ones(2, 2, 2, 2))
    # |f - g|^2 = 2 - 2 f.g for unit vectors
    torch.testing.assert_close(loss_fn(a, b), (2 - 2 * (f * g).sum(1)).mean(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("which", ["prediction", "target", "both"])
def test_a_constant_volume_has_finite_loss_and_gradient(loss_fn, which):
    a, b = _pair((1, 1, 16, 16, 16))
    if which in ("prediction", "both"):
        a = torch.full_like(a, 0.3)
    if which in ("target", "both"):
        b = torch.zeros_like(b)
    a.requires_grad_()
    loss = loss_fn(a, b)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(a.grad).all()


def test_the_gradient_reaches_the_prediction_alone(loss_fn):
    a, b = _pair()
    a.requires_grad_()
    b.requires_grad_()
    loss_fn(a, b).backward()
    assert a.grad.abs().sum() > 0
    assert b.grad is None
    assert all(not p.requires_grad and p.grad is None for p in loss_fn.network.parameters())


def test_the_gradient_lowers_the_loss(loss_fn):
    a, b = _pair()
    a.requires_grad_()
    before = loss_fn(a, b)
    before.backward()
    after = loss_fn(a.detach() - 0.05 * a.grad / a.grad.abs().max(), b)
    assert after < before


def test_the_parent_neither_trains_saves_nor_optimises_the_network(loss_fn):
    parent = nn.ModuleDict({"loss": loss_fn, "net": nn.Linear(2, 2)})
    parent.train()
    assert all(not module.training for module in loss_fn.network.modules())
    assert set(parent.state_dict()) == {"net.weight", "net.bias"}
    assert len(list(parent.parameters())) == 2
    parent.load_state_dict(parent.state_dict())
    mean = loss_fn.network.bn1.running_mean.clone()
    loss_fn(*_pair())
    assert torch.equal(loss_fn.network.bn1.running_mean, mean)


def test_the_network_follows_the_volumes_to_their_device_and_keeps_its_dtype(loss_fn):
    parent = nn.ModuleList([copy.deepcopy(loss_fn)])
    parent.half()
    assert parent[0].network.conv1.weight.dtype == torch.float32
    assert torch.equal(parent[0].network.conv1.weight, loss_fn.network.conv1.weight)
    a = _pair()[0].to("meta")
    assert parent[0].features(a).device.type == "meta"
    assert parent[0].network.bn1.running_mean.device.type == "meta"
    assert loss_fn.network.conv1.weight.device.type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(loss_fn):
    moved = copy.deepcopy(loss_fn).cuda()
    a, b = _pair()
    torch.testing.assert_close(moved(a.cuda(), b.cuda()).cpu(), loss_fn(a, b), rtol=1e-2, atol=1e-4)


def test_fp32_under_autocast(loss_fn):
    a, b = _pair((1, 1, 16, 16, 16))
    a, b = a.bfloat16(), b.bfloat16()
    expected = loss_fn(a.float(), b.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_fn(a, b)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


def test_weights_of_another_network_are_refused():
    with pytest.raises(RuntimeError, match="conv1"):
        MedicalNetPerceptualLoss({"x": torch.zeros(1)})
