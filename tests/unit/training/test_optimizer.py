from types import SimpleNamespace
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from prod9.config.training import OptimizerConfig
from prod9.training.optimizer import adamw


def module(scaler: object) -> pl.LightningModule:
    """Return a module whose trainer scales losses so."""
    found: Any = pl.LightningModule()
    found._trainer = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler))
    return found


def test_fused_equals_the_formula_in_any_memory_layout() -> None:
    torch.manual_seed(0)
    config = OptimizerConfig(betas=(0.8, 0.95), weight_decay=0.1)
    weight = torch.randn(4, 3, 3, 3, 3).contiguous(memory_format=torch.channels_last_3d)
    parameter, expected = nn.Parameter(weight.clone()), weight.double()
    optimizer = adamw(module(None), [parameter], config, 1e-2)
    assert optimizer.defaults["fused"]
    m = v = torch.zeros(4, 3, 3, 3, 3, dtype=torch.float64)
    for t in range(1, 6):
        g = torch.randn(4, 3, 3, 3, 3)
        (parameter * g).sum().backward()  # contiguous: autograd brings it into the weight's layout
        optimizer.step()
        optimizer.zero_grad()
        expected = expected - 1e-2 * 0.1 * expected
        m, v = 0.8 * m + 0.2 * g.double(), 0.95 * v + 0.05 * g.double() ** 2
        m_hat, v_hat = m / (1 - 0.8**t), v / (1 - 0.95**t)
        expected = expected - 1e-2 * m_hat / (v_hat.sqrt() + 1e-8)
    torch.testing.assert_close(parameter.detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_not_fused_where_losses_are_scaled() -> None:
    parameters = [nn.Parameter(torch.ones(2))]
    scaled = module(torch.amp.GradScaler("cpu"))
    assert not adamw(scaled, parameters, OptimizerConfig(), 1e-3).defaults["fused"]
