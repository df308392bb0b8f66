"""Changing any key of a configuration changes what is built or done: there are no inert keys.

Each key has a probe, a function of the configuration whose result must change with the key. A key
without a probe fails, so none can be added that nothing reads.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch
from pydantic.fields import FieldInfo
from torch import Tensor, nn

from prod9.config import (
    BraTSDataConfig,
    BraTSSourceConfig,
    PreprocessingConfig,
    SamplerConfig,
    Stage1Config,
    Stage2Config,
)
from prod9.config.base import leaves
from prod9.data import medmnist
from prod9.data.array_dataset import ArrayDataset
from prod9.data.brats import dataset as stage_scans
from prod9.data.brats.layouts import MODALITIES
from prod9.data.phantom.cohort import make_phantom
from prod9.data.tokens.store import TokenBatch
from prod9.errors import Prod9Error
from prod9.evaluation import test_metrics
from prod9.losses.feature_loss import FeatureLoss
from prod9.model import build_transformer
from prod9.networks.condition import Condition
from prod9.networks.discriminator import MultiScaleDiscriminator
from prod9.outpainting import draw_tokens
from prod9.registry import LOSSES
from prod9.runtime import distributed
from prod9.sample_request import SampleRequest
from prod9.sliding_window import encode_latent
from prod9.tokenizer import Tokenizer, TokenizerSpec, build_autoencoder
from prod9.training import processes, stage1, stage2, strategies, trainer
from prod9.training.last_checkpoint import LastCheckpoint
from prod9.training.previews import Previews
from prod9.training.stage1_module import Stage1Module
from prod9.training.stage2_module import Stage2Module

Config = Stage1Config | Stage2Config
TINY_AUTOENCODER = {"num_channels": (8, 8), "norm_num_groups": 4, "levels": (5, 4, 3)}
BASE: dict[type, dict[str, Any]] = {
    Stage1Config: {
        "output_dir": Path("out"),
        "autoencoder_export_path": Path("tokenizer.pt"),
        "data": {"dataset_name": "adrenalmnist3d", "batch_size": 2},
        "model": {
            "autoencoder": TINY_AUTOENCODER,
            "discriminator": {"channels": 4, "num_layers_d": 1},
        },
        "loss": {"loss_type": "ffl", "discriminator_iter_start": 5},
        "training": {"scheduler": {"warmup_steps": 3}},
    },
    Stage2Config: {
        "output_dir": Path("out"),
        "autoencoder_path": Path("tokenizer.pt"),
        "data": {"dataset_name": "adrenalmnist3d", "batch_size": 2},
        "model": {
            "transformer": {"hidden_dim": 32, "num_blocks": 1, "num_heads": 2, "token_dim": 8}
        },
        "training": {"scheduler": {"warmup_steps": 3}},
        "sampler": {"steps": 4},
        "completion": {"steps": 4, "guidance_scale": 1.5},
    },
}


# Scans of 20 x 20 x 13 voxels, four subjects; the folders are in the folder where a test runs.
SPACING = {"spacing_mm": (12.0, 12.0, 12.0)}
BRATS: dict[type, dict[str, Any]] = {
    Stage1Config: {"preprocessing": SPACING},
    Stage2Config: {},
}
for own in BRATS.values():
    own |= {"dataset_name": "brats", "data_dir": Path("cohort"), "batch_size": 2}


def configure(kind: type[Any], changes: Mapping[str, Any]) -> Any:
    """Return the tiny configuration with dotted keys changed."""

    def copied(value: Any) -> Any:
        return {k: copied(v) for k, v in value.items()} if isinstance(value, dict) else value

    values = copied(BASE[kind])
    for key, value in changes.items():
        *sections, name = key.split(".")
        section = values
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = copied(value)
    return kind.model_validate(values)


# --- what is recorded of a run ------------------------------------------------------------------


@dataclass
class Run:
    """What the factory made of a configuration, and what it would have done."""

    trainer: dict[str, Any] = field(default_factory=dict)
    module: Any = None
    batches: Any = None
    saved: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    encoded: list[int] = field(default_factory=list)
    """Volumes or windows that went through the encoder at once."""

    def callback(self, kind: type[Any]) -> Any:
        return next((c for c in self.trainer["callbacks"] if isinstance(c, kind)), None)


def volume_set() -> ArrayDataset:
    images = np.random.default_rng(0).integers(0, 256, (6, 1, 28, 28, 28), np.uint8)
    return ArrayDataset(
        "toy",
        images,
        names=[f"toy/{i}" for i in range(6)],
        classes=np.arange(6) % 2,
        class_names=("a", "b"),
        flips=((0, 1, 2), (0, 1, 2)),
    )


def toy_tokenizer(**data: Any) -> Tokenizer:
    config = configure(Stage1Config, {}).model.autoencoder
    torch.manual_seed(1)
    autoencoder = build_autoencoder(config)
    autoencoder.encoder[-1].weight.data *= 5
    cubes: dict[str, Any] = {
        "dataset_name": "adrenalmnist3d",
        "volume_shape": (28, 28, 28),
        "spacing_mm": (1.0, 1.0, 1.0),
        "class_names": ("a", "b"),
    }
    return Tokenizer(
        TokenizerSpec(autoencoder=config, config_yaml="", **(cubes | data)), autoencoder
    )


def scan_tokenizer() -> Tokenizer:
    return toy_tokenizer(
        dataset_name="brats",
        volume_shape=(20, 20, 13),
        class_names=MODALITIES,
        preprocessing=PreprocessingConfig.model_validate(SPACING),
    )


@pytest.fixture(scope="session")
def brats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two cohorts, a broken one, and a cache for preprocessed scans."""
    root = tmp_path_factory.mktemp("brats")
    for seed, name in enumerate(("cohort", "other")):
        make_phantom(root / name, cases=4, release="2021", seed=seed, voxel_mm=8.0)
    shutil.copytree(root / "cohort", root / "broken")
    next((root / "broken").rglob("*_t2.nii.gz")).unlink()
    return root


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Callable[[Config], Run]:
    """Return a caller of ``train`` with a Trainer that does nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(medmnist, "load", lambda config, split: volume_set())
    tokenizer, record = toy_tokenizer(), Run()
    if "brats" in request.node.name:
        root = request.getfixturevalue("brats")
        monkeypatch.setenv("PROD9_CACHE", str(root / "cache"))
        for name in ("cohort", "other", "broken"):
            (tmp_path / name).symlink_to(root / name)
        tokenizer = scan_tokenizer()
    tokenizer.autoencoder.encoder.register_forward_hook(
        lambda module, args, out: record.encoded.append(len(out))
    )

    class Nothing:
        is_global_zero = True

        def __init__(self, **settings: Any) -> None:
            record.trainer = settings
            self.callbacks = settings["callbacks"]
            self._signal_connector = SimpleNamespace()

        def fit(self, module: Any, train: Any, val: Any, **rest: Any) -> None:
            record.module, record.batches = module, train

    def load(path: Path, device: Any = "cpu") -> Tokenizer:
        record.loaded.append(str(path))
        return tokenizer

    monkeypatch.setattr(trainer.pl, "Trainer", Nothing)
    monkeypatch.setattr(Tokenizer, "load", load)
    monkeypatch.setattr(Tokenizer, "save", lambda self, path: record.saved.append(str(path)))

    def call(config: Config) -> Run:
        nonlocal record
        record = Run()
        if isinstance(config, Stage1Config):
            stage1.train(config, overwrite=True)
        else:
            stage2.train(config, overwrite=True)
        return record

    return call


# --- probes: (configuration, run) -> something that must change ----------------------------------

Probe = Callable[[Any, Callable[[Config], Run]], object]


def plain(value: Any) -> Any:
    """Return something that == compares."""
    return value.tolist() if isinstance(value, Tensor) else value


def setting(name: str) -> Probe:
    return lambda config, run: run(config).trainer[name]


def accelerator(config: Config, run: Any) -> object:
    return run(config).trainer["accelerator"]


def processes_wanted(config: Config, run: Any) -> object:
    return processes.wanted(config.trainer)


def strategy_of_two(config: Config, run: Any) -> object:
    """Of a run of two processes: one process needs no strategy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "world_size", lambda: 2)
        strategies.require_strategy(config)
        return type(strategies.build_strategy(config)).__name__


