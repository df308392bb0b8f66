"""The device that was chosen reaches every network whose features are compared."""

from pathlib import Path
from typing import Any

import pytest
import torch

from prod9.data.volume_sets.volume_set import VolumeSet, of_tensor
from prod9.evaluation import evaluator as runner
from prod9.evaluation import pretrained as networks
from prod9.evaluation.evaluator import Evaluator
from prod9.evaluation.feature_spaces import FeatureSpace, features_of
from prod9.evaluation.work_cache import WorkCache
from prod9.losses import perceptual
from prod9.losses.medicalnet import MedicalNetResNet10
from prod9.losses.perceptual import MedicalNetPerceptualLoss

DEVICE = torch.device("cuda", 1)


def volumes(name: str) -> VolumeSet:
    return of_tensor(torch.rand(3, 1, 6, 6, 6), torch.zeros(3).long(), ("a",), name)


def toy(device: torch.device) -> FeatureSpace:
    def embed(batch: torch.Tensor) -> torch.Tensor:
        return batch.flatten(1)[:, :2]

    return FeatureSpace("efficientnet", "toy", 2, "sha", embed, device.type)


def test_settings_say_where_networks_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, torch.device]] = []

    def efficientnet(device: torch.device) -> FeatureSpace:
        asked.append(("efficientnet", device))
        return toy(device)

    def medicalnet(_path: Path, device: torch.device) -> FeatureSpace:
        asked.append(("medicalnet", device))
        return toy(device)

    def lpips(_path: Path, device: torch.device) -> Any:
        asked.append(("lpips", device))
        return lambda x, y: (x - y).abs().mean()

    weights = tmp_path / "weights.pth"
    weights.touch()
    monkeypatch.setattr(networks, "efficientnet_space", efficientnet)
    monkeypatch.setattr(networks, "medicalnet_space", medicalnet)
    monkeypatch.setattr(runner, "lpips_of", lpips)
    monkeypatch.setenv("PROD9_CACHE", str(tmp_path / "cache"))
    evaluator = Evaluator(usefulness=False, medicalnet=weights, device=DEVICE)
    evaluator.measure_reconstruction(volumes("real"), volumes("again"))
    evaluator.measure_generation(volumes("real"), volumes("generated"), None)
    assert asked == [("lpips", DEVICE), ("efficientnet", DEVICE), ("medicalnet", DEVICE)]


def test_features_of_one_kind_of_device_are_not_taken_for_anothers(tmp_path: Path) -> None:
    real = volumes("real")
    for device, files in ((DEVICE, 1), (torch.device("cuda", 0), 1), (torch.device("cpu"), 2)):
        features_of(toy(device), real, WorkCache(tmp_path))
        assert len([*tmp_path.iterdir()]) == files


def test_lpips_asks_no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of several measures volumes of its own, and another number of them."""
    state = MedicalNetResNet10().state_dict()
    monkeypatch.setattr(networks, "load_weights", lambda path: state)
    distance = networks.lpips_of(Path("weights.pth"))

    def waits(value: torch.Tensor) -> torch.Tensor:
        raise AssertionError("waits for the other processes")

    monkeypatch.setattr(perceptual, "world_size", lambda: 2)
    monkeypatch.setattr(perceptual, "total", waits)
    assert float(distance(torch.rand(1, 1, 8, 8, 8), torch.rand(1, 1, 8, 8, 8))) > 0


def test_lpips_is_that_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = MedicalNetResNet10().state_dict()
        first, second = torch.rand(2, 1, 1, 16, 16, 16)
    monkeypatch.setattr(networks, "load_weights", lambda path: state)
    found = networks.lpips_of(Path("weights.pth"))(first, second)
    assert float(found) == float(MedicalNetPerceptualLoss(state).eval()(first, second)) > 0
