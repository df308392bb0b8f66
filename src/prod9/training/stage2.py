"""Stage 2 from its configuration: tokenizer, token stores, transformer, run."""

from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor

from prod9.config import SamplerConfig, Stage2Config
from prod9.config.data import coarse_of
from prod9.config.load import dump
from prod9.data.crops import examples
from prod9.data.tokens.store import TokenBatch
from prod9.model import (
    CovariateSpec,
    Model,
    TransformerSpec,
    load_generator,
    save_transformer,
    untrained,
)
from prod9.montage import montage
from prod9.networks.condition import Condition
from prod9.outpainting import draw_tokens
from prod9.runtime.console import say
from prod9.runtime.device import resolve_device
from prod9.runtime.distributed import is_main, world_size
from prod9.shapes import Tokens
from prod9.tokenizer import Tokenizer
from prod9.training.display.previews import Preview
from prod9.training.initial import start_stage2
from prod9.training.run_folder import RunFolder
from prod9.training.stage2_module import Stage2Module
from prod9.training.strategies import whole_state
from prod9.training.tokens import load_tokenizer, training_tokens, window_of
from prod9.training.trainer import (
    TrainingData,
    begin,
    prepare_training,
    run_training,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _preview(
    module: Stage2Module, tokenizer: Tokenizer, tokens: TrainingData, count: int
) -> Preview:
    """Generate with the averaged weights, always from the same seed.

    Of volumes with one channel, the first classes. Otherwise crops of the validation split: the
    truth, what is generated from all other channels, and from class and channel alone; with a
    coarse grid from what the scan's coarse volume shows.
    """
    config, names, channels = module.config, tokens.data.label_names, len(tokens.data.channels)
    window = window_of(config, tokenizer)
    coarse = coarse_of(config.data).factor > 0
    shown = examples(tokens.val, count) if channels > 1 or coarse else None
    if shown is not None and tokenizer.spec.labels:  # a picture of labels shows no anatomy
        images = torch.tensor(tokens.data.image_channels)
        many = examples(tokens.val, 4 * count)
        kept = torch.isin(many.labels % channels, images).nonzero()[:count, 0]
        parts = (x[kept] if isinstance(x, Tensor) else x for x in many)
        shown = TokenBatch(*cast("Any", parts))

    def generated(condition: Condition, sampler: SamplerConfig) -> Tensor:
        stream = torch.Generator(module.device).manual_seed(config.seed)
        network = module.ema.network
        shape = (len(condition.classes), *window)
        empty = torch.full(shape, network.mask_id, device=module.device)
        result = draw_tokens(network, condition, empty, sampler, stream, window=window)
        return decoded(result)

    def decoded(grids: Tokens) -> Tensor:
        whole = tokenizer.spec.volume_shape if window == tokenizer.grid() else None
        return tokenizer.to(module.device).decode(grids.to(module.device), whole)

    @torch.no_grad()
    def draw(batches: int) -> "Figure":
        if shown is None:
            labels = torch.arange(count, device=module.device) % len(names)
            rows = [("drawn", generated(Condition.of(labels, channels), config.sampler))]
        else:
            labels, *rest = (
                None if t is None else t.to(module.device)
                for t in (shown.labels, shown.sources, shown.origin, shown.covariates)
            )
            assert labels is not None
            given = others = Condition.of(labels, channels, *rest)
            rows, alone = [("tokens of\nthe scan", decoded(shown.tokens))], "from noise"
            nothing = replace(given, sources=None)
            if coarse:
                absent, sources = module.transformer.mask_id, module.transformer.num_sources
                last = torch.arange(sources, device=module.device).expand(len(labels), -1)
                last = last == sources - 1
                others, nothing = (given.without_sources(each, absent) for each in (last, ~last))
                alone = "from the\ncoarse grid"
            if channels > 1:
                rows.append(("from the\nothers", generated(others, config.completion)))
            rows.append((alone, generated(nothing, config.sampler)))
        columns = [names[label] for label in labels.tolist()]
        return montage(rows, columns, f"Stage 2 after {batches} batches")

    return draw


def train(config: Stage2Config, *, resume: bool = False, overwrite: bool = False) -> Model:
    """Train, write ``output_dir/transformer.pt`` and return the generator.

    All processes of a distributed run come here; the main one writes.

    Raises:
        Prod9Error: any mistake in configuration, tokenizer, data or output folder.
    """
    folder = begin(config, resume=resume, overwrite=overwrite)
    tokenizer = load_tokenizer(config)
    tokens = training_tokens(config, tokenizer)
    data = tokens.data
    spec = TransformerSpec(
        transformer=config.model.transformer,
        levels=tokenizer.fsq.levels,
        class_names=data.class_names,
        channels=tuple(channel.name for channel in data.channels),
        covariates=tuple(CovariateSpec.model_validate(asdict(each)) for each in data.covariates),
        coarse_factor=coarse_of(config.data).factor,
        num_sources=len(data.channels) if len(data.channels) > 1 else 0,
        grid=tokenizer.grid(),
        window=window_of(config, tokenizer),
        train_subjects=tuple(sorted(set(data.subjects))),
        tokenizer_digest=tokenizer.digest,
        config_yaml=dump(config),
    )
    pl.seed_everything(config.seed, workers=True, verbose=False)
    module = Stage2Module(config, untrained(spec), tokenizer.digest)
    if config.init_from is not None:
        start_stage2(module, config.init_from)
    prepare_training(module.transformer, config.trainer)
    say(f"Stage 2: {tokenizer.codebook_size} codes, to be written to {folder.transformer}")
    split = config.trainer.strategy == "fsdp" and world_size() > 1
    preview = None if split else partial(_preview, module, tokenizer, tokens)
    if split and config.callbacks.preview.every_n_steps:
        say("no previews: with trainer.strategy=fsdp no process has the whole transformer")
    run_training(config, folder, module, tokens, preview, resume=resume, overwrite=overwrite)
    transformer = module.ema.network
    if split:
        state, transformer = whole_state(transformer), untrained(spec)
        transformer.load_state_dict(state)
    if is_main():
        save_transformer(folder.transformer, spec, transformer)
        say(f"transformer written to {folder.transformer}")
    device = resolve_device(config.trainer.accelerator)
    return Model(tokenizer.to(device), transformer.to(device).eval(), spec)


def load(config: Stage2Config) -> Model:
    """Read the trained generator of a configuration.

    Raises:
        Prod9Error: not trained yet, or trained on another tokenizer.
    """
    device = resolve_device(config.trainer.accelerator)
    tokenizer = load_tokenizer(config)
    return load_generator(RunFolder(config.output_dir).transformer, tokenizer, device)