def or_error(probe: Probe) -> Probe:
    """A mistake's sentence is a result too."""

    def probed(config: Config, run: Any) -> object:
        try:
            return probe(config, run)
        except Prod9Error as error:
            return str(error)

    return probed


def prepared(config: Config, run: Any) -> object:
    """How many parts of the network are compiled, how many compute their activations twice."""
    module = run(config).module
    network = module.autoencoder if isinstance(config, Stage1Config) else module.transformer
    parts = list(network.modules())
    return (
        sum(part._compiled_call_impl is not None for part in parts),
        sum(getattr(part, "recompute", False) for part in parts),
    )


def checkpoint(name: str) -> Probe:
    return lambda config, run: [
        getattr(callback, name)
        for callback in run(config).trainer["callbacks"]
        if isinstance(callback, trainer.ModelCheckpoint)
    ]


def last_checkpoint(config: Config, run: Any) -> object:
    settings = run(config).callback(LastCheckpoint).config
    return settings.every_n_epochs, settings.every_n_steps


def on_nan(config: Config, run: Any) -> object:
    return run(config).module.nonfinite_guard.policy


def preview(config: Config, run: Any) -> object:
    callback = run(config).callback(Previews)
    return None if callback is None else (callback.every, len(callback.preview(0).axes))


def loaded_batch(config: Config, run: Any) -> object:
    batch = next(iter(run(config).batches))
    return [plain(part) for part in batch[:2]]


