"""Stage 2 from its configuration: tokenizer, token stores, transformer, run."""

import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import matplotlib.figure
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from rich.progress import track
from torch import Tensor

from prod9.build.announce import say
from prod9.build.run_folder import RunFolder
from prod9.build.stage1 import require_medmnist
from prod9.build.trainer import (
    build_trainer,
    lightning_accelerator,
    quieten_lightning,
    resolve_device,
)
from prod9.config import MedMNISTSourceConfig, Stage2Config
from prod9.config.load import dump
from prod9.data import medmnist
from prod9.data.batches import make_loader, set_epoch
from prod9.data.medmnist import Split
from prod9.data.token_store import (
    TokenStore,
    TokenStoreKey,
    fingerprint,
    open_or_build,
    token_loader,
)
from prod9.data.volumes import VolumeDataset
from prod9.errors import UserError
from prod9.evaluate.provenance import provenance, write_json
from prod9.files import require_writable
from prod9.generator import (
    Generator,
    TransformerSpec,
    build_transformer,
    draw_tokens,
    load_generator,
    save_transformer,
)
from prod9.montage import montage
from prod9.tokenizer import Tokenizer
from prod9.training.previews import Previews
from prod9.training.progress import TrainingProgress
from prod9.training.stage2 import Stage2Module


def load_tokenizer(config: Stage2Config) -> Tokenizer:
    """Read the tokenizer of a Stage 2 configuration and check that it fits the data.

    Raises:
        UserError: no such file, or made for another data set or size.

    """
    data = require_medmnist(config.data, MedMNISTSourceConfig)
    tokenizer = Tokenizer.load(config.autoencoder_path, resolve_device(config.trainer.accelerator))
    spec = tokenizer.spec
    if spec.volume_shape != (data.size,) * 3:
        raise UserError(
            f"{config.autoencoder_path} was trained on volumes of {spec.volume_shape[0]}^3, but "
            f"data.size is {data.size}; set data.size={spec.volume_shape[0]} or train Stage 1 anew."
        )
    if spec.dataset_name != data.dataset_name:
        say(
            f"note: the tokenizer was trained on {spec.dataset_name}, the transformer learns "
            f"{data.dataset_name}"
        )
    return tokenizer


def open_tokens(config: Stage2Config, tokenizer: Tokenizer, split: Split) -> TokenStore:
    """Open the token store of a split; encode the split first if there is none."""
    data = require_medmnist(config.data, MedMNISTSourceConfig)
    volumes = medmnist.load(data, split)
    key = TokenStoreKey(tokenizer.digest, fingerprint(volumes), split)
    device = next(tokenizer.parameters()).device
    batches = make_loader(
        VolumeDataset(volumes),
        data.batch_size,
        train=False,
        seed=config.seed,
        num_workers=data.num_workers,
    )

    def encoded() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in track(batches, f"encoding {split}", transient=True):
            yield tokenizer.encode(batch.volumes.to(device)), batch.labels

    return open_or_build(
        RunFolder(config.output_dir).tokens,
        key,
        names=volumes.names,
        class_names=volumes.class_names,
        grid=tokenizer.grid(),
        codebook_size=tokenizer.codebook_size,
        batches=encoded,
    )


def build_module(config: Stage2Config, tokenizer: Tokenizer, num_classes: int) -> Stage2Module:
    """Return the training module with an untrained transformer."""
    levels = tokenizer.fsq.levels
    transformer = build_transformer(config.model.transformer, levels, num_classes)
    return Stage2Module(config, transformer, tokenizer.digest)


def _preview(
    module: Stage2Module, tokenizer: Tokenizer, class_names: tuple[str, ...], count: int
) -> Callable[[int], matplotlib.figure.Figure]:
    """Draw volumes of the first classes with the averaged weights, always from the same seed."""
    config = module.config

    @torch.no_grad()
    def draw(batches: int) -> matplotlib.figure.Figure:
        labels = torch.arange(count, device=module.device) % len(class_names)
        stream = torch.Generator(module.device).manual_seed(config.seed)
        grid = tokenizer.grid()
        tokens = draw_tokens(module.ema.network, labels, grid, config.sampler, stream)
        volumes = tokenizer.to(module.device).decode(tokens, tokenizer.spec.volume_shape)
        columns = [class_names[label] for label in labels.tolist()]
        return montage([("drawn", volumes)], columns, f"Stage 2 after {batches} batches")

    return draw


