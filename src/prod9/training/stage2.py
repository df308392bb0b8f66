"""Stage 2 from its configuration: tokenizer, token stores, transformer, run."""

import matplotlib.figure
import pytorch_lightning as pl
import torch
from torch import Tensor

from prod9.config import SamplerConfig, Stage2Config
from prod9.config.load import dump
from prod9.model import (
    Model,
    TransformerSpec,
    build_transformer,
    load_generator,
    save_transformer,
)
from prod9.montage import montage
from prod9.networks.condition import Condition
from prod9.networks.transformer import MaskedTransformer
from prod9.outpainting import draw_tokens
from prod9.runtime.console import say
from prod9.runtime.distributed import barrier, is_main, world_size
from prod9.shapes import Tokens
from prod9.tokenizer import Tokenizer
from prod9.training.previews import Preview
from prod9.training.processes import join
from prod9.training.run_folder import RunFolder
from prod9.training.stage2_module import Stage2Module
from prod9.training.strategies import require_strategy, whole_state
from prod9.training.tokens import (
    TrainingTokens,
    load_tokenizer,
    training_tokens,
)
from prod9.training.trainer import (
    prepare_training,
    require_runnable,
    resolve_device,
    run_training,
)


def build_module(
    config: Stage2Config, tokenizer: Tokenizer, tokens: TrainingTokens
) -> Stage2Module:
    """Return the training module with an untrained transformer."""
    transformer = build_transformer(
        config.model.transformer,
        levels=tokenizer.fsq.levels,
        num_classes=len(tokens.class_names),
        num_sources=tokens.num_sources,
        grid=tokenizer.grid(),
    )
    module = Stage2Module(config, transformer, tokenizer.digest)
    prepare_training(module.transformer, config.trainer)
    return module


def _preview(
    module: Stage2Module, tokenizer: Tokenizer, tokens: TrainingTokens, count: int
) -> Preview:
    """Draw with the averaged weights, always from the same seed.

    Of volumes, the first classes. Of scans, crops of the validation split: what is there, what is
    drawn from all other modalities, and what is drawn from the modality's name alone.
    """
    config, names = module.config, tokens.class_names
    examples = tokens.examples(count) if tokens.num_sources else None

    def drawn(condition: Condition, sampler: SamplerConfig) -> Tensor:
        stream = torch.Generator(module.device).manual_seed(config.seed)
        network, window = module.ema.network, tokens.window
        shape = (len(condition.labels), *window)
        empty = torch.full(shape, network.mask_id, device=module.device)
        result = draw_tokens(network, condition, empty, sampler, stream, window=window)
        return decoded(result)

    def decoded(grids: Tokens) -> Tensor:
        whole = tokenizer.spec.volume_shape if examples is None else None
        return tokenizer.to(module.device).decode(grids.to(module.device), whole)

    @torch.no_grad()
    def draw(batches: int) -> matplotlib.figure.Figure:
        null = module.transformer.null_label
        if examples is None:
            labels = torch.arange(count, device=module.device) % len(names)
            rows = [("drawn", drawn(Condition(labels, null), config.sampler))]
        else:
            labels, sources, origin = (
                None if t is None else t.to(module.device)
                for t in (examples.labels, examples.sources, examples.origin)
            )
            assert labels is not None
            given = Condition(labels, null, sources, origin)
            alone = Condition(labels, null, None, origin)
            rows = [
                ("tokens of\nthe scan", decoded(examples.tokens)),
                ("from the\nothers", drawn(given, config.completion)),
                ("from noise", drawn(alone, config.sampler)),
            ]
        columns = [names[label] for label in labels.tolist()]
        return montage(rows, columns, f"Stage 2 after {batches} batches")

    return draw


def train(config: Stage2Config, *, resume: bool = False, overwrite: bool = False) -> Model:
    """Train, write ``output_dir/transformer.pt`` and return the generator.

    All processes of a distributed run come here; the main one writes.

    Raises:
        Prod9Error: any mistake in configuration, tokenizer, data or output folder.
    """
    join(config.trainer)
    require_strategy(config)
    folder = RunFolder(config.output_dir)
    if is_main():
        folder.check(config, resume=resume, overwrite=overwrite)
    require_runnable(config.trainer)
    tokenizer = load_tokenizer(config)
    tokens = training_tokens(config, tokenizer)
    if is_main():
        folder.claim(config, resume=resume, overwrite=overwrite)
    barrier()
    pl.seed_everything(config.seed, workers=True, verbose=False)
    module = build_module(config, tokenizer, tokens)
    parameters = sum(p.numel() for p in module.transformer.parameters())
    say(
        f"Stage 2: {config.data.dataset_name}, {tokens.summary}, {tokenizer.codebook_size} codes; "
        f"{parameters / 1e6:.1f} M parameters"
    )
    say(f"run folder: {folder.root}; transformer will be written to {folder.transformer}")
    pictures, preview = config.callbacks.preview, None
    split = config.trainer.strategy == "fsdp" and world_size() > 1
    if pictures.every_n_steps and split:
        say("no previews: with trainer.strategy=fsdp no process has the whole transformer")
    elif pictures.every_n_steps:
        preview = _preview(module, tokenizer, tokens, pictures.num_volumes)
    trainer = run_training(
        config,
        folder,
        module,
        tokens.train,
        tokens.val,
        title="Stage 2",
        monitor="val/loss",
        mode="min",
        preview=preview,
        resume=resume,
    )
    spec = TransformerSpec(
        transformer=config.model.transformer,
        levels=tokenizer.fsq.levels,
        class_names=tokens.class_names,
        num_sources=tokens.num_sources,
        grid=tokenizer.grid(),
        window=tokens.window,
        train_subjects=tokens.subjects,
        tokenizer_digest=tokenizer.digest,
        config_yaml=dump(config),
    )
    transformer = module.ema.network
    if split:
        transformer = _rebuilt(spec, whole_state(transformer))
    if trainer.is_global_zero:
        save_transformer(folder.transformer, spec, transformer)
        say(f"transformer written to {folder.transformer}")
    device = resolve_device(config.trainer.accelerator)
    return Model(tokenizer.to(device), transformer.to(device).eval(), spec)


def _rebuilt(spec: TransformerSpec, state: dict[str, Tensor]) -> MaskedTransformer:
    """Return an ordinary network with the weights of one that was split over processes."""
    transformer = build_transformer(
        spec.transformer,
        levels=spec.levels,
        num_classes=len(spec.class_names),
        num_sources=spec.num_sources,
        grid=spec.grid,
    )
    transformer.load_state_dict(state)
    return transformer


def load(config: Stage2Config) -> Model:
    """Read the trained generator of a configuration.

    Raises:
        Prod9Error: not trained yet, or trained on another tokenizer.
    """
    device = resolve_device(config.trainer.accelerator)
    tokenizer = load_tokenizer(config)
    return load_generator(RunFolder(config.output_dir).transformer, tokenizer, device)