def loggers(config: Config, run: Any) -> object:
    return [type(logger).__name__ for logger in run(config).trainer["logger"]]


def workers(config: Config, run: Any) -> object:
    return run(config).batches.num_workers


def files(config: Config, run: Any) -> object:
    """Which files would be fetched, from where to where, and whether they may be."""
    asked: list[object] = []

    def fetch(url: str, path: Path, *, allowed: bool, **rest: Any) -> Path:
        asked.append((url, path, allowed))
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(medmnist, "fetch", fetch)
        medmnist.prepare(config.data)  # type: ignore[arg-type]
    return asked


def weights(config: Config, run: Any) -> object:
    return plain(next(run(config).module.parameters()))


def windows(config: Config, run: Any) -> object:
    """Latents by sliding window, and how many windows went through the encoder at once."""
    tokenizer = toy_tokenizer()
    sizes: list[int] = []
    tokenizer.autoencoder.encoder.register_forward_hook(
        lambda module, args, out: sizes.append(len(out))
    )
    volume = torch.rand(1, 1, 80, 10, 10, generator=torch.Generator().manual_seed(0))
    return plain(encode_latent(tokenizer, volume, config.sliding_window)), sizes


def autoencoder(config: Stage1Config, run: Any) -> object:
    network = run(config).module.autoencoder
    return repr(network), network.fsq.levels


def discriminator(config: Stage1Config, run: Any) -> object:
    return repr(run(config).module.discriminator)


class Distance(nn.Module):
    def forward(self, a: Tensor, b: Tensor, generator: object = None) -> Tensor:
        return (a - b).square().mean()


def named(loss: Any) -> tuple[str, float]:
    return LOSSES.get(loss.loss_type).key, loss.feature_section().weight


def stage1_module(config: Stage1Config) -> Stage1Module:
    torch.manual_seed(0)
    return Stage1Module(
        config,
        build_autoencoder(config.model.autoencoder),
        FeatureLoss(*named(config.loss), Distance()),
        MultiScaleDiscriminator(1, 4, 1, 1),
    )


X = torch.rand(2, 1, 12, 12, 12, generator=torch.Generator().manual_seed(0))


def terms(config: Stage1Config, run: Any) -> object:
    module = stage1_module(config)
    found = module.reconstruction_terms(module.autoencoder(X).volume, X)
    return {name: float(term.detach()) for name, term in found.items()}


def adversarial(config: Stage1Config, run: Any) -> object:
    module = stage1_module(config)
    volume = module.autoencoder(X).volume
    seen = volume.detach().requires_grad_()
    verdicts = module._verdicts(X, seen)
    term, pull = module._adversarial(verdicts, volume, seen, torch.ones_like(seen), 1.0)
    return float(term), float(pull.norm())


