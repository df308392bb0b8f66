"""What ``validate`` and ``test`` measure."""

from collections.abc import Callable
from dataclasses import asdict

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch import Tensor

from prod9.config import (
    BraTSDataConfig,
    BraTSSourceConfig,
    MedMNISTDataConfig,
    MedMNISTSourceConfig,
    Stage1Config,
    Stage2Config,
)
from prod9.config.load import dump
from prod9.data.brats.open_scans import open_scans, preprocessing_of, require_unseen
from prod9.data.brats.scans import ScanSet
from prod9.data.splits import HeldOut, Split
from prod9.data.volume_sets.open import scans_collection
from prod9.data.volume_sets.volume_set import VolumeSet
from prod9.evaluation.evaluator import Evaluator
from prod9.evaluation.round_trip import round_trip
from prod9.evaluation.sets import generated, split_of
from prod9.evaluation.translation import TranslationMetrics
from prod9.evaluation.translation_test import measure_translation
from prod9.evaluation.work_cache import WorkCache
from prod9.model import Model
from prod9.results.schema import Generation, Reconstruction
from prod9.sample_request import SampleRequest
from prod9.tokenizer import Tokenizer
from prod9.training import stage1, stage2
from prod9.training.run_folder import RunFolder
from prod9.training.stage2_module import Stage2Module
from prod9.training.tokens import open_tokens, scans_of
from prod9.training.trainer import (
    lightning_accelerator,
    limited,
    quieten_lightning,
    resolve_device,
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
    weights, device = config.loss.perceptual.weights_path, tokenizer.device
    evaluator = Evaluator(config.seed, medicalnet=weights, device=device)
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
    inside = figures.foreground
    return {
        **figures.model_dump(exclude={"foreground", "per_class", "intervals"}, exclude_none=True),
        **({} if inside is None else {"psnr_foreground": inside.psnr}),
        **({} if inside is None or inside.ssim is None else {"ssim_foreground": inside.ssim}),
    }


def measure_reconstruction(
    evaluator: Evaluator, config: Stage1Config, tokenizer: Tokenizer, split: HeldOut
) -> Reconstruction:
    """Add the figures of a split to an evaluation."""
    data, limit = config.data, config.trainer.limit_val_batches
    match data:
        case MedMNISTDataConfig():
            originals, windows = split_of(data, split), None
            count = limited(len(originals), limit, data.batch_size)
        case BraTSDataConfig():
            everything = open_scans(data, preprocessing_of(tokenizer))
            require_unseen(tokenizer.spec.train_subjects, everything, data, "the tokenizer")
            originals = scans_collection(everything[split], f"{data.data_dir}, {split} split")
            windows = config.sliding_window
            count = limited(len(originals), limit, data.batch_size)
    originals = originals.select(range(count))
    made_by = f"{tokenizer.digest} {windows}" if evaluator.kept.folder else ""

    def remember(index: int, encode: Callable[[], Tensor]) -> Tensor:
        name = f"tokens of {index} of {originals.sha256} by {made_by}" if made_by else ""
        return torch.from_numpy(evaluator.kept.one(name, lambda: encode().numpy()))

    trip = round_trip(tokenizer, originals, windows, remember)
    return evaluator.measure_reconstruction(
        originals, trip.reconstructed, trip.codebook, made_by=made_by
    )


def measure_stage2(config: Stage2Config, split: HeldOut) -> dict[str, object]:
    """Return the transformer's figures on a split; ``test`` writes them, and a page.

    On the test split, volumes are drawn and compared with real ones (``evaluation``); of scans,
    translation is measured too: one modality drawn from growing sets of others, for every scan
    that ``limit_val_batches`` leaves. All processes of a distributed run come here.

    Raises:
        Prod9Error: not trained yet; data that cannot be read.
    """
    folder = RunFolder(config.output_dir)
    generator = stage2.load(config)
    is_brats = isinstance(config.data, BraTSSourceConfig)
    scans = scans_of(config, generator.tokenizer) if is_brats else None
    if scans is not None and isinstance(config.data, BraTSSourceConfig):
        seen = generator.spec.train_subjects
        require_unseen(seen, scans, config.data, "the transformer")
    store, batches = open_tokens(
        config, generator.tokenizer, split, None if scans is None else scans[split]
    )
    module = Stage2Module(config, generator.transformer)
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
    (values,) = trainer.validate(module, batches, verbose=False)
    generator.transformer.to(generator.tokenizer.device)  # Lightning left it on the CPU
    masked_prediction = {name.removeprefix("val/"): v for name, v in values.items()}
    figures: dict[str, object] = dict(masked_prediction)
    if split == "test":
        evaluator = evaluator_of(config)
        evaluator.kept = WorkCache(folder.root / UNFINISHED)
        translation = (
            None if scans is None else _measure_translation(evaluator, config, generator, scans)
        )
        if translation is not None:
            for name, score in translation.drawn.items():
                figures[f"{translation.target} from {name}, foreground PSNR"] = score.psnr
                figures[f"{translation.target} from {name}, foreground SSIM"] = score.ssim
        if config.evaluation.samples_per_class:
            figures |= headline(measure_generation(evaluator, config, generator, scans))
        source = {
            "tokenizer": generator.tokenizer.digest,
            "transformer": generator.digest,
            "volumes": len(store),
            "limit_val_batches": config.trainer.limit_val_batches,
            "config": dump(config),
        }
        evaluator.write(
            folder.root,
            evaluator.evaluation(
                source,
                masked_prediction=masked_prediction,
                translation=None if translation is None else asdict(translation),
            ),
            title=f"Generation of {config.data.dataset_name}",
            lead="Volumes drawn from nothing but their class, beside the real test split.",
            histories={"Stage 2": folder.history},
            configs={"Stage 2": dump(config)},
        )
    return figures


def evaluator_of(config: Stage2Config) -> Evaluator:
    """Return an empty evaluation with the settings of a configuration."""
    wanted, device = config.evaluation, resolve_device(config.trainer.accelerator)
    return Evaluator(config.seed, wanted.feature_spaces, wanted.usefulness, device=device)


def headline(generation: Generation) -> dict[str, object]:
    """Return the figures that a table on the terminal shows."""
    figures: dict[str, object] = {
        "volumes drawn": generation.volumes,
        "recognised as their class": generation.class_accuracy,
        "MS-SSIM within classes": generation.msssim,
        "MS-SSIM within classes, real": generation.msssim_real,
    }
    for space in generation.spaces:
        figures[f"Frechet distance ({space.key})"] = space.generated.frechet
        if space.floor is not None:
            figures[f"Frechet distance ({space.key}), real"] = space.floor.frechet
    if generation.privacy is not None:
        figures["privacy"] = generation.privacy.verdict
    return {name: value for name, value in figures.items() if value is not None}


def _measure_translation(
    evaluator: Evaluator,
    config: Stage2Config,
    generator: Model,
    scans: dict[Split, ScanSet],
) -> TranslationMetrics:
    count = limited(len(scans["test"]), config.trainer.limit_val_batches, 1)
    how = SampleRequest.completion_of(config)
    test = scans["test"].first(count)
    return measure_translation(generator, scans["train"], test, how, kept=evaluator.kept)


def measure_generation(
    evaluator: Evaluator,
    config: Stage2Config,
    generator: Model,
    scans: dict[Split, ScanSet] | None,
) -> Generation:
    """Draw volumes of every class and compare them with the test split."""
    real, train = real_splits(config, generator.tokenizer, "test", scans)
    labels = generator.labels_of(["all"], config.evaluation.samples_per_class)
    request = SampleRequest.generation_of(config, labels)
    ours = generated(generator, request, evaluator.kept)
    return evaluator.measure_generation(real, ours, train)


def real_splits(
    config: Stage2Config,
    tokenizer: Tokenizer,
    split: HeldOut,
    scans: dict[Split, ScanSet] | None = None,
) -> tuple[VolumeSet, VolumeSet]:
    """Return a split and the training split; ``scans`` are opened where they are not given."""
    data = config.data
    if isinstance(data, MedMNISTSourceConfig):
        return split_of(data, split), split_of(data, "train")
    scans = scans or scans_of(config, tokenizer)
    return (
        scans_collection(scans[split], f"{data.data_dir}, {split} split"),
        scans_collection(scans["train"], f"{data.data_dir}, train split"),
    )
