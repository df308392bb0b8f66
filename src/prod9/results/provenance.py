"""Where a figure comes from."""

import json
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning
import torch

from prod9 import __version__
from prod9.files import write_text


def provenance(**extra: Any) -> dict[str, Any]:
    """Return versions and machine, and whatever else decides the figures (seed, digests)."""
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


def write_json(path: Path, **sections: Any) -> None:
    """Write dataclasses and plain values as one JSON object, whole or not at all."""
    plain = {
        name: asdict(section) if hasattr(section, "__dataclass_fields__") else section
        for name, section in sections.items()
    }
    write_text(path, json.dumps(plain, indent=2) + "\n")