def feature_loss(config: Stage1Config, run: Any) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage1, "fetch_medicalnet", lambda config: Path("weights"))
        patch.setattr(stage1, "load_weights", lambda path: {})
        patch.setattr(stage1, "MedicalNetPerceptualLoss", lambda weights: Distance())
        torch.manual_seed(0)
        loss = stage1.build_feature_loss(config.loss)
        return type(loss.term).__name__, float(loss(X, X.flip(2)))


def medicalnet(config: Stage1Config, run: Any) -> object:
    """Return where the weights come from: a path, the network, or nowhere."""

    def fetch(url: str, target: Path, **rest: Any) -> Path:
        return Path("fetched")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage1, "fetch", fetch)
        patch.setenv("PROD9_CACHE", "no-cache-here")
        try:
            return str(stage1.fetch_medicalnet(config.loss.perceptual))
        except Prod9Error as error:
            return str(error)


class Planned:
    """The little of a Trainer that modules ask for."""

    estimated_stepping_batches = 20
    global_step = global_rank = 0
    precision_plugin = None


def module_of(config: Config) -> Any:
    if isinstance(config, Stage1Config):
        module: Any = stage1_module(config)
    else:
        module = Stage2Module(config, transformer(config))
    module._trainer = Planned()
    return module


def optimizers(config: Config, run: Any) -> object:
    optimizers, schedulers = module_of(config).configure_optimizers()
    found: list[object] = []
    for optimizer, schedule in zip(optimizers, schedulers, strict=True):
        schedule = schedule["scheduler"] if isinstance(schedule, dict) else schedule
        group = optimizer.param_groups[0]
        found.append((group["initial_lr"], group["betas"], group["weight_decay"]))
        found.append([schedule.lr_lambdas[0](step) for step in range(20)])
    return found


def clipped(config: Config, run: Any) -> object:
    module = module_of(config)
    optimizer = module.configure_optimizers()[0][0]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    module.log = lambda *args, **kwargs: None
    module.on_before_optimizer_step(optimizer)
    return float(parameters[0].grad.max())


def averaged(config: Config, run: Any) -> object:
    module = module_of(config)
    network = module.autoencoder if isinstance(config, Stage1Config) else module.transformer
    for parameter in network.parameters():
        parameter.data += 1
    module.ema.update(network)
    return plain(next(module.ema.network.parameters()))


def joins(config: Stage1Config, run: Any) -> object:
    module = stage1_module(config)
    active = []
    for module.batches_seen in range(10):
        active.append(module.adversarial_active())
    return active


def judged(config: Stage2Config, run: Any) -> object:
    """What is measured of how many volumes when generated volumes are judged."""
    generator: Any = SimpleNamespace(
        tokenizer=None, labels_of=lambda names, count: tuple(range(2)) * count
    )
    asked: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_metrics, "of_dataset", lambda data: data)
        patch.setattr(
            test_metrics, "generated", lambda model, request, kept: asked.append(request.labels)
        )
        patch.setattr(test_metrics.Evaluator, "measure_generation", lambda self, *sets: None)
        evaluator = test_metrics.evaluator_of(config)
        test_metrics.measure_generation(evaluator, config, generator, {"train": None, "test": None})
    return evaluator.feature_spaces, evaluator.usefulness, asked


TOKENS = torch.randint(60, (4, 3, 3, 2), generator=torch.Generator().manual_seed(0))
SOURCES = torch.randint(60, (4, 2, 3, 3, 2), generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 1, 0])


def transformer(config: Stage2Config) -> Any:
    """Return a transformer whose gates are open, so that every part of it is felt."""
    torch.manual_seed(0)
    network = build_transformer(
        config.model.transformer, levels=(5, 4, 3), num_classes=2, num_channels=2, grid=(3, 3, 2)
    )
    for parameter in network.parameters():
        if not parameter.detach().any():
            nn.init.normal_(parameter, std=0.3)
    return network


def loss_of(config: Stage2Config, run: Any) -> object:
    module = module_of(config).train()
    module.log = lambda *args, **kwargs: None
    torch.manual_seed(0)
    batch = TokenBatch(TOKENS, LABELS, list("abcd"), SOURCES)
    return float(module.training_step(batch, 0).detach())


def drawn(config: Stage2Config, run: Any) -> object:
    return drawn_with(config, config.sampler)


def completed(config: Stage2Config, run: Any) -> object:
    """Return what the commands that complete scans would draw with."""
    return drawn_with(config, SampleRequest.completion_of(config).sampler)


