"""Configuration: pydantic models that hold every default, and the YAML loader."""

from pathlib import Path

from pydantic import Field

from prod9.config.base import Section
from prod9.config.data import (
    BraTSDataConfig,
    BraTSSourceConfig,
    MedMNISTDataConfig,
    MedMNISTSourceConfig,
    PreprocessingConfig,
    Stage1DataConfig,
    Stage2DataConfig,
)
from prod9.config.evaluation import EvaluationConfig
from prod9.config.loss import (
    LossSection,
    Stage1LossConfig,
    Stage2LossConfig,
    follow_losses,
)
from prod9.config.model import (
    AutoencoderConfig,
    DiscriminatorConfig,
    Stage1ModelConfig,
    Stage2ModelConfig,
    TransformerConfig,
)
from prod9.config.sampler import CompletionConfig, SamplerConfig, SlidingWindowConfig
from prod9.config.training import (
    CallbacksConfig,
    Stage1TrainingConfig,
    Stage2TrainingConfig,
    TrainerConfig,
)
from prod9.registry import LOSSES, load_extensions


class _RunConfig(Section):
    output_dir: Path = Field(description="Folder for checkpoints, logs, previews and metrics.")
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="Seed of everything random.")
    callbacks: CallbacksConfig = CallbacksConfig()
    trainer: TrainerConfig = TrainerConfig()


class Stage1Config(_RunConfig):
    """``prod9-train-autoencoder``: learn the tokenizer."""

    autoencoder_export_path: Path = Field(description="Where the trained tokenizer is written.")
    data: Stage1DataConfig
    sliding_window: SlidingWindowConfig = SlidingWindowConfig()
    model: Stage1ModelConfig = Stage1ModelConfig()
    loss: Stage1LossConfig = Field(default_factory=Stage1LossConfig)
    training: Stage1TrainingConfig = Stage1TrainingConfig()


class Stage2Config(_RunConfig):
    """``prod9-train-transformer``: learn the tokens."""

    autoencoder_path: Path = Field(description="The tokenizer that Stage 1 exported.")
    data: Stage2DataConfig
    sliding_window: SlidingWindowConfig = SlidingWindowConfig()
    model: Stage2ModelConfig = Stage2ModelConfig()
    loss: Stage2LossConfig = Stage2LossConfig()
    training: Stage2TrainingConfig = Stage2TrainingConfig()
    sampler: SamplerConfig = SamplerConfig()
    """How volumes are drawn from nothing."""
    completion: CompletionConfig = CompletionConfig()
    """How tokens are drawn where much is known: ``translate`` and ``inpaint``."""
    evaluation: EvaluationConfig = EvaluationConfig()


def _follow_registry() -> None:
    follow_losses()
    Stage1Config.model_rebuild(force=True)


LOSSES.on_change(_follow_registry)
load_extensions()

__all__ = [
    "AutoencoderConfig",
    "BraTSDataConfig",
    "BraTSSourceConfig",
    "CallbacksConfig",
    "CompletionConfig",
    "DiscriminatorConfig",
    "EvaluationConfig",
    "LossSection",
    "MedMNISTDataConfig",
    "MedMNISTSourceConfig",
    "PreprocessingConfig",
    "SamplerConfig",
    "SlidingWindowConfig",
    "Stage1Config",
    "Stage1DataConfig",
    "Stage1LossConfig",
    "Stage1ModelConfig",
    "Stage1TrainingConfig",
    "Stage2Config",
    "Stage2DataConfig",
    "Stage2LossConfig",
    "Stage2ModelConfig",
    "Stage2TrainingConfig",
    "TrainerConfig",
    "TransformerConfig",
]
