"""prod9's two stages with the demo's shipped settings, for seconds instead of epochs."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, cast

import pytorch_lightning as pl
import torch
from torch import Tensor

from benchmarks.lightning_steps import bare_trainer
from benchmarks.pipeline_training import Data, Pipeline, Rates, mean_psnr, tensors
from benchmarks.timed_training import Budget, SpendBudget
from prod9.config import Stage1Config, Stage2Config
from prod9.config.load import dump, load
from prod9.config.training import SchedulerConfig
from prod9.data.crops import volume_loader
from prod9.data.tokens.store import TokenBatch
from prod9.model import Model, TransformerSpec, untrained
from prod9.sample_request import SampleRequest
from prod9.tokenizer import Tokenizer
from prod9.training.stage1 import build_module, tokenizer_of
from prod9.training.stage2_module import Stage2Module
from prod9.training.tokens import open_tokens
from prod9.training.trainer import TrainingData, prepare_training

STAGES = Path("maskgit/demo/stage1.yaml"), Path("maskgit/demo/stage2.yaml")
AT_EQUAL_BITS = (
    ["model.autoencoder.levels=[8,8,8]", "model.autoencoder.num_channels=[32,96]"],
    ["model.transformer.patch_size=2", "model.transformer.token_dim=48"],
)
"""7^3 tokens of 512 codes, as the rivals have them, in as many positions as the demo's."""


def configurations(
    seed: int, folder: Path, root: Path, changes: tuple[list[str], list[str]] = ([], [])
) -> tuple[Stage1Config, Stage2Config]:
    """Read both stages' settings as the demo ships them, and change them; ``root`` has the data."""
    shared = [f"seed={seed}", f"data.root={root}"]
    first, second = (
        [*shared, f"output_dir={folder / stage}", *change]
        for stage, change in zip(("stage1", "stage2"), changes, strict=True)
    )
    return load(STAGES[0], Stage1Config, first), load(STAGES[1], Stage2Config, second)


ConfigT = TypeVar("ConfigT", Stage1Config, Stage2Config)


def _with_optimizer(config: ConfigT, **values: object) -> ConfigT:
    training = config.training
    optimizer = training.optimizer.model_copy(update=values)
    return config.model_copy(
        update={"training": training.model_copy(update={"optimizer": optimizer})}
    )


@dataclass
class Prod9:
    """Trains the demo's networks in prod9's own loop; the averaged weights count, as exported."""

    one: Stage1Config
    two: Stage2Config
    data: Data

    @property
    def schedules(self) -> tuple[SchedulerConfig, SchedulerConfig]:
        """Both stages' warm-up and decay; the rivals have the same."""
        return self.one.training.scheduler, self.two.training.scheduler

    @property
    def rates(self) -> Rates:
        """The shipped peak rates."""
        rates = (config.training.optimizer.learning_rate for config in (self.one, self.two))
        return Rates(*rates, chosen="as shipped")

    def at(self, rates: Rates) -> "Prod9":
        """Return the same with other rates; Muon's for matrices changes in proportion."""
        second = self.two.training.optimizer
        faster = rates.stage2 / second.learning_rate
        matrices = second.muon_learning_rate and second.muon_learning_rate * faster
        one = _with_optimizer(self.one, learning_rate=rates.stage1)
        two = _with_optimizer(self.two, learning_rate=rates.stage2, muon_learning_rate=matrices)
        return replace(self, one=one, two=two)

    def train_first(self, seconds: float) -> tuple[Tokenizer, float, int]:
        """Train the tokenizer; return it, its PSNR on the validation split, and the steps."""
        pl.seed_everything(self.one.seed, workers=True, verbose=False)
        module, data, section = build_module(self.one), self.data["train"], self.one.data
        loader = volume_loader(data, section, data.shape, train=True, seed=self.one.seed)
        budget = Budget(seconds, self.schedules[0], (), lambda: 0.0)
        trainer = bare_trainer(self.one.trainer, [SpendBudget(budget)], max_epochs=100_000)
        trainer.fit(module, loader)
        tokenizer = tokenizer_of(module.cpu(), data)
        val = tensors(self.data["val"])[0]
        reached = mean_psnr(lambda x: tokenizer.decode(tokenizer.encode(x)), val)
        return tokenizer, reached, budget.steps

    def tokens(self, tokenizer: Tokenizer) -> TrainingData:
        """Encode the training and the validation split."""
        _, train = open_tokens(self.two, tokenizer, self.data["train"], "train")
        _, val = open_tokens(self.two, tokenizer, self.data["val"], "val")
        return TrainingData(train, val, self.data["train"], "")

    def train_second(
        self, tokenizer: Tokenizer, tokens: TrainingData, seconds: float
    ) -> tuple[Model, float, int]:
        """Train the transformer; return the model, its validation loss, and the steps."""
        config, data = self.two, self.data["train"]
        spec = TransformerSpec(
            transformer=config.model.transformer,
            levels=tokenizer.fsq.levels,
            class_names=data.class_names,
            channels=tuple(channel.name for channel in data.channels),
            grid=tokenizer.grid(),
            window=tokenizer.grid(),
            tokenizer_digest=tokenizer.digest,
            config_yaml=dump(config),
        )
        pl.seed_everything(config.seed, workers=True, verbose=False)
        module = Stage2Module(config, untrained(spec), tokenizer.digest)
        prepare_training(module.transformer, config.trainer)
        budget = Budget(seconds, self.schedules[1], (), lambda: 0.0)
        trainer = bare_trainer(config.trainer, [SpendBudget(budget)], max_epochs=100_000)
        trainer.fit(module, tokens.train)
        judge = pl.Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        (figures,) = judge.validate(module, cast("list[TokenBatch]", tokens.val), verbose=False)
        model = Model(tokenizer, module.ema.network.cpu().eval(), spec)
        return model, float(figures["val/loss"]), budget.steps

    def train(self, budgets: tuple[float, float]) -> Pipeline:
        """Train both stages."""
        tokenizer, reached, steps = self.train_first(budgets[0])
        began = time.perf_counter()
        tokens = self.tokens(tokenizer)
        encoding = time.perf_counter() - began
        model, loss, steps2 = self.train_second(tokenizer, tokens, budgets[1])
        count = [
            sum(p.numel() for p in network.parameters())
            for network in (tokenizer.autoencoder, model.transformer)
        ]
        return Pipeline(
            lambda x: tokenizer.decode(tokenizer.encode(x)),
            self._draws(model),
            {
                "validation": {"psnr": reached, "loss": loss},
                "steps": [steps, steps2],
                "parameters": count,
                "seconds_of_encoding": encoding,
                "settings": {"stage1": dump(self.one), "stage2": dump(self.two)},
            },
        )

    def _draws(self, model: Model) -> Callable[[Sequence[int]], Tensor]:
        request = SampleRequest.generation_of(self.two, ())

        def draw(labels: Sequence[int]) -> Tensor:
            wanted = replace(request, labels=tuple(labels))
            batches = [model.sample_volumes(wanted, n) for n in range(wanted.num_batches)]
            return torch.cat(batches)

        return draw