def drawn_with(config: Stage2Config, sampler: SamplerConfig) -> object:
    stream = torch.Generator().manual_seed(0)
    network = transformer(config).eval()
    condition = Condition.of(LABELS, 1)
    empty = torch.full_like(TOKENS, network.mask_id)
    return plain(draw_tokens(network, condition, empty, sampler, stream, window=TOKENS.shape[1:]))


def scans(config: Config, run: Any) -> Any:
    """Return what the training batches of a BraTS run are cut from."""
    Path(config.data.split_file).unlink(missing_ok=True)  # type: ignore[union-attr]
    source = run(config).batches.dataset
    return source.data


def who(config: Config, run: Any) -> object:
    """Names of the training scans, from a split that is drawn now."""
    return [*scans(config, run).names]


def split_files(config: Config, run: Any) -> object:
    """Where a split that is drawn now is written."""
    places = [Path("outputs/brats_split.json"), Path("mine.json")]
    for place in places:
        place.unlink(missing_ok=True)
    run(config)
    return [place.is_file() for place in places]


def cached(config: Config, run: Any) -> object:
    """Return where the preprocessed scans lie."""
    opened: list[Path] = []
    real = stage_scans.prepare

    def prepare(cases: Any, preprocessing: Any, cache: Path, *rest: Any) -> Any:
        opened.append(cache)
        return real(cases, preprocessing, cache, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_scans, "prepare", prepare)
        run(config)
    return opened


def count(config: Config, run: Any) -> object:
    return len(run(config).batches.dataset)


def grid(config: Config, run: Any) -> object:
    return scans(config, run).shape


def encoded(config: Stage2Config, run: Any) -> object:
    """Tokens of Stage 2's training set, encoded now, and the windows encoded at once."""
    shutil.rmtree("out", ignore_errors=True)
    found = run(config)
    return np.asarray(found.batches.dataset.store.tokens).tolist(), found.encoded


@dataclass(frozen=True)
class Key:
    """Another valid value of a key, its probe, and what else must be set for it to matter."""

    value: Any
    probe: Probe
    given: Mapping[str, Any] = field(default_factory=dict)


