"""What ``validate`` and ``test`` measure."""

from dataclasses import asdict

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment

from prod9.config import Stage1Config, Stage2Config
from prod9.config.data import CroppedSourceConfig
from prod9.config.load import dump
from prod9.data.dataset import Splits, open_splits, require_unseen
from prod9.data.splits import HeldOut
from prod9.data.volume_sets.volume_set import VolumeSet, of_dataset, of_tensor
from prod9.evaluation.evaluator import Evaluator
from prod9.evaluation.feature_spaces import NO_CACHE
from prod9.evaluation.reconstruction import round_trip
from prod9.evaluation.translation import TranslationMetrics, measure_translation
from prod9.evaluation.work_cache import WorkCache
from prod9.model import Model
from prod9.results.schema import Generation, Reconstruction
from prod9.runtime.device import lightning_accelerator, resolve_device
from prod9.sample_request import SampleRequest
from prod9.tokenizer import Tokenizer
from prod9.training import stage1, stage2
from prod9.training.run_folder import RunFolder
from prod9.training.stage2_module import Stage2Module
from prod9.training.tokens import open_data, open_tokens
from prod9.training.trainer import (
    limited,
    quieten_lightning,
)

UNFINISHED = "unfinished-test"
"""Folder, beside the figures, of what ``test`` has measured until it is done."""


def measure_stage1(config: Stage1Config, split: HeldOut) -> dict[str, object]:
    """Return the exported tokenizer's figures on a split; ``test`` writes them, and a page.

    Scans are measured whole, through windows. All processes of a distributed run come here.

    Raises:
        Prod9Error: not trained yet; data that cannot be read.
    """
    folder = RunFolder(config.output_dir)
    tokenizer = stage1.load_tokenizer(config)
    weights = config.loss.perceptual.weights_path
    evaluator = Evaluator(config.seed, medicalnet=weights, device=tokenizer.device)
    if split == "test":
        evaluator.kept = WorkCache(folder.root / UNFINISHED)
    figures = measure_reconstruction(evaluator, config, tokenizer, split)
    if split == "test":
        evaluator.write(
            folder.root,
            evaluator.evaluation({"tokenizer": tokenizer.digest, "config": dump(config)}),
            title=f"Reconstruction of {config.data.dataset_name}",
            lead="Volumes of the test split, encoded to tokens and decoded again.",
            histories={"Stage 1": folder.history},
            configs={"Stage 1": dump(config)},
        )
    shown = figures.model_dump(exclude={"foreground", "per_class", "intervals"}, exclude_none=True)
    if figures.foreground is not None:
        inside = figures.foreground.model_dump(include={"psnr", "ssim"}, exclude_none=True)
        shown |= {f"{name}_foreground": value for name, value in inside.items()}
    return shown


def measure_reconstruction(
    evaluator: Evaluator, config: Stage1Config, tokenizer: Tokenizer, split: HeldOut
) -> Reconstruction:
    """Add the figures of a split to an evaluation."""
    splits = open_splits(config.data, tokenizer.spec.preprocessing)
    require_unseen(tokenizer.spec.train_subjects, splits, "the tokenizer")
    windows = config.sliding_window if isinstance(config.data, CroppedSourceConfig) else None
    originals = of_dataset(splits[split])
    limit = config.trainer.limit_val_batches
    originals = originals.select(range(limited(len(originals), limit, config.data.batch_size)))
    trip = round_trip(tokenizer, originals, windows, evaluator.kept)
    return evaluator.measure_reconstruction(originals, trip)


