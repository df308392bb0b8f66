"""The frozen Stage 1 export: what Stage 2 and everybody else sees of the autoencoder."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from prod9 import __version__
from prod9.config.base import Section
from prod9.config.data import FolderPreprocessingConfig, PreprocessingConfig
from prod9.config.model import AutoencoderConfig
from prod9.label_codes import LabelCodes
from prod9.networks.autoencoder import Autoencoder
from prod9.shapes import MAX_VOXELS, Tokens, Volume
from prod9.torch_files import digest_of, fitted, read_export, write_export

CHANNELS = 1
"""Of a volume: one grey value. (Each modality of a scan is a volume of its own.)"""


def _plain_name(name: str) -> str:
    if not name.isprintable() or not name.strip() or len(name.encode()) > 150:
        raise ValueError("a class has a name that does not print, or is too long")
    return name


def _readable_size(sides: tuple[int, int, int]) -> tuple[int, int, int]:
    if math.prod(sides) > MAX_VOXELS:
        raise ValueError(f"a volume has more than {MAX_VOXELS} voxels, or a grid cells")
    return sides


# Exports are read from files: what they say must fit into names of files, and into memory.
ClassName: TypeAlias = Annotated[str, AfterValidator(_plain_name)]
Side: TypeAlias = Annotated[int, Field(ge=1, le=4096)]
Sides: TypeAlias = Annotated[tuple[Side, Side, Side], AfterValidator(_readable_size)]
Millimetres: TypeAlias = Annotated[float, Field(gt=0, lt=1e6)]


class TokenizerSpec(Section):
    """Everything that a tokenizer's user must know, as plain data.

    Volumes are float32 in [0, 1] (uint8 data divided by 255), axes RAS+, ``spacing_mm`` apart.
    """

    format_version: Literal[2] = 2
    prod9_version: str = __version__
    autoencoder: AutoencoderConfig
    dataset_name: str
    volume_shape: Sides
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres]
    class_names: tuple[ClassName, ...]
    preprocessing: FolderPreprocessingConfig | PreprocessingConfig | None = None
    """How scans become volumes; None where volumes are taken as they are stored."""
    labels: tuple[LabelCodes, ...] = Field(default=(), exclude_if=lambda codes: not codes)
    """Of each channel of labels, which are tokens without a network."""
    train_subjects: tuple[str, ...] = ()
    """Subjects that the weights have seen, where the split is by subject."""
    config_yaml: str
    """The resolved Stage 1 configuration."""


def build_autoencoder(config: AutoencoderConfig) -> Autoencoder:
    """Make the untrained network of a configuration."""
    return Autoencoder(in_channels=CHANNELS, **config.model_dump())


class Tokenizer(nn.Module):
    """Volumes to tokens and back, with the frozen weights of a trained network.

    Raises:
        ValueError: some token does not survive tokens -> codes -> tokens.
    """

    def __init__(self, spec: TokenizerSpec, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.spec = spec
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.fsq = autoencoder.fsq
        self.digest = digest_of(spec, autoencoder.state_dict())
        all_tokens = torch.arange(self.codebook_size)[None]
        back = self.fsq.codes_to_indices(self.fsq.indices_to_codes(all_tokens))
        if not torch.equal(back, all_tokens):
            raise ValueError(f"tokens of levels {self.fsq.levels} do not survive the round trip")

    def train(self, mode: bool = True) -> "Tokenizer":
        """Stay in evaluation mode, whatever module this is part of."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.parameters()).device

    @property
    def codebook_size(self) -> int:
        """Number of codes V; tokens are in [0, V)."""
        return self.fsq.codebook_size

    def grid(self, sides: Sequence[int] | None = None) -> tuple[int, int, int]:
        """Sides of a volume (the training volume's when left out) -> sides of its token grid."""
        d, h, w = self.autoencoder.grid(sides or self.spec.volume_shape)
        return d, h, w

    @torch.no_grad()
    def encode(self, x: Volume) -> Tokens:
        """Volume in [0, 1] -> tokens, shape (B, *grid)."""
        return self.fsq.codes_to_indices(self.fsq.quantize(self.autoencoder.encode(x)))

    @torch.no_grad()
    def decode(self, tokens: Tokens, sides: Sequence[int] | None = None) -> Volume:
        """Tokens -> volume in [0, 1] of ``sides`` voxels (grid times stride when left out)."""
        codes = self.fsq.indices_to_codes(tokens)
        return self.autoencoder.decode(codes, sides).float().clamp(0, 1)

    def save(self, path: Path) -> None:
        """Write spec, weights and digest as one file of plain data, whole or not at all."""
        write_export(path, "tokenizer", self.spec, self.autoencoder.state_dict())

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> "Tokenizer":
        """Read an export and check it.

        Raises:
            Prod9Error: missing, torn or foreign file; another format; weights that do not match.
        """
        made_by = "prod9-train-autoencoder train"
        spec, network = read_export(path, "tokenizer", TokenizerSpec, network_of, made_by)
        return cls(spec, network).to(device)


def network_of(
    spec: TokenizerSpec, weights: dict[str, Tensor]
) -> tuple[TokenizerSpec, Autoencoder]:
    """Make the network of a spec, with these weights.

    Raises:
        ValueError, AttributeError: the weights are those of another network.
    """
    sizes = spec.autoencoder
    if len(sizes.num_channels) * sizes.num_res_blocks > len(weights):  # before all are made
        raise ValueError("it has more layers than weights")
    return spec, fitted(lambda: build_autoencoder(sizes), weights)
