"""What translation and in-painting share: settings, checks, drawing, background, pictures."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from prod9 import __version__
from prod9.config import PreprocessingConfig, SamplerConfig, SlidingWindowConfig, Stage2Config
from prod9.data.brats.cases import GRID_TOLERANCE_MM, grid_distance_mm
from prod9.data.native_space import NativeVolume
from prod9.data.volume_files.stored_volume import StoredVolume
from prod9.data.volume_files.write import refuse_overwrite
from prod9.errors import Prod9Error
from prod9.files import write_text
from prod9.model import Model
from prod9.montage import Panel
from prod9.shapes import Tokens
from prod9.tokenizer import Tokenizer


@dataclass(frozen=True)
class Settings:
    """How tokens are drawn and volumes are cut; ``samples`` draws from ``seed``."""

    sampler: SamplerConfig
    windows: SlidingWindowConfig
    seed: int
    samples: int = 1

    @classmethod
    def of(cls, config: Stage2Config, samples: int = 1) -> "Settings":
        """Return how a configuration completes scans."""
        return cls(config.completion, config.sliding_window, config.seed, samples)


def preprocessing_of(tokenizer: Tokenizer) -> PreprocessingConfig:
    """Return how a tokenizer's scans were preprocessed.

    Raises:
        Prod9Error: it was not trained on scans.
    """
    if tokenizer.spec.preprocessing is None:
        raise Prod9Error(
            f"the tokenizer was trained on {tokenizer.spec.dataset_name}, not on scans; choose the "
            "--config of a BraTS model."
        )
    return tokenizer.spec.preprocessing


def modality_index(generator: Model, name: str, option: str) -> int:
    """Return the label of a modality.

    Raises:
        Prod9Error: the model does not know it.
    """
    known = generator.channels
    by_lower = {each.lower(): index for index, each in enumerate(known)}
    if name.lower() not in by_lower:
        raise Prod9Error(f"{option} {name}: this model knows {', '.join(known)}.")
    return by_lower[name.lower()]


def require_same_grid(first: StoredVolume, other: StoredVolume) -> None:
    """Refuse two scans whose voxels do not lie in the same places.

    Raises:
        Prod9Error: it names both files.
    """
    shape = first.array.shape
    if other.array.shape == shape:
        distance = grid_distance_mm(shape, first.affine, other.affine)
        if distance <= GRID_TOLERANCE_MM:
            return
        found = f"its voxels lie up to {distance:.3g} mm away"
    else:
        found = (
            f"{' x '.join(map(str, other.array.shape))} in place of {' x '.join(map(str, shape))}"
        )
    raise Prod9Error(
        f"{other.path} is on another grid than {first.path} ({found}); register and resample one "
        "to the other first."
    )


def require_free(paths: Sequence[Path | None], inputs: Sequence[Path], overwrite: bool) -> None:
    """Refuse to replace a file unless told to, and an input in any case.

    Raises:
        Prod9Error: it names the file.
    """
    given = {path.resolve() for path in inputs}
    for path in paths:
        if path is None:
            continue
        if path.resolve() in given:
            raise Prod9Error(f"{path} is one of the inputs; choose another --output.")
        refuse_overwrite(path, overwrite)


def read_scan(path: Path, preprocessing: PreprocessingConfig) -> NativeVolume:
    """Read a scan that something is to be made from.

    Raises:
        Prod9Error: as :meth:`NativeVolume.read`, or the scan is empty or of one value.
    """
    prepared = NativeVolume.read(path, preprocessing)
    if prepared.scale.low == prepared.scale.high:
        raise Prod9Error(
            f"{path} has no contrast: every voxel that is not 0 is {prepared.scale.low:g}; give a "
            "scan."
        )
    return prepared


def write_record(path: Path, generator: Model, settings: Settings, **inputs: object) -> None:
    """Write what it takes to make the same again, as JSON."""
    content = {
        "prod9": __version__,
        **inputs,
        "seed": settings.seed,
        "samples": settings.samples,
        "sampler": settings.sampler.model_dump(mode="json"),
        "sliding_window": settings.windows.model_dump(mode="json"),
        "tokenizer": generator.tokenizer.digest,
        "transformer": generator.digest,
    }
    write_text(path, json.dumps(content, indent=2) + "\n")


def completed(
    generator: Model,
    label: int,
    initial: Tokens,
    settings: Settings,
    on_window: Callable[[int, int], None] = lambda done, total: None,
    sources: Tensor | None = None,
) -> Tokens:
    """Fill the unknown cells of a grid, ``settings.samples`` times.

    Args:
        generator: the model.
        label: the channel that is drawn.
        initial: tokens (1, *grid), the mask id where unknown.
        settings: how.
        on_window: told (windows done, windows in all).
        sources: tokens of the known modalities (1, M, *grid), the mask id elsewhere.

    Returns:
        Tokens (K, *grid).
    """
    count = settings.samples
    return generator.draw(
        torch.full((count,), generator.label_of_channel(label)),
        initial.expand(count, -1, -1, -1),
        settings.sampler,
        torch.Generator(generator.device).manual_seed(settings.seed),
        sources=None if sources is None else sources.expand(count, -1, -1, -1, -1),
        overlap=settings.windows.overlap,
        on_window=on_window,
    )


def background_cells(generator: Model, sources: Sequence[Tensor]) -> Tensor:
    """Return which cells of the grid hold nothing in any source, nor do their neighbours.

    Args:
        generator: whose grid.
        sources: volumes (1, 1, D, H, W), 0 outside the foreground.

    Returns:
        bool, shape (*grid).
    """
    stride = generator.tokenizer.autoencoder.stride
    occupied = torch.stack([source[0, 0] > 0 for source in sources]).any(0).float()
    grid = generator.tokenizer.grid(occupied.shape)
    missing = [cells * stride - side for cells, side in zip(grid, occupied.shape, strict=True)]
    # As the tokenizer pads: shared by both faces.
    pads = [p for m in reversed(missing) for p in (m // 2, m - m // 2)]
    cells = F.max_pool3d(F.pad(occupied, pads)[None, None], stride)
    return F.max_pool3d(cells, 3, stride=1, padding=1)[0, 0] == 0


def panels_of(given: Sequence[tuple[str, Tensor]], name: str, draws: Tensor) -> list[Panel]:
    """What was given, the result and, of several draws, their spread."""
    count = len(draws)
    panels = [Panel(title, volume) for title, volume in given]
    panels.append(
        Panel(f"{name}, drawn" if count == 1 else f"{name}, mean of {count}", draws.mean(0))
    )
    if count > 1:
        spread = draws.std(0, correction=0)
        panels.append(Panel("uncertainty", spread, max(1e-6, float(spread.max())), "magma"))
    return panels


def middle_of(volumes: Sequence[Tensor]) -> list[int]:
    """Middle of the box of all voxels above 0; of the grid where there are none."""
    occupied = torch.stack(list(volumes)).amax(0) > 0
    if not bool(occupied.any()):
        return [side // 2 for side in occupied.shape]
    places = occupied.nonzero()
    return ((places.amin(0) + places.amax(0)) // 2).tolist()
