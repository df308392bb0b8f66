"""``training``, ``callbacks``, ``trainer``: how the weights are found."""

from typing import Annotated, Literal

from pydantic import Field

from prod9.config.base import Section

Share = Annotated[float, Field(gt=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Section):
    """AdamW."""

    learning_rate: float = Field(default=1e-4, gt=0, description="Peak learning rate.")
    discriminator_learning_rate: float | None = Field(
        default=None, gt=0, description="Discriminator's peak rate; the generator's when left out."
    )
    betas: tuple[Decay, Decay] = Field(default=(0.9, 0.99), description="Moments' decay rates.")
    weight_decay: float = Field(default=1e-4, ge=0, description="Decoupled weight decay.")


class Stage2OptimizerConfig(Section):
    """AdamW with MaskGIT's constants."""

    learning_rate: float = Field(default=1e-4, gt=0, description="Peak learning rate.")
    betas: tuple[Decay, Decay] = Field(default=(0.9, 0.96), description="Moments' decay rates.")
    weight_decay: float = Field(default=0.045, ge=0, description="Decoupled weight decay.")


class SchedulerConfig(Section):
    """Linear warm-up, then constant or cosine."""

    name: Literal["constant", "cosine"] = Field(
        default="cosine", description="Shape after the warm-up."
    )
    warmup_steps: int = Field(default=500, ge=0, description="Steps of linear warm-up.")
    min_ratio: float = Field(
        default=0.0, ge=0, le=1, description="Last rate over the peak (cosine)."
    )


class StabilityConfig(Section):
    """What keeps a run alive."""

    gradient_clip: float = Field(
        default=1.0, ge=0, description="Largest gradient norm; 0: no clipping."
    )
    ema_decay: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="Decay of the averaged weights that are exported; 0: none.",
    )


class Stage1TrainingConfig(Section):
    """Optimisation of Stage 1."""

    optimizer: OptimizerConfig = OptimizerConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    stability: StabilityConfig = StabilityConfig()


class Stage2TrainingConfig(Section):
    """Optimisation of Stage 2."""

    optimizer: Stage2OptimizerConfig = Stage2OptimizerConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    stability: StabilityConfig = StabilityConfig()


class CheckpointConfig(Section):
    """Checkpoints in `output_dir/checkpoints`; `last.ckpt` is what `--resume` reads."""

    every_n_epochs: int = Field(default=1, ge=1, description="Epochs between checkpoints.")
    every_n_steps: int = Field(
        default=1000,
        ge=0,
        description="Batches between checkpoints within an epoch; 0: only at epochs' ends.",
    )
    keep_best: int = Field(default=1, ge=0, description="Best checkpoints kept beside the last.")


class PreviewConfig(Section):
    """Montages in `output_dir/previews` and in the logger."""

    every_n_steps: int = Field(default=1000, ge=0, description="Batches between previews; 0: none.")
    num_volumes: int = Field(default=6, ge=1, description="Volumes per preview.")


class CallbacksConfig(Section):
    """What happens beside the training step."""

    checkpoint: CheckpointConfig = CheckpointConfig()
    preview: PreviewConfig = PreviewConfig()


class TrainerConfig(Section):
    """Passed to Lightning's Trainer."""

    max_epochs: int = Field(default=100, ge=1, description="Passes over the training split.")
    limit_train_batches: Annotated[int, Field(ge=1)] | Share | None = Field(
        default=None,
        description="Batches (whole number) or share (0 to 1) of an epoch; all when left out.",
    )
    limit_val_batches: Annotated[int, Field(ge=0)] | Share | None = Field(
        default=None,
        description="The same for validation and test; 0 trains without validation.",
    )
    check_val_every_n_epoch: int = Field(default=1, ge=1, description="Epochs between validations.")
    log_every_n_steps: int = Field(default=10, ge=1, description="Batches between logged values.")
    logger: Literal["tensorboard", "csv", "wandb", "mlflow"] = Field(
        default="tensorboard",
        description="Where values and previews go besides the CSV in `output_dir/history`; "
        "`csv`: nowhere.",
    )
    accelerator: Literal["auto", "cpu", "gpu"] = Field(default="auto", description="Device kind.")
    devices: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default=1,
        description="Devices on each machine, a process on each; `auto`: all GPUs, or what "
        "torchrun or srun has started. Each sees `data.batch_size` samples at a time.",
    )
    num_nodes: int = Field(
        default=1, ge=1, description="Machines; torchrun or srun starts the processes on them."
    )
    strategy: Literal["auto", "ddp", "fsdp"] = Field(
        default="auto",
        description="With several devices. `ddp` (`auto`): each holds the whole networks; `fsdp` "
        "(Stage 2): weights, averaged weights and optimizer are split over them.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="`auto`: bf16 on a GPU that has it, else fp32; FSQ is always fp32.",
    )
    compile: Literal["auto", "off", "default", "reduce-overhead", "max-autotune"] = Field(
        default="auto",
        description="`torch.compile` of the networks, by its mode; the first steps wait for the "
        "compiler. `auto`: `default` on a GPU with Triton, `off` on a CPU.",
    )
    on_nan: Literal["stop", "skip", "rollback"] = Field(
        default="stop",
        description="Where a loss term or the gradient is NaN or infinite: end the run; leave the "
        "step out; or leave it out and return to the last checkpoint's weights, at the learning "
        "rate of the moment. The batch is saved in `output_dir/nonfinite`; `train/left_out` counts "
        "the steps left out. Ten in a row end the run, and so do ten returns to "
        "the same checkpoint, and in fp16 fifty gradients in a row that no loss scale mends.",
    )
    activation_checkpointing: bool = Field(
        default=False,
        description="Compute each block's activations again in the backward pass instead of "
        "keeping them: less memory, more time, the same numbers.",
    )
