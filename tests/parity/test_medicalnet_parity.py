"""Our MedicalNet and perceptual loss against MONAI's, on equal random weights."""

import pytest
import torch
from monai.losses.perceptual import MedicalNetPerceptualSimilarity
from monai.networks.nets.resnet import resnet10

from prod9.losses.medicalnet import MedicalNetResNet10
from prod9.losses.perceptual import MedicalNetPerceptualLoss


@pytest.fixture(scope="module")
def network() -> MedicalNetResNet10:
    torch.manual_seed(0)
    network = MedicalNetResNet10().eval()
    for module in network.modules():  # statistics that a wrong batch norm would show
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.1, 0.1)
    # Low enough for the rectifier before the pooling to matter.
    torch.nn.init.uniform_(network.bn1.bias, -2.0, 0.0)
    return network


@pytest.fixture
def reference(network, monkeypatch) -> MedicalNetPerceptualSimilarity:
    monkeypatch.setattr(torch.hub, "load", lambda *args, **kwargs: network)
    return MedicalNetPerceptualSimilarity()


@pytest.mark.parametrize("shape", [(1, 1, 16, 16, 16), (2, 1, 28, 28, 28), (2, 3, 16, 24, 20)])
def test_loss_and_gradient(network, reference, shape):
    generator = torch.Generator().manual_seed(1)
    a = torch.rand(shape, generator=generator)
    b = (a + 0.3 * torch.randn(shape, generator=generator)).clamp(0, 1)
    ours, theirs = a.clone().requires_grad_(), a.clone().requires_grad_()
    loss = MedicalNetPerceptualLoss(network.state_dict())(ours, b)
    expected = reference(theirs, b).mean()  # what PerceptualLoss makes of it
    assert expected > 1e-3
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-7)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-8)


def test_the_trap_that_the_floor_avoids(network, reference):
    constant, other = torch.full((1, 1, 16, 16, 16), 0.5), torch.rand(1, 1, 16, 16, 16)
    assert torch.isnan(reference(constant, other)).all()
    assert torch.isfinite(MedicalNetPerceptualLoss(network.state_dict())(constant, other))


def test_backbone_is_monais_resnet10_with_dilated_stages(network):
    other = resnet10(
        spatial_dims=3,
        n_input_channels=1,
        conv1_t_size=7,
        conv1_t_stride=2,
        feed_forward=False,
        shortcut_type="B",
        bias_downsample=False,
    ).eval()
    # MONAI's has MedicalNet's keys and shapes, but strides where MedicalNet dilates.
    other.load_state_dict(network.state_dict())
    for block, dilation in ((other.layer3[0], 2), (other.layer4[0], 4)):
        for conv in (block.conv1, block.conv2):
            conv.stride, conv.dilation, conv.padding = (1,) * 3, (dilation,) * 3, (dilation,) * 3
        block.downsample[0].stride = (1, 1, 1)
    x = torch.randn(1, 1, 24, 20, 16)
    with torch.no_grad():
        theirs = other.maxpool(other.act(other.bn1(other.conv1(x))))
        for stage in (other.layer1, other.layer2, other.layer3, other.layer4):
            theirs = stage(theirs)
        torch.testing.assert_close(network(x), theirs, rtol=1e-5, atol=1e-6)
