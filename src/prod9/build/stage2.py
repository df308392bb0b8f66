"""Stage 2 from its configuration: tokenizer, token stores, transformer, run."""

import difflib
from collections.abc import Callable, Sequence

import matplotlib.figure
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from prod9.build.announce import say
from prod9.build.hot_paths import prepare_training
from prod9.build.run_folder import RunFolder
from prod9.build.tokens import (
    TrainingTokens,
    load_tokenizer,
    training_tokens,
)
from prod9.build.trainer import (
    build_trainer,
    require_runnable,
    resolve_device,
)
from prod9.config import SamplerConfig, Stage2Config
from prod9.config.load import dump
from prod9.data.batches import set_epoch
from prod9.errors import UserError
from prod9.generator import (
    Generator,
    TransformerSpec,
    build_transformer,
    load_generator,
    save_transformer,
)
from prod9.models.condition import Condition
from prod9.montage import montage
from prod9.outpainting import draw_tokens
from prod9.shapes import Tokens
from prod9.tokenizer import Tokenizer
from prod9.training.previews import Previews
from prod9.training.progress import TrainingProgress
from prod9.training.stage2 import Stage2Module


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
) -> Callable[[int], matplotlib.figure.Figure]:
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


def train(config: Stage2Config, *, resume: bool = False, overwrite: bool = False) -> Generator:
    """Train, write ``output_dir/transformer.pt`` and return the generator.

    Raises:
        UserError: any mistake in configuration, tokenizer, data or output folder.

    """
    folder = RunFolder(config.output_dir)
    folder.check(config, resume=resume, overwrite=overwrite)
    require_runnable(config.trainer)
    tokenizer = load_tokenizer(config)
    tokens = training_tokens(config, tokenizer)
    folder.claim(config, resume=resume, overwrite=overwrite)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    module = build_module(config, tokenizer, tokens)
    parameters = sum(p.numel() for p in module.transformer.parameters())
    say(
        f"Stage 2: {config.data.dataset_name}, {tokens.summary}, {tokenizer.codebook_size} codes; "
        f"{parameters / 1e6:.1f} M parameters"
    )
    say(f"run folder: {folder.root}; transformer will be written to {folder.transformer}")
    callbacks: list[Callback] = [TrainingProgress("Stage 2", config.data.batch_size)]
    preview = config.callbacks.preview
    if preview.every_n_steps:
        draw = _preview(module, tokenizer, tokens, preview.num_volumes)
        callbacks.append(Previews(folder.previews, preview.every_n_steps, draw))
    trainer = build_trainer(config, folder, monitor="val/loss", mode="min", callbacks=callbacks)
    if resume:  # workers fetch before Lightning tells them the epoch
        set_epoch(tokens.train, folder.epochs_done())
    trainer.fit(
        module,
        tokens.train,
        tokens.val,
        ckpt_path=str(folder.last_checkpoint) if resume else None,
        weights_only=True,
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
    if trainer.is_global_zero:
        save_transformer(folder.transformer, spec, module.ema.network)
        say(f"transformer written to {folder.transformer}")
    device = resolve_device(config.trainer.accelerator)
    return Generator(tokenizer.to(device), module.ema.network.to(device).eval(), spec)


def load(config: Stage2Config) -> Generator:
    """Read the trained generator of a configuration.

    Raises:
        UserError: not trained yet, or trained on another tokenizer.

    """
    device = resolve_device(config.trainer.accelerator)
    tokenizer = load_tokenizer(config)
    return load_generator(RunFolder(config.output_dir).transformer, tokenizer, device)


def labels_of(generator: Generator, names: Sequence[str], count: int) -> Tensor:
    """Return ``count`` labels for each of the classes called ``names`` ("all" for every class).

    Raises:
        UserError: no such class; names the nearest one.

    """
    known = generator.class_names
    lower = [name.lower() for name in known]
    chosen: list[int] = []
    for name in names:
        if name == "all":
            chosen += range(len(known))
        elif name.lower() in lower:
            chosen.append(lower.index(name.lower()))
        else:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from: {', '.join(known)}, all."
            kind = "modality" if generator.spec.num_sources else "class"
            raise UserError(f"--{kind} {name}: this model knows no such {kind}; {hint}")
    return torch.tensor(chosen).repeat_interleave(count)
