"""How several processes share one training step: Lightning's strategies, and FSDP."""

from typing import Literal

from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from prod9.config import Stage1Config, Stage2Config
from prod9.errors import Prod9Error
from prod9.networks.transformer import MaskedTransformer
from prod9.runtime import distributed
from prod9.training.processes import PATIENCE


class ManualDDPStrategy(DDPStrategy):
    """Equal weights in all processes at the start; the module averages its gradients itself.

    For Stage 1, whose step has two backward passes, each into one of two networks. PyTorch's
    wrapper would average the gradients of both networks in both passes.
    """

    def configure_ddp(self) -> None:
        """Copy the main process's weights to all; wrap nothing."""
        assert self.model is not None
        distributed.from_main([*self.model.parameters(), *self.model.buffers()])


def require_strategy(config: Stage1Config | Stage2Config) -> None:
    """Check that the run can be trained with ``trainer.strategy``.

    Raises:
        Prod9Error: FSDP with Stage 1, with fp16, with ``trainer.on_nan=rollback``, with
            ``callbacks.checkpoint.export=best``, or with Muon.
    """
    reason = ""
    if isinstance(config, Stage1Config):
        reason = "cannot train Stage 1, whose step differentiates parts of two networks; set "
        reason += "trainer.strategy=ddp (the autoencoder is small)"
    elif config.trainer.precision == "fp16":
        reason = "does not scale losses, as fp16 needs; set trainer.precision=bf16"
    elif config.trainer.on_nan == "rollback":
        reason = "splits the weights, which trainer.on_nan=rollback needs whole; set "
        reason += "trainer.on_nan=skip or trainer.strategy=ddp"
    elif config.callbacks.checkpoint.export == "best":
        reason = "splits the weights, which callbacks.checkpoint.export=best needs whole; set "
        reason += "callbacks.checkpoint.export=last or trainer.strategy=ddp"
    elif config.training.optimizer.name == "muon":
        reason = "splits the weights, which training.optimizer.name=muon needs whole; set "
        reason += "training.optimizer.name=adamw or trainer.strategy=ddp"
    if reason and config.trainer.strategy == "fsdp":
        raise Prod9Error(f"trainer.strategy=fsdp {reason}.")


def build_strategy(config: Stage1Config | Stage2Config) -> Strategy | Literal["auto"]:
    """Return the strategy of a run; one process needs none."""
    if distributed.world_size() == 1:
        return "auto"
    if isinstance(config, Stage1Config):
        return ManualDDPStrategy(timeout=PATIENCE)
    if config.trainer.strategy == "fsdp":
        return ModelParallelStrategy(
            data_parallel_size=distributed.world_size(),
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,  # one ordinary file, for any number of processes
            timeout=PATIENCE,
        )
    # The only buffer that changes is the EMA's count, which is equal in all processes.
    return DDPStrategy(timeout=PATIENCE, broadcast_buffers=False, gradient_as_bucket_view=True)


def shard(network: MaskedTransformer, mesh: DeviceMesh) -> None:
    """Split each weight over the processes (FSDP2: Zhao et al. 2023, arXiv 2304.11277).

    A block's weights are gathered while it computes. All processes must call the network equally
    often, and only its ``loss`` or ``forward``.
    """
    # Resharded after the forward pass too: the EMA has no backward pass that would do it.
    for block in network.blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(network, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(network, "loss")


def whole_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the state dict with whole tensors; with split weights all processes must call it."""
    return {
        name: value.full_tensor() if isinstance(value, DTensor) else value
        for name, value in network.state_dict().items()
    }
