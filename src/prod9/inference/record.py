"""What it takes to make the same volumes again, as plain data."""

import json
from pathlib import Path
from typing import Any

from prod9 import __version__
from prod9.files import write_text
from prod9.model import Model
from prod9.sample_request import SampleRequest


def record_of(model: Model, request: SampleRequest) -> dict[str, Any]:
    """Return the version, the settings, and the digests of the weights."""
    return {
        "prod9": __version__,
        "seed": request.seed,
        "sampler": request.sampler.model_dump(mode="json"),
        "sliding_window": request.windows.model_dump(mode="json"),
        "tokenizer": model.tokenizer.digest,
        "transformer": model.digest,
    }


def write_record(path: Path, model: Model, request: SampleRequest, **inputs: object) -> None:
    """Write :func:`record_of`, the number of samples and ``inputs`` as JSON."""
    content = {**record_of(model, request), "samples": len(request.labels), **inputs}
    write_text(path, json.dumps(content, indent=2) + "\n")
