"""A data set from outside of prod9 goes through everything that prod9's own go through."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prod9.config import SourceConfig, Stage1Config, Stage2Config
from prod9.config.data import AugmentationConfig
from prod9.config.load import dump, load
from prod9.data.array_dataset import ArrayDataset
from prod9.data.crops import examples
from prod9.data.dataset import (
    Channel,
    Covariate,
    open_splits,
    outline,
    register_dataset,
    require_unseen,
)
from prod9.errors import Prod9Error
from prod9.evaluation.test_metrics import measure_stage1, measure_stage2
from prod9.evaluation.translation import source_sets
from prod9.planning.data_sizes import sizes_of
from prod9.registry import DATASETS
from prod9.sample_request import SampleRequest
from prod9.training import stage1, stage2
from prod9.training.tokens import load_tokenizer, training_tokens

CHANNELS = (Channel("image"), Channel("edges"))
CLASSES = ("ball", "box", "bar")
COVARIATES = (Covariate("age", mean=50.0, std=20.0), Covariate("sex", ("F", "M")))
SIDE = 12
SPLIT = {"train": range(8), "val": range(8, 10), "test": range(10, 13)}
"""Subjects; each has two items."""


class ShapesConfig(SourceConfig):
    seed: int = 0
    augmentation: AugmentationConfig = AugmentationConfig()


def shapes(config: ShapesConfig, split: str) -> ArrayDataset:
    """Return cubes of which the class is seen, and the covariates are not always given."""
    items = [subject for subject in SPLIT[split] for _ in range(2)]
    random = np.random.default_rng(config.seed)
    images = random.random((len(items), 2, SIDE, SIDE, SIDE)).astype(np.float32) / 4
    for number in range(len(items)):
        images[number, :, : 4 + 3 * (number % 3), 3:9, 3:9] += 0.5
    return ArrayDataset(
        f"shapes/{split}",
        images,
        CHANNELS,
        names=[f"{split}{number}" for number in range(len(items))],
        classes=np.arange(len(items)) % 3,
        class_names=CLASSES,
        subjects=[f"s{subject:02d}" for subject in items],
        covariates=COVARIATES,
        values=[(None if n % 4 == 0 else 40.0 + n, float(n % 2) if n % 3 else None) for n in items],
        spacing_mm=(2.0, 2.0, 2.0),
    )


@pytest.fixture(scope="module")
def own() -> Iterator[None]:
    @register_dataset("shapes", ShapesConfig)
    def open_shapes(config: Any, preprocessing: Any = None) -> Any:
        return {split: shapes(config, split) for split in SPLIT}

    yield
    DATASETS.remove("shapes")


def common(folder: Path) -> dict[str, Any]:
    return {
        "data": {"dataset_name": "shapes", "batch_size": 4},
        "trainer": {"max_epochs": 1, "log_every_n_steps": 1, "logger": "csv"},
        "training": {"scheduler": {"warmup_steps": 1}},
        "callbacks": {"preview": {"every_n_steps": 4, "num_volumes": 4}},
    }


@pytest.fixture(scope="module")
def configs(own: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("shapes")
    one = common(folder) | {
        "output_dir": folder / "one",
        "autoencoder_export_path": folder / "tokenizer.pt",
        "model": {"autoencoder": {"num_channels": (8, 8), "norm_num_groups": 4}},
        "loss": {"loss_type": "ffl", "adversarial": {"weight": 0.0}},
    }
    sizes = {"hidden_dim": 32, "num_blocks": 1, "num_heads": 2, "token_dim": 8}
    two = common(folder) | {
        "output_dir": folder / "two",
        "autoencoder_path": folder / "tokenizer.pt",
        "model": {"transformer": sizes},
        "evaluation": {"samples_per_class": 0},
        "completion": {"steps": 2},
    }
    return Stage1Config.model_validate(one), Stage2Config.model_validate(two)


@pytest.fixture(scope="module")
def model(configs: Any) -> Any:
    tokenizer = stage1.train(configs[0])
    assert tokenizer.spec.volume_shape == (SIDE,) * 3
    assert tokenizer.spec.train_subjects == tuple(f"s{i:02d}" for i in range(8))
    return stage2.train(configs[1])


def test_the_configuration_knows_it(configs: Any, tmp_path: Path) -> None:
    path = tmp_path / "shapes.yaml"
    path.write_text(dump(configs[0]))
    assert load(path, Stage1Config, ["data.seed=3"]).data.seed == 3  # type: ignore[attr-defined]
    with pytest.raises(Prod9Error, match=r"data\.seeds.*seed"):
        load(path, Stage1Config, ["data.seeds=3"])


def test_samples_are_classes_times_channels_with_their_covariates(configs: Any, model: Any) -> None:
    tokenizer = load_tokenizer(configs[1])
    batch = examples(training_tokens(configs[1], tokenizer).train, 32)
    data = open_splits(configs[1].data)["train"]
    assert data.label_names[:3] == ("ball/image", "ball/edges", "box/image")
    assert len(batch.names) == len(data) * 2
    for row, (label, name) in enumerate(zip(batch.labels.tolist(), batch.names, strict=True)):
        item, channel = divmod(row, 2)
        assert divmod(label, 2) == (data.class_of(item), channel)
        assert name == f"{data.names[item]}/{CHANNELS[channel].name}"
        expected = [np.nan if v is None else v for v in data.covariates_of(item)]
        assert np.array_equal(batch.covariates[row], expected, equal_nan=True)
        assert bool((batch.sources[row, channel] == tokenizer.codebook_size).all())
    other = batch.sources[0, 1]
    assert torch.equal(other, batch.tokens[1])


def test_class_channel_and_covariates_each_change_what_is_predicted(model: Any) -> None:
    network = model.transformer
    for table in (network.class_embedding, network.channel_embedding):
        table.weight.data.normal_()
    for block in network.blocks:
        block.modulation.weight.data.normal_(std=0.1)
    from prod9.networks.condition import Condition

    tokens = torch.full((1, *model.tokenizer.grid()), model.transformer.mask_id)

    def logits(label: int, *values: float) -> Any:
        covariates = torch.tensor([values]) if values else None
        return network(tokens, Condition.of(torch.tensor([label]), 2, covariates=covariates))

    nothing = logits(0)
    assert torch.equal(logits(0, np.nan, np.nan), nothing)
    others = [logits(1), logits(2), logits(-2), logits(0, 70.0, np.nan), logits(0, np.nan, 1.0)]
    others += [logits(0, 30.0, np.nan), logits(0, np.nan, 0.0)]
    for number, one in enumerate(others):
        assert not torch.equal(one, nothing)
        assert all(not torch.equal(one, other) for other in others[:number])


def test_it_is_saved_generated_and_measured(configs: Any, model: Any) -> None:
    loaded = stage2.load(configs[1])
    assert loaded.spec.class_names == CLASSES
    assert loaded.channels == ("image", "edges")
    assert [each.name for each in loaded.spec.covariates] == ["age", "sex"]
    labels = loaded.labels_of(["box/edges", "image"], 1)
    assert labels == (3, -2)  # of a class, and of none
    tokens = loaded.sample(SampleRequest.generation_of(configs[1], labels))
    assert tokens.shape == (2, *loaded.tokenizer.grid())
    assert float(measure_stage1(configs[0], "test")["psnr"]) > 0  # type: ignore[arg-type]
    figures = measure_stage2(configs[1], "test")
    assert "edges from image, foreground PSNR" in figures
    assert source_sets(open_splits(configs[1].data)["test"]) == (1, [[0]])


def test_the_plan_counts_it(configs: Any, model: Any) -> None:
    assert outline(configs[0].data).train == 16
    sizes = sizes_of(configs[1])
    assert sizes.volumes == (32, 8)
    assert sizes.sample == (SIDE,) * 3


def test_a_held_out_subject_was_not_trained_on(configs: Any) -> None:
    splits = {split: shapes(configs[0].data, split) for split in SPLIT}
    require_unseen(splits["train"].subjects, splits, "the tokenizer")
    with pytest.raises(Prod9Error, match="s11"):
        require_unseen(["s11", "s00"], splits, "the tokenizer")