def train(config: Stage2Config, *, resume: bool = False, overwrite: bool = False) -> Generator:
    """Train, write ``output_dir/transformer.pt`` and return the generator.

    Raises:
        UserError: any mistake in configuration, tokenizer, data or output folder.

    """
    data = require_medmnist(config.data, MedMNISTSourceConfig)
    folder = RunFolder(config.output_dir)
    tokenizer = load_tokenizer(config)
    require_writable(folder.root)
    train_store = open_tokens(config, tokenizer, "train")
    val_store = open_tokens(config, tokenizer, "val")
    folder.claim(config, resume=resume, overwrite=overwrite)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    module = build_module(config, tokenizer, len(train_store.class_names))
    parameters = sum(p.numel() for p in module.transformer.parameters())
    grid = "x".join(map(str, tokenizer.grid()))
    say(
        f"Stage 2: {data.dataset_name}, {len(train_store)} training volumes of {grid} tokens, "
        f"{tokenizer.codebook_size} codes; {parameters / 1e6:.1f} M parameters"
    )
    say(f"run folder: {folder.root}; transformer will be written to {folder.transformer}")
    callbacks: list[Callback] = [TrainingProgress("Stage 2", data.batch_size)]
    preview = config.callbacks.preview
    if preview.every_n_steps:
        draw = _preview(module, tokenizer, train_store.class_names, preview.num_volumes)
        callbacks.append(Previews(folder.previews, preview.every_n_steps, draw))
    trainer = build_trainer(config, folder, monitor="val/loss", mode="min", callbacks=callbacks)
    workers = data.num_workers
    train_batches = token_loader(
        train_store, data.batch_size, train=True, seed=config.seed, num_workers=workers
    )
    if resume:  # workers fetch before Lightning tells them the epoch
        set_epoch(train_batches, folder.epochs_done())
    trainer.fit(
        module,
        train_batches,
        token_loader(
            val_store, data.batch_size, train=False, seed=config.seed, num_workers=workers
        ),
        ckpt_path=str(folder.last_checkpoint) if resume else None,
        weights_only=True,
    )
    spec = TransformerSpec(
        transformer=config.model.transformer,
        levels=tokenizer.fsq.levels,
        class_names=train_store.class_names,
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


def measure(config: Stage2Config, split: Literal["val", "test"]) -> dict[str, object]:
    """Return the transformer's figures on a split; ``test`` writes ``metrics.json``.

    Raises:
        UserError: not trained yet; data that cannot be read.

    """
    generator = load(config)
    store = open_tokens(config, generator.tokenizer, split)
    module = Stage2Module(config, generator.transformer)
    quieten_lightning()
    trainer = pl.Trainer(
        accelerator=lightning_accelerator(config.trainer.accelerator),
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=config.trainer.limit_val_batches or None,
        use_distributed_sampler=False,
    )
    batches = token_loader(
        store,
        require_medmnist(config.data, MedMNISTSourceConfig).batch_size,
        train=False,
        seed=config.seed,
    )
    (values,) = trainer.validate(module, batches, verbose=False)
    figures: dict[str, object] = {name.removeprefix("val/"): v for name, v in values.items()}
    if split == "test":
        source = provenance(
            seed=config.seed,
            tokenizer=generator.tokenizer.digest,
            transformer=generator.digest,
            volumes=len(store),
            limit_val_batches=config.trainer.limit_val_batches,
            config=dump(config),
        )
        write_json(
            RunFolder(config.output_dir).metrics, masked_prediction=figures, provenance=source
        )
    return figures


def labels_of(generator: Generator, names: Sequence[str], count: int) -> Tensor:
    """Return ``count`` labels for each of the classes called ``names`` ("all" for every class).

    Raises:
        UserError: no such class; names the nearest one.

    """
    known = generator.class_names
    chosen: list[int] = []
    for name in names:
        if name == "all":
            chosen += range(len(known))
        elif name in known:
            chosen.append(known.index(name))
        else:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from: {', '.join(known)}, all."
            raise UserError(f"--class {name}: there is no such class; {hint}")
    return torch.tensor(chosen).repeat_interleave(count)
