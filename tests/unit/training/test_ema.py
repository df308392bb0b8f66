import pytest
import torch
from torch import nn

from prod9.networks.autoencoder import Autoencoder
from prod9.training.ema import EMA


def linear(value: float) -> nn.Linear:
    layer = nn.Linear(2, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


def weight(ema: EMA[nn.Linear]) -> float:
    return float(ema.network.weight[0, 0])


@pytest.mark.parametrize("decay", [0.0, 0.05, 0.5, 0.999])
def test_closed_form(decay: float) -> None:
    network = linear(0.0)
    ema = EMA(network, decay)
    values = [1.0, -2.0, 0.5, 3.0, 3.0]
    for value in values:
        nn.init.constant_(network.weight, value)
        ema.update(network)
    decays = [min(decay, (1 + n) / (10 + n)) for n in range(1, 6)]
    expected, later = 0.0, 1.0
    for value, d in zip(reversed(values), reversed(decays), strict=True):
        expected += later * (1 - d) * value
        later *= d
    assert weight(ema) == pytest.approx(expected, rel=1e-6)
    assert int(ema.updates) == 5


def test_without_decay_it_is_the_network() -> None:
    network = linear(0.3)
    ema = EMA(network, 0.0)
    nn.init.constant_(network.weight, 0.7)
    ema.update(network)
    assert torch.equal(ema.network.weight, network.weight)


def test_it_is_a_frozen_copy_in_evaluation_mode() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    ema = EMA(network, 0.9)
    nn.Sequential(ema).train()
    assert not any(m.training for m in ema.network.modules())
    assert not any(p.requires_grad for p in ema.parameters())
    before = ema.network[0].weight.clone()
    nn.init.zeros_(network[0].weight)
    assert torch.equal(ema.network[0].weight, before)


def test_buffers_follow_too_and_counts_do_not() -> None:
    network = nn.BatchNorm1d(2)
    ema = EMA(network, 0.5)
    assert network.running_mean is not None
    network.running_mean.fill_(11.0)
    assert network.num_batches_tracked is not None
    network.num_batches_tracked.fill_(5)
    ema.update(network)
    d = 2 / 11
    assert float(ema.network.running_mean[0]) == pytest.approx(11 * (1 - d))
    assert int(ema.network.num_batches_tracked) == 0


def test_a_tensor_with_two_names_follows_once() -> None:
    # The autoencoder's last layer has one for the adaptive weight and one in the decoder.
    model = Autoencoder(
        in_channels=1,
        levels=(3, 3),
        num_channels=(4,),
        attention_levels=None,
        num_res_blocks=1,
        norm_num_groups=2,
        stem_stride=1,
    )
    ema = EMA(model, 0.999)
    before = {name: p.clone() for name, p in ema.network.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    ema.update(model)
    for name, parameter in ema.network.named_parameters():
        torch.testing.assert_close(parameter, before[name] + 1 - 2 / 11, msg=name)


def test_the_count_survives_a_checkpoint() -> None:
    network = linear(0.0)
    ema = EMA(network, 0.999)
    for value in (1.0, 2.0):
        nn.init.constant_(network.weight, value)
        ema.update(network)
    resumed = EMA(linear(9.0), 0.999)
    resumed.load_state_dict(ema.state_dict())
    nn.init.constant_(network.weight, 5.0)
    ema.update(network)
    resumed.update(network)
    assert weight(resumed) == weight(ema)
    assert int(resumed.updates) == 3
