"""``training``, ``callbacks``, ``trainer``: how the weights are found."""

from typing import Literal, Self

from pydantic import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from prod9.config.base import BelowOne, PositiveShare, Section, Share


class _OptimizerConfig(Section):
    name: Literal["adamw", "muon"] = "adamw"
    """`muon` updates the weights of linear layers and convolutions by their orthogonalised momentum
    (Jordan et al. 2024), all else by AdamW: fewer steps for the same quality, a little more time
    for each. The discriminator has AdamW. Not with `trainer.strategy: fsdp`."""
    learning_rate: PositiveFloat = 1e-4
    """Peak learning rate."""
    muon_learning_rate: PositiveFloat | None = None
    """Peak rate of what `muon` updates by orthogonalised momentum; `learning_rate` when left
    out."""

    @model_validator(mode="after")
    def _is_read(self) -> Self:
        if self.muon_learning_rate is not None and self.name != "muon":
            raise ValueError("muon_learning_rate needs name: muon")
        return self


class OptimizerConfig(_OptimizerConfig):
    """AdamW, or Muon."""

    discriminator_learning_rate: PositiveFloat | None = None
    """Discriminator's peak rate; the generator's when left out."""
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.99)
    """Moments' decay rates."""
    weight_decay: NonNegativeFloat = 1e-4
    """Decoupled weight decay."""


class Stage2OptimizerConfig(_OptimizerConfig):
    """AdamW with MaskGIT's constants, or Muon."""

    betas: tuple[BelowOne, BelowOne] = (0.9, 0.96)
    """Moments' decay rates."""
    weight_decay: NonNegativeFloat = 0.045
    """Decoupled weight decay."""


class SchedulerConfig(Section):
    """Linear warm-up, then constant or cosine."""

    name: Literal["constant", "cosine"] = "cosine"
    """Shape after the warm-up."""
    warmup_steps: NonNegativeInt = 500
    """Steps of linear warm-up."""
    min_ratio: Share = 0.0
    """Last rate over the peak (cosine)."""


class StabilityConfig(Section):
    """Gradient clipping and averaged weights."""

    gradient_clip: NonNegativeFloat = 1.0
    """Largest gradient norm; 0: no clipping."""
    ema_decay: BelowOne = 0.999
    """Decay of the averaged weights that are exported; 0: none."""


class Stage1TrainingConfig(Section):
    """Optimisation of Stage 1."""

    parts: Literal["all", "decoder", "none"] = "all"
    """What is trained. `decoder`: tokens mean the same afterwards. `none`: exports the weights of
    `init_from` for this data."""
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

    every_n_epochs: PositiveInt = 1
    """Epochs between checkpoints."""
    every_n_steps: NonNegativeInt = 1000
    """Batches between checkpoints within an epoch; 0: only at epochs' ends."""
    keep_best: NonNegativeInt = 1
    """Best checkpoints kept beside the last."""
    export: Literal["last", "best"] = "last"
    """Whose weights are exported: those at the end, or those of the best validation (few subjects
    are soon learned by heart)."""

    @model_validator(mode="after")
    def _is_kept(self) -> Self:
        if self.export == "best" and not self.keep_best:
            raise ValueError("export: best needs keep_best of at least 1")
        return self


class PreviewConfig(Section):
    """Montages in `output_dir/previews` and in the logger."""

    every_n_steps: NonNegativeInt = 1000
    """Batches between previews; 0: none."""
    num_volumes: PositiveInt = 6
    """Volumes per preview."""


class CallbacksConfig(Section):
    """What happens beside the training step."""

    checkpoint: CheckpointConfig = CheckpointConfig()
    preview: PreviewConfig = PreviewConfig()


class TrainerConfig(Section):
    """Passed to Lightning's Trainer."""

    max_epochs: PositiveInt = 100
    """Passes over the training split."""
    limit_train_batches: PositiveInt | PositiveShare | None = None
    """Batches (whole number) or share (0 to 1) of an epoch; all when left out."""
    limit_val_batches: NonNegativeInt | PositiveShare | None = None
    """The same for validation and test; 0 trains without validation."""
    check_val_every_n_epoch: PositiveInt = 1
    """Epochs between validations."""
    log_every_n_steps: PositiveInt = 10
    """Batches between logged values."""
    logger: Literal["tensorboard", "csv", "wandb", "mlflow"] = "tensorboard"
    """Where values and previews go besides the CSV in `output_dir/history`; `csv`: nowhere."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Device kind."""
    devices: PositiveInt | Literal["auto"] = 1
    """Devices on each machine, a process on each; `auto`: all GPUs, or what torchrun or srun has
    started. Each sees `data.batch_size` samples at a time."""
    num_nodes: PositiveInt = 1
    """Machines; torchrun or srun starts the processes on them."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """With several devices. `ddp` (`auto`): each holds the whole networks; `fsdp` (Stage 2):
    weights, averaged weights and optimizer are split over them."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto`: bf16 on a GPU that has it, else fp32; FSQ is always fp32."""
    compile: Literal["auto", "off", "default", "reduce-overhead", "max-autotune"] = "auto"
    """`torch.compile` of the networks, by its mode; the first steps wait for the compiler. `auto`:
    `default` on a GPU with Triton, `off` on a CPU."""
    on_nan: Literal["stop", "skip", "rollback"] = "stop"
    """Where a loss term or the gradient is NaN or infinite: end the run; leave the step out; or
    leave it out and return to the last checkpoint's weights, at the learning rate of the moment.
    The batch is saved in `output_dir/nonfinite`; `train/left_out` counts the steps left out. Ten in
    a row end the run, and so do ten returns to the same checkpoint, and in fp16 fifty gradients in
    a row that no loss scale mends."""
    activation_checkpointing: bool = False
    """Compute each block's activations again in the backward pass instead of keeping them: less
    memory, more time, the same numbers."""
