"""How long a training step takes on this machine, measured with untrained networks."""

import time
from collections.abc import Callable

import torch

from prod9.config import Stage1Config, Stage2Config
from prod9.model import TransformerSpec, untrained
from prod9.networks.condition import Condition
from prod9.runtime.device import resolve_device
from prod9.runtime.random_streams import step_stream
from prod9.training.stage1 import build_module
from prod9.training.stage1_module import sum_of

_TIMED = 2
"""Steps that are timed, after one to warm up; the quickest counts."""


def stage1_step_seconds(config: Stage1Config) -> float:
    """Return the seconds of a step: forward, losses and backward of a batch of training crops."""
    device = resolve_device(config.trainer.accelerator)
    module = build_module(config).to(device)
    shape = (config.data.batch_size, 1, *config.sliding_window.roi_size)
    volumes = torch.rand(shape, generator=step_stream(0, 0, 0)).to(device)

    def step() -> None:
        module.zero_grad()
        volume = module.autoencoder(volumes).volume
        sum_of(module.reconstruction_terms(volume, volumes)).backward()

    return _quickest(step, device)


def stage2_step_seconds(config: Stage2Config, spec: TransformerSpec) -> float:
    """Return the seconds of a step of the transformer that ``spec`` describes."""
    device = resolve_device(config.trainer.accelerator)
    network = untrained(spec).to(device).train()
    shape = (config.data.batch_size, *spec.window)
    stream = step_stream(0, 0, 0)
    targets = torch.randint(0, network.mask_id, shape, generator=stream).to(device)
    mask = (torch.rand(shape, generator=stream) < 0.6).to(device)
    tokens = targets.masked_fill(mask, network.mask_id)
    labels = torch.zeros(len(tokens), dtype=torch.long, device=device)
    sources = None
    if given := network.num_sources:
        sources = targets[:, None].expand(-1, given, *spec.window)
    origin = torch.zeros(len(tokens), 3, device=device)
    condition = Condition.of(labels, max(1, len(spec.channels)), sources, origin)

    def step() -> None:
        network.zero_grad()
        network.loss(tokens, mask, targets, condition, 0.1)[0].backward()

    return _quickest(step, device)


def _quickest(step: Callable[[], None], device: torch.device) -> float:
    seconds: list[float] = []
    for _ in range(1 + _TIMED):
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
