"""A lever that is not pulled changes the time, not the result."""

import pytest
import torch
from torch import nn

from benchmarks import levers
from prod9.networks.cpu_kernels.conv import Conv3d


def test_cases_differ_in_the_lever_alone() -> None:
    for case in levers.cases():
        ours, without = case.contenders
        assert ours.setup is without.setup
        assert ours.arguments == {"lever": True, "seed": 0}
        assert without.arguments == {"lever": False, "seed": 0}


def test_both_sides_of_a_single_volume_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levers, "_keep", lambda lever=True: None)
    monkeypatch.setattr(levers, "_WIDTHS", (8, 16))
    outputs: list[torch.Tensor] = []
    networks: list[nn.Module] = []
    make = levers._autoencoder

    def kept() -> nn.Module:
        network = make()
        network.register_forward_hook(lambda m, a, out: outputs.append(out.codes))
        networks.append(network)
        return network

    monkeypatch.setattr(levers, "_autoencoder", kept)
    for lever in (True, False):
        levers.single_volume(lever, 0).run()
    ours, without = outputs
    torch.testing.assert_close(ours, without)
    kinds = [{type(m) for m in n.modules() if isinstance(m, nn.Conv3d)} for n in networks]
    assert Conv3d in kinds[0]
    assert kinds[1] == {nn.Conv3d}
