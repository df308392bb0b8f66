"""Single training batches of prod9's own Lightning loop, to be timed one by one."""

from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.flops import FlopCounter
from prod9.config import TrainerConfig
from prod9.runtime.device import lightning_accelerator, resolve_precision
from prod9.training.trainer import quieten_lightning

BatchT = TypeVar("BatchT")

_NEVER = 1_000_000
"""More steps than anybody times: the loop ends when it is told to."""


class _Stop(Exception):
    """The loop was told to end."""


class _Forever(Generic[BatchT]):
    """A loader that gives the same batch again and again; nothing is read or augmented."""

    def __init__(self, batch: BatchT) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[BatchT]:
        while True:
            yield self.batch


class _Gate(Callback):
    """Stop before every batch until leave is given.

    One hook, not two: what lies between two starts is all that a batch costs. (Lightning calls
    callbacks' ``on_train_batch_end`` before the module's, where Stage 2 averages its weights.)
    """

    def __init__(self) -> None:
        self.leave: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.arrived: SimpleQueue[BaseException | None] = SimpleQueue()
        self.watch: TorchDispatchMode | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.watch is not None:
            self.watch.__exit__(None, None, None)
            self.watch = None
        self.arrived.put(None)
        self.leave.get()()

    def go(self) -> None:
        """Begin the batch."""

    def go_watched(self, watch: TorchDispatchMode) -> None:
        """Begin the batch, under ``watch`` until the next one."""
        self.watch = watch
        watch.__enter__()

    def stop(self) -> None:
        """Begin no further batch."""
        raise _Stop


def bare_trainer(
    settings: TrainerConfig, callbacks: Sequence[Callback], **limits: int
) -> pl.Trainer:
    """Return prod9's own Trainer without checkpoints, loggers and validation.

    Args:
        settings: ``trainer`` of the configuration.
        callbacks: all that there are.
        limits: ``max_epochs`` and ``max_steps``.

    """
    quieten_lightning()
    return pl.Trainer(
        accelerator=lightning_accelerator(settings.accelerator),
        devices=settings.devices,
        strategy=settings.strategy,
        precision=cast(Any, resolve_precision(settings.precision, settings.accelerator)),
        log_every_n_steps=settings.log_every_n_steps,
        callbacks=list(callbacks),
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **cast(Any, limits),
    )


def leave_threads() -> int:
    """Return how many threads this process computes with, and leave the calling one with one.

    To be called before anything is computed. OpenMP keeps a team for every thread that has computed
    in parallel; where two teams together are larger than the machine, each waits asleep instead of
    awake, and a step of many small operations takes twice as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    return threads


class LightningSteps:
    """``trainer.fit`` in a thread of its own; :meth:`step` lets it do one batch.

    Construction returns when the first batch is about to begin.

    Args:
        module: what is trained, built as prod9's commands build it.
        batch: what every step sees, of the type that the module's own loader gives.
        settings: ``trainer`` of the configuration.
        threads: of the training; as many as the calling thread has when left out.

    """

    def __init__(
        self,
        module: pl.LightningModule,
        batch: Any,
        settings: TrainerConfig,
        threads: int | None = None,
    ) -> None:
        self._gate = _Gate()
        self._failure: BaseException | None = None
        self._done = False
        self._trainer = bare_trainer(settings, [self._gate], max_epochs=1, max_steps=_NEVER)
        # A daemon: a benchmark that fails must not wait for a loop that waits for the benchmark.
        self._thread = Thread(
            target=self._fit,
            args=(module, _Forever(batch), threads or torch.get_num_threads()),
            daemon=True,
        )
        self._thread.start()
        self._wait()

    def _fit(self, module: pl.LightningModule, loader: _Forever[Any], threads: int) -> None:
        try:
            torch.set_num_threads(threads)  # OpenMP keeps this number per thread
            self._trainer.fit(module, loader)
            raise RuntimeError("the training loop ended by itself")
        except _Stop:
            pass
        except BaseException as error:  # whatever it is belongs to the thread that waits
            self._gate.arrived.put(error)

    def _wait(self) -> None:
        self._failure = self._gate.arrived.get()
        if self._failure is not None:
            raise RuntimeError("the training loop failed") from self._failure

    def step(self) -> None:
        """Train on one batch: all that happens from the start of one to the start of the next.

        Raises:
            RuntimeError: the loop failed, now or before; its own exception is the cause. Or it
                was closed.

        """
        self._begin(self._gate.go)

    def flops(self) -> float:
        """Train on one batch; return what its convolutions and matrix products needed."""
        counter = FlopCounter()
        self.step_under(counter)
        return counter.total

    def step_under(self, watch: TorchDispatchMode) -> None:
        """Train on one batch under ``watch``, which sees each of its operations."""
        self._begin(lambda: self._gate.go_watched(watch))

    def _begin(self, batch: Callable[[], None]) -> None:
        if self._failure is not None:
            raise RuntimeError("the training loop failed") from self._failure
        if self._done:
            raise RuntimeError("the training loop was closed")
        self._gate.leave.put(batch)
        self._wait()

    def close(self) -> None:
        """End the loop; does nothing the second time."""
        if not self._done and self._failure is None:
            self._gate.leave.put(self._gate.stop)
        self._done = True
        self._thread.join()
