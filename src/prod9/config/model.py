"""``model``: the sizes of the networks."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from prod9.config.base import Section
from prod9.registry import HEADS

MOST_CODES = 1 << 24
"""Of a codebook: a hundred times more than anybody trains, and few enough to check each."""


class AutoencoderConfig(Section):
    """Encoder, FSQ, decoder."""

    levels: tuple[int, ...] = Field(
        default=(8, 8, 8),
        min_length=1,
        description="FSQ levels, one per latent channel; their product is the codebook size.",
    )
    num_channels: tuple[int, ...] = Field(
        default=(64, 128, 128, 256),
        min_length=1,
        description="Width of each resolution level; each further level halves the sides.",
    )
    attention_levels: tuple[bool, ...] | None = Field(
        default=None, description="Self-attention on or off for each level; none when left out."
    )
    num_res_blocks: int = Field(
        default=1, ge=1, description="Residual blocks per level and direction."
    )
    norm_num_groups: int = Field(
        default=8, ge=1, description="Groups of the group norm (at most; a divisor is taken)."
    )
    stem_stride: Literal[1, 2] = Field(
        default=1,
        description="2 halves the sides in the first convolution already: several times faster, "
        "with less room for fine texture.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if min(self.levels) < 3:
            raise ValueError(f"levels must each be at least 3, not {list(self.levels)}")
        if math.prod(self.levels) > MOST_CODES:
            raise ValueError(
                f"levels {list(self.levels)} have more than {MOST_CODES} codes; use fewer or "
                "smaller ones"
            )
        if self.attention_levels is not None and len(self.attention_levels) != len(
            self.num_channels
        ):
            raise ValueError(
                f"attention_levels has {len(self.attention_levels)} entries, "
                f"num_channels has {len(self.num_channels)}; they must be equally many"
            )
        return self


class DiscriminatorConfig(Section):
    """Multi-scale patch discriminator."""

    num_d: int = Field(
        default=1, ge=1, description="Discriminators, each at half the previous scale."
    )
    channels: int = Field(
        default=32, ge=1, description="Width of the first layer; doubles per layer."
    )
    num_layers_d: int = Field(default=2, ge=1, description="Strided layers of each discriminator.")


class Stage1ModelConfig(Section):
    """Networks of Stage 1."""

    autoencoder: AutoencoderConfig = AutoencoderConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()


class TransformerConfig(Section):
    """Bidirectional transformer over tokens."""

    hidden_dim: int = Field(default=512, ge=8, description="Width.")
    num_blocks: int = Field(default=12, ge=1, description="Blocks (attention + MLP).")
    num_heads: int = Field(default=8, ge=1, description="Attention heads.")
    patch_size: int = Field(
        default=2,
        ge=1,
        description="p packs p^3 tokens into one position; masking stays per token.",
    )
    mlp_ratio: float = Field(default=4.0, gt=0, description="Width of the MLP over `hidden_dim`.")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Dropout in both branches of a block."
    )
    token_dim: int = Field(
        default=64, ge=1, description="Width per token inside a position, before and after packing."
    )
    local_blocks: int = Field(
        default=1,
        ge=0,
        description="Residual 3 x 3 x 3 convolution blocks over single tokens, before packing and "
        "again after unpacking.",
    )
    head: Annotated[str, HEADS] = Field(
        default="full",
        description="`full`: one logit per code. `factorized`: one per level, the code's logit "
        "is their sum (for large codebooks).",
    )

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
