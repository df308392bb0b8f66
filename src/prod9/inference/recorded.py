"""What a configuration says about the use of what was trained."""

from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import BaseModel, ValidationError

from prod9.config import CompletionConfig, SamplerConfig, SlidingWindowConfig
from prod9.errors import Prod9Error


class Recorded(BaseModel):
    """The keys of a configuration that matter after training.

    All others are ignored: the data set of the training need not be known here.
    """

    seed: int = 0
    sampler: SamplerConfig = SamplerConfig()
    completion: CompletionConfig = CompletionConfig()
    sliding_window: SlidingWindowConfig = SlidingWindowConfig()
    data: dict[str, Any] = {}
    autoencoder_path: Path = Path("autoencoder.pt")

    @classmethod
    def of(cls, text: str) -> "Recorded":
        """Read the configuration, YAML, in an export.

        Raises:
            Prod9Error: it names what is not registered, or is of another version.
        """
        return cls.read(yaml.safe_load(text.replace("$${", "${")) or {})

    @classmethod
    def read(cls, values: object) -> "Recorded":
        """Read plain data; raises what :meth:`of` does."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise Prod9Error(
                f"the export records {key}: {first['input']!r}, not known here; import the "
                "module that registers it, or train again with this version."
            ) from error

    def plain(self) -> dict[str, Any]:
        """Return what :meth:`read` reads, without paths and the data set."""
        values = self.model_dump(mode="json", exclude={"autoencoder_path", "data"})
        return {**values, "data": {"batch_size": self.data.get("batch_size")}}


def device_of(name: str | None) -> str:
    """Return ``name``, else a GPU where there is one.

    Raises:
        Prod9Error: there is no such device.
    """
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # AssertionError: built without CUDA
        raise Prod9Error(
            f"PyTorch can use no device {name} here; give cpu or cuda, and see `prod9 doctor`."
        ) from error
    return name
