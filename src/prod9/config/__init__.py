"""Configuration: pydantic models that hold every default, and the YAML loader."""

from pathlib import Path
from typing import Union, cast

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from prod9.config.base import Section
from prod9.config.data import BraTSDataConfig as BraTSDataConfig
from prod9.config.data import BraTSSourceConfig as BraTSSourceConfig
from prod9.config.data import MedMNISTDataConfig as MedMNISTDataConfig
from prod9.config.data import MedMNISTSourceConfig as MedMNISTSourceConfig
from prod9.config.data import PreprocessingConfig as PreprocessingConfig
from prod9.config.data import SourceConfig
from prod9.config.evaluation import EvaluationConfig
from prod9.config.loss import LossSection as LossSection
from prod9.config.loss import Stage1LossConfig, Stage2LossConfig
from prod9.config.model import AutoencoderConfig as AutoencoderConfig
from prod9.config.model import Stage1ModelConfig, Stage2ModelConfig
from prod9.config.model import TransformerConfig as TransformerConfig
from prod9.config.sampler import CompletionConfig, SamplerConfig, SlidingWindowConfig
from prod9.config.training import (
    CallbacksConfig,
    Stage1TrainingConfig,
    Stage2TrainingConfig,
    TrainerConfig,
)
from prod9.registry import DATASETS, LOSSES, load_extensions


class _RunConfig(Section):
    output_dir: Path
    """Folder for checkpoints, logs, previews and metrics."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Seed of everything random."""
    init_from: Path | None = None
    """An export of the same stage whose weights training starts from (fine-tuning)."""
    callbacks: CallbacksConfig = CallbacksConfig()
    trainer: TrainerConfig = TrainerConfig()


class Stage1Config(_RunConfig):
    """``prod9-train-autoencoder``: learn the tokenizer."""

    autoencoder_export_path: Path
    """Where the trained tokenizer is written."""
    data: SourceConfig
    sliding_window: SlidingWindowConfig = SlidingWindowConfig()
    model: Stage1ModelConfig = Stage1ModelConfig()
    loss: Stage1LossConfig = Field(default_factory=Stage1LossConfig)
    training: Stage1TrainingConfig = Stage1TrainingConfig()


class Stage2Config(_RunConfig):
    """``prod9-train-transformer``: learn the tokens."""

    autoencoder_path: Path
    """The tokenizer that Stage 1 exported."""
    data: SourceConfig
    sliding_window: SlidingWindowConfig = SlidingWindowConfig()
    model: Stage2ModelConfig = Stage2ModelConfig()
    loss: Stage2LossConfig = Stage2LossConfig()
    training: Stage2TrainingConfig = Stage2TrainingConfig()
    sampler: SamplerConfig = SamplerConfig()
    """How volumes are drawn from nothing."""
    completion: CompletionConfig = CompletionConfig()
    """How tokens are drawn where much is known: ``translate`` and ``inpaint``."""
    evaluation: EvaluationConfig = EvaluationConfig()


def _follow_losses() -> None:
    """Let ``loss`` of Stage 1 have the section of every registered loss."""
    fields = Stage1LossConfig.__pydantic_fields__
    for key in fields.keys() - Stage1LossConfig.__annotations__.keys():
        del fields[key]
    for name in LOSSES.names:
        loss = LOSSES.get(name)
        fields.setdefault(
            loss.key or name, FieldInfo(annotation=loss.section, default=loss.section())
        )
    Stage1LossConfig.model_rebuild(force=True)
    Stage1Config.model_rebuild(force=True)


def _follow_datasets() -> None:
    """Let ``data`` be the section of any registered data set, chosen by ``dataset_name``."""
    kinds = [DATASETS.get(name) for name in DATASETS.names]
    for config, sections in (
        (Stage1Config, [kind.stage1 for kind in kinds]),
        (Stage2Config, [kind.stage2 for kind in kinds]),
    ):
        union = cast("type[BaseModel]", Union[tuple(dict.fromkeys(sections))])  # noqa: UP007
        field = FieldInfo(annotation=union, discriminator="dataset_name")
        config.__pydantic_fields__["data"] = field
        config.model_rebuild(force=True)


LOSSES.on_change(_follow_losses)
DATASETS.on_change(_follow_datasets)
load_extensions()
