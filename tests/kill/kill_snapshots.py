"""What a folder holds, as digests that leave out what differs between two sound runs."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

TORN = "torn"
"""Digest of what its reader refuses."""


def digest_of(path: Path, as_name: str = "") -> str:
    """Return a digest of a file's content; ``as_name`` is the name it will have."""
    name = Path(as_name or path).name
    content = path.read_bytes()
    if name.endswith(".ckpt"):
        return _checkpoint(path)
    if name == "metrics.json":
        return _metrics(content)
    if name == "report.html":  # how long it took, and by which command
        times = rb"<h3>Time</h3>.*?</table>|&#34;seconds&#34;: \{.*?\}"
        text = re.sub(times, b"", content, flags=re.DOTALL)
        return hashlib.sha256(text.replace(b" --overwrite", b"")).hexdigest()
    return hashlib.sha256(content).hexdigest()


def digests_below(path: Path, as_name: str = "") -> dict[str, str]:
    """Return the digest of each file below a folder, by relative name; of a file, by ``"."``."""
    if not path.is_dir():
        return {".": digest_of(path, as_name)} if path.exists() else {}
    return {
        str(file.relative_to(path)): digest_of(file)
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def _metrics(content: bytes) -> str:
    try:
        figures: dict[str, Any] = json.loads(content)
    except ValueError:
        return TORN
    figures.pop("seconds", None)
    figures.get("provenance", {}).pop("command", None)
    return hashlib.sha256(json.dumps(figures).encode()).hexdigest()


def _checkpoint(path: Path) -> str:
    """Digest what is learned: weights, averages, optimizers, schedules, and where it stands."""
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        return TORN
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            digest.update(str((value.dtype, tuple(value.shape))).encode())
            digest.update(value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        elif isinstance(value, dict):
            for key, item in value.items():
                digest.update(str(key).encode())
                add(item)
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        else:
            digest.update(repr(value).encode())

    for key in ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers"):
        add(content.get(key))
    return digest.hexdigest()
