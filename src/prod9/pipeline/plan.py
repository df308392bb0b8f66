"""What to train on a folder of scans: two configurations, chosen from the data and the time.

nnU-Net's idea (Isensee et al. 2021): a fingerprint of the data decides what is fixed by rules, here
for FSQ and MaskGIT. Both configurations are files that can be edited and trained again.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from prod9.config import AutoencoderConfig, Stage1Config, Stage2Config, TransformerConfig
from prod9.config.load import dump, load_stage1, load_stage2
from prod9.data.dataset import Outline
from prod9.errors import Prod9Error
from prod9.files import write_text
from prod9.label_codes import PARTS
from prod9.model import Model
from prod9.pipeline.configs import stage1_config, stage2_config, transformer_spec
from prod9.pipeline.speed import stage1_step_seconds, stage2_step_seconds
from prod9.runtime.device import resolve_device

Size = TypeVar("Size")
FILES = ("stage1.yaml", "stage2.yaml")
TEST_SHARE = 0.2
"""Of the subjects; half as many are for validation."""
SHARES = {"Stage 1": 0.2, "Stage 2": 0.38}
"""Of the time there is, in bare steps: batches, validation and previews take a quarter more. The
rest is for reading, tokens, figures and the page."""
STRIDE = 2
"""Voxels per token and axis: fine tokens of few codes, of which the transformer packs many into a
position."""
_POSITIONS = 512
"""Most positions of the transformer at once; larger grids are learned in windows."""
_SEEN = 4
"""How often Stage 2 sees the same token grid; few subjects are encoded in several versions."""
_MOST_VERSIONS = 16
_STEPS_PER_EPOCH = 50
_CROPS = {"cpu": 32, "cuda": 64}
_BATCHES = {"cpu": (8, 4), "cuda": (16, 16)}
"""Of both stages. On a CPU more steps teach more than larger batches."""
# Widths, the smallest first, and the steps that such a network needs at least.
_AUTOENCODERS = tuple(
    (AutoencoderConfig(levels=(4, 4, 4), num_channels=(width,), stem_stride=2), least)
    for width, least in ((64, 0), (96, 2500), (128, 4000))
)
_TRANSFORMERS = tuple(
    (
        TransformerConfig(
            hidden_dim=d,
            num_blocks=n,
            num_heads=h,
            patch_size=4,
            token_dim=t,
            local_blocks=3,
            head="lattice",
        ),
        least,
    )
    for d, n, h, t, least in (
        (192, 4, 3, 16, 0),
        (256, 6, 4, 16, 2000),
        (384, 8, 6, 24, 4000),
        (512, 12, 8, 32, 10000),
    )
)


@dataclass(frozen=True)
class Initial:
    """A model that training starts from."""

    model: Model
    tokenizer: Path
    """Its export."""
    transformer: Path
    """Its export."""
    parts: Literal["all", "decoder", "none"]
    """What of the tokenizer is trained."""


@dataclass(frozen=True)
class Plan:
    """Both configurations, and why they are as they are."""

    stage1: Stage1Config
    stage2: Stage2Config
    reasons: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """Write ``stage1.yaml`` and ``stage2.yaml``, the reasons above them as comments."""
        why = "".join(f"# {reason}\n" for reason in self.reasons)
        for name, config in zip(FILES, (self.stage1, self.stage2), strict=True):
            write_text(folder / name, why + dump(config))

    @classmethod
    def read(cls, folder: Path) -> "Plan":
        """Read what :meth:`write` wrote and a user may have edited.

        Raises:
            Prod9Error: all that is wrong, each with file and line.
        """
        one, two = (folder / name for name in FILES)
        return cls(load_stage1(one), load_stage2(two), ())


def make_plan(
    description: Path,
    outline: Outline,
    output: Path,
    *,
    hours: float,
    cut_out: bool = False,
    mirror: bool = False,
    accelerator: str = "auto",
    seed: int = 0,
    initial: Initial | None = None,
    fold: int | None = None,
) -> Plan:
    """Choose both configurations.

    Args:
        description: the ``dataset.yaml`` of the data, complete.
        outline: its sizes.
        output: folder of everything that training writes.
        hours: for all of it, on this machine.
        cut_out: whether the scans are cut out of larger ones, with anatomy up to their faces.
        mirror: whether a mirrored scan is as good as the scan.
        accelerator: ``auto``, ``cpu`` or ``gpu``.
        seed: of everything random.
        initial: the model that training starts from, whose sizes are taken.
        fold: the part of five that is for testing, in cross-validation.
    """
    assert outline.train is not None
    device, seconds = resolve_device(accelerator).type, hours * 3600
    scans, channels, shape = outline.train, len(outline.targets), outline.shape
    images = len(outline.channels) - outline.labels
    crop = tuple(min(side, _CROPS[device]) for side in shape)
    stride = STRIDE if initial is None else initial.model.tokenizer.autoencoder.stride
    grid = tuple(math.ceil(side / stride) for side in shape)
    per_scan = (images, channels)
    most, most2 = (min(n, scans * c) for n, c in zip(_BATCHES[device], per_scan, strict=True))
    transformers = _TRANSFORMERS
    if initial is not None:
        transformers = ((initial.model.spec.transformer, 0),)
    patch = transformers[0][0].patch_size
    positions = math.prod(math.ceil(cells / patch) for cells in grid)
    whole = positions <= _POSITIONS
    window = shape if whole else tuple(min(side, 64) for side in shape)
    names = outline.channels[:images] + outline.channels[images::PARTS]
    reasons = [
        f"{scans} training and {outline.val} validation scans, {', '.join(names)}, "
        f"{_by(shape)} voxels; {hours:g} hours on this machine's {device.upper()}.",
        f"Stage 1 learns from random crops of {_by(crop)} voxels, changed in shape and intensity; "
        f"{stride} voxels are a token along each axis: {_by(grid)} tokens a volume.",
    ]
    shared: dict[str, Any] = {
        "dataset_name": "folder",
        "path": description,
        "split_file": output / "split.json",
        "test_share": TEST_SHARE,
        "fold": fold,
        "cache_dir": output / "cache",
        "augmentation": {
            "flip": mirror,
            "intensity_scale": 0.1,
            "intensity_shift": 0.05,
            "rotation_deg": 6.0,
            "zoom": 0.08,
            "deformation_mm": 1.5,
        },
    }
    run: dict[str, Any] = {"seed": seed, "trainer": {"accelerator": accelerator}}

    def repeats(batch: int, steps: int) -> int:
        return math.ceil(min(steps, _STEPS_PER_EPOCH) * batch / (scans * images))

    def first(sizes: AutoencoderConfig, batch: int, steps: int = _STEPS_PER_EPOCH) -> Stage1Config:
        each = repeats(batch, steps)
        found = stage1_config(
            output, shared, run, batch=batch, crop=crop, repeats=each, sizes=sizes
        )
        if initial is None:
            return found
        training = found.training.model_copy(update={"parts": initial.parts})
        return found.model_copy(update={"init_from": initial.tokenizer, "training": training})

    budget, autoencoders = SHARES["Stage 1"] * seconds, _AUTOENCODERS
    if initial is not None:
        autoencoders = ((initial.model.tokenizer.spec.autoencoder, 0),)
    sizes, each, steps, batch = _largest(
        autoencoders, lambda sizes, batch: stage1_step_seconds(first(sizes, batch)), budget, most
    )
    per_epoch = scans * images * repeats(batch, steps) // batch
    one = _with_steps(first(sizes, batch, steps), steps, per_epoch)
    if initial is not None and initial.parts == "none":
        reasons.append("The tokenizer is kept as it is; Stage 1 only exports it for this data.")
    else:
        reasons.append(
            f"Its widths are {list(sizes.num_channels)}, {batch} crops a step: a step takes "
            f"{each:.2g} s, {steps} steps are {SHARES['Stage 1']:.0%} of the time."
        )
    samples = max(8, min(64, 176 // (len(outline.class_names) * images)))

    def second(sizes: TransformerConfig, batch: int, versions: int = 1) -> Stage2Config:
        found = stage2_config(output, shared, run, batch, window, versions, sizes, samples, cut_out)
        if initial is None:
            return found
        return found.model_copy(update={"init_from": initial.transformer})

    levels, cells = one.model.autoencoder.levels, tuple(math.ceil(side / stride) for side in window)

    def time_of(sizes: TransformerConfig, batch: int) -> float:
        config = second(sizes, batch)
        return stage2_step_seconds(config, transformer_spec(config, outline, levels, grid, cells))

    sizes, each, steps, batch = _largest(transformers, time_of, SHARES["Stage 2"] * seconds, most2)
    seen = steps * batch / (scans * channels)
    versions = max(1, min(_MOST_VERSIONS, round(seen / _SEEN)))
    two = second(sizes, batch, versions)
    two = _with_steps(two, steps, scans * channels * versions // batch)
    side, places = sizes.patch_size, math.prod(math.ceil(c / sizes.patch_size) for c in cells)
    reasons += [
        f"Stage 2's transformer has {sizes.num_blocks} blocks of width {sizes.hidden_dim} over "
        f"{'' if whole else 'windows of '}{places} positions of {side} x {side} x {side} tokens, "
        f"{batch} samples a step: a step takes {each:.2g} s, {steps} steps are "
        f"{SHARES['Stage 2']:.0%} of the time.",
        f"It learns from {versions} versions of each scan (itself and changed copies), so that it "
        f"does not learn {scans} scans by heart."
        if versions > 1
        else "It learns from each scan as it is: there is no time for changed copies.",
        "Both stages keep the weights of their best validation.",
        "Sampling starts with the tokens that the transformer is most certain of."
        if cut_out
        else "Sampling goes evenly over the volume: the surest tokens are the empty space.",
    ]
    return Plan(one, two, tuple(reasons))


def _largest(
    candidates: Sequence[tuple[Size, int]],
    step_seconds: Callable[[Size, int], float],
    budget: float,
    batch: int,
) -> tuple[Size, float, int, int]:
    """Return the largest size that can take as many steps as it needs.

    Where the GPU's memory does not hold the smallest size, the batch is halved.

    Args:
        candidates: (size, steps that it needs at least), the smallest first.
        step_seconds: measures a size with a batch.
        budget: seconds there are.
        batch: at most.

    Returns:
        The size, seconds of a step, how many steps there are, and the batch.

    Raises:
        Prod9Error: not even one sample fits into memory.
    """
    found: list[tuple[Size, float, int, int]] = []
    for size, least in candidates:
        # A larger network is slower: it is not measured where the one before has too few steps.
        if found and found[-1][2] < least:
            break
        while True:
            try:
                each = step_seconds(size, batch)
                break
            except torch.OutOfMemoryError:
                if found:
                    return found[-1]
                if batch == 1:
                    raise Prod9Error(
                        "the GPU's memory does not hold one sample of the smallest network; free "
                        "it of other programs, or train with --device cpu."
                    ) from None
                batch //= 2
        steps = max(1, int(budget / each))
        if found and steps < least:
            break
        found.append((size, each, steps, batch))
    return found[-1]


def _with_steps(config: Any, steps: int, per_epoch: int) -> Any:
    """Return the configuration with as many epochs as ``steps`` are, and what follows from it."""
    per_epoch = max(1, per_epoch)
    epochs = max(1, round(steps / per_epoch))
    validations = max(1, epochs // 10)
    trainer = config.trainer.model_copy(
        update={"max_epochs": epochs, "check_val_every_n_epoch": validations}
    )
    callbacks = config.callbacks.model_copy(
        update={
            "checkpoint": config.callbacks.checkpoint.model_copy(update={"export": "best"}),
            "preview": config.callbacks.preview.model_copy(
                update={"every_n_steps": max(1, steps // 4)}
            ),
        }
    )
    return config.model_copy(update={"trainer": trainer, "callbacks": callbacks})


def _by(sides: tuple[int, ...]) -> str:
    return " x ".join(map(str, sides))
