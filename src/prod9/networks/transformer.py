"""Masked transformer over a 3D token grid (MaskGIT, Chang et al. 2022).

Bidirectional, with adaLN-zero conditioning (Peebles & Xie 2023), QK-norm, rotary positions in
three axes, and p x p x p tokens packed into one position (``patch_size``). Masking stays per token:
every token is embedded, masked and predicted on its own, packing only shortens the sequence.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from prod9.networks.activation_checkpointing import Checkpointed
from prod9.networks.blocks import LocalBlock, zero_
from prod9.networks.condition import Condition
from prod9.networks.cpu_kernels.linear import Linear
from prod9.networks.cpu_kernels.norm_rotate import NormRotate
from prod9.networks.embedding import CovariateEmbedding, SourceEmbedding, TokenEmbedding
from prod9.networks.heads import Head
from prod9.networks.rotary import fourier_features, relative_place, rotary_angles
from prod9.registry import HEADS
from prod9.shapes import Logits, Tokens

_FOURIER_BANDS = 6


def _modulation(dim: int, outputs: int, rank: int | None) -> nn.Module:
    """Return a linear layer (B, dim) -> (B, outputs) that starts at zero."""
    last = Linear(dim if rank is None else rank, outputs)
    zero_(last)
    return last if rank is None else nn.Sequential(Linear(dim, rank, bias=False), last)


class Attention(nn.Module):
    """Multi-head self-attention with normalised queries and keys, turned by their positions."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.dropout = num_heads, dim // num_heads, dropout
        self.qkv = Linear(dim, 3 * dim)
        self.q_norm = NormRotate(self.head_dim)
        self.k_norm = NormRotate(self.head_dim)
        self.out = Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b n c"], cos: Tensor, sin: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).view(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # each (B, heads, N, head_dim)
        q, k = self.q_norm(q, cos, sin), self.k_norm(k, cos, sin)
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return self.out(attended.transpose(1, 2).reshape(b, n, c))