SHARED: dict[str, Key] = {
    "output_dir": Key(Path("elsewhere"), checkpoint("dirpath")),
    "seed": Key(1, weights),
    "data.dataset_name": Key("organmnist3d", files),
    "data.size": Key(64, files),
    "data.root": Key(Path("elsewhere"), files),
    "data.download": Key(False, files),
    "data.batch_size": Key(3, loaded_batch),
    "data.num_workers": Key(1, workers),
    "callbacks.checkpoint.every_n_epochs": Key(2, last_checkpoint),
    "callbacks.checkpoint.every_n_steps": Key(7, last_checkpoint),
    "callbacks.checkpoint.keep_best": Key(3, checkpoint("save_top_k")),
    "callbacks.preview.every_n_steps": Key(0, preview),
    "callbacks.preview.num_volumes": Key(2, preview),
    "trainer.max_epochs": Key(3, setting("max_epochs")),
    "trainer.limit_train_batches": Key(3, setting("limit_train_batches")),
    "trainer.limit_val_batches": Key(0.5, setting("limit_val_batches")),
    "trainer.check_val_every_n_epoch": Key(2, setting("check_val_every_n_epoch")),
    "trainer.log_every_n_steps": Key(3, setting("log_every_n_steps")),
    "trainer.logger": Key("csv", loggers),
    "trainer.accelerator": Key(
        "cpu" if torch.cuda.is_available() else "gpu", or_error(accelerator)
    ),
    "trainer.devices": Key(2, processes_wanted),
    "trainer.num_nodes": Key(2, processes_wanted),
    "trainer.strategy": Key("fsdp", or_error(strategy_of_two)),
    "trainer.precision": Key("bf16", setting("precision"), {"trainer.accelerator": "cpu"}),
    "trainer.compile": Key("default", prepared, {"trainer.accelerator": "cpu"}),
    "trainer.activation_checkpointing": Key(True, prepared),
    "trainer.on_nan": Key("skip", on_nan),
    "training.optimizer.learning_rate": Key(3e-3, optimizers),
    "training.optimizer.betas": Key((0.5, 0.6), optimizers),
    "training.optimizer.weight_decay": Key(0.3, optimizers),
    "training.scheduler.name": Key("constant", optimizers),
    "training.scheduler.warmup_steps": Key(7, optimizers),
    "training.scheduler.min_ratio": Key(0.5, optimizers),
    "training.stability.gradient_clip": Key(0.01, clipped),
    "training.stability.ema_decay": Key(0.05, averaged),
}
FFL = {
    "alpha": 2.0,
    "patch_factor": 2,
    "axes": (2,),
    "ratio": 0.1,
    "ave_spectrum": True,
    "log_matrix": True,
    "batch_matrix": True,
}
LPIPS = {"loss.loss_type": "lpips"}
ROI = {"sliding_window.roi_size": (12, 12, 12)}
STAGE1: dict[str, Key] = {
    **SHARED,
    "autoencoder_export_path": Key(Path("else.pt"), lambda config, run: run(config).saved),
    "data.augmentation.flip": Key(True, loaded_batch),
    "data.augmentation.intensity_scale": Key(0.3, loaded_batch),
    "data.augmentation.intensity_shift": Key(0.3, loaded_batch),
    "sliding_window.roi_size": Key((32, 32, 32), windows),
    "sliding_window.overlap": Key(0.1, windows, ROI),
    "sliding_window.sw_batch_size": Key(4, windows, ROI),
    "sliding_window.mode": Key("constant", windows, ROI),
    "model.autoencoder.levels": Key((5, 4, 4), autoencoder),
    "model.autoencoder.num_channels": Key((8, 12), autoencoder),
    "model.autoencoder.attention_levels": Key((False, True), autoencoder),
    "model.autoencoder.num_res_blocks": Key(2, autoencoder),
    "model.autoencoder.norm_num_groups": Key(2, autoencoder),
    "model.autoencoder.stem_stride": Key(2, autoencoder),
    "model.discriminator.num_d": Key(2, discriminator),
    "model.discriminator.channels": Key(8, discriminator),
    "model.discriminator.num_layers_d": Key(2, discriminator),
    "loss.loss_type": Key("lpips", feature_loss),
    "loss.reconstruction.weight": Key(2.0, terms),
    "loss.perceptual.weight": Key(2.0, terms, LPIPS),
    "loss.perceptual.weights_path": Key(Path(__file__), medicalnet, LPIPS),
    "loss.perceptual.download": Key(False, medicalnet, LPIPS),
    "loss.focal_frequency.weight": Key(2.0, terms),
    **{f"loss.focal_frequency.{key}": Key(value, feature_loss) for key, value in FFL.items()},
    "loss.adversarial.weight": Key(0.7, adversarial),
    "loss.adversarial.criterion": Key("least_squares", adversarial),
    "loss.adaptive.enabled": Key(False, adversarial),
    "loss.adaptive.max_weight": Key(1e-3, adversarial),
    "loss.discriminator_iter_start": Key(2, joins),
    "training.optimizer.discriminator_learning_rate": Key(3e-3, optimizers),
}
SAMPLER: dict[str, object] = {
    "steps": 6,
    "scheduler_type": "linear",
    "temperature": 3.0,
    "choice_temperature": 0.0,
    "guidance_scale": 4.0,
    "guidance_schedule": "constant",
    "order": "halton",
}
STAGE2: dict[str, Key] = {
    **SHARED,
    "autoencoder_path": Key(Path("else.pt"), lambda config, run: run(config).loaded),
    "model.transformer.hidden_dim": Key(64, loss_of),
    "model.transformer.num_blocks": Key(2, loss_of),
    "model.transformer.num_heads": Key(4, loss_of),
    "model.transformer.patch_size": Key(1, loss_of),
    "model.transformer.mlp_ratio": Key(2.0, loss_of),
    "model.transformer.dropout": Key(0.5, loss_of),
    "model.transformer.token_dim": Key(16, loss_of),
    "model.transformer.local_blocks": Key(2, loss_of),
    "model.transformer.head": Key("factorized", loss_of),
    "loss.label_smoothing": Key(0.5, loss_of),
    "loss.mask_schedule": Key("linear", loss_of),
    "loss.condition_dropout": Key(0.9, loss_of),
    "loss.source_dropout": Key(0.95, loss_of, {"loss.source_free_share": 0.0}),
    "loss.source_free_share": Key(0.9, loss_of),
    **{f"sampler.{key}": Key(value, drawn) for key, value in SAMPLER.items()},
    **{f"completion.{key}": Key(value, completed) for key, value in SAMPLER.items()},
    "evaluation.samples_per_class": Key(3, judged),
    "evaluation.feature_spaces": Key(("classifier",), judged),
    "evaluation.usefulness": Key(False, judged),
}


