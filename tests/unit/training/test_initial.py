"""Fine-tuning starts from the weights of another model."""

from pathlib import Path

import pytest
import torch

from prod9.config import AutoencoderConfig, Stage1Config, Stage2Config, TransformerConfig
from prod9.config.load import dump
from prod9.errors import Prod9Error
from prod9.model import TransformerSpec, save_transformer, untrained
from prod9.tokenizer import Tokenizer, TokenizerSpec, build_autoencoder
from prod9.training.initial import start_stage1, start_stage2, transfer
from prod9.training.stage1 import build_module
from prod9.training.stage2_module import Stage2Module

SMALL = AutoencoderConfig(levels=(5, 4, 3), num_channels=(8, 8), norm_num_groups=4)
SIZES = TransformerConfig(hidden_dim=32, num_blocks=1, num_heads=2, token_dim=8)
DATA = {"dataset_name": "adrenalmnist3d"}


def stage1(folder: Path, sizes: AutoencoderConfig = SMALL) -> Stage1Config:
    return Stage1Config.model_validate(
        {
            "output_dir": folder / "run",
            "autoencoder_export_path": folder / "new.pt",
            "data": DATA,
            "model": {"autoencoder": sizes},
            "loss": {"loss_type": "ffl", "adversarial": {"weight": 0.0}},
        }
    )


def spec(classes: tuple[str, ...], sizes: TransformerConfig = SIZES) -> TransformerSpec:
    return TransformerSpec(
        transformer=sizes,
        levels=SMALL.levels,
        class_names=classes,
        grid=(4, 4, 4),
        window=(4, 4, 4),
        tokenizer_digest="",
        config_yaml="",
    )


def stage2(
    folder: Path, classes: tuple[str, ...], sizes: TransformerConfig = SIZES
) -> Stage2Module:
    config = Stage2Config.model_validate(
        {
            "output_dir": folder / "run2",
            "autoencoder_path": folder / "old.pt",
            "data": DATA,
            "model": {"transformer": sizes},
        }
    )
    return Stage2Module(config, untrained(spec(classes, sizes)))


def export_tokenizer(path: Path) -> Tokenizer:
    torch.manual_seed(1)
    found = TokenizerSpec(
        autoencoder=SMALL,
        dataset_name="adrenalmnist3d",
        volume_shape=(8, 8, 8),
        spacing_mm=(1.0, 1.0, 1.0),
        class_names=("a",),
        config_yaml=dump(stage1(path.parent)),
    )
    tokenizer = Tokenizer(found, build_autoencoder(SMALL))
    tokenizer.save(path)
    return tokenizer


def test_stage1_has_the_tokenizers_weights(tmp_path: Path) -> None:
    old = export_tokenizer(tmp_path / "old.pt")
    torch.manual_seed(2)
    module = build_module(stage1(tmp_path))
    volume = torch.rand(1, 1, 8, 8, 8)
    wanted = old.autoencoder(volume).volume
    assert not torch.equal(module.autoencoder(volume).volume, wanted)
    start_stage1(module, tmp_path / "old.pt")
    assert torch.equal(module.autoencoder(volume).volume, wanted)
    assert torch.equal(module.ema.network(volume).volume, wanted)


def test_a_tokenizer_of_other_sizes_is_refused(tmp_path: Path) -> None:
    export_tokenizer(tmp_path / "old.pt")
    module = build_module(stage1(tmp_path, SMALL.model_copy(update={"num_channels": (8, 16)})))
    with pytest.raises(Prod9Error, match=r"old\.pt"):
        start_stage1(module, tmp_path / "old.pt")


def test_stage2_starts_with_new_classes(tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = spec(("a", "b"))
    old = untrained(theirs)
    with torch.no_grad():
        for weight in old.parameters():
            weight.normal_()
    save_transformer(tmp_path / "old.pt", theirs, old)
    module = stage2(tmp_path, ("a", "b", "c", "d"))
    before = module.transformer.state_dict()["class_embedding.weight"].clone()
    start_stage2(module, tmp_path / "old.pt")
    mine, averaged = module.transformer.state_dict(), module.ema.network.state_dict()
    for name, weight in old.state_dict().items():
        if name != "class_embedding.weight":
            assert torch.equal(mine[name], weight), name
    assert torch.equal(mine["class_embedding.weight"], before)
    assert all(torch.equal(mine[name], averaged[name]) for name in mine)


def test_a_transformer_of_another_width_is_refused(tmp_path: Path) -> None:
    theirs = spec(("a", "b"), SIZES.model_copy(update={"hidden_dim": 16}))
    save_transformer(tmp_path / "old.pt", theirs, untrained(theirs))
    with pytest.raises(Prod9Error, match=r"old\.pt"):
        start_stage2(stage2(tmp_path, ("a", "b")), tmp_path / "old.pt")


def test_what_does_not_fit_is_named() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
    weights = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(4), "9.weight": torch.ones(1)}
    assert transfer(network, weights) == ["0.bias", "1.weight", "1.bias"]
    assert torch.equal(network[0].weight, torch.ones(3, 2))
