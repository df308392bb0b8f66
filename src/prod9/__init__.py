"""prod9: learn to generate new 3D medical volumes with FSQ and MaskGIT.

``import prod9`` is quick: each public name imports what it needs when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prod9.data.folder.inspection import inspect_folder
    from prod9.errors import Prod9Error
    from prod9.evaluation.runner import evaluate
    from prod9.inference.edit import edit_labels
    from prod9.inference.export import export
    from prod9.inference.load import load, train
    from prod9.inference.model import Model
    from prod9.inference.tokenizer import EncodedVolume, Tokenizer
    from prod9.pipeline.evaluate_labels import evaluate_labels
    from prod9.pipeline.train_folder import train_folder
    from prod9.runtime.machine_speed import MachineSpeed, machine_speed

__version__ = "0.2.0"
__all__ = [
    "EncodedVolume",
    "MachineSpeed",
    "Model",
    "Prod9Error",
    "Tokenizer",
    "edit_labels",
    "evaluate",
    "evaluate_labels",
    "export",
    "inspect_folder",
    "load",
    "machine_speed",
    "train",
    "train_folder",
]
_HOMES = {
    "EncodedVolume": "inference.tokenizer",
    "MachineSpeed": "runtime.machine_speed",
    "Model": "inference.model",
    "Prod9Error": "errors",
    "Tokenizer": "inference.tokenizer",
    "edit_labels": "inference.edit",
    "evaluate": "evaluation.runner",
    "evaluate_labels": "pipeline.evaluate_labels",
    "export": "inference.export",
    "inspect_folder": "data.folder.inspection",
    "load": "inference.load",
    "machine_speed": "runtime.machine_speed",
    "train": "inference.load",
    "train_folder": "pipeline.train_folder",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'prod9' has no attribute {name!r}")
    return getattr(import_module(f"prod9.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
