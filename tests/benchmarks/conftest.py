"""Small networks for the benchmarks' own tests."""

from typing import Any

import pytest

from benchmarks import sampling, stage2_step


@pytest.fixture
def small_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the shipped configuration be a small one."""
    real = stage2_step.shipped
    sizes = ["hidden_dim=24", "num_blocks=2", "num_heads=2", "token_dim=8"]

    def small(patch_size: int, *overrides: str) -> Any:
        return real(patch_size, *(f"model.transformer.{size}" for size in sizes), *overrides)

    for module in (stage2_step, sampling):
        monkeypatch.setattr(module, "shipped", small)
