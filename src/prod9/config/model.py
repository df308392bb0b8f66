"""``model``: the sizes of the networks."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from prod9.config.base import BelowOne, Section
from prod9.registry import HEADS

MOST_CODES = 1 << 24
"""Of a codebook: a hundred times more than anybody trains, and few enough to check each."""


class AutoencoderConfig(Section):
    """Encoder, FSQ, decoder."""

    levels: tuple[int, ...] = Field(default=(8, 8, 8), min_length=1)
    """FSQ levels, one per latent channel; their product is the codebook size."""
    num_channels: tuple[int, ...] = Field(default=(64, 128, 128, 256), min_length=1)
    """Width of each resolution level; each further level halves the sides."""
    attention_levels: tuple[bool, ...] | None = None
    """Self-attention on or off for each level; none when left out."""
    num_res_blocks: PositiveInt = 1
    """Residual blocks per level and direction."""
    norm_num_groups: PositiveInt = 8
    """Groups of the group norm (at most; a divisor is taken)."""
    stem_stride: Literal[1, 2] = 1
    """2 halves the sides in the first convolution already: several times faster, with less room for
    fine texture."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if min(self.levels) < 3:
            raise ValueError(f"levels must each be at least 3, not {list(self.levels)}")
        if math.prod(self.levels) > MOST_CODES:
            raise ValueError(f"levels have more than {MOST_CODES} codes; use fewer or smaller ones")
        attention = self.attention_levels
        if attention is not None and len(attention) != len(self.num_channels):
            raise ValueError("attention_levels must have one entry for each of num_channels")
        return self


class DiscriminatorConfig(Section):
    """Multi-scale patch discriminator."""

    num_d: PositiveInt = 1
    """Discriminators, each at half the previous scale."""
    channels: PositiveInt = 32
    """Width of the first layer; doubles per layer."""
    num_layers_d: PositiveInt = 2
    """Strided layers of each discriminator."""


class Stage1ModelConfig(Section):
    """Networks of Stage 1."""

    autoencoder: AutoencoderConfig = AutoencoderConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()


class TransformerConfig(Section):
    """Bidirectional transformer over tokens."""

    hidden_dim: int = Field(default=512, ge=8)
    """Width."""
    num_blocks: PositiveInt = 12
    """Blocks (attention + MLP)."""
    num_heads: PositiveInt = 8
    """Attention heads."""
    patch_size: PositiveInt = 2
    """p packs p^3 tokens into one position; masking stays per token."""
    mlp_ratio: PositiveFloat = 4.0
    """Width of the MLP over `hidden_dim`."""
    dropout: BelowOne = 0.0
    """Dropout in both branches of a block."""
    token_dim: PositiveInt = 64
    """Width per token inside a position, before and after packing."""
    local_blocks: NonNegativeInt = 1
    """Residual 3 x 3 x 3 convolution blocks over single tokens, before packing and again after
    unpacking."""
    head: Annotated[str, HEADS] = "full"
    """`full`: one logit per code. `lattice`: the same, learned as a sum over the code's levels and
    a rest of its own, in fewer steps. `factorized`: that sum alone (for large codebooks)."""
    modulation_rank: PositiveInt | None = Field(default=None, exclude_if=lambda rank: rank is None)
    """Rank of the matrices through which the condition modulates the blocks; null: full. A model
    of K classes and no other condition needs K + 1."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.hidden_dim % self.num_heads or self.hidden_dim // self.num_heads % 2:
            raise ValueError(
                f"hidden_dim ({self.hidden_dim}) must be an even multiple of "
                f"num_heads ({self.num_heads})"
            )
        return self


class Stage2ModelConfig(Section):
    """Networks of Stage 2."""

    transformer: TransformerConfig = TransformerConfig()
