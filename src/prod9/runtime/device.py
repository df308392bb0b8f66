"""The device that work runs on, and the precision that suits it."""

import torch

from prod9.errors import Prod9Error

_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def resolve_device(accelerator: str, asked: str = "trainer.accelerator=") -> torch.device:
    """Return the device for work outside of Lightning (encoding, generation).

    Args:
        accelerator: ``auto``, ``gpu`` or ``cpu``.
        asked: the option or key with which the user chooses it, for the message.

    Raises:
        Prod9Error: there is no such device.
    """
    if accelerator in ("auto", "gpu") and torch.cuda.is_available():
        return torch.device("cuda")
    if accelerator in ("auto", "cpu"):
        return torch.device("cpu")
    raise Prod9Error(
        f"{asked}{accelerator}, but this machine has none that PyTorch can use; set {asked}auto, "
        "and see `prod9 doctor`."
    )


def lightning_accelerator(accelerator: str) -> str:
    """Return Lightning's name of the device that :func:`resolve_device` chooses.

    Its own ``auto`` would take an Apple GPU, which has no fp64 for the metrics.
    """
    return "gpu" if resolve_device(accelerator).type == "cuda" else "cpu"


def resolve_precision(precision: str, accelerator: str) -> str:
    """Return Lightning's name of ``trainer.precision`` on the device of ``accelerator``.

    ``auto`` is bf16 on a GPU that computes in it, else fp32: on a CPU without bf16 units, bf16
    convolutions take a hundred times as long as fp32.

    Raises:
        Prod9Error: fp16 without a GPU (it needs loss scaling, which has no CPU kernels).
    """
    device = resolve_device(accelerator)
    if precision == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return _PRECISION["bf16" if fast else "fp32"]
    if precision == "fp16" and device.type == "cpu":
        raise Prod9Error(
            "trainer.precision=fp16 needs a GPU; use trainer.precision=auto (fp32 on a CPU)."
        )
    return _PRECISION[precision]
