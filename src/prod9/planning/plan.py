"""What a training run will need, estimated before it begins."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prod9.config import Stage1Config
from prod9.config.load import load_either
from prod9.planning.data_sizes import sizes_of
from prod9.planning.fake_step import FROZEN, Device, precision_of
from prod9.planning.memory import GIB, advice, estimate_step


def make_plan(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    gpu_memory: float | None = None,
    devices: int = 1,
    tflops: float | None = None,
    stage1: Path | None = None,
    cases: int | None = None,
) -> dict[str, object]:
    """Return the needs of a configuration's training; reads no volume and downloads nothing.

    Args:
        path: the configuration, of either stage.
        overrides: such as ``data.batch_size=2``.
        gpu_memory: GiB of each GPU; without it and ``tflops`` the plan is for a CPU.
        devices: how many processes train.
        tflops: TFLOP/s that a GPU sustains.
        stage1: Stage 2: the configuration that trains its tokenizer.
        cases: BraTS: how many cases there will be.

    Returns:
        Name -> figure of one process. Names end in the unit: ``_bytes``, ``_flops`` (of a step),
        ``_seconds``, ``_hours`` (all training steps, without validation and previews).

    Raises:
        Prod9Error: a mistake in the configuration or the split; Stage 2 without a known tokenizer.
    """
    config = load_either(path, overrides)
    sizes = sizes_of(config, stage1, cases)
    device: Device = "cpu" if gpu_memory is None and tflops is None else "cuda"
    found = estimate_step(config, sizes, device, devices)
    cost, batch, on = found.cost, config.data.batch_size, config.trainer.activation_checkpointing
    memory, other = found.memory[on], found.memory[not on]
    first = isinstance(config, Stage1Config)
    averaged, *_ = cost.parameters.values()
    trained = sum(cost.parameters.values()) - cost.parameters.get(FROZEN, 0)
    checkpoint = 4 * (3 * trained + averaged)
    forward, backward = (flops * batch / found.samples for flops in cost.flops)
    switched = "without_checkpointing" if on else "with_checkpointing"
    plan: dict[str, object] = {
        "configuration": str(path),
        "stage": 1 if first else 2,
        "device": "GPU" if device == "cuda" else "CPU",
        "precision": precision_of(config, device),
        "activation_checkpointing": on,
        "devices": devices,
        "batch_size": batch,
        "sample": sizes.sample if first else sizes.window,
        "volume": sizes.volume,
        "volume_is_assumed": sizes.assumed,
        "tokens_per_volume": math.prod(sizes.grid),
        "parameters": cost.parameters,
        "weights_bytes": 4 * sum(cost.parameters.values()),
        "gradients_bytes": 4 * trained,
        "moments_bytes": 8 * trained,
        "averaged_weights_bytes": 4 * averaged,
        "memory_per_sample_bytes": memory.per_sample,
        "memory_of_a_step_bytes": memory.needed(batch),
        f"memory_of_a_step_{switched}_bytes": other.needed(batch),
    }
    if gpu_memory is not None:
        limit = gpu_memory * GIB
        plan["largest_batch"] = memory.largest(limit)
        plan[f"largest_batch_{switched}"] = other.largest(limit)
        plan["fits"] = memory.needed(batch) <= limit
        plan["advice"] = advice(config, sizes, found, limit)
    split = devices > 1 and config.trainer.strategy == "fsdp"
    plan |= {
        "forward_flops": forward,
        "backward_flops": backward,
        # The last one, the one before, and the one that is being written.
        "checkpoints": 3 + config.callbacks.checkpoint.keep_best,
        "checkpoint_bytes": checkpoint,
        # The first host holds all of it in memory to write it.
        "gathered_checkpoint_bytes": checkpoint if split else 0,
        "volumes_counted": sizes.data.note,
    }
    steps = None
    if sizes.volumes is not None:
        train, val = sizes.volumes
        samples = train * getattr(config.data, "crops_per_volume", 1)
        epoch = max(1, samples // (batch * devices))  # the last short batch is left out
        if (limit := config.trainer.limit_train_batches) is not None:
            epoch = max(1, min(epoch, limit if isinstance(limit, int) else int(epoch * limit)))
        steps = epoch * config.trainer.max_epochs
        every = config.callbacks.preview.every_n_steps
        plan |= {"train_volumes": train, "steps_per_epoch": epoch, "steps": steps}
        plan["previews"] = -(-steps // every) if every and not split else 0
        if not first:
            code = np.min_scalar_type(math.prod(sizes.autoencoder.levels) - 1).itemsize
            plan["token_store_bytes"] = (train + val) * math.prod(sizes.grid) * code
    if tflops is not None:
        seconds = (forward + backward) / (tflops * 1e12)
        plan["time_of_a_step_seconds"] = seconds
        plan["time_of_training_hours"] = None if steps is None else steps * seconds / 3600
    return plan
