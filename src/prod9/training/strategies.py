"""How one step is shared by several processes: Lightning's strategies, from the configuration."""

from typing import Literal

from pytorch_lightning.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy

from prod9.config import Stage1Config, Stage2Config
from prod9.errors import Prod9Error
from prod9.runtime import distributed
from prod9.training.processes import PATIENCE


class TogetherByHand(DDPStrategy):
    """Equal weights everywhere at the start; the module itself averages its gradients.

    For Stage 1, whose step goes backwards twice, each time into one of two networks. PyTorch's own
    wrapper would average the gradients of both networks in both passes.
    """

    def configure_ddp(self) -> None:
        """Wrap nothing; give every process the main one's weights."""
        assert self.model is not None
        distributed.from_main([*self.model.parameters(), *self.model.buffers()])


def require_strategy(config: Stage1Config | Stage2Config) -> None:
    """Refuse what cannot be trained with weights that are split over processes.

    Raises:
        Prod9Error: FSDP for Stage 1; FSDP in fp16, or where a run may have to go back to a
            checkpoint by itself.
    """
    if config.trainer.strategy != "fsdp":
        return
    if isinstance(config, Stage1Config):
        raise Prod9Error(
            "trainer.strategy=fsdp cannot train Stage 1, whose step differentiates parts of two "
            "networks by themselves; set trainer.strategy=ddp (the autoencoder is small)."
        )
    if config.trainer.precision == "fp16":
        raise Prod9Error(
            "trainer.strategy=fsdp does not scale losses, which trainer.precision=fp16 needs; set "
            "trainer.precision=bf16."
        )
    if config.trainer.on_nan == "rollback":
        raise Prod9Error(
            "trainer.on_nan=rollback needs whole weights, which trainer.strategy=fsdp splits; set "
            "trainer.on_nan=skip or trainer.strategy=ddp."
        )


def build_strategy(config: Stage1Config | Stage2Config) -> Strategy | Literal["auto"]:
    """Return the strategy of a run; one process needs none, whatever is configured.

    Raises:
        Prod9Error: as :func:`require_strategy`.
    """
    require_strategy(config)
    if distributed.world_size() == 1:
        return "auto"
    if isinstance(config, Stage1Config):
        return TogetherByHand(timeout=PATIENCE)
    if config.trainer.strategy == "fsdp":
        return ModelParallelStrategy(
            data_parallel_size=distributed.world_size(),
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,  # one ordinary file, for any number of processes
            timeout=PATIENCE,
        )
    # No buffer changes in a step but the count of the averaged weights, alike everywhere.
    return DDPStrategy(timeout=PATIENCE, broadcast_buffers=False, gradient_as_bucket_view=True)


def environment() -> ClusterEnvironment:
    """Return where Lightning reads which process this is: what has been joined, nothing else."""
    return TorchElasticEnvironment() if distributed.world_size() > 1 else LightningEnvironment()
