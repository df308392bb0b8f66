"""Where the numbers of an evaluation come from."""

import platform
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning
import torch

from prod9 import __version__


def provenance(**extra: Any) -> dict[str, Any]:
    """Return versions, machine and command line, and ``extra`` (seed, digests of weights)."""
    return {
        "prod9": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pytorch_lightning": pytorch_lightning.__version__,
        "machine": f"{platform.machine()} {platform.system()}, {torch.get_num_threads()} threads",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        **extra,
    }
