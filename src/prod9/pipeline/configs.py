"""The two configurations of a plan: what is fixed by rules, around what the plan chooses."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prod9.config import AutoencoderConfig, Stage1Config, Stage2Config, TransformerConfig
from prod9.config.data import coarse_of
from prod9.config.load import validated
from prod9.data.dataset import Outline
from prod9.model import TransformerSpec

_SURE_FIRST = {
    "steps": 24,
    "order": "confidence",
    "temperature": 0.8,
    "final_temperature": 0.3,
    "choice_temperature": 6.0,
    "guidance_scale": 1.0,
}
"""Of a sweep on the hippocampus' validation split (docs/reproducing.md): the best anatomy among
settings whose volumes differ as much as real ones."""
_EVENLY = {
    "steps": 24,
    "order": "halton",
    "scheduler_type": "arccos",
    "temperature": 0.9,
    "guidance_scale": 1.0,
}
"""By confidence, all empty space would come first."""


def stage1_config(
    output: Path,
    data: Mapping[str, Any],
    run: Mapping[str, Any],
    *,
    batch: int,
    crop: tuple[int, ...],
    repeats: int,
    sizes: AutoencoderConfig,
) -> Stage1Config:
    """Return the configuration of Stage 1.

    Args:
        output: folder of everything that training writes.
        data: keys of ``data`` that both stages share.
        run: top keys that both stages share.
        batch: crops per step.
        crop: their voxels.
        repeats: crops of a channel of a scan per epoch.
        sizes: of the autoencoder.
    """
    values = {
        **run,
        "output_dir": output / "stage1",
        "autoencoder_export_path": output / "autoencoder.pt",
        "data": {**data, "batch_size": batch, "crops_per_volume": repeats},
        "sliding_window": {"roi_size": crop, "overlap": 0.25, "sw_batch_size": 4},
        "model": {"autoencoder": sizes},
        "loss": {
            "loss_type": "ffl",
            "focal_frequency": {"weight": 1.0},
            "adversarial": {"weight": 0.0},
        },
        "training": {
            "optimizer": {"name": "muon", "learning_rate": 2e-3},
            "scheduler": {"warmup_steps": 40},
            "stability": {"ema_decay": 0.995},
        },
    }
    return validated(Stage1Config, values, "the plan")


def stage2_config(
    output: Path,
    data: Mapping[str, Any],
    run: Mapping[str, Any],
    batch: int,
    window: tuple[int, ...],
    versions: int,
    transformer: TransformerConfig,
    samples: int,
    cut_out: bool,
) -> Stage2Config:
    """Return the configuration of Stage 2.

    Args:
        output: folder of everything that training writes.
        data: keys of ``data`` that both stages share.
        run: top keys that both stages share.
        batch: token grids per step.
        window: voxels of a training sample.
        versions: of each scan that become tokens.
        transformer: its sizes.
        samples: volumes of each class and channel that are generated to be measured.
        cut_out: whether anatomy fills the volumes.
    """
    values = {
        **run,
        "output_dir": output / "stage2",
        "autoencoder_path": output / "autoencoder.pt",
        "data": {**data, "batch_size": batch, "encodings": versions},
        "sliding_window": {"roi_size": window, "overlap": 0.25, "sw_batch_size": 4},
        "model": {"transformer": transformer},
        "loss": {"label_smoothing": 0.0, "condition_dropout": 0.05, "source_free_share": 0.3},
        "training": {
            "optimizer": {
                "name": "muon",
                "learning_rate": 8e-3,
                "muon_learning_rate": 2e-3,
                "weight_decay": 0.03,
            },
            "scheduler": {"warmup_steps": 70},
            "stability": {"ema_decay": 0.995},
        },
        "sampler": _SURE_FIRST if cut_out else _EVENLY,
        "completion": {"steps": 8, "temperature": 0.5, "guidance_scale": 1.0},
        "evaluation": {"samples_per_class": samples},
    }
    return validated(Stage2Config, values, "the plan")


def transformer_spec(
    config: Stage2Config,
    outline: Outline,
    levels: tuple[int, ...],
    grid: tuple[int, ...],
    window: tuple[int, ...],
) -> TransformerSpec:
    """Return what a transformer needs to be built, before there is a tokenizer."""
    channels = outline.channels
    values = {
        "transformer": config.model.transformer,
        "levels": levels,
        "class_names": outline.class_names,
        "channels": channels,
        "coarse_factor": coarse_of(config.data).factor,
        "num_sources": len(channels) if len(channels) > 1 else 0,
        "grid": grid,
        "window": window,
        "tokenizer_digest": "",
        "config_yaml": "",
    }
    return validated(TransformerSpec, values, "the plan")