# Crops differ only where they are smaller than a scan.
CROPS = {"sliding_window.roi_size": (12, 12, 12)}
BRATS_SHARED: dict[str, Key] = {
    "data.data_dir": Key(Path("other"), loaded_batch),
    "data.on_bad_case": Key("skip", or_error(who), {"data.data_dir": Path("broken")}),
    "data.split_file": Key(Path("mine.json"), split_files),
    "data.split_seed": Key(1, who),
    "data.val_share": Key(0.4, who),
    "data.test_share": Key(0.4, who),
    "data.cache_dir": Key(Path("cache"), cached),
    "data.crops_per_volume": Key(3, count),
    "data.foreground_crops": Key(0.0, loaded_batch, CROPS),
    "data.batch_size": Key(3, loaded_batch, CROPS),
    "data.num_workers": Key(1, workers),
    "sliding_window.roi_size": Key((16, 12, 12), loaded_batch, CROPS),
}
BRATS1: dict[str, Key] = {
    **BRATS_SHARED,
    "data.preprocessing.spacing_mm": Key((12.0, 12.0, 9.0), grid),
    "data.preprocessing.percentiles": Key((5.0, 95.0), loaded_batch),
    "data.augmentation.flip": Key(True, loaded_batch, {"data.batch_size": 16}),
    "data.augmentation.intensity_scale": Key(0.3, loaded_batch),
    "data.augmentation.intensity_shift": Key(0.3, loaded_batch),
}
BRATS2: dict[str, Key] = {
    **BRATS_SHARED,
    "sliding_window.overlap": Key(0.1, encoded, CROPS),
    "sliding_window.sw_batch_size": Key(4, encoded, CROPS),
    "sliding_window.mode": Key("constant", encoded, CROPS),
}


def one_value(annotation: object) -> bool:
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1


def fields(model: Any, prefix: str = "") -> Iterable[tuple[str, FieldInfo]]:
    return [(key, info) for key, _, info in leaves(model, prefix)]


def keys(found: Iterable[tuple[str, FieldInfo]]) -> set[str]:
    """Return those keys that can be changed."""
    return {key for key, info in found if not one_value(info.annotation)}


TABLES: list[tuple[type, str, dict[str, Key]]] = [
    (Stage1Config, "medmnist", STAGE1),
    (Stage2Config, "medmnist", STAGE2),
    (Stage1Config, "brats", BRATS1),
    (Stage2Config, "brats", BRATS2),
]
CASES = [
    pytest.param(kind, data, entry, key, id=f"{kind.__name__}-{data}-{key}")
    for kind, data, table in TABLES
    for key, entry in table.items()
]


@pytest.mark.parametrize(("kind", "data", "entry", "key"), CASES)
def test_changing_it_changes_something(
    kind: Any, data: str, entry: Key, key: str, run: Any
) -> None:
    given = ({"data": BRATS[kind]} if data == "brats" else {}) | entry.given
    before = configure(kind, given)
    after = configure(kind, given | {key: entry.value})
    assert before != after
    first = entry.probe(before, run)
    assert entry.probe(before, run) == first, "the probe is not repeatable, so it shows nothing"
    assert entry.probe(after, run) != first, f"nothing reads {key}"


@pytest.mark.parametrize("kind", [Stage1Config, Stage2Config])
def test_every_key_has_a_probe(kind: Any) -> None:
    probed = {key for own, _, table in TABLES if own is kind for key in table}
    assert probed == keys(fields(kind)), "add a probe that shows what reads the key"


@pytest.mark.parametrize(
    ("table", "section"), [(BRATS1, BraTSDataConfig), (BRATS2, BraTSSourceConfig)]
)
def test_every_key_of_brats_data_is_probed_with_brats(table: dict[str, Key], section: Any) -> None:
    assert keys(fields(section, "data.")) <= table.keys()
