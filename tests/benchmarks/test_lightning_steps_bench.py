"""Single steps of a Lightning loop, and the counting of their arithmetic."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.flops import flops_of
from benchmarks.lightning_steps import LightningSteps
from prod9.config import TrainerConfig

BATCH = torch.tensor([[1.0, 2.0, 3.0], [0.5, -1.0, 2.0]])
RATE = 0.1


class Line(pl.LightningModule):
    """Gradient descent on the squares of a linear map, in Lightning's own or in manual steps."""

    def __init__(self, *, manual: bool = False, fail_at: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 4)
        self.automatic_optimization = not manual
        self.fail_at = fail_at
        self.ended = 0
        self.threads: int | None = None

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor | None:
        self.threads = torch.get_num_threads()
        if batch_idx == self.fail_at:
            raise ValueError("no more")
        loss = self.layer(batch).square().mean()
        if self.automatic_optimization:
            return loss
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return None

    def on_train_batch_end(self, outputs: Any, batch: Tensor, batch_idx: int) -> None:
        self.ended += 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=RATE)


def expected(steps: int) -> Tensor:
    layer = Line().layer
    for _ in range(steps):
        layer.zero_grad()
        layer(BATCH).square().mean().backward()
        with torch.no_grad():
            for parameter in layer.parameters():
                assert parameter.grad is not None
                parameter -= RATE * parameter.grad
    return layer.weight.detach()


@pytest.mark.parametrize("manual", [False, True])
def test_a_step_is_one_batch_with_all_its_hooks(manual: bool) -> None:
    module = Line(manual=manual)
    steps = LightningSteps(module, BATCH, TrainerConfig(accelerator="cpu"))
    assert module.ended == 0
    torch.testing.assert_close(module.layer.weight.detach(), expected(0))
    for done in (1, 2, 3):
        steps.step()
        assert module.ended == done
        torch.testing.assert_close(module.layer.weight.detach(), expected(done))
    assert module.threads == torch.get_num_threads()
    steps.close()
    steps.close()
    assert module.ended == 3
    with pytest.raises(RuntimeError, match="closed"):
        steps.step()


def test_a_failure_in_the_loop_reaches_whoever_waits() -> None:
    steps = LightningSteps(Line(fail_at=1), BATCH, TrainerConfig(accelerator="cpu"))
    steps.step()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="training loop failed") as caught:
            steps.step()
        assert isinstance(caught.value.__cause__, ValueError)
        assert str(caught.value.__cause__) == "no more"
    steps.close()


def test_counting_takes_a_step_and_changes_nothing_about_it() -> None:
    module = Line()
    steps = LightningSteps(module, BATCH, TrainerConfig(accelerator="cpu"))
    # (2 x 3) times (3 x 4) forward, and as much for the weight's gradient; the batch needs none.
    assert steps.flops() == 2 * (2 * 2 * 3 * 4)
    torch.testing.assert_close(module.layer.weight.detach(), expected(1))
    steps.step()
    torch.testing.assert_close(module.layer.weight.detach(), expected(2))
    assert steps.flops() == 2 * (2 * 2 * 3 * 4)
    steps.close()


def test_flops_of_a_convolution() -> None:
    x, weight = torch.rand(2, 3, 4, 4, 4), torch.rand(5, 3, 3, 3, 3, requires_grad=True)
    forward = 2 * (2 * 5 * 4**3) * 3 * 27
    assert flops_of(lambda: F.conv3d(x, weight, padding=1)) == forward
    assert flops_of(lambda: F.conv3d(x, weight, padding=1).sum().backward()) == 2 * forward
    x.requires_grad_()
    assert flops_of(lambda: F.conv3d(x, weight, padding=1).sum().backward()) == 3 * forward


def test_flops_when_only_some_gradients_are_asked_for() -> None:
    layers = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4))
    seen = BATCH.clone().requires_grad_()

    def work() -> None:
        torch.autograd.grad(layers(seen).sum(), seen)

    first, second = 2 * 2 * 3 * 4, 2 * 2 * 4 * 4
    assert flops_of(work) == 2 * (first + second)


def test_flops_of_onednn_linear_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    from prod9.networks.cpu_kernels import library
    from prod9.networks.cpu_kernels.linear import Linear

    chosen = {"output": True, "weight": True, "convolution": False}
    monkeypatch.setattr(library, "choice", lambda: chosen)
    layer, x = Linear(8, 6), torch.rand(32, 8)  # enough rows for the fast way
    assert flops_of(lambda: layer(x)) == 2 * 32 * 8 * 6
    assert flops_of(lambda: layer(x).sum().backward()) == 2 * (2 * 32 * 8 * 6)
