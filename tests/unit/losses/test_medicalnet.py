from pathlib import Path

import pytest
import torch
from torch import nn

from prod9.errors import Prod9Error
from prod9.losses.medicalnet import DilatedConv3d, MedicalNetResNet10, load_weights


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return MedicalNetResNet10().state_dict()


def _save(path: Path, content: object, **options: object) -> Path:
    torch.save(content, path, **options)
    return path


def test_size_and_keys_of_the_published_file(weights):
    # Figures read off resnet_10_23dataset.pth by others: 72 tensors, 14,361,292 numbers with the
    # batch norms' statistics, 14,355,520 parameters.
    assert sum(p.numel() for p in MedicalNetResNet10().parameters()) == 14_355_520
    assert len(weights) == 72
    assert sum(w.numel() for w in weights.values()) == 14_361_292
    shapes = {key: tuple(w.shape) for key, w in weights.items()}
    assert shapes["conv1.weight"] == (64, 1, 7, 7, 7)
    assert shapes["layer1.0.conv2.weight"] == (64, 64, 3, 3, 3)
    assert shapes["layer2.0.downsample.0.weight"] == (128, 64, 1, 1, 1)
    assert shapes["layer4.0.downsample.1.running_var"] == (512,)
    assert not any(key.startswith("layer1.0.downsample") for key in weights)


@pytest.mark.parametrize(("side", "features"), [(16, 2), (28, 4), (33, 5)])
def test_features_come_at_an_eighth_of_the_size(side, features):
    with torch.device("meta"):
        out = MedicalNetResNet10()(torch.zeros(2, 1, side, 16, 8))
    assert out.shape == (2, 512, features, 2, 1)


def test_all_the_ways_the_file_is_written(tmp_path, weights):
    prefixed = {f"module.{key}": value for key, value in weights.items()}
    head = {"module.conv_seg.0.weight": torch.zeros(3), "conv_seg.1.bias": torch.zeros(1)}
    for name, content, options in [
        ("published", {"state_dict": prefixed}, {"_use_new_zipfile_serialization": False}),
        ("zip", {"state_dict": prefixed, "epoch": 3}, {}),
        ("plain", weights, {}),
        ("prefixed", prefixed, {}),
        ("with-head", {"state_dict": prefixed | head}, {}),
        ("half", {key: v.half() if v.is_floating_point() else v for key, v in weights.items()}, {}),
    ]:
        path = _save(tmp_path / name, content, **options)
        loaded = load_weights(path)
        assert loaded.keys() == weights.keys()
        assert loaded["conv1.weight"].dtype == torch.float32
        tolerance = 1e-3 if name == "half" else 0.0
        for key, value in weights.items():
            torch.testing.assert_close(loaded[key], value, rtol=tolerance, atol=tolerance)
        MedicalNetResNet10().load_state_dict(loaded)


class _Code:
    """Runs ``open`` on a file when it is unpickled by a careless reader."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> object:
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_the_file_is_not_run(tmp_path, legacy):
    target = tmp_path / "owned"
    content = {"state_dict": _Code(target)}
    path = _save(tmp_path / "evil.pth", content, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(Prod9Error, match="plain data"):
        load_weights(path)
    assert not target.exists()


def test_a_pickled_module_is_refused(tmp_path):
    with pytest.raises(Prod9Error, match="plain data"):
        load_weights(_save(tmp_path / "module.pth", nn.Linear(2, 2)))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.00001, 0.5, 0.99])
def test_a_file_cut_short_is_refused(tmp_path, weights, legacy, share):
    path = _save(tmp_path / "w.pth", weights, _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(Prod9Error, match="torn"):
        load_weights(path)


@pytest.mark.parametrize(
    "content", [b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/", b"\0" * 2000]
)
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(Prod9Error, match="no PyTorch file"):
        load_weights(path)


def test_a_missing_file_or_a_folder_is_named(tmp_path):
    for path in (tmp_path / "nowhere.pth", tmp_path):
        with pytest.raises(Prod9Error, match=f"no file {path}"):
            load_weights(path)


def test_the_first_wrong_key_is_named(tmp_path, weights):
    renamed = {key.replace("layer1", "stage1"): value for key, value in weights.items()}
    missing = {key: value for key, value in weights.items() if key != "layer3.0.bn2.bias"}
    shapes = weights | {"layer4.0.conv1.weight": torch.zeros(512, 128, 3, 3, 3)}
    for content, message in [
        (renamed, "layer1.0.conv1.weight"),
        (missing, "layer3.0.bn2.bias"),
        (weights | {"fc.weight": torch.zeros(1)}, "fc.weight"),
        (weights | {"bn1.bias": "text"}, "bn1.bias"),
        (shapes, "layer4.0.conv1.weight"),
    ]:
        with pytest.raises(Prod9Error, match=f"`{message}`.*resnet_10_23dataset.pth") as caught:
            load_weights(_save(tmp_path / "w.pth", content))
        assert "\n" not in str(caught.value)


def test_content_without_a_state_dict_is_refused(tmp_path):
    for content in ([1, 2], {"state_dict": 3}, torch.zeros(2)):
        with pytest.raises(Prod9Error, match="no state dict"):
            load_weights(_save(tmp_path / "w.pth", content))


@pytest.mark.parametrize("sides", [(4, 4, 4), (2, 3, 4), (1, 1, 1), (5, 4, 4), (8, 8, 8)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 4), (2, 1), (1, 2), (2, 4)])
def test_a_dilation_beyond_the_grid_changes_the_work_alone(
    sides: tuple[int, ...], stride: int, dilation: int
) -> None:
    torch.manual_seed(0)
    ours = DilatedConv3d(3, 5, stride, dilation)
    plain = nn.Conv3d(3, 5, 3, stride, padding=dilation, dilation=dilation, bias=False)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, *sides, requires_grad=True)
    expected = plain(x)
    gradient = torch.randn_like(expected)
    torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5)
    found = torch.autograd.grad(ours(x), [x, ours.weight], gradient)
    for mine, theirs in zip(
        found, torch.autograd.grad(expected, [x, plain.weight], gradient), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