class Block(Checkpointed):
    """Attention and MLP, each shifted, scaled and gated by the condition; starts as identity."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float, dropout: float, rank: int | None = None
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False)
        self.attention = Attention(dim, num_heads, dropout)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False)
        hidden = int(dim * mlp_ratio)
        self.mlp = nn.Sequential(
            Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), Linear(hidden, dim)
        )
        self.modulation = _modulation(dim, 6 * dim, rank)

    def forward(
        self, x: Float[Tensor, "b n c"], condition: Float[Tensor, "b c"], cos: Tensor, sin: Tensor
    ) -> Tensor:
        six = self.modulation(condition)[:, None].chunk(6, -1)  # each (B, 1, C)
        shift1, scale1, gate1, shift2, scale2, gate2 = six
        x = x + gate1 * self.attention(self.norm1(x) * (1 + scale1) + shift1, cos, sin)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class MaskedTransformer(nn.Module):
    """Predict every token of a partly masked grid.

    Args:
        levels: FSQ levels of the tokenizer; the codebook size V is their product, the mask id is V.
        num_classes: classes of subjects.
        num_channels: channels that can be the target; if several, each can be a source too.
        covariates: as of :class:`CovariateEmbedding`.
        coarse: whether it knows whole volumes on a coarse grid too, and takes them as a source.
        grid: cells of the training volumes; the place of a window is relative to it.
        hidden_dim, num_blocks, num_heads, mlp_ratio, dropout: the usual sizes.
        patch_size: p^3 tokens per position; grids that p does not divide are padded.
        token_dim: width per token before packing and after unpacking.
        local_blocks: :class:`LocalBlock` s before packing, and as many after unpacking.
        head: a name of :data:`prod9.registry.HEADS`.
        modulation_rank: of the matrices that turn the condition into shifts, scales and gates.
    """

    def __init__(
        self,
        *,
        levels: Sequence[int],
        num_classes: int,
        num_channels: int = 1,
        covariates: Sequence[tuple[int, float, float]] = (),
        coarse: bool = False,
        grid: Sequence[int],
        hidden_dim: int,
        num_blocks: int,
        num_heads: int,
        patch_size: int,
        mlp_ratio: float,
        dropout: float,
        token_dim: int,
        local_blocks: int,
        head: str,
        modulation_rank: int | None = None,
    ) -> None:
        super().__init__()
        self.head: Head = HEADS.get(head)(token_dim, levels)
        self.codebook_size = self.mask_id = math.prod(levels)
        self.num_classes, self.num_channels = num_classes, num_channels
        self.patch_size, self.head_dim = patch_size, hidden_dim // num_heads
        self.grid = tuple(grid)
        packed = token_dim * patch_size**3

        self.token_embedding = TokenEmbedding(token_dim, levels)
        self.pack = Linear(packed, hidden_dim)
        self.place = Linear(6 * _FOURIER_BANDS, hidden_dim)
        # The last row of each: not given. What does not vary has no table, but there is always one.
        by_class, by_channel = num_classes > 1 or num_channels == 1, num_channels > 1
        self.class_embedding = nn.Embedding(num_classes + 1, hidden_dim) if by_class else None
        self.channel_embedding = nn.Embedding(num_channels + 1, hidden_dim) if by_channel else None
        self.blocks = nn.ModuleList(
            Block(hidden_dim, num_heads, mlp_ratio, dropout, modulation_rank)
            for _ in range(num_blocks)
        )
        self.norm = nn.LayerNorm(hidden_dim, elementwise_affine=False)
        self.modulation = _modulation(hidden_dim, 2 * hidden_dim, modulation_rank)
        self.unpack = Linear(hidden_dim, packed)
        self.local_in = nn.Sequential(*[LocalBlock(token_dim) for _ in range(local_blocks)])
        self.local_out = nn.Sequential(*[LocalBlock(token_dim) for _ in range(local_blocks)])
        # The residual stream is unbounded; without this, single steps had losses of 90 nats.
        self.out_norm = nn.LayerNorm(token_dim)
        # Last, so that the random weights above do not depend on it.
        self.num_sources = (num_channels if by_channel else 0) + coarse
        self.source_embedding = (
            SourceEmbedding(token_dim, self.num_sources) if self.num_sources else None
        )
        # What the local blocks return is a hundred times larger than the place, which a window
        # needs. (In a whole grid the borders show the place.)
        self.pack_norm = nn.LayerNorm(hidden_dim) if self.num_sources else nn.Identity()
        self.covariate_embedding = (
            CovariateEmbedding(hidden_dim, covariates) if covariates else None
        )
        self.coarse_embedding = nn.Parameter(torch.zeros(hidden_dim)) if coarse else None

    def features(self, tokens: Tokens, condition: Condition) -> Float[Tensor, "b gd gh gw f"]:
        """Return a feature per token, which :attr:`head` turns into logits.

        Args:
            tokens: ids in [0, V], V being the mask id, shape (B, gd, gh, gw), any grid.
            condition: of each sample; its sources have the same grid.
        """
        b, *grid = tokens.shape
        p = self.patch_size
        table = self.token_embedding.table()
        embedded = F.embedding(tokens, table)  # (B, gd, gh, gw, F)
        if self.source_embedding is not None and condition.sources is not None:
            embedded = embedded + self.source_embedding(condition.sources, table)
        local = embedded = self.local_in(embedded)
        pad_d, pad_h, pad_w = ((-side) % p for side in grid)
        if pad_d or pad_h or pad_w:
            embedded = F.pad(embedded, (0, 0, 0, pad_w, 0, pad_h, 0, pad_d))
        d, h, w = positions = (-(-grid[0] // p), -(-grid[1] // p), -(-grid[2] // p))
        # (B, d p, h p, w p, F) -> (B, d h w, p p p F)
        x = embedded.view(b, d, p, h, p, w, p, -1).permute(0, 1, 3, 5, 2, 4, 6, 7)
        x = self.pack_norm(self.pack(x.reshape(b, d * h * w, -1)))
        whole = grid if condition.coarse else self.grid
        place = relative_place(positions, p, whole, condition.origin, x.device)
        x = x + self.place(fourier_features(place, _FOURIER_BANDS))
        angles = rotary_angles(positions, self.head_dim, x.device)
        cos, sin = angles.cos(), angles.sin()
        c = F.silu(self._embedded(condition))
        for block in self.blocks:
            x = block(x, c, cos, sin)
        shift, scale = self.modulation(c)[:, None].chunk(2, -1)
        x = self.unpack(self.norm(x) * (1 + scale) + shift)
        # (B, d h w, p p p F) -> (B, d p, h p, w p, F), cut to the grid
        x = x.view(b, d, h, w, p, p, p, -1).permute(0, 1, 4, 2, 5, 3, 6, 7)
        x = x.reshape(b, d * p, h * p, w * p, -1)[:, : grid[0], : grid[1], : grid[2]]
        return self.out_norm(self.local_out(x + local))

    def _embedded(self, condition: Condition) -> Float[Tensor, "b c"]:
        """Return the sum of the vectors of class, target channel, covariates and grid."""
        parts: list[Tensor] = []
        if self.class_embedding is not None:  # NOT_GIVEN, -1, becomes the last row
            parts.append(self.class_embedding(condition.classes % (self.num_classes + 1)))
        if self.channel_embedding is not None:
            parts.append(self.channel_embedding(condition.channels % (self.num_channels + 1)))
        if self.covariate_embedding is not None:
            values = condition.covariates
            if values is None:
                unknown = torch.full_like(self.covariate_embedding.slopes[:, 0], torch.nan)
                values = unknown.expand(len(condition.classes), -1)
            parts.append(self.covariate_embedding(values))
        if self.coarse_embedding is not None and condition.coarse:
            parts.append(self.coarse_embedding.expand_as(parts[0]))
        return sum(parts[1:], parts[0])

    def forward(self, tokens: Tokens, condition: Condition) -> Logits:
        """Return logits over the V codes for every cell, shape (B, gd, gh, gw, V)."""
        return self.head(self.features(tokens, condition))

    def loss(
        self,
        masked: Tokens,
        mask: Bool[Tensor, "b gd gh gw"],
        targets: Tokens,
        condition: Condition,
        label_smoothing: float,
    ) -> tuple[Float[Tensor, ""], Bool[Tensor, " m"]]:
        """Cross-entropy over the M masked cells only, and which of them are predicted right."""
        features = self.features(masked, condition)[mask]
        return self.head.loss(features, targets[mask], label_smoothing)