def measure_stage2(config: Stage2Config, split: HeldOut) -> dict[str, object]:
    """Return the transformer's figures on a split; ``test`` writes them, and a page.

    On the test split, volumes are drawn and compared with real ones (``evaluation``); of several
    channels, translation is measured too: one drawn from growing sets of the others, for every
    item that ``limit_val_batches`` leaves. All processes of a distributed run come here.

    Raises:
        Prod9Error: not trained yet; data that cannot be read.
    """
    model = stage2.load(config)
    splits = open_data(config, model.tokenizer)
    require_unseen(model.spec.train_subjects, splits, "the transformer")
    store, batches = open_tokens(config, model.tokenizer, splits[split], split)
    quieten_lightning()
    accelerator = lightning_accelerator(config.trainer.accelerator)
    trainer = pl.Trainer(
        accelerator=accelerator,
        devices=[torch.cuda.current_device()] if accelerator == "gpu" else 1,
        plugins=[LightningEnvironment()],  # no strategy for several: prod9 shares the work itself
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=config.trainer.limit_val_batches or None,
        use_distributed_sampler=False,
    )
    (values,) = trainer.validate(Stage2Module(config, model.transformer), batches, verbose=False)
    model.transformer.to(model.tokenizer.device)  # Lightning left it on the CPU
    masked_prediction = {name.removeprefix("val/"): v for name, v in values.items()}
    if split != "test":
        return dict(masked_prediction)
    folder, evaluator = RunFolder(config.output_dir), evaluator_of(config)
    evaluator.kept = WorkCache(folder.root / UNFINISHED)
    translation = measure_generated(evaluator, config, model, splits)
    source = {
        "tokenizer": model.tokenizer.digest,
        "transformer": model.digest,
        "volumes": len(store),
        "limit_val_batches": config.trainer.limit_val_batches,
        "config": dump(config),
    }
    evaluator.write(
        folder.root,
        evaluator.evaluation(
            source,
            masked_prediction=masked_prediction,
            translation=translation and asdict(translation),
        ),
        title=f"Generation of {config.data.dataset_name}",
        lead="Volumes drawn from nothing but their class, beside the real test split.",
        histories={"Stage 2": folder.history},
        configs={"Stage 2": dump(config)},
    )
    return masked_prediction | _headline(translation, evaluator.generation)


def measure_generated(
    evaluator: Evaluator, config: Stage2Config, model: Model, splits: Splits
) -> TranslationMetrics | None:
    """Add the figures of generated volumes to an evaluation; return those of translation, if any.

    Args:
        evaluator: the evaluation.
        config: how many volumes, and how they are sampled.
        model: the generator.
        splits: ``test`` is what is compared with.
    """
    translation, test = None, splits["test"]
    if len(model.images) > 1:
        translation = measure_translation(
            model,
            splits["train"],
            test,
            SampleRequest.completion_of(config),
            kept=evaluator.kept,
            count=limited(len(test), config.trainer.limit_val_batches, 1),
        )
    if config.evaluation.samples_per_class:
        labels = model.labels_of(["all"], config.evaluation.samples_per_class)
        ours = generated(model, SampleRequest.generation_of(config, labels), evaluator.kept)
        evaluator.measure_generation(of_dataset(test), ours, of_dataset(splits["train"]))
    if config.evaluation.segmenters and model.label_channels:
        request = SampleRequest.generation_of(config, ())
        evaluator.measure_segmentation(model, splits, request, config.evaluation.segmentation)
    return translation


def evaluator_of(config: Stage2Config) -> Evaluator:
    """Return an empty evaluation with the settings of a configuration."""
    wanted, device = config.evaluation, resolve_device(config.trainer.accelerator)
    return Evaluator(
        config.seed,
        wanted.feature_spaces,
        wanted.usefulness,
        wanted.two_sample_test,
        device=device,
    )


def _headline(
    translation: TranslationMetrics | None, generation: Generation | None
) -> dict[str, object]:
    """Return the figures that a table on the terminal shows."""
    figures: dict[str, object] = {}
    if translation is not None:
        for name, score in translation.drawn.items():
            figures[f"{translation.target} from {name}, foreground PSNR"] = score.psnr
            figures[f"{translation.target} from {name}, foreground SSIM"] = score.ssim
    if generation is not None:
        figures["volumes drawn"] = generation.volumes
        figures["recognised as their class"] = generation.class_accuracy
        figures["MS-SSIM within classes"] = generation.msssim
        figures["MS-SSIM within classes, real"] = generation.msssim_real
        for space in generation.spaces:
            name = f"Frechet distance ({space.key})"
            figures[name] = space.generated.frechet
            figures[f"{name}, real"] = space.floor and space.floor.frechet
        figures["privacy"] = generation.privacy and generation.privacy.verdict
    return {name: value for name, value in figures.items() if value is not None}


def generated(model: Model, request: SampleRequest, kept: WorkCache = NO_CACHE) -> VolumeSet:
    """Generate the volumes of a request, in memory; the tokens are ``kept`` and shared."""

    def make(number: int) -> np.ndarray:
        return model.sample(request, number).cpu().numpy()

    spec, batches = model.tokenizer.spec, range(request.num_batches)
    names = [f"batch {number} of {model.digest} {request}" for number in batches]
    parts = [
        model.decode(torch.from_numpy(tokens).to(model.device), spec.volume_shape, request.windows)
        for tokens in kept.all_of(names, make, "generating")
    ]
    labels, name = torch.tensor(request.labels), f"generated, seed {request.seed}"
    return of_tensor(torch.cat(parts), labels, model.class_names, name, spec.spacing_mm)
